"""``darsr eval``: figures, sets, methods, files, several processes, and going on after an interruption."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import cli
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.metrics import psnr_rgb, psnr_y, ssim_rgb, ssim_y
from darsr_train.evaluation import run as evaluation_run
from darsr_train.evaluation.measure import compare
from darsr_train.evaluation.report import summarise
from darsr_train.evaluation.run import read_rows
from darsr_train.evaluation.sets import find_sets, read_kernel
from tests.support.commands import darsr, done, names, refused, strict_json
from tests.support.shared import SHARED, needs_shared, srfbn

ONE_THREAD = ("--device", "cpu", "--threads", "1")
BRIEF = ("--steps", "2", *ONE_THREAD)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two sets of two images, as darsr degrade makes them."""
    data = pytest.importorskip("skimage.data", reason="scikit-image (extra train) brings the photographs")
    folder = tmp_path_factory.mktemp("made")
    (folder / "photos").mkdir()
    for name, image in (("a", data.astronaut()[100:196, 180:276]), ("b", data.chelsea()[100:188, 120:220])):
        write_image(folder / "photos" / f"{name}.png", np.ascontiguousarray(image))
    done("degrade", folder / "photos", "-o", folder / "sets", "--kind", "gaussian", "--kind", "disk")
    return folder / "sets"


@pytest.fixture
def sets(made, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "sets"))


def without_seconds(value: object) -> object:
    """A result without what differs from run to run."""
    if isinstance(value, dict):
        return {key: without_seconds(v) for key, v in value.items() if key != "seconds"}
    return [without_seconds(v) for v in value] if isinstance(value, list) else value


# ---- figures


def test_figures_are_those_of_the_images(photo):
    noisy = {
        name: np.clip(photo.astype(int) + n, 0, 255).astype(np.uint8) for name, n in (("backbone", 9), ("result", 4))
    }
    row = compare(noisy, photo, 2)
    assert row["psnr_y"] == psnr_y(noisy["result"], photo, 2)
    assert row["psnr_rgb_backbone"] == psnr_rgb(noisy["backbone"], photo, 2)
    assert row["gain"] == row["psnr_y"] - row["psnr_y_backbone"] > 0
    assert set(row) == {f"{m}_{c}{t}" for m in ("psnr", "ssim") for c in ("y", "rgb") for t in ("", "_backbone")} | {
        "gain"
    }
    assert compare({"backbone": photo, "result": photo}, photo, 2)["gain"] == 0  # not infinity less infinity


def test_colour_figures_are_means_over_the_colours(photo):
    other = photo[:, ::-1]
    assert ssim_rgb(photo, other, 2) == pytest.approx(
        np.mean([ssim_rgb(photo[:, :, c], other[:, :, c], 2) for c in range(3)])
    )
    gray = photo[:, :, 1]
    assert ssim_rgb(np.dstack([gray] * 3), np.dstack([gray[::-1]] * 3), 2) == pytest.approx(
        ssim_rgb(gray, gray[::-1], 2)
    )
    assert ssim_y(photo, photo, 2) == ssim_rgb(photo, photo, 2) == 1
    assert psnr_rgb(photo, photo ^ 1, 4) == pytest.approx(20 * math.log10(255))


def test_with_a_mask_only_its_pixels_count(photo):
    damaged, mask = photo.copy(), np.ones(photo.shape[:2], bool)
    damaged[20:60, 20:60] = 255
    for figure in (psnr_y, psnr_rgb, ssim_y, ssim_rgb):
        assert figure(photo, damaged, 2, mask) == pytest.approx(figure(photo, damaged, 2), abs=1e-12)
    mask[15:65, 15:65] = False  # SSIM's windows reach five pixels
    assert psnr_y(photo, damaged, 2, mask) == psnr_rgb(photo, damaged, 2, mask) == math.inf
    assert ssim_y(photo, damaged, 2, mask) == pytest.approx(1) and ssim_rgb(photo, damaged, 2, mask) == pytest.approx(1)
    inside = np.zeros_like(mask)
    inside[20:60, 20:60] = True
    error = (photo[20:60, 20:60].astype(float) - 255) ** 2
    assert psnr_rgb(photo, damaged, 2, inside) == pytest.approx(10 * math.log10(255**2 / error.mean()))


