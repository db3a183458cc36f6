"""Addresses that no cluster answers at, and a machine without Ray: one line each, soon."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
import time

import pytest

from darsr_deploy.cluster import connect as module
from darsr_deploy.cluster.connect import connect
from darsr_deploy.cluster.worker import Demands
from darsr_deploy.errors import DarsrError


def refused(address: str) -> str:
    started = time.monotonic()
    with pytest.raises(DarsrError) as caught, connect(address, Demands()):
        pytest.fail("joined")
    assert time.monotonic() - started < 10
    return str(caught.value)


@pytest.mark.parametrize("kind", ["nothing", "silence", "http"])
def test_an_address_where_no_cluster_answers_is_one_line_within_ten_seconds(kind, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 1.0)

    def answer() -> None:
        pipe, _ = server.accept()
        if kind == "http":
            pipe.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        time.sleep(2)

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if kind != "nothing":
            server.listen()
            threading.Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        line = refused(address)
    assert line.startswith(f"--cluster {address}: no Ray cluster answers there; check the address"), line
    assert "ray" not in sys.modules or importlib.util.find_spec("ray")


def test_something_else_that_speaks_http_2_is_no_cluster(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 3.0)
    pytest.importorskip("ray", reason="Ray (extra cluster) asks who it is")
    settings = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

    def answer() -> None:
        while True:
            pipe, _ = server.accept()
            pipe.sendall(settings)
            pipes.append(pipe)

    pipes: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        line = refused(f"127.0.0.1:{server.getsockname()[1]}")
    assert ": no Ray cluster answers there" in line


def test_a_host_that_does_not_exist():
    assert "no Ray cluster answers there" in refused("no-such-host.invalid:6379")


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "http://head:8265", ":6379"])
def test_what_is_no_address_says_what_is(address):
    assert refused(address).startswith(f"--cluster {address}: is not HOST:PORT or auto; run the command on a node")


def test_a_machine_that_has_not_what_a_worker_needs_is_one_line():
    module._check_resources({"CPU": 2.0, "GPU": 1.0}, Demands(cpus=2, gpus=1))
    with pytest.raises(DarsrError, match=r"this machine has 2 CPUs, and each worker needs 4; give fewer --threads, or"):
        module._check_resources({"CPU": 2.0}, Demands(cpus=4))
    with pytest.raises(DarsrError, match=r"this machine has 0 GPUs, and each worker needs 1"):
        module._check_resources({"CPU": 2.0}, Demands(gpus=1))


def test_without_ray_the_line_says_how_to_install_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(DarsrError, match=r"--cluster: needs Ray, which is not installed; install it: .*pip install"):
        module.check_installed()
