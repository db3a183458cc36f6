"""The work of ``darsr adapt`` for one image, in this process or another."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from darsr_deploy.engines.ort import installed_runtimes
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.hashing import hash_file

from ..adaptation.options import AdaptOptions
from ..adaptation.told import adapt_told, is_told, told_networks
from ..backbones.store import locate
from ..runtime import each_in_jobs, open_networks, pick_device, require_torch, threads_of_each

if TYPE_CHECKING:
    from darsr_deploy.cluster.run import ClusterRun

    from ..backbones import Backbone

Report = Callable[[dict], None]


@dataclass(frozen=True)
class AdaptTask:
    """One image, where its results go, and everything they depend on.

    Attributes:
        backbone: a name or a file.
        told: nothing is fitted, so that neither PyTorch nor the backbone's module is needed.
        threads: of the runtime that looks at the image; 0 leaves it the choice.
        replace: whether an adapter that appeared meanwhile is replaced.
        start: another image's adapter to start from.
        gt: the true HR image; reported, never used to choose.
        kernel: a file of the true kernel, for the preview.
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
    kernel: Path | None = None
    told: bool = False
    threads: int = 0

    def __str__(self) -> str:
        return str(self.image)

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return the files that it reads, for the manifest of a cluster."""
        return (self.image,)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Return the files that it writes."""
        return (self.target, *filter(None, (self.corrected, self.preview)))


def prepare(
    backbone: str,
    options: AdaptOptions,
    device: str = "auto",
    threads: int = 0,
    *,
    start: Adapter | None = None,
    compares: bool = False,
    here: bool = True,
) -> tuple[bool, str]:
    """Check once, not for every image, what adapting needs.

    Args:
        threads: of PyTorch; 0 for its own number.
        compares: pictures are made in PyTorch too, whatever adapts.
        here: whether this machine adapts, and must have the device.

    Returns:
        Whether nothing is fitted, so that :class:`AdaptTask` may be told so, and the device.

    Raises:
        DarsrError: the backbone cannot be used, or a runtime or a device is missing.
    """
    told = is_told(options, hash_file(locate(backbone, options.scale)), start)
    if not here and device.startswith("cuda"):
        return told, device
    if told:
        open_networks(options.scale, device, threads)
    if told and device == "auto" and installed_runtimes():
        device = "cpu"
    if not told or device != "cpu" or compares:
        require_torch()
        device = pick_device(device, threads)
    if not told:
        backbone_of.cache_clear()  # the file may have changed
        backbone_of(backbone, options.scale, device)
    return told, device


def settings_of(command: str, backbone: str, options: AdaptOptions) -> dict:
    """Return what adaptations depend on beside their images, for the manifest of a cluster."""
    networks = [hash_file(path) for path in told_networks(options.scale)]
    own = {"command": command, "backbone": hash_file(locate(backbone, options.scale)), "networks": networks}
    return own | {"options": options.to_json()}


def adapt_task(task: AdaptTask, report: Report) -> dict:
    """Adapt to the image, write what was asked for, and return the row that ``--json`` prints.

    Raises:
        DarsrError: see :func:`darsr_train.adaptation.adapt.adapt_image`.
    """
    options = task.options
    if task.gt is not None:
        from ..evaluation.measure import check_truth

        check_truth(task.image, task.gt, options.scale)
    if task.told:
        networks = open_networks(options.scale, task.device, task.threads)
        how = {"resume": task.resume, "replacing": task.replace}
        adapter, seconds = adapt_told(task.image, task.target, options, networks, **how)
    else:
        from ..adaptation.adapt import adapt_image

        network = backbone_of(task.backbone, options.scale, task.device)
        adapter, seconds = adapt_image(
            task.image, task.target, network, options, task.device, task.resume, report, task.start, task.replace
        )
    row = {"input": str(task.image), "adapter": str(task.target), "scale": options.scale, "profile": options.name}
    row |= {"backbone": adapter.backbone, "seconds": round(seconds, 3)}
    row |= {name: adapter.facts[name] for name in ("steps", "chosen", "kernel_sum")}
    row |= {name: adapter.facts[name] for name in ("found", "decision") if name in adapter.facts}
    row |= {"seed": options.seed, "device": task.device}
    if task.corrected is not None:
        from ..evaluation.measure import save_corrected

        save_corrected(task.image, adapter, task.corrected, task.device)
    if task.preview is not None:
        from ..plots.kernels import kernels_of
        from ..plots.preview import save_preview

        kernels = kernels_of(adapter)
        if task.kernel is not None:
            from ..evaluation.kernel_error import compare_kernels
            from ..evaluation.sets import read_kernel

            kernels = compare_kernels(kernels, read_kernel(task.kernel))
        network = backbone_of(task.backbone, options.scale, task.device)
        save_preview(task.image, adapter, network, task.preview, task.device, kernels)
    if task.gt is not None:
        from ..evaluation.measure import compare_with_truth

        network = backbone_of(task.backbone, options.scale, task.device)
        row |= compare_with_truth(task.image, task.gt, adapter, network, task.device)
    return row


def adapt_tasks(
    tasks: list[AdaptTask],
    jobs: int,
    threads: int,
    report: Report,
    complain: Callable[[DarsrError], None],
    run: ClusterRun | None = None,
) -> Iterator[dict]:
    """Run the tasks, ``jobs`` at a time in processes that share the threads; yield rows in the order they finish.

    Args:
        threads: in all processes together; 0 for one a core.
        report: receives every step; the ``phase`` names the image too.
        complain: receives the error of an image; the others are still done.
        run: on a cluster, whose own are workers and threads.
    """
    each = run.demands.cpus if run else threads_of_each(min(jobs, len(tasks)), threads)
    tasks = [replace(task, threads=each) for task in tasks]
    with contextlib.closing(each_in_jobs(tasks, _run_task, jobs, threads, report, run)) as results:
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
    from ..backbones import load_backbone

    return load_backbone(name, scale, device)
