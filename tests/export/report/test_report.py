"""The page of ``darsr report``: what it shows is what the adapter computes, nothing of a file becomes markup, it loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darsr_deploy.degradation import kernels
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.metrics import psnr_y
from darsr_deploy.images.resample import imresize
from darsr_train.adaptation.result import read_curves, record
from darsr_train.backbones import load_backbone
from darsr_train.evaluation.kernel_error import kernel_error
from darsr_train.networks.darm import DARM
from darsr_train.pipeline import adapted, upscale_with
from darsr_train.plots.kernels import colour_kernels, kernels_of
from export.report import explain
from export.report.charts import Bar, bars
from export.report.markup import Markup, element
from export.report.page import build_page
from export.report.pictures import album
from export.report.subject import Subject, look_at, middle
from tests.support.commands import darsr, done, names, refused, strict_json

BENCH = {
    "machine": {"cpu": "Xeon", "cores": 2, "gpus": [{"name": "Orin", "memory_mb": 8}], "start": {"load": 0.5}},
    "rows": [
        {"engine": "ort", "provider": "CPUExecutionProvider", "precision": "fp32", "shape": [1, 3, 8, 9], "n": 42,
         "median_ms": 160.9, "p90_ms": 170.0, "p99_ms": 181.0, "peak_memory_mb": 312.0, "psnr_vs_torch_db": 135.2},
        {"engine": "torch", "provider": "cpu", "precision": "fp32", "shape": "1x3x8x9", "n": 40, "median_ms": 188.0,
         "e2e_median_ms": 201.0, "psnr_vs_torch_db": 200, "psnr_y_truth_db": 29.4},
        {"engine": "trt", "precision": "fp16", "median_ms": None, "reason": "no TensorRT <here>"},
    ],
}  # fmt: skip


class Reader(HTMLParser):
    """Elements with their attributes; every element that must be closed is, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "input", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def decoded(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.partition("base64,")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("edge", 2)


@pytest.fixture(scope="module")
def folder(photo, backbone, tmp_path_factory) -> Path:
    """photo.png, its truth, and an adapter as ``adapt`` writes one, with a network whose weights are random."""
    folder = tmp_path_factory.mktemp("report")
    write_image(folder / "photo.png", imresize(photo, 40, 48))
    write_image(folder / "truth.png", photo)
    torch.manual_seed(0)
    arrays = {f"darm.{name}": tensor.numpy() for name, tensor in DARM(None, 8).state_dict().items()}
    kernel = np.outer(*2 * [np.hanning(16)[1:-1]]).astype(np.float32)
    facts = {
        "profile": "fast",
        "steps": 200,
        "seed": 0,
        "camera_probability": 0.1,
        "source": {"sha256": hashlib.sha256((folder / "photo.png").read_bytes()).hexdigest()},
        "held_out_loss": {"prior": 0.02, "adapted by half": 0.015, "adapted": 0.0149},
        "chosen": "adapted by half",
        "losses": {"adapting": record([0.01 + 0.05 / (i + 1) for i in range(200)])},
    }
    arrays["kernel"] = kernel / kernel.sum()
    Adapter("network", 2, backbone.name, backbone.sha256, facts, arrays, 3).save(folder / "photo.darsr")
    return folder


@pytest.fixture(scope="module")
def subject(folder) -> Subject:
    return look_at(folder / "photo.darsr", truth=folder / "truth.png")


@pytest.fixture(scope="module")
def page(subject) -> str:
    return build_page([subject], BENCH)


# ---- the command


def test_as_typed(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    truth = folder / "truth.png"
    shown = done("report", folder / "photo.darsr", "--gt", truth, "--bench", "bench.json", "--json")
    row = strict_json(shown.stdout)
    assert (row["report"], row["bytes"]) == ("report.html", (tmp_path / "report.html").stat().st_size)
    (image,) = row["images"]
    result = adapted(Adapter.load(folder / "photo.darsr"), load_backbone("edge", 2))
    sr = upscale_with(result, read_image(folder / "photo.png"))
    assert image["psnr_y"] == psnr_y(sr, read_image(truth), 2) and 0 < image["ssim_y_bicubic"] < 1
    assert f"{image['psnr_y']:.2f} dB" in (tmp_path / "report.html").read_text()
    refused("report", folder / "photo.darsr", name="report.html: exists already")
    done("report", "--bench", "bench.json", "-o", "speed.html")
    assert names(tmp_path) == {"bench.json", "report.html", "speed.html"}


def test_folders_pair_images_by_name_and_a_failure_stops_nothing(folder, tmp_path):
    for name in ("one", "two"):
        adapter = Adapter.load(folder / "photo.darsr")
        replace(adapter, facts={**adapter.facts, "source": {}}).save(tmp_path / f"{name}.darsr")
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "one.png", read_image(folder / "photo.png"))
    out = tmp_path / "report.html"
    shown = darsr("report", tmp_path, "--image", tmp_path / "images", "-o", out, "--json")
    assert shown.exit_code == 1 and "images: holds no image named two; " in shown.stderr
    assert [Path(i["image"]).name for i in strict_json(shown.stdout)["images"]] == ["one.png"]
    assert "one.png" in out.read_text()


def test_mistakes_are_one_line(folder, tmp_path):
    out = ("-o", tmp_path / "r.html")
    adapter = Adapter.load(folder / "photo.darsr")
    replace(adapter, facts={}).save(tmp_path / "far.darsr")
    refused("report", *out, name="darsr report: nothing to show")
    refused("report", tmp_path / "far.darsr", *out, name=f"{tmp_path / 'far.darsr'}: the image it was made from")
    refused("report", *2 * [folder / "photo.darsr"], "--gt", folder / "truth.png", *out, name="--gt: is one file")
    refused("report", folder / "photo.darsr", "--gt", folder / "photo.png", *out, name=folder / "photo.png")
    for content, why in (
        ("{", "is not JSON"),
        ("[]", "is not JSON"),
        ("{}", "field machine"),
        ('{"machine": {}, "rows": [1]}', "row 0"),
    ):
        (tmp_path / "b.json").write_text(content)
        assert why in refused("report", "--bench", tmp_path / "b.json", *out, name=tmp_path / "b.json")
    assert not (tmp_path / "r.html").exists()


# ---- losses in the adapter


@given(st.lists(st.floats(1e-6, 1e6), max_size=400))
def test_a_record_keeps_the_mean_and_the_order(losses):
    kept = record(losses)
    assert kept["steps"] == len(losses) and len(kept["means"]) == min(120, len(losses))
    if len(losses) <= 120:
        np.testing.assert_allclose(kept["means"], losses, rtol=1e-3)
    elif len(losses) % 120 == 0:
        np.testing.assert_allclose(np.mean(kept["means"]), np.mean(losses), rtol=1e-3)
    json.dumps(kept, allow_nan=False)


def test_a_fit_that_broke_down_ends_its_record():
    assert record([1.0, 2.0, float("nan"), 3.0]) == {"steps": 2, "means": [1.0, 2.0]}


@pytest.mark.parametrize(
    "losses",
    [[], {"adapting": 1}, {"adapting": {"steps": 1, "means": [1.0, 2.0]}}, {"a": {"steps": 3, "means": ["1"]}}],
)
def test_a_record_is_read_strictly(losses):
    with pytest.raises(DarsrError, match=r"a\.darsr: field losses"):
        read_curves({"losses": losses}, "a.darsr")


# ---- what the page holds


def test_the_pictures_are_the_pixels(subject, page):
    images = {a["data-name"]: decoded(a["src"]) for a in Reader(page).all("img") if "data-name" in a}
    assert list(images) == ["bicubic", "backbone", "adapted", "truth"]
    for name, pixels in images.items():
        assert np.array_equal(pixels, subject.pictures[name]), name
    assert not np.array_equal(images["backbone"], images["adapted"])


def test_close_ups_are_large_and_their_pixels_squares(subject, page):
    """At least 256 px on the page, a whole number for each pixel, nearest in the browser, lossless; a small crop too."""
    small = {name: pixels[:30, :22] for name, pixels in subject.pictures.items()}
    style = (Path(__file__).parents[3] / "export" / "report" / "viewer.css").read_text()
    assert re.search(r"\.pixels \{ image-rendering: pixelated; \}", style)
    for made, least in ((page, 88), (build_page([replace(subject, pictures=small)]), 22)):
        shown = [a for a in Reader(made).all("img") if "data-pixels" in a]
        assert len(shown) >= 4
        for a in shown:
            sides = [int(a[side]) for side in ("height", "width")]
            assert max(sides) >= 256 and a["class"] == "pixels"
            zoom = [side / length for side, length in zip(sides, decoded(a["src"]).shape)]
            assert zoom[0] == zoom[1] == int(zoom[0]) and int(a["data-pixels"]) <= least


def test_where_nothing_was_corrected_there_is_one_picture(subject):
    """Not two equal halves, and the page says why."""
    same = {**subject.pictures, "adapted": subject.pictures["backbone"]}
    adapter = Adapter("none", 2, "edge-x2", "0" * 64, {"decision": "sharp already: nothing to correct"})
    read = Reader(build_page([replace(subject, pictures=same, adapter=adapter, filters=None, curves={})]))
    (picture,) = [a for a in read.all("img") if "data-name" in a]
    assert np.array_equal(decoded(picture["src"]), subject.pictures["backbone"]) and "shown" in picture["class"]
    assert not read.all("input"), "neither a divider nor a choice of sides"
    close_ups = [a["alt"] for a in read.all("img") if "data-pixels" in a]
    assert close_ups == [f"{name}, close-up" for name in ("Bicubic", "Backbone alone", "Truth")]
    words = " ".join(read.words)
    assert "Nothing was corrected: the result is that of the backbone alone" in words
    assert "Found: sharp already: nothing to correct." in words and "Drag the divider" not in words


def test_a_page_is_whole_and_loads_nothing(page):
    """Well-formed, every target of a link there, every picture described, every control named, nothing from elsewhere."""
    read = Reader(page)
    known = {a["id"] for _, a in read.elements if "id" in a}
    for tag, attributes in read.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "data:").startswith(("data:image/", "data:", "#")), (tag, attributes[name])
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in known
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden")
        if tag == "input" and attributes["type"] == "range":
            assert attributes["aria-label"]
    assert re.findall(r"\w+://[^'\"]*", page) == ["http://www.w3.org/2000/svg"] * 2, (
        "the name of SVG, in the handle's icon"
    )
    (policy,) = [a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy


def test_the_same_arguments_give_the_same_page(subject, page):
    assert build_page([subject], BENCH) == page


@given(st.text(), st.text())
def test_what_is_not_markup_stays_text(words, value):
    read = Reader(element("p", words, title=value))
    assert read.elements == [("p", {"title": html.unescape(html.escape(value))})]
    assert element("p", Markup("<b>x</b>")) == "<p><b>x</b></p>"


def test_nothing_from_files_becomes_markup(subject):
    """Names and facts of an adapter, and every text of a benchmark, with what would break out."""
    evil = "\"'></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    facts = {"chosen": evil, "profile": evil, "versions": {evil: evil}, "held_out_loss": {evil: 0.1, "prior": 0.2}}
    adapter = replace(subject.adapter, facts=facts, backbone=evil, backbone_sha256=evil)
    curves = {evil: next(iter(subject.curves.values()))}
    row = {"engine": evil, "provider": evil, "precision": evil, "shape": evil, "reason": evil}
    bench = {"machine": {evil: evil, "cpu": evil}, "rows": [row, {**row, "median_ms": 1.0, "n": 1}]}
    evil_page = build_page(
        [replace(subject, image=Path("/" + evil.replace("/", "")), adapter=adapter, curves=curves)], bench
    )
    read = Reader(evil_page)
    assert len(read.all("script")) == 1 and not any("onerror" in a for a in read.all("img"))
    assert evil in "".join(read.words)


def test_every_kind_of_facts_has_a_page(subject, backbone):
    """Adapters of other versions and hands may hold anything in their facts."""
    for facts in ({}, {"held_out_loss": {"prior": "x"}, "chosen": 5, "camera_probability": True}, {"chosen": "prior"}):
        assert "What was chosen" in build_page([replace(subject, adapter=replace(subject.adapter, facts=facts))])
    none = Adapter("none", 2, backbone.name, backbone.sha256)
    words = "".join(Reader(build_page([replace(subject, adapter=none, filters=None, curves={}, scores={})])).words)
    assert "Nothing is corrected" in words and "The adapter holds no kernel." in words
    camera = replace(subject.adapter, facts={"camera_probability": 0.97, "strength": 0.42, "chosen": "prior"}, rounds=0)
    words = "".join(Reader(build_page([replace(subject, adapter=camera)])).words)
    assert "certainty of 97%" in words and "at 42% of its strength" in words and "back-projection add" not in words


# ---- kernels


def fitted(subject: Subject, **facts) -> Subject:
    """Of profile thorough, with a kernel of free shape."""
    kernel = np.float32(kernels.motion(14, 6, 0.5, 0.0, 0.8))
    own = {
        "profile": "thorough",
        "chosen": "fitted",
        "steps": 400,
        "decision": "blur of 1.5 px: fitted",
        "local_kernels": 1,
    }
    arrays = subject.adapter.arrays | {"kernel": kernel}
    return replace(subject, adapter=replace(subject.adapter, facts=own | facts, arrays=arrays, rounds=1))


def kernel_drawings(page: str) -> dict[str, np.ndarray]:
    """The pictures of kernels by the words before the colon of their labels."""
    found = re.findall(r'<svg [^>]*aria-label="([^":]*): [^"]* taps[^"]*"[^>]*><image href="([^"]*)"', page)
    return {name: decoded(source) for name, source in found}


def test_a_kernel_of_free_shape_stands_beside_the_gaussian_and_the_true_one(subject, page):
    true = kernels.gaussian(12, 2.0, 1.0, 0.3)
    estimated, gaussian = (each.kernel for each in kernels_of(fitted(subject).adapter))
    drawn = kernel_drawings(build_page([fitted(subject)]))
    assert list(drawn) == ["Estimated blur kernel", "Gaussian of the same spread"]
    expected = colour_kernels((estimated, gaussian), 2)
    assert all(np.array_equal(found, colours) for found, colours in zip(drawn.values(), expected))
    compared = build_page([replace(fitted(subject), true_kernel=true)])
    drawn = kernel_drawings(compared)
    assert list(drawn) == ["Estimated blur kernel", "Gaussian of the same spread", "True blur kernel"]
    words = " ".join(Reader(compared).words)
    for kernel in (estimated, gaussian):
        assert f"Relative error against the true one: {kernel_error(kernel, true):.2f}." in words
    assert list(kernel_drawings(page)) == ["Kernel"], "that of profile fast stays alone"
    assert list(kernel_drawings(build_page([replace(subject, true_kernel=true)]))) == [
        "Estimated blur kernel",
        "True blur kernel",
    ]


def test_why_networks_were_fitted_is_said(subject):
    estimated, gaussian = (each.kernel for each in kernels_of(fitted(subject).adapter))
    share = f"differs from the blur’s kernel by {kernel_error(gaussian, estimated):.0%}"
    said = explain.why(fitted(subject).adapter)
    assert said[0] == "Found: blur of 1.5 px: fitted." and share in said[1] and "in 400 steps" in said[1]
    assert said[2].startswith("After the backbone, one round of back-projection adds")
    (_, changing, _) = explain.why(fitted(subject, local_kernels=4).adapter)
    assert changing.startswith("The blur changes across the picture") and "the kernels of its 4 parts" in changing
    bare = Adapter(
        "network", 2, "edge-x2", "0" * 64, {"chosen": "fitted", "steps": "x", "decision": [], "local_kernels": None}
    )
    assert explain.why(bare)[0].startswith("Its kernel is no Gaussian, so the networks were fitted to")


def test_a_true_kernel_is_a_file_or_one_of_a_folder(folder, tmp_path):
    (tmp_path / "kernel").mkdir()
    adapter, true = folder / "photo.darsr", kernels.gaussian(12, 2.0, 1.0, 0.3)
    np.savez(tmp_path / "kernel" / "photo.npz", k0=true)
    command = ("report", adapter, "-o", tmp_path / "r.html", "--overwrite", "--kernel")
    for place in (tmp_path / "kernel" / "photo.npz", tmp_path / "kernel"):
        (image,) = strict_json(done(*command, place, "--json").stdout)["images"]
        assert image["kernel_error"] == pytest.approx(kernel_error(Adapter.load(adapter).arrays["kernel"], true))
        assert "kernel_error_gaussian" not in image
    (tmp_path / "r.html").unlink()
    (tmp_path / "empty").mkdir()
    refused(*command, tmp_path / "empty", name=f"{tmp_path / 'empty'}: holds no kernel named photo")
    refused(*command, folder / "truth.png", name=f"{folder / 'truth.png'}: does not hold kernels")
    two = refused(*command, tmp_path / "kernel" / "photo.npz", adapter, name="--kernel: is one file, and 2 adapters")
    assert two.endswith("give a folder of kernels") and not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    "facts, words",
    [
        ({"chosen_by": "loss"}, "only if it explains the image clearly better"),
        ({}, "only if it explains the image clearly better"),
        ({"chosen_by": ["loss"]}, "only if it explains the image clearly better"),
        ({"chosen_by": "width"}, "far wider or narrower than what the pre-trained one is made for"),
        ({"chosen_by": "amount", "options": {"amount": 0.5}}, "An amount of 0.5 was asked for"),
    ],
)
def test_the_reason_is_that_of_the_choice(facts, words):
    compared = {"camera_probability": 0.0, "chosen": "adapted", "held_out_loss": {"prior": 0.5, "adapted": 0.6}}
    said = explain.why(Adapter("network", 2, "edge-x2", "0" * 64, compared | facts))
    assert words in " ".join(said) and "Chosen: the one for this blur." in said
    nothing = explain.why(Adapter("none", 2, "edge-x2", "0" * 64, facts))[0]
    assert nothing.startswith("Nothing is corrected: " + ("0.5 times the blur" if "options" in facts else "the blur"))


