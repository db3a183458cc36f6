"""The first steps of commands that need PyTorch: import it, pick the device, check the options."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from darsr_deploy.engines.ort import installed_runtimes
from darsr_deploy.errors import DarsrError, option_error
from darsr_deploy.install import install
from darsr_deploy.machine.facts import usable_cores
from darsr_deploy.processes import Item, Report, each_in_processes

if TYPE_CHECKING:
    from darsr_deploy.blind.judgement import Networks
    from darsr_deploy.cluster.run import ClusterRun


def require_torch() -> None:
    """Import PyTorch, with OpenMP threads that spin only briefly before they sleep.

    By default they spin much longer, and where another program uses a core, each step waits for a thread that is not
    running.

    Raises:
        DarsrError: PyTorch is not installed.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when OpenMP is loaded, so before the import
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise DarsrError(
            "this command", "needs PyTorch, which is not installed", f"install it: {install('train')}"
        ) from error


def pick_device(device: str, threads: int) -> str:
    """Set the number of threads (0: PyTorch's own) and return the device, ``auto`` resolved.

    Raises:
        DarsrError: an unknown device, or one that this machine lacks.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise DarsrError(f"device {device}", "is not known", "choose auto, cpu, cuda or cuda:N")
    index = int(device.partition(":")[2] or 0)
    if device != "cpu" and index >= torch.cuda.device_count():
        raise DarsrError(
            f"device {device}", f"PyTorch sees {torch.cuda.device_count()} CUDA devices", "use --device cpu"
        )
    return device


def open_networks(scale: int, device: str = "auto", threads: int = 0) -> Networks:
    """Return what looks at images for profile ``fast``: in ONNX Runtime on the CPU, else in PyTorch.

    Raises:
        DarsrError: neither is installed, or a device that PyTorch does not have.
    """
    if device in ("auto", "cpu") and installed_runtimes():
        from darsr_deploy.adaptation.networks import OrtNetworks

        return OrtNetworks(scale, threads)
    if device == "auto" and importlib.util.find_spec("torch") is None:
        why = "needs ONNX Runtime or PyTorch, and neither is installed"
        raise DarsrError("adapting to an image", why, f"install one: {install('ort')}")
    require_torch()
    from .blind.networks import TorchNetworks

    return TorchNetworks(scale, pick_device(device, threads))


def each_in_jobs(
    items: list[Item],
    work: Callable[[Item, Report], object],
    jobs: int,
    threads: int,
    report: Report,
    run: ClusterRun | None = None,
) -> Iterator[tuple[int, object]]:
    """Do the work for every item, here or ``jobs`` at a time in processes that share the threads, or on a cluster.

    Args:
        work: see :func:`darsr_deploy.processes.each_in_processes`.
        threads: in all processes together; 0 for one a core.
        run: on a cluster, whose own are workers and threads.

    Yields:
        ``(index of the item, result)`` as they are finished; a :class:`DarsrError` is a result too.
    """
    if run is not None:
        yield from run.each(items, work, report)
        return
    jobs = min(jobs, len(items))
    if jobs > 1:
        yield from each_in_processes(items, work, jobs, threads_of_each(jobs, threads), report)
        return
    for index, item in enumerate(items):
        try:
            result = work(item, report)
        except DarsrError as error:
            result = error
        yield index, result


def threads_of_each(jobs: int, threads: int) -> int:
    """Return the threads of each of several processes; those of one are left to what runs in it where none are given."""
    return threads if jobs == 1 else max(1, (threads or usable_cores()) // jobs)


def checked_options(profile: str, scale: int, **changes: object):
    """Return the options of a profile.

    Raises:
        DarsrError: an unknown profile, or a value out of range.
    """
    from .adaptation.options import AdaptOptions

    try:
        return AdaptOptions.profile(profile, scale, **changes)
    except ValueError as error:
        raise option_error(error, "darsr adapt") from error