def test_losses_are_counted_beyond_a_tenth_of_a_decibel():
    rows = [{"set": "s", "name": str(g), "gain": g, "psnr_y": 30.0 + g} for g in (0.5, -0.09, -0.11, 1.0)]
    summary = summarise(rows, 5)
    assert (summary["asked"], summary["count"], summary["below_backbone"]) == (5, 4, 1)
    assert summary["worst"] == {"set": "s", "name": "-0.11", "gain": -0.11}
    assert summary["mean"] == pytest.approx({"gain": 0.325, "psnr_y": 30.325})


# ---- sets


def test_a_set_a_folder_of_sets_and_what_is_neither(sets, photo, tmp_path):
    complaints, remarks = [], []
    found = find_sets([sets, sets / "disk_x2"], None, complaints.append, remarks.append)
    assert [(s.name, s.scale, len(s.pairs)) for s in found] == [("disk_x2", 2, 2), ("gaussian_x2", 2, 2)]
    shutil.copytree(sets / "disk_x2", tmp_path / "elsewhere" / "disk_x2")
    twins = find_sets([sets / "disk_x2", tmp_path / "elsewhere"], None, complaints.append, remarks.append)
    assert [s.name for s in twins] == [str(sets / "disk_x2"), str(tmp_path / "elsewhere" / "disk_x2")]
    assert not complaints and not remarks
    for part, side in (("LR", 10), ("HR", 40)):
        (sets / "large" / part).mkdir(parents=True)
        write_image(sets / "large" / part / "a.png", photo[:side, :side])
    assert [s.scale for s in find_sets([sets], None, complaints.append, remarks.append)] == [2, 2, 4]
    assert len(find_sets([sets], 2, complaints.append, remarks.append)) == 2
    assert remarks == [f"{sets / 'large'}: skipped, its scale is 4"]
    (sets / "large" / "HR" / "a.png").unlink()
    assert not find_sets([sets / "large", tmp_path / "nothing"], None, complaints.append, remarks.append)
    assert [str(c).split(": ")[0] for c in complaints] == [
        str(sets / "large" / "HR" / "a.png"),
        str(tmp_path / "nothing"),
    ]


def damaged(save, place: int, byte: int) -> bytes:
    """A file of one kernel in which a byte is another one; the last 74 are the archive's directory."""
    file = io.BytesIO()
    save(file, k0=np.full((4, 4), 1 / 16))
    data = bytearray(file.getvalue())
    data[place] = byte
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        {"k0": np.ones((4, 4))},
        {"k0": np.full((4, 3), 1 / 12)},
        {"k0": np.full((4, 4), np.nan)},
        {"k0": np.full((2, 2), 0.25), "k1": np.full((4, 4), 1 / 16)},
        {"k0": np.array([None])},
        {},
        damaged(np.savez, -66, 1),  # says that it is encrypted
        damaged(np.savez, -64, 1),  # of an unknown compression
        damaged(np.savez_compressed, 56, 255),  # cannot be decompressed
    ],
    ids=lambda content: str(content)[:40],
)
def test_kernels_that_are_none_are_one_line(content, tmp_path):
    path = tmp_path / "a.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(DarsrError, match=r"a\.npz: does not hold .*darsr degrade"):
        read_kernel(path)


# ---- methods


