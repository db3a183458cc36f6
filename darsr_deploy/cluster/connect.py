"""Join a Ray cluster, or start one on this machine that nobody else can reach and that tells nobody anything."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DarsrError
from ..install import install
from ..machine.facts import usable_cores
from .worker import Demands

AUTO = "auto"
_PATIENCE = 8.0  # seconds for an address to answer
_STORE = 80 << 20  # bytes of Ray's object store, about the least that it takes: pictures do not go through it
_TOKEN = secrets.token_hex(32)  # one a process: Ray remembers the first
_LONGEST = 40  # characters of a folder in which Ray makes its sockets, whose paths may have 107
# What a client of HTTP/2 says first: its preface and empty settings. Whoever speaks it, as Ray does, answers with settings.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4
_ASK = "import sys, ray; ray._raylet.GcsClient(address=sys.argv[1])"  # in a process of its own: it writes warnings


@contextlib.contextmanager
def connect(address: str, demands: Demands) -> Iterator[Any]:
    """Join the cluster at an address and yield the module ``ray``; leave it at the end.

    Args:
        address: ``HOST:PORT``; or ``auto``, the cluster that ``ray start`` made on this machine, else one that is started
            here for this command, with all cores, on the loopback interface alone.
        demands: of each worker, which a machine alone must meet; a cluster may grow.

    Raises:
        DarsrError: this machine has not what a worker needs, Ray is not installed, nothing answers at the address within
            ten seconds, or it cannot be joined.
    """
    found = _started_here() if address == AUTO else address
    joining = {} if found is None else _check_address(found)
    # Some are read when Ray is imported. No usage statistics; and a cluster of this machine alone keeps to 127.0.0.1, on
    # Linux too, lets in those alone who know a token, and writes no token into the user's folder.
    variables = joining | {"RAY_USAGE_STATS_ENABLED": "0"}
    variables |= {"RAY_ENABLE_AUTO_CONNECT": "0"}  # nor another cluster where this one is lost
    if found is None:
        variables |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with contextlib.ExitStack() as held:
        held.enter_context(_environment(variables))
        ray = _import_ray()
        with _kept_signals(), _as_error(found or "a cluster on this machine"):
            if found is None:
                options |= {"address": "local", "include_dashboard": False, "num_cpus": usable_cores()}
                options |= {"object_store_memory": _STORE, "_temp_dir": held.enter_context(_short_folder())}
            else:
                options |= {"address": found}
            held.callback(ray.shutdown)
            with _without_dashboard():
                ray.init(**options)
        if found is None:
            _check_resources(ray.cluster_resources(), demands)
        yield ray


def _check_resources(resources: dict[str, float], demands: Demands) -> None:
    for name, asked in (("CPU", demands.cpus), ("GPU", demands.gpus)):
        if resources.get(name, 0) < asked:
            why = f"this machine has {resources.get(name, 0):.0f} {name}s, and each worker needs {asked}"
            raise DarsrError(f"--cluster {AUTO}", why, "give fewer --threads, or join a cluster that has them")


def check_installed() -> None:
    """Check that Ray is there before the work that leads to it.

    Raises:
        DarsrError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise DarsrError("--cluster", "needs Ray, which is not installed", f"install it: {install('cluster')}")


def _import_ray() -> Any:
    check_installed()
    # Else what Ray says of a death goes to stdout, whatever it was told of logs; this says it itself.
    told: Any = importlib.import_module("ray._private.worker")
    told._worker_logs_enabled = False
    return importlib.import_module("ray")


def _started_here() -> str | None:
    """Return the address of the cluster that ``ray start`` or ``RAY_ADDRESS`` names on this machine; None where none answers."""
    if given := os.environ.get("RAY_ADDRESS"):
        return given
    try:
        address = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster").read_text().strip()
    except OSError:
        return None
    return address if address and _answers(address) else None  # the file outlives a cluster that was killed


def _check_address(address: str) -> dict[str, str]:
    """Return the variables that joining takes: a cluster may want the token that lies in the user's folder."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in address:
        why = "is not HOST:PORT or auto"
        hint = "run the command on a node of the cluster (ray exec, ray submit) with --cluster auto"
        raise DarsrError(f"--cluster {address}", why, hint)
    why = "no Ray cluster answers there"
    if _answers(address):
        check_installed()
        for variables in ({}, {"RAY_AUTH_MODE": "token"}):
            try:
                command, environment = [sys.executable, "-c", _ASK, address], {**os.environ, **variables}
                subprocess.run(command, env=environment, timeout=_PATIENCE, check=True, capture_output=True)
                return variables
            except subprocess.SubprocessError as error:
                said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
            if not said or "AuthenticationError" not in said[-1]:
                break
        why += f" ({said[-1].partition('. ')[0]})" if said else ""
    hint = "check the address that ray start printed, and whether ray status works on this machine"
    raise DarsrError(f"--cluster {address}", why, hint)


def _answers(address: str) -> bool:
    """Return whether something that speaks HTTP/2 listens there: Ray itself would wait for minutes."""
    result: list[bool] = []

    def ask() -> None:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), _PATIENCE) as pipe:
            pipe.settimeout(_PATIENCE)
            pipe.sendall(_PREFACE)
            head = pipe.recv(9)
            result.append(len(head) > 3 and head[3] == _SETTINGS)

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name has no time limit of its own
    asking.start()
    asking.join(_PATIENCE)
    return result == [True]


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment, which processes that are started inherit."""
    before = {name: os.environ.pop(name, None) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            os.environ.update({} if value is None else {name: value})


@contextlib.contextmanager
def _as_error(place: str) -> Iterator[None]:
    """Turn what Ray raises when it cannot begin into one line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, DarsrError):
            raise
        why = f"cannot be joined ({type(error).__name__}: {error})"
        hint = "run the command on a node of the cluster, with the same versions of Ray and Python"
        raise DarsrError(f"--cluster {place}", why, hint) from error


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Keep what Ctrl-C and SIGTERM do: Ray brings handlers of its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """Provide a folder for Ray's sockets and logs, removed at the end."""
    place = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="darsr-ray-", dir=place if len(place) < _LONGEST else "/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _without_dashboard() -> Iterator[None]:
    """Start no process for the dashboard: even without one it asks the metadata service of three clouds where it runs."""
    node: Any = importlib.import_module("ray._private.node").Node
    before = node.start_api_server
    node.start_api_server = lambda *args, **kwargs: None
    try:
        yield
    finally:
        node.start_api_server = before
