"""A Python that lacks what only Linux, or no Windows, has: the ``sitecustomize`` of processes that a test starts.

It hides modules, functions, signals and the files of the kernel. What is left of POSIX is what Python's own start of processes
needs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
FUNCTIONS = ("fork", "forkpty", "getloadavg", "mkfifo", "sched_getaffinity", "statvfs", "sysconf")
SIGNALS = ("SIGALRM", "SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "pthread_sigmask")
KERNEL = ("/proc/", "/sys/", "/dev/shm")


def _hide_files(event: str, arguments: tuple) -> None:
    if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(KERNEL):
        kind = FileNotFoundError if event == "open" else PermissionError  # glob finds nothing where it may not look
        raise kind(2, "hidden", str(arguments[0]))


def hide() -> None:
    for name in MODULES:
        sys.modules[name] = None
    for owner, names in ((os, FUNCTIONS), (signal, SIGNALS)):
        for name in names:
            with contextlib.suppress(AttributeError):
                delattr(owner, name)
    sys.addaudithook(_hide_files)


if __name__ == "sitecustomize":
    hide()