def test_what_networks_were_told_is_said():
    facts = {
        "chosen": "told",
        "decision": "blur of 1.2 px, noise 6: corrected",
        "options": {"denoise": 0.5, "deblock": 1.0},
    }
    facts["found"] = {"blur_px": 1.2, "noise": 6.0, "jpeg_quality": None, "enlarged_before": 1.0}
    adapter = Adapter("network", 2, "edge-x2", "0" * 64, facts)
    said = explain.why(adapter)
    assert said[0] == "Found: blur of 1.2 px, noise 6: corrected." and "50% of the noise" in said[-1]
    rows = dict(explain.facts_table(adapter, (100, 80)))
    assert rows["Noise found, grey levels"] == "6" and "JPEG quality found" not in rows
    odd = Adapter("network", 2, "edge-x2", "0" * 64, {"chosen": "told", "decision": 3, "found": [1], "options": None})
    assert len(explain.why(odd)) == 1


def test_a_benchmark_shows_every_row(page):
    words = " ".join(Reader(page).words)
    expected = ["Measured on Xeon, Orin.", "ort · CPU · fp32", "161 ms", "135.2 dB", "no TensorRT <here>", "trt · fp16"]
    for words_of_it in [*expected, "equal", "201 ms", "29.4 dB", "gpus.0.memory_mb", "start.load"]:
        assert words_of_it in words, words_of_it


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=6))
def test_bars_are_as_long_as_their_values(values):
    read = Reader(bars([Bar(str(i), v, "") for i, v in enumerate(values)], "chart"))
    widths = [float(a["width"]) for a in read.all("rect")]
    if max(values) > 1e-9:
        np.testing.assert_allclose(widths, 100 * np.array(values) / max(values), atol=0.006)


