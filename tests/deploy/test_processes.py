"""Work in several processes: results, progress, errors, a process that dies, and none left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from darsr_deploy.errors import DarsrError
from darsr_deploy.processes import each_in_processes


def work(item: str, report) -> tuple[str, int]:
    """Runs in the processes: what it does is in the item's name."""
    report({"item": item})
    if item == "error":
        raise DarsrError(item, "cannot be done", "leave it out")
    if item == "death":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "bug":
        raise ZeroDivisionError("a bug")
    if item == "slow":
        time.sleep(600)
    return item.upper(), torch.get_num_threads()


def test_an_error_crosses_processes_whole():
    import pickle

    error = pickle.loads(pickle.dumps(DarsrError("a.png", "is  empty", "give another")))
    assert str(error) == "a.png: is empty; give another"


PARENT = """
import time
from darsr_deploy.processes import Worker
from tests.deploy.test_processes import sleep
if __name__ == "__main__":
    print(Worker(sleep).ask(), flush=True)
    time.sleep(60)
"""


def sleep(pipe) -> None:
    pipe.send(("pid", os.getpid()))
    time.sleep(600)


def test_a_process_ends_with_its_parent_however_that_ends(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, env=environment) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 10
    while (state := Path(f"/proc/{pid}/stat")).exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.1)


@pytest.mark.slow
def test_results_errors_and_deaths_come_back_with_their_items():
    items, entries = ["a", "error", "death", "b", "c"], []
    results = dict(each_in_processes(items, work, 2, 1, entries.append))
    assert sorted(results) == [0, 1, 2, 3, 4]
    assert [results[i] for i in (0, 3, 4)] == [("A", 1), ("B", 1), ("C", 1)]
    assert str(results[1]) == "error: cannot be done; leave it out"
    assert isinstance(results[2], DarsrError)
    assert str(results[2]).startswith("death: the process that worked on it ended with signal SIGKILL")
    assert sorted(entry["item"] for entry in entries) == sorted(items)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_bug_is_a_traceback_and_nothing_stays_behind():
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"Traceback[\s\S]*ZeroDivisionError: a bug"):
        list(each_in_processes(["slow", "bug"], work, 2, 1, lambda _: None))
    assert not multiprocessing.active_children()
    assert time.monotonic() - started < 500, "the slow one was waited for"


@pytest.mark.slow
def test_ctrl_c_ends_the_processes():
    def interrupt(_: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(each_in_processes(["slow", "slow"], work, 2, 1, interrupt))
    assert not multiprocessing.active_children()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
