"""Commands on a cluster of two nodes on this machine: workers and nodes die, and nothing is lost and nothing done twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.ray_cluster import ROOT, kill, two_nodes, wait_until, work, workers  # before Ray

pytest.importorskip("ray", reason="Ray (extra cluster) runs the clusters of these tests")
pytest.importorskip("onnxruntime", reason="onnxruntime (extra ort) enlarges the pictures")
from darsr_deploy.cluster.connect import connect
from darsr_deploy.cluster.manifest import Manifest
from darsr_deploy.cluster.pool import Pool
from darsr_deploy.cluster.worker import Demands
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.images.arrays import write_image
from tests.support.commands import darsr, done, heed_ctrl_c, names, strict_json

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Ray's clusters are for Linux")
COUNT = 12


@pytest.fixture(scope="module")
def nodes():
    with two_nodes() as made:
        yield made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Blurred noise, 12 pictures of 40 x 48."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(COUNT):
        noise = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        write_image(folder / f"p{index:02}.png", cv2.GaussianBlur(noise, (0, 0), 1 + index / 8))
    return folder


@pytest.fixture(scope="module")
def local(pictures, tmp_path_factory) -> dict[str, str]:
    """The sha256 of every result without a cluster, by name."""
    out = tmp_path_factory.mktemp("local")
    done("upscale", pictures, "-o", out)
    return hashes(out)


@pytest.fixture
def here(pictures, tmp_path, monkeypatch) -> Path:
    shutil.copytree(pictures, tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in folder.glob("*.png")}


def lines(manifest: Path) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def after(monkeypatch, **actions) -> None:
    """Do something when the manifest has so many lines: ``after(monkeypatch, _6=kill_one)``."""
    add, count = Manifest.add, [0]

    def adding(self, key, line):
        add(self, key, line)
        count[0] += 1
        actions.get(f"_{count[0]}", lambda: None)()

    monkeypatch.setattr(Manifest, "add", adding)


def kill_one() -> None:
    wait_until(workers)
    kill(workers()[0])


def test_a_worker_and_a_node_die_and_nothing_is_lost_or_done_twice(nodes, here, local, monkeypatch):
    after(monkeypatch, _4=kill_one, _8=nodes.remove)
    result = done("upscale", "in", "-o", "out", "--cluster", nodes.address, "--json")
    nodes.add()
    assert hashes(here / "out") == local
    rows = strict_json(result.stdout)
    assert [row["input"] for row in rows] == sorted(f"in/{path.name}" for path in (here / "in").iterdir())
    found = lines(here / "out" / "darsr-manifest.jsonl")
    assert {Path(line["key"]).name: line["sha256"] for line in found} == local and len(found) == COUNT
    assert all(line["decision"] and line["row"]["output"] == f"out/{Path(line['key']).name}" for line in found)
    assert names(here / "out") == {*local, "darsr-manifest.jsonl"}, "something half-written is left"
    assert "12 images in " in result.stderr and "0 failed; manifest: out/darsr-manifest.jsonl" in result.stderr

    # a second run does what is missing: a deleted result, and one whose line was cut off
    manifest = here / "out" / "darsr-manifest.jsonl"
    (here / "out" / "p03_x2.png").unlink()
    before = manifest.read_bytes().splitlines(keepends=True)
    torn = next(index for index, line in enumerate(before) if b"p05_x2" in line)
    before.append(before.pop(torn)[:40])
    manifest.write_bytes(b"".join(before))
    manifest.with_name(f"{manifest.name}.begun").write_text(f"{here}/out/p05_x2.png\n")
    again = done("upscale", "in", "-o", "out", "--cluster", nodes.address)
    assert "10 done before and passed over (see the manifest)" in again.stderr
    assert sorted(line.split()[0] for line in again.stdout.splitlines()) == ["in/p03.png", "in/p05.png"]
    assert hashes(here / "out") == local and not manifest.with_name(f"{manifest.name}.begun").exists()


def test_other_options_and_changed_sources_are_not_taken_for_done(nodes, here):
    on = ("--cluster", nodes.address)
    few = ("in/p00.png", "in/p01.png")
    done("upscale", *few, "-o", "out", *on)
    other = darsr("upscale", *few, "-o", "out", "--amount", "0.5", *on)
    assert other.exit_code == 1 and other.stderr.count("exists already; give --overwrite") == 2
    shutil.copy("in/p02.png", "in/p00.png")
    changed = darsr("upscale", *few, "-o", "out", *on)
    assert changed.exit_code == 1 and "error: out/p00_x2.png: exists already" in changed.stderr
    assert "1 done before and passed over" in changed.stderr
    done("upscale", *few, "-o", "out", "--overwrite", *on)
    assert done("upscale", *few, "-o", "out", *on).stderr.startswith("2 done before")


def test_what_is_broken_is_listed_and_the_rest_is_done(nodes, here, local, monkeypatch):
    (here / "in" / "p00.png").write_text("no picture")  # refused before the work
    after(monkeypatch, _2=(here / "in" / "p11.png").unlink)  # when the first of the others is done: refused by a worker
    shown = []
    monkeypatch.setattr("export.commands.upscale_run.progress", lambda title: contextlib.nullcontext(shown.append))
    result = darsr("upscale", "in", "-o", "out", "--cluster", nodes.address, "--json")
    assert result.exit_code == 1 and [entry["left"] for entry in shown] == [*range(COUNT - 1)][::-1]
    assert shown[-1]["failed"] == 1 and shown[-1]["rate"] > 0
    *rows, told = strict_json(result.stdout)
    assert len(rows) == COUNT - 2 and len(told["errors"]) == 2
    assert hashes(here / "out") == {name: sha for name, sha in local.items() if name[:3] not in ("p00", "p11")}
    failed = [line for line in lines(here / "out" / "darsr-manifest.jsonl") if "error" in line]
    assert {Path(line["input"]).name: line["error"] for line in failed} == {
        Path(error["what"]).name: error for error in told["errors"]
    }


def test_a_picture_that_kills_its_worker_costs_itself_alone(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    items = ["a", "kills", f"kills once {tmp_path}/mark", "bug", "refused", *"bcdef"]
    with connect(nodes.address, Demands()) as ray:
        pool = Pool(ray, work, Demands())
        results = dict(pool.each(items, len(items), lambda item: item))
    assert sorted(results) == [*range(len(items))] and pool.most == 2
    assert str(results.pop(1)).startswith("kills: 3 workers died on it (signal SIGKILL); look at the picture")
    assert str(results.pop(3)).startswith("bug: failed unexpectedly (ZeroDivisionError: of the work)")
    assert str(results.pop(4)) == "refused: is refused; give another"
    assert results == {index: items[index].upper() for index in results}
    wait_until(lambda: not workers())


def test_workers_that_need_a_gpu_go_where_there_is_one(nodes, monkeypatch):
    monkeypatch.chdir(ROOT)
    nodes.add(gpus=1)
    try:
        with connect(nodes.address, Demands()) as ray:
            pool = Pool(ray, work, Demands(gpus=1))
            assert dict(pool.each(["gpu", "a", "gpu"], 3, str)) == {0: "0", 1: "A", 2: "0"} and pool.most == 1
    finally:
        nodes.cluster.remove_node(nodes.others.pop(), allow_graceful=True)


def test_a_node_that_lacks_the_folder_and_a_worker_that_cannot_start_are_one_line(nodes, tmp_path, monkeypatch):
    with connect(nodes.address, Demands()) as ray:
        pool = Pool(ray, work, Demands())
        pool._arguments = (*pool._arguments[:2], "/nowhere", {})
        with pytest.raises(DarsrError, match=r"^node .*: does not see /nowhere .*run the command in a folder that all"):
            list(pool.each(["a"], 1, str))
        pool = Pool(ray, work, Demands())
        pool._version = "9.9"
        with pytest.raises(DarsrError, match=r"^node .*: has darsr .*, and the command is 9\.9; install one version"):
            list(pool.each(["a"], 1, str))
        monkeypatch.setattr("darsr_deploy.cluster.pool._BACKOFF", 0.0)
        pool = Pool(ray, work, Demands())
        pool._arguments = (*pool._arguments[:3], 0)  # of which the actor cannot be made
        with pytest.raises(DarsrError, match=r"^the cluster: starts no worker \(.*\); install darsr .* on every node"):
            list(pool.each(["a"], 1, str))


def test_ctrl_c_stops_cleanly_and_a_second_run_goes_on(nodes, here, local):
    command = [sys.executable, str(ROOT / "cli.py"), "upscale", "in", "-o", "out", "--cluster", nodes.address]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    running = subprocess.Popen(command, env=environment, preexec_fn=heed_ctrl_c, **pipes)
    manifest = here / "out" / "darsr-manifest.jsonl"
    wait_until(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") >= 2)
    running.send_signal(signal.SIGINT)
    stderr = running.communicate(timeout=60)[1]
    assert running.returncode == 130 and stderr.splitlines()[-1] == "interrupted", stderr
    assert not [name for name in names(here / "out") if name.startswith(".")], "something half-written is left"
    wait_until(lambda: not workers())
    assert 2 <= len(lines(manifest)) < COUNT
    assert "done before" in done("upscale", "in", "-o", "out", "--cluster", nodes.address).stderr
    assert hashes(here / "out") == local
    assert len({line["key"] for line in lines(manifest)}) == len(lines(manifest)) == COUNT


def test_auto_joins_the_cluster_of_this_machine(nodes, here, local, monkeypatch):
    monkeypatch.setattr("darsr_deploy.cluster.connect._short_folder", None)  # which one of its own would need
    done("upscale", "in/p00.png", "-o", "p00_x2.png", "--cluster", "auto")
    assert hash_file("p00_x2.png") == local["p00_x2.png"] and len(lines(here / "darsr-manifest.jsonl")) == 1


def test_results_go_to_object_storage(nodes, here, local):
    url, few = f"file://{here}/bucket/new", ("in/p00.png", "in/p01.png")
    command = ("upscale", *few, "-o", url, "--cluster", nodes.address, "--json")
    rows = strict_json(done(*command).stdout)
    assert [row["output"] for row in rows] == [f"{url}/p00_x2.png", f"{url}/p01_x2.png"]
    assert hashes(here / "bucket" / "new") == {name: local[name] for name in ("p00_x2.png", "p01_x2.png")}
    found = lines(here / "darsr-manifest.jsonl")
    assert {line["key"]: line["sha256"] for line in found} == {
        row["output"]: local[row["output"][-10:]] for row in rows
    }
    (here / "bucket" / "new" / "p01_x2.png").unlink()
    rows = strict_json(done(*command).stdout)
    assert [row.get("skipped", False) for row in rows] == [True, False] and rows[0]["output"] == f"{url}/p00_x2.png"
    (here / "darsr-manifest.jsonl").unlink()
    assert "p00_x2.png: exists already" in darsr(*command).stderr
    assert "--cluster alone" in darsr("upscale", *few, "-o", url).stderr


def test_adapt_and_infer_write_the_same_bytes(nodes, here):
    few = ("in/p00.png", "in/p01.png", "in/p02.png")
    on = ("--cluster", nodes.address, "--json")
    done("adapt", *few, "-o", "local", "--threads", "1")
    rows = strict_json(done("adapt", *few, *on).stdout)
    assert [row["adapter"] for row in rows] == ["in/p00.darsr", "in/p01.darsr", "in/p02.darsr"]
    assert [hash_file(row["adapter"]) for row in rows] == [
        hash_file(f"local/{Path(row['adapter']).name}") for row in rows
    ]
    done("infer", *few, "-o", "local", "--threads", "1")
    rows = strict_json(done("infer", *few, "-o", "out", *on).stdout)
    assert hashes(here / "out") == hashes(here / "local") and len(rows) == 3
    assert {line["sha256"] for line in lines(here / "out" / "darsr-manifest.jsonl")} == {*hashes(here / "out").values()}
    assert all(row["skipped"] for row in strict_json(done("infer", *few, "-o", "out", *on).stdout))
    (here / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    assert "is a video, and a cluster does pictures" in darsr("infer", "clip.mp4", *on).stderr


def test_eval_measures_the_same_and_its_manifest_resumes(nodes, here):
    pytest.importorskip("torch", reason="measuring needs PyTorch (extra train)")
    for part, size in (("LR", (48, 40)), ("HR", (96, 80))):
        (here / "set" / part).mkdir(parents=True)
        for name in ("p00.png", "p01.png"):
            write_image(here / "set" / part / name, cv2.resize(cv2.imread(f"in/{name}"), size))
    here_alone = strict_json(done("eval", "set", "--threads", "1", "--device", "cpu", "--json").stdout)
    command = ("eval", "set", "--cluster", nodes.address, "--json")
    measured = strict_json(done(*command).stdout)

    def figures(summary: dict) -> list[dict]:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in summary["images"]]

    assert figures(measured) == figures(here_alone)
    assert len(lines(here / "set" / "darsr-manifest.jsonl")) == 2
    started = time.monotonic()
    assert strict_json(done(*command).stdout)["images"] == measured["images"]
    assert len(lines(here / "set" / "darsr-manifest.jsonl")) == 2, "measured twice"
    assert time.monotonic() - started < 30


def test_without_a_cluster_ray_is_not_imported(here):
    code = "import sys; sys.modules.update(ray=None, fsspec=None); import cli; cli.app()"
    command = [sys.executable, "-c", code, "upscale", "in/p00.png", "--threads", "1"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert "--manifest belongs to --cluster" in darsr("upscale", "in", "--manifest", "m.jsonl").stderr