def test_sets_are_summed_up_each_and_together(sets):
    summary = strict_json(done("eval", sets, "--method", "none", *ONE_THREAD, "--json").stdout)
    assert [(row["set"], row["name"]) for row in summary["images"]] == [
        ("disk_x2", "a"), ("disk_x2", "b"), ("gaussian_x2", "a"), ("gaussian_x2", "b"),
    ]  # fmt: skip
    assert summary["images"][0].keys() >= {"psnr_y", "ssim_y", "psnr_y_backbone", "psnr_y_bicubic", "seconds"}
    for row in summary["images"]:
        assert row["psnr_y"] == row["psnr_y_backbone"] and row["gain"] == 0
    assert [(part["name"], part["scale"], part["count"]) for part in summary["sets"]] == [
        ("disk_x2", 2, 2), ("gaussian_x2", 2, 2),
    ]  # fmt: skip
    mean = np.mean([row["psnr_y"] for row in summary["images"]])
    assert summary["mean"]["psnr_y"] == pytest.approx(mean)
    assert np.mean([part["mean"]["psnr_y"] for part in summary["sets"]]) == pytest.approx(mean)


def test_the_prior_beside_another_method_is_the_prior(sets):
    alone = strict_json(done("eval", sets / "gaussian_x2", "--method", "prior", *ONE_THREAD, "--json").stdout)
    beside = strict_json(
        done("eval", sets / "gaussian_x2", "--method", "nonblind", "--with-prior", *ONE_THREAD, "--json").stdout
    )
    for one, other in zip(alone["images"], beside["images"]):
        assert one["psnr_y"] == other["psnr_y_prior"] != other["psnr_y"]
    assert alone["mean"]["gain"] > 0 and beside["mean"]["gain"] > 0.5


@pytest.mark.parametrize("method", ["none", "prior", "nonblind", "fast"])
def test_every_method_is_a_column(method, sets, tmp_path):
    steps = ("--steps", "2") if method == "fast" else ()
    result = done(
        "eval", sets, "--method", method, *steps, "--with-prior", *ONE_THREAD, "--markdown", tmp_path / "r.md",
        "--sheet", tmp_path / "s.png",
    )  # fmt: skip
    assert "gaussian_x2" in result.stdout and "4 images" in result.stdout
    page = (tmp_path / "r.md").read_text()
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables[:5]}) == 1 and f" {method} " in tables[0]
    assert ("| prior |" in tables[0]) and page.count("| all |") == 1
    panels = {"none": 4, "prior": 4, "nonblind": 5, "fast": 5}[method]
    assert read_image(tmp_path / "s.png").shape[1] == 2 * 32 + panels * 224 - 8


def test_the_error_of_the_estimated_kernel_stands_beside_the_figures(sets, tmp_path):
    """In sets that hold true kernels, and on the sheet both kernels; without the option rows are what they were."""
    shutil.rmtree(sets / "disk_x2" / "kernel")
    (sets / "disk_x2" / "LR" / "b.png").unlink()
    command = ("eval", sets, "--kernels", *ONE_THREAD, "--out", tmp_path / "r.json", "--resume")
    done(*command, "--markdown", tmp_path / "r.md", "--sheet", tmp_path / "s.png")
    summary = strict_json((tmp_path / "r.json").read_text())
    without, *rows = summary["images"]
    assert "kernel_error" not in without and "kernel_error" not in summary["sets"][0]["mean"]
    for key in ("kernel_error", "kernel_error_backbone"):
        for mean in (summary["mean"], summary["sets"][1]["mean"]):
            assert mean[key] == pytest.approx(np.mean([row[key] for row in rows]))
    for row in rows:
        assert 0 < row["kernel_error"] < row["kernel_error_backbone"]
    page = (tmp_path / "r.md").read_text()
    assert page.count("kernel error") == 2 and f"| {summary['mean']['kernel_error']:.2f} |" in page
    assert read_image(tmp_path / "s.png").shape[1] == 2 * 32 + 6 * 224 - 8
    kernel = sets / "gaussian_x2" / "kernel" / "a.npz"
    kernel.unlink()  # a figure depends on it, so it is asked for again
    result = darsr(*command)
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {kernel}: there is no true kernel")
    refused("eval", sets / "disk_x2", "--kernels", *ONE_THREAD, name="--kernels")
    assert darsr("eval", sets, "--kernels", "--method", "none").exit_code == 2


