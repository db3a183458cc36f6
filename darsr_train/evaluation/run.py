"""Measurement of many images: in several processes, saved after each, resumed without measuring again."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.schema import parse_json
from darsr_deploy.images.arrays import write_image

from ..backbones import Backbone, load_backbone
from ..plots.contact_sheet import join_crops
from ..plots.kernels import draw_kernels
from ..runtime import each_in_jobs
from .measure import Report, Workplace, measure
from .tasks import Task

if TYPE_CHECKING:
    from darsr_deploy.cluster.run import ClusterRun


def run(
    tasks: list[Task],
    known: dict[str, dict],
    jobs: int,
    threads: int,
    complain: Callable[[DarsrError], None],
    report: Report,
    keep: Callable[[list[dict]], None],
    cluster: ClusterRun | None = None,
) -> list[dict]:
    """Measure the tasks that are not known yet.

    Args:
        known: rows by fingerprint.
        jobs: images at a time; more than one in processes of their own.
        threads: of PyTorch in all processes together; 0 for PyTorch's own number.
        complain: receives the error of an image; the others are still measured.
        keep: receives all rows so far, after each image.
        cluster: measures them, where there is one; its manifest knows rows too.

    Returns:
        The rows in the order of the tasks, with ``set`` and ``fingerprint``.
    """
    rows: dict[int, dict] = {}
    for index, task in enumerate(tasks):
        row = known.get(task.fingerprint) or (cluster and _read_row(cluster.row(task.fingerprint)))
        if row is not None and (not task.sheet or task.strip.is_file()):
            rows[index] = row
    todo = [index for index in range(len(tasks)) if index not in rows]
    measured = each_in_jobs([tasks[index] for index in todo], measure_task, jobs, threads, report, cluster)
    report({"phase": "images", "step": len(rows), "steps": len(tasks)})
    with contextlib.closing(measured):
        for done, (place, row) in enumerate(measured):
            if isinstance(row, DarsrError):
                complain(row)
            else:
                rows[todo[place]] = row
                keep([rows[index] for index in sorted(rows)])
            report({"phase": "images", "step": len(tasks) - len(todo) + done + 1, "steps": len(tasks)})
    return [rows[index] for index in sorted(rows)]


def measure_task(task: Task, report: Report) -> dict:
    """Measure one image and return its row; for a contact sheet, write its crops too."""
    label = f"{task.set}/{task.pair.lr.stem}"
    backbone = _backbone(task.backbone, task.scale, task.device, task.backbone_sha256)
    row, images, kernels = measure(
        task.pair,
        backbone,
        task.plan,
        Workplace(task.work / f"{task.fingerprint}.darsr", task.resume),
        task.device,
        lambda entry: report({**entry, "phase": label, "passing": True}),
    )
    if task.sheet:
        if task.plan.method == "none":
            del images["result"]
        strip = join_crops(images)
        if kernels:
            side = strip.shape[1] // len(images)
            strip = np.hstack([strip, draw_kernels(kernels, task.scale, len(strip), side)])
        write_image(task.strip, strip)
    return {"set": task.set, **row, "fingerprint": task.fingerprint}


def read_rows(path: Path) -> dict[str, dict]:
    """Read the rows of a result file by their fingerprints; empty where there is no file.

    Raises:
        DarsrError: the file is something else.
    """
    if not path.exists():
        return {}
    try:
        rows = parse_json(path.read_bytes())["images"]
        return {row["fingerprint"]: _read_row(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DarsrError(
            str(path), "is not a result of darsr eval --out", "give another --out, or --overwrite instead of --resume"
        ) from error


def _read_row(row: dict | None) -> dict | None:
    """Undo JSON's null for an infinite PSNR (no difference at all)."""
    return row and {k: math.inf if v is None and k.startswith("psnr") else v for k, v in row.items()}


@functools.lru_cache(maxsize=2)
def _backbone(name: str, scale: int, device: str, sha256: str) -> Backbone:
    """Load a backbone once a process; the hash makes a changed file another one."""
    return load_backbone(name, scale, device)
