"""The manifest: whole lines, one writer, and what a crash leaves."""

from __future__ import annotations

import json
import math

import pytest

from darsr_deploy.cluster.manifest import Manifest
from darsr_deploy.errors import DarsrError

LINE = {"input": "a.png", "row": {"psnr": 1.0}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.jsonl"


def written(path, *lines):
    manifest = Manifest(path)
    for key, line in lines:
        manifest.begin(key)
        manifest.add(key, line)
    manifest.close()


def test_what_is_finished_is_read_again_and_the_last_line_counts(path):
    written(path, ("a", LINE), ("b", {"error": {}}), ("a", LINE | {"row": 2}))
    again = Manifest(path)
    assert again.get("a") == {"key": "a", **LINE, "row": 2}
    assert again.get("b") is None and again.get("c") is None and again.unfinished == set()
    again.close()
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b", "a"]
    assert not path.with_name("m.jsonl.begun").exists()


def test_a_line_that_was_cut_off_is_removed(path):
    written(path, ("a", LINE))
    whole = path.read_bytes()
    for torn in (b"{", b'{"key": "b", "inp'):
        path.write_bytes(whole + torn)
        written(path, ("c", LINE))
        assert path.read_bytes().startswith(whole + b'{"key": "c"') and Manifest(path).get("c")


def test_what_was_begun_and_not_finished_is_known_after_a_crash(path):
    manifest = Manifest(path)
    manifest.begin("a")
    manifest.begin("b")
    manifest.add("b", LINE)
    manifest.close()
    again = Manifest(path)
    assert again.unfinished == {"a"}
    again.begin("a")
    again.add("a", LINE)
    again.close()
    assert Manifest(path).unfinished == set()


def test_without_a_line_no_file_is_left(path):
    Manifest(path).close()
    assert not list(path.parent.iterdir())


def test_a_file_of_another_kind_stays_as_it_is(path):
    for data in (b"\x89PNG\r\n", b"{}\n", b"words"):
        path.write_bytes(data)
        with pytest.raises(DarsrError, match=r"m\.jsonl: is not a manifest; give another place with --manifest FILE"):
            Manifest(path)
        assert path.read_bytes() == data


def test_two_runs_do_not_write_one_manifest(path):
    pytest.importorskip("fcntl", reason="locks of files are POSIX")
    first = Manifest(path)
    with pytest.raises(DarsrError, match="another run writes this manifest; wait for it"):
        Manifest(path)
    first.close()
    Manifest(path).close()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DarsrError, match=r"none/m\.jsonl: the manifest cannot be written .*--manifest FILE"):
        Manifest(tmp_path / "none" / "m.jsonl")


def test_a_line_holds_no_infinity(path):
    written(path, ("a", {"row": {"psnr": math.inf, "ssim": math.nan}}))
    assert Manifest(path).get("a")["row"] == {"psnr": None, "ssim": None}
