"""The work of ``darsr adapt`` for one image, in this process or another."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter

from ..adaptation.adapt import Report, adapt_image
from ..adaptation.options import AdaptOptions
from ..backbones import Backbone, load_backbone
from ..evaluation.measure import check_truth, compare_with_truth, save_corrected
from ..plots.preview import save_preview
from ..runtime import each_in_jobs


@dataclass(frozen=True)
class AdaptTask:
    """One image, where its results go, and everything they depend on.

    Attributes:
        backbone: a name or a file.
        replace: whether an adapter that appeared meanwhile is replaced.
        start: another image's adapter to start from.
        gt: the true HR image; reported, never used to choose.
    """

    image: Path
    target: Path
    backbone: str
    options: AdaptOptions
    device: str
    resume: bool = False
    replace: bool = False
    start: Adapter | None = None
    gt: Path | None = None
    corrected: Path | None = None
    preview: Path | None = None

    def __str__(self) -> str:
        return str(self.image)


def adapt_task(task: AdaptTask, report: Report) -> dict:
    """Adapt to the image, write what was asked for, and return the row that ``--json`` prints.

    Raises:
        DarsrError: see :func:`darsr_train.adaptation.adapt.adapt_image`.
    """
    options, network = task.options, backbone_of(task.backbone, task.options.scale, task.device)
    if task.gt is not None:
        check_truth(task.image, task.gt, options.scale)
    adapter, seconds = adapt_image(
        task.image, task.target, network, options, task.device, task.resume, report, task.start, task.replace
    )
    row = {"input": str(task.image), "adapter": str(task.target), "scale": options.scale, "profile": options.name}
    row |= {"backbone": network.name, "seconds": round(seconds, 3)}
    row |= {name: adapter.facts[name] for name in ("steps", "chosen", "kernel_sum")}
    row |= {name: adapter.facts[name] for name in ("found", "decision") if name in adapter.facts}
    row |= {"seed": options.seed, "device": task.device}
    if task.corrected is not None:
        save_corrected(task.image, adapter, task.corrected, task.device)
    if task.preview is not None:
        save_preview(task.image, adapter, network, task.preview, task.device)
    if task.gt is not None:
        row |= compare_with_truth(task.image, task.gt, adapter, network, task.device)
    return row


def adapt_tasks(
    tasks: list[AdaptTask], jobs: int, threads: int, report: Report, complain: Callable[[DarsrError], None]
) -> Iterator[dict]:
    """Run the tasks, ``jobs`` at a time in processes that share the threads; yield rows in the order they finish.

    Args:
        threads: of PyTorch in all processes together; 0 for PyTorch's own number.
        report: receives every step; the ``phase`` names the image too.
        complain: receives the error of an image; the others are still done.
    """
    with contextlib.closing(each_in_jobs(tasks, _run_task, jobs, threads, report)) as results:
        for _, row in results:
            if isinstance(row, DarsrError):
                complain(row)
            else:
                yield row


def _run_task(task: AdaptTask, report: Report) -> dict:
    """Run one task with a progress bar per image and phase."""
    image = task.image.name
    return adapt_task(task, lambda entry: report({**entry, "phase": f"{image}, {entry['phase']}", "passing": True}))


@functools.lru_cache(maxsize=1)
def backbone_of(name: str, scale: int, device: str) -> Backbone:
    """Load a backbone, keeping the last one."""
    return load_backbone(name, scale, device)