def test_what_cannot_be_measured_is_one_line(sets, tmp_path):
    shutil.rmtree(sets / "disk_x2" / "kernel")
    (sets / "gaussian_x2" / "kernel" / "a.npz").unlink()
    result = darsr("eval", sets, "--method", "nonblind", *ONE_THREAD, "--json")
    assert result.exit_code == 1
    whole, single = result.stderr.splitlines()
    assert whole == (
        "error: disk_x2: method nonblind: the set holds no true kernels (kernel/NAME.npz); use another --method"
    )
    assert single.startswith(f"error: {sets / 'gaussian_x2' / 'kernel' / 'a.npz'}: there is no true kernel")
    assert [row["name"] for row in strict_json(result.stdout)["images"]] == ["b"]
    assert strict_json(result.stdout)["sets"][0]["asked"] == 2

    refused("eval", sets, "--method", "best", *ONE_THREAD, name="method best")
    refused("eval", sets / "disk_x2", "--method", "none", "--scale", "3", *ONE_THREAD, name="--scale 3")
    refused("eval", tmp_path, "--method", "none", "--backbone", "no", *ONE_THREAD, name=tmp_path)
    refused("eval", sets / "disk_x2", "--method", "none", "--backbone", "no", *ONE_THREAD, name="disk_x2: backbone no")
    refused("eval", sets, "--method", "none", "--sheet", tmp_path / "s.jpg", name=tmp_path / "s.jpg")
    for wrong in (("--resume",), ("--method", "none", "--steps", "2"), ("--jobs", "0")):
        assert darsr("eval", sets, *wrong).exit_code == 2
    assert names(tmp_path) == {"sets"}


def test_a_set_with_masks_is_measured_inside_them(sets, tmp_path):
    """What was drawn over an image does not count, nor do the borders; a mask that cannot be used is one line."""
    folder, command = sets / "disk_x2", ("eval", sets / "disk_x2", "--method", "none", *ONE_THREAD, "--json")
    plain = strict_json(done(*command, "--out", tmp_path / "r.json").stdout)
    (folder / "mask").mkdir()
    for hr in (folder / "HR").iterdir():
        mask = np.full(read_image(hr).shape[:2], 255, np.uint8)
        if hr.name == "a.png":
            mask[30:50, 30:50] = 254  # 255 alone counts
            truth = read_image(hr)
            truth[30:50, 30:50] = 0
            write_image(hr, truth)
        write_image(folder / "mask" / hr.name, mask)
    masked = strict_json(done(*command, "--out", tmp_path / "r.json", "--resume").stdout)  # nothing is kept
    assert masked["sets"][0]["masked"] and "masked" not in plain["sets"][0]
    assert masked["images"][1]["psnr_y"] == plain["images"][1]["psnr_y"]
    assert masked["images"][0]["psnr_y"] == pytest.approx(plain["images"][0]["psnr_y"], abs=1)
    write_image(folder / "mask" / "a.png", np.zeros((96, 96), np.uint8))
    write_image(folder / "mask" / "b.png", np.full((10, 10), 255, np.uint8))
    result = darsr(*command)
    none, size = result.stderr.splitlines()
    assert result.exit_code == 1 and "a.png: counts no pixel inside the borders" in none
    assert "b.png: is 10x10, expected 100x88" in size
    (folder / "mask" / "a.png").unlink()
    refused(*command[:-1], name=folder / "mask" / "a.png")


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, count, reached", [("gaussian_x2", 8, 29.55), ("other_x2", 5, 32.26), ("variant_x2", 5, 30.61)]
)
def test_the_true_kernel_reaches_what_was_measured_elsewhere(kind, count, reached):
    """Column "true kernel + closed-form 5x5" of the development data, SRFBN-S."""
    from darsr_train.evaluation.measure import Plan, Workplace, measure
    from darsr_train.evaluation.sets import find_pairs

    pairs = find_pairs(SHARED / "data" / "blind" / kind)
    rows = [measure(pair, srfbn(2), Plan("nonblind"), Workplace(Path("unused")))[0] for pair in pairs]
    assert len(rows) == count
    assert np.mean([row["psnr_y"] for row in rows]) == pytest.approx(reached, abs=0.12)


