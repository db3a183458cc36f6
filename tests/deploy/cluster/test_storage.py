"""Object storage through fsspec, on this machine."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("fsspec", reason="fsspec (extra cluster) reaches object storage")

from darsr_deploy.cluster.storage import Storage, is_url
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_bytes


def test_a_url_is_told_from_a_path():
    assert is_url("s3://bucket/prefix") and is_url("file:///tmp")
    assert not any(map(is_url, ("out", "/tmp/out", "C:\\out", None)))


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_what_is_put_is_listed_with_its_stamp(protocol, tmp_path):
    storage = Storage(f"{protocol}://{tmp_path}/new/")
    assert storage.names() == {}
    (tmp_path / "a.png").write_bytes(b"first")
    stamp = storage.put(tmp_path / "a.png")
    assert storage.names() == {"a.png": stamp} and stamp[0] == 5
    assert storage.hash("a.png") == hash_bytes(b"first") and storage.hash("b.png") == ""


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    storage = Storage(f"file://{tmp_path}/out")
    storage.check()
    assert storage.names() == {}
    (tmp_path / "file").touch()
    with pytest.raises(DarsrError, match=r"file/out: cannot be used \(.*\); check its name, the credentials"):
        Storage(f"file://{tmp_path}/file/out").check()


def test_an_object_is_whole_or_not_there(tmp_path, monkeypatch):
    import shutil

    def stop(source, sink, length):
        sink.write(b"half")
        raise OSError("the network is gone")

    storage = Storage(f"file://{tmp_path}/out")
    (tmp_path / "a.png").write_bytes(b"whole")
    monkeypatch.setattr(shutil, "copyfileobj", stop)
    with pytest.raises(DarsrError, match=r"cannot be used \(OSError: the network is gone\); check its name, the cred"):
        storage.put(tmp_path / "a.png")
    assert storage.names() == {}


@pytest.mark.parametrize("protocol, package", [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_protocol_whose_package_is_missing_names_its_extra(protocol, package):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(DarsrError) as caught:
        Storage(f"{protocol}://bucket/prefix")
    line = str(caught.value)
    assert line.startswith(f"{protocol}://bucket/prefix: needs a package that is not installed")
    assert "install it on every node: " in line and line.endswith(f"(the extra {protocol})") and "\n" not in line


def test_an_unknown_protocol_is_one_line():
    with pytest.raises(DarsrError, match=r"^nowhere://x: cannot be used .*check its name"):
        Storage("nowhere://x")
