"""``darsr doctor``: what this machine can run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darsr_deploy.console.command import (
    Failures,
    Json,
    Printed,
    command,
    progress,
)
from darsr_deploy.errors import DarsrError


@command
def doctor(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list what is missing for hardware that is not here.")
    ] = False,
    as_json: Json = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Build, compare and time every engine that this machine has.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="--self-test: a model (.onnx); by default the default backbone.")
    ] = None,
    failures: Failures = None,
) -> Printed:
    """Show what this machine can run, what is missing, and the command that installs it. Exit 0 when infer works."""
    if self_test:
        from .self_test import run_self_test

        with progress("self-test") as report:
            rows = run_self_test(model, report)
        if any(row.state == "failed" for row in rows):
            failures(DarsrError("the self-test", "failed", "see the rows that say failed"))
        if as_json:
            return [row.to_json() for row in rows]
        print("\n".join(map(str, rows)))
        return None
    from darsr_deploy.machine.doctor import can_infer, examine, summarize, to_json, without_hardware

    findings = examine()
    works = can_infer(findings)
    if not works:
        failures(DarsrError("infer", "cannot run here", "see the parts that are missing or broken"))
    if as_json:
        return {"works": works, "parts": to_json(findings)}
    for task, state in summarize(findings):
        print(f"{task:10}{state}")
    print()
    hidden = [] if everything else without_hardware(findings)
    for f in findings:
        if f not in hidden:
            print(
                f"{f.state:8}{f.part:14}{f.detail}  (for {f.purpose})" + (f"\n{'':22}-> {f.repair}" if f.repair else "")
            )
    if hidden:
        print(f"\nleft out, for hardware that is not here: {', '.join(f.part for f in hidden)} (--all shows them)")
    return None
