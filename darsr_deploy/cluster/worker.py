"""A worker of a cluster: an actor, and the process that it keeps, in which networks and engines stay open.

The work is done in a process of its own, as with ``--jobs``, so that a picture that kills it is known by how it ended, and
so that it can be stopped with nothing left half-written.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from ..errors import DarsrError
from ..processes import Worker, serve_items

_PASSED_ON = ("DARSR_", "OPENBLAS_", "GOMP_", "ORT_")  # variables that hold on every node as where the command runs


@dataclass(frozen=True)
class Demands:
    """What each worker asks of the cluster.

    Attributes:
        workers: how many; None: as many as there is room for, looked at again while the work goes on.
        cpus: of each, which are its threads too.
        gpus: of each.
    """

    workers: int | None = None
    cpus: int = 1
    gpus: int = 0


class ClusterWorker:
    """The actor. Work and items come packed, and it unpacks none of them: its process alone imports what is heavy.

    Args:
        work: packed, as :func:`darsr_deploy.processes.each_in_processes` takes it.
        threads: of PyTorch in the process.
        folder: in which the command runs, for relative paths.
        variables: of the environment, as :func:`variables_to_pass_on`.
        paths: to import from: those of the command, which in a clone sees packages that are not installed.
    """

    def __init__(
        self, work: bytes, threads: int, folder: str, variables: dict[str, str], paths: Iterable[str] = ()
    ) -> None:
        self._serve = functools.partial(_serve, work, threads)
        self._folder, self._lock = folder, threading.Lock()
        self._process: Worker | None = None
        os.environ.update(variables)
        sys.path += [path for path in paths if path not in sys.path and os.path.exists(path)]
        with contextlib.suppress(AttributeError):  # else the process would import Ray's own main module
            del sys.modules["__main__"].__file__

    def start(self, version: str) -> tuple[str, DarsrError | None]:
        """Return the node's id, and why it cannot take part, if so.

        Args:
            version: of this package where the command runs.
        """
        import ray

        name, problem, here = f"node {socket.gethostname()}", None, importlib.metadata.version("darsr")
        if here != version:
            problem = DarsrError(name, f"has darsr {here}, and the command is {version}", "install one version on all")
        try:
            os.chdir(self._folder)
        except OSError as error:
            why = f"does not see {self._folder} ({error.strerror})"
            problem = DarsrError(name, why, "run the command in a folder that all nodes see")
        return ray.get_runtime_context().get_node_id(), problem

    def run(self, item: bytes) -> tuple[str, object]:
        """Do the work for a packed item; return the pair that the process sends, as :class:`Worker` has it."""
        with self._lock:
            if self._process is None:
                self._process = Worker(self._serve)
            process = self._process
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the process is dead, which is told below
            process.pipe.send_bytes(item)
        while (answer := process.receive())[0] == "report":
            pass
        if answer[0] == "dead":
            self._end()
        return answer

    def stop(self) -> None:
        """End the process, with nothing left half-written."""
        self._end()

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.stop()


def variables_to_pass_on() -> dict[str, str]:
    """Return the variables of the environment that results and places depend on."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}


def pack(value: object) -> bytes:
    """Return what a pipe between two processes would send of a value."""
    return bytes(ForkingPickler.dumps(value))


def _serve(work: bytes, threads: int, pipe: Connection) -> None:
    serve_items(ForkingPickler.loads(work), threads, pipe)