# ---- files, and going on


def test_an_older_result_is_kept_unless_told_otherwise(sets, tmp_path):
    out = tmp_path / "r.json"
    out.write_text("{}")
    refused("eval", sets, "--method", "none", "--out", out, *ONE_THREAD, name=out)
    assert out.read_text() == "{}"
    assert "is not a result of darsr eval" in refused(
        "eval", sets, "--method", "none", "--out", out, "--resume", *ONE_THREAD, name=out
    )
    printed = done("eval", sets, "--method", "none", "--out", out, "--overwrite", "--json", *ONE_THREAD).stdout
    assert strict_json(out.read_text()) == strict_json(printed)
    assert names(tmp_path) == {"sets", "r.json"}


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """Names of the images that are measured, in order."""
    found = []

    def watched(task, report, measure=evaluation_run.measure_task):
        found.append(f"{task.set}/{task.pair.lr.stem}")
        return measure(task, report)

    monkeypatch.setattr(evaluation_run, "measure_task", watched)
    return found


def test_resumed_runs_measure_what_is_missing_and_equal_whole_ones(sets, measured, tmp_path):
    out, command = tmp_path / "r.json", ("eval", sets, "--method", "nonblind", *ONE_THREAD, "--json")
    whole = without_seconds(strict_json(done(*command).stdout))
    stored = done(*command, "--out", out, "--resume").stdout
    rows = json.loads(stored)
    rows["images"] = rows["images"][1:3]
    out.write_text(json.dumps(rows))
    measured.clear()
    resumed = strict_json(done(*command, "--out", out, "--resume").stdout)
    assert measured == ["disk_x2/a", "gaussian_x2/b"]
    assert without_seconds(resumed) == whole == without_seconds(strict_json(out.read_text()))
    measured.clear()
    assert strict_json(done(*command, "--out", out, "--resume").stdout) == resumed and not measured


def test_what_a_figure_depends_on_is_measured_again(sets, measured, tmp_path):
    out = tmp_path / "r.json"

    def again(*more: object, method: str = "nonblind") -> list[str]:
        measured.clear()
        done("eval", sets, "--method", method, *ONE_THREAD, "--out", out, "--resume", *more)
        return list(measured)

    assert len(again()) == 4 and again() == []
    for part in ("LR", "HR"):
        image = sets / "disk_x2" / part / "a.png"
        write_image(image, read_image(image)[::-1])
        assert again() == ["disk_x2/a"]
    kernel = sets / "gaussian_x2" / "kernel" / "b.npz"
    np.savez(kernel, k0=read_kernel(kernel).T)
    assert again() == ["gaussian_x2/b"] and again() == []
    assert len(again("--with-prior")) == 4
    assert len(again(method="none")) == 4
    assert len(again("--sheet", tmp_path / "s.png", method="none")) == 4  # their crops were not kept
    assert len(again("--sheet", tmp_path / "s.png", method="none")) == 4  # nor are they once the sheet is drawn
    assert again(method="none") == []
    assert len(again("--steps", "1", method="fast")) == 4
    assert len(again("--steps", "1", "--seed", "1", method="fast")) == 4


def test_an_exact_image_is_resumed_as_exact(tmp_path):
    """An infinite PSNR is null in JSON, and infinite again when it is read."""
    for part, side in (("LR", 16), ("HR", 32)):
        (tmp_path / part).mkdir()
        write_image(tmp_path / part / "flat.png", np.full((side, side, 3), 128, np.uint8))
    command = ("eval", tmp_path, "--method", "none", *ONE_THREAD, "--out", tmp_path / "r.json", "--resume", "--json")
    first = strict_json(done(*command).stdout)
    assert first["images"][0]["psnr_y_bicubic"] is None
    assert strict_json(done(*command).stdout) == first
    (row,) = read_rows(tmp_path / "r.json").values()
    assert row["psnr_y_bicubic"] == math.inf


