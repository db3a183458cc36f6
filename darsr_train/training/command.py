"""The command line that the trainings of the package's own networks share."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TypeVar

from .loop import TrainingOptions, add_numbers

Options = TypeVar("Options", bound=TrainingOptions)
_NOT_RECORDED = ("images", "out", "licence", "resume", "device")  # said elsewhere in the file, or without effect on it


def make_parser(description: str, options: type[TrainingOptions] | None = None) -> argparse.ArgumentParser:
    """Return a parser of PHOTOS, --out and --licence; with options, also of their numbers and of the loop's flags."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("images", type=Path, help="folder of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--licence", default="unstated")
    if options is not None:
        parser.add_argument("--resume", action="store_true")
        parser.add_argument("--device", default="cpu")
        add_numbers(parser, options)
    return parser


def read_options(given: argparse.Namespace, options: type[Options]) -> Options:
    """Return the training options among the parsed arguments.

    Raises:
        ValueError: a value is out of range.
    """
    names = [field.name for field in dataclasses.fields(options) if hasattr(given, field.name)]
    return options(**{name: getattr(given, name) for name in names})


def print_progress(entry: dict) -> None:
    """Print every hundredth step of :func:`.loop.train` to stderr, as JSON."""
    if entry["step"] % 100 == 0:
        print(json.dumps(entry), file=sys.stderr, flush=True)


def describe_training(parser: argparse.ArgumentParser, given: argparse.Namespace, module: str) -> dict[str, str]:
    """Return the origin that a trained file records: licence, data, and the command with all changed options."""
    changed = {n: v for n, v in vars(given).items() if n not in _NOT_RECORDED and v != parser.get_default(n)}
    values = {n: Path(v).name if isinstance(v, str | Path) else v for n, v in changed.items()}
    flags = "".join(f" --{name.replace('_', '-')} {value}" for name, value in values.items())
    command = f"python -m darsr_train.training.{module} {given.images.name} --out {given.out.name}{flags}"
    return {"licence": given.licence, "data": given.images.name, "command": command}
