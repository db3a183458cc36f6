"""A Ray cluster of two nodes on this machine, and work for it that fails in every way."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from darsr_deploy.errors import DarsrError

ROOT = Path(__file__).parents[2]
# Read when Ray is imported: no statistics, the loopback interface alone, and a node that died is soon noticed.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_CHECKS = {"initial_delay_ms": 0, "period_ms": 500, "failure_threshold": 4}
os.environ |= {f"RAY_health_check_{name}": str(value) for name, value in _CHECKS.items()}


@dataclass
class TwoNodes:
    """The cluster; ``add`` and ``remove`` change it, and ``address`` joins it."""

    cluster: Any
    others: list

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self, gpus: int = 0) -> None:
        """Add a node of one CPU, and of GPUs that it says to have."""
        self.others.append(self.cluster.add_node(num_cpus=1, num_gpus=gpus, object_store_memory=80 << 20))

    def remove(self) -> None:
        """Kill one of them, and not the one through which this process is connected."""
        import ray

        own = ray._private.worker._global_node
        node = next(one for one in self.others if own is None or one.raylet_socket_name != own.raylet_socket_name)
        self.others.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """Start two nodes of one CPU each and a head of none on the loopback interface, and stop them at the end."""
    from ray.cluster_utils import Cluster

    from darsr_deploy.cluster.connect import _without_dashboard

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patched:
        patched.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # a node that says to have a GPU is believed
        patched.setenv("RAY_TMPDIR", folder)  # where the address is noted too, which --cluster auto would join
        Path(folder, "ray").mkdir()
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20}
        with _without_dashboard():
            made = TwoNodes(Cluster(initialize_head=True, head_node_args=head), [])
        try:
            made.add()
            made.add()
            yield made
        finally:
            made.cluster.shutdown()


def workers() -> list[int]:
    """Return the processes of actors below this one that work now."""
    names = {pid: name for pid, name in _commands() if name.startswith("ray::ClusterWorker")}
    return [pid for pid in names if os.getpid() in _ancestors(pid)]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def wait_until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def _commands() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace")


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return
        yield pid


def work(item: str, report: Callable[[dict], None]) -> str:
    """Do what an item's name says; a worker imports this."""
    report({"step": 1, "steps": 1})
    if item == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.startswith("kills once"):
        mark = Path(item.split()[-1])
        if not mark.exists():
            mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)  # the actor; its process ends with it
            time.sleep(60)
    if item == "gpu":
        return os.environ["CUDA_VISIBLE_DEVICES"]
    if item == "bug":
        raise ZeroDivisionError("of the work")
    if item == "refused":
        raise DarsrError(item, "is refused", "give another")
    return item.upper()