def test_an_interrupted_run_keeps_what_is_done_and_goes_on_within_an_image(sets, monkeypatch, tmp_path):
    monkeypatch.setattr("darsr_train.adaptation.checkpoint._EVERY_SECONDS", 0.0)
    command = ("eval", sets / "disk_x2", *BRIEF, "--json")
    whole = without_seconds(strict_json(done(*command).stdout))
    steps = []

    def stop(task, report, measure=evaluation_run.measure_task):
        def watch(entry: dict) -> None:
            steps.append(entry["step"])
            if len(steps) == 4:  # the second step of the second image, after its first was kept
                raise KeyboardInterrupt

        return measure(task, watch)

    with monkeypatch.context() as patched:
        patched.setattr(evaluation_run, "measure_task", stop)
        result = darsr(*command, "--out", tmp_path / "r.json")
    assert result.exit_code == 130 and result.stdout == ""
    assert "--resume to continue" in result.stderr and result.stderr.endswith("interrupted\n")
    partial = strict_json((tmp_path / "r.json").read_text())
    assert [row["name"] for row in partial["images"]] == ["a"] and partial["asked"] == 2
    (state,) = (tmp_path / "r.json.work").iterdir()
    assert state.name.endswith(".darsr.partial")
    seen = []
    monkeypatch.setattr(
        evaluation_run,
        "measure_task",
        lambda task, report, measure=evaluation_run.measure_task: measure(task, lambda e: seen.append(e["step"])),
    )
    assert without_seconds(strict_json(done(*command, "--out", tmp_path / "r.json", "--resume").stdout)) == whole
    assert seen == [2], "the second image did not go on from its first step"
    assert names(tmp_path) == {"sets", "r.json"}


# ---- several processes


@pytest.mark.slow
def test_parallel_equals_serial(sets, tmp_path):
    command = ("eval", sets, "--steps", "2", "--with-prior", "--device", "cpu", "--json")
    serial = strict_json(done(*command, "--threads", "1", "--sheet", tmp_path / "a.png").stdout)
    (sets / "gaussian_x2" / "LR" / "b.png").write_bytes(b"damaged")
    parallel = darsr(*command, "--threads", "2", "--jobs", "2", "--sheet", tmp_path / "b.png")
    assert parallel.exit_code == 1
    assert (
        parallel.stderr
        == f"error: {sets / 'gaussian_x2' / 'LR' / 'b.png'}: is not an image that can be read; save it as PNG, TIFF, WebP, JPEG or BMP\n"
    )
    assert without_seconds(strict_json(parallel.stdout)["images"]) == without_seconds(serial["images"])[:3]
    assert (read_image(tmp_path / "a.png")[140:400] == read_image(tmp_path / "b.png")[140:400]).all()


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_ends_cleanly(sets, tmp_path):
    """The signal goes to the whole group of processes, as a terminal sends it."""
    command = [sys.executable, cli.__file__, "eval", sets, "--steps", "100000", "--device", "cpu", "--jobs", "2"]
    running = subprocess.Popen(
        [*map(str, command), "--out", str(tmp_path / "r.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As in a terminal: what a shell starts in the background, these tests perhaps, inherits an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("r.json.work/*.partial")):  # both processes are at work, or one of them
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=120)
        deadline = time.monotonic() + 60
        assert (running.returncode, out, err) == (130, "", "interrupted\n")
        while group_is_alive(running.pid):  # multiprocessing's resource tracker sees a moment later that it is over
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        if group_is_alive(running.pid):
            os.killpg(running.pid, signal.SIGKILL)


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