# ---- size


def test_pictures_fit_their_budget():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    free = album({"a": picture, "b": 255 - picture}, 10**6)
    assert free.quality is None and np.array_equal(decoded(free.uris["b"]), 255 - picture)
    tight = album({"a": picture, "b": 255 - picture}, 9000)
    assert tight.size <= 9000 and 50 <= tight.quality < 95 and str(tight.quality) in tight.how()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 10**6))
def test_the_middle_of_a_large_image_keeps_its_proportions(height, width, most):
    rows, columns = middle((height, width), most)
    size = rows.stop - rows.start, columns.stop - columns.start
    assert size == (height, width) if height * width <= most else size[0] * size[1] <= max(most, *size)
    assert rows.start >= 0 and rows.stop <= height and abs((height - rows.stop) - rows.start) <= 1
    assert columns.start >= 0 and columns.stop <= width


@pytest.mark.slow
def test_one_megapixel_stays_under_5_mb(subject):
    """1000 x 1000 enlarged to 2000 x 2000: pictures with the grain of photographs."""
    random = np.random.default_rng(0)
    smooth = cv2.resize(
        random.integers(0, 255, (125, 125, 3)).astype(np.uint8), (2000, 2000), interpolation=cv2.INTER_CUBIC
    )
    grain = random.normal(0, 6, (250, 250, 3))
    grainy = np.clip(smooth + np.tile(grain, (8, 8, 1)), 0, 255).astype(np.uint8)
    pictures = {"bicubic": smooth, "backbone": grainy, "adapted": grainy[::-1]}
    filters = random.normal(1, 0.3, (1000, 1000, 1, 1)).astype(np.float32) * np.eye(5, dtype=np.float32)
    large = build_page([replace(subject, pictures=pictures, filters=filters, lr_size=(1000, 1000))])
    assert len(large.encode()) < 5_000_000
    assert "WebP at quality" in large


# ---- colours


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_bars_stand_out(scheme):
    """WCAG 2, level AA: 4.5 for text, 3 for what is drawn."""
    style = (Path(__file__).parents[3] / "export" / "report" / "viewer.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{(.*?)\}", style, re.S)[scheme]))
    for ground in ("paper", "card"):
        for name, least in {"ink": 7, "faint": 4.5, "accent": 4.5, "adapted": 3, "backbone": 3, "focus": 3}.items():
            light, dark = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, (name, ground)
