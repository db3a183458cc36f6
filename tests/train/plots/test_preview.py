"""Pages to look at: what they show is what the adapter computes, and every kind of adapter and image has one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.covariance import shape_of
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, to_tensor, write_image
from darsr_deploy.images.detail import find_detailed_square
from darsr_train.backbones import load_backbone
from darsr_train.degradation.reduction import reduce
from darsr_train.evaluation.kernel_error import compare_kernels
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.pipeline import GlobalCorrection, correction_of, upscale_with
from darsr_train.plots import page as drawing
from darsr_train.plots.contact_sheet import Entry, draw_sheet, join_crops
from darsr_train.plots.kernels import axis_marks, colour_kernels, kernels_of
from darsr_train.plots.page import Page
from darsr_train.plots.preview import assemble_filters, find, save_preview
from darsr_train.plots.preview_page import draw
from tests.support.commands import done, names, refused, strict_json


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("edge", 2)


def darm_arrays(dictionary: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    return {f"darm.{name}": tensor.numpy() for name, tensor in DARM(dictionary, 8).state_dict().items()}


def adapters(backbone) -> dict[str, Adapter]:
    """One of every kind."""
    taps = np.linspace(-0.1, 0.1, 13).astype(np.float32)
    kernel = np.full((13, 13), 1 / 169, np.float32)
    parts = {
        "none": ("none", {"kernel": kernel}),
        "global": ("global", {"taps": taps, "kernel": kernel}),
        "network": ("network", {**darm_arrays(), "kernel": np.zeros((34, 34), np.float32)}),
        "dictionary": ("network", {**darm_arrays(correction_dictionary()), "kernel": -kernel}),
        "without a kernel": ("network", darm_arrays()),
    }
    facts = {"profile": "fast", "steps": 3, "chosen": "adapted"}
    return {
        name: Adapter(kind, 2, backbone.name, backbone.sha256, facts, content)
        for name, (kind, content) in parts.items()
    }


@pytest.mark.parametrize("kind", ["none", "global", "network", "dictionary", "without a kernel"])
@pytest.mark.parametrize("size, gray", [((1, 1), False), ((2, 7), True), ((60, 40), False)], ids=["dot", "gray", "rgb"])
def test_every_kind_of_adapter_and_image_has_a_page(kind, size, gray, backbone, photo, tmp_path):
    pixels = photo[: size[0], : size[1]]
    write_image(tmp_path / "p.png", pixels[:, :, 0] if gray else pixels)
    save_preview(tmp_path / "p.png", adapters(backbone)[kind], backbone, tmp_path / "page.png")
    page = read_image(tmp_path / "page.png")
    assert page.shape[1] == 3 * 360 + 2 * 20 + 2 * 32 and page.ndim == 3
    assert (page[:20] == 255).all() and (page[:, :20] == 255).all() and (page[-10:] == 255).all()  # margins
    again = tmp_path / "again.png"
    save_preview(tmp_path / "p.png", adapters(backbone)[kind], backbone, again)
    assert again.read_bytes() == (tmp_path / "page.png").read_bytes()


@pytest.mark.parametrize("kind", ["global", "network", "dictionary"])
def test_the_filters_shown_are_those_that_correct(kind, backbone, photo):
    """Each pixel's window, weighed by the filter that is shown for it, gives what the correction gives."""
    lr, correction = photo[:30, :40], correction_of(adapters(backbone)[kind])
    filters = np.broadcast_to(assemble_filters(correction, lr), (30, 40, 5, 5))
    x = torch.from_numpy(to_tensor(lr))
    windows = F.unfold(F.pad(x, (2,) * 4, mode="reflect"), 5).reshape(3, 5, 5, 30, 40).numpy()
    expected = correction(x)[0].detach().numpy()
    np.testing.assert_allclose(np.einsum("hwij,cijhw->chw", filters, windows), expected, rtol=0, atol=2e-5)


def test_before_and_after_are_what_the_commands_give(backbone, photo):
    lr, adapter = photo[:30, :40], adapters(backbone)["global"]
    findings = find(lr, adapter, backbone)
    assert (findings.before == upscale_with(backbone.module, lr)).all()
    both = torch.nn.Sequential(GlobalCorrection(torch.from_numpy(adapter.arrays["taps"])), backbone.module)
    assert (findings.after == upscale_with(both, lr)).all() and (findings.after != findings.before).any()
    assert findings.filters.shape == (1, 1, 5, 5)
    nothing = find(lr, adapters(backbone)["none"], backbone)
    assert nothing.filters is None and (nothing.after == nothing.before).all()


def test_of_a_large_image_the_middle_is_shown(backbone, monkeypatch, photo):
    monkeypatch.setattr("darsr_train.plots.preview._WINDOW", 20)
    findings = find(photo, adapters(backbone)["none"], backbone)
    assert (findings.before == upscale_with(backbone.module, photo[30:50, 38:58])).all()


def test_where_nothing_is_corrected_the_page_says_so_and_shows_no_two_halves(backbone, photo, monkeypatch):
    said = []
    monkeypatch.setattr(Page, "text", lambda page, x, y, words, *rest, **more: said.append(words))
    one = "nothing was corrected: the backbone alone"
    for kind, pixels, expected in (
        ("none", photo, ["bicubic", one, "all of it, 192 x 160 px"]),
        ("none", photo[:30, :40], ["bicubic", one]),
        ("global", photo, ["bicubic", "before: the backbone alone", "after: corrected, then the backbone"]),
    ):
        said.clear()
        page = draw(find(pixels, adapters(backbone)[kind], backbone), "photo", "")
        known = ("bicubic", one, "all of it", "before", "after")
        assert [words for words in said if words.startswith(known)] == expected
        halves = [page[128:488, x : x + 360] for x in (412, 792)]
        assert not np.array_equal(*halves)


def test_the_crops_are_enlarged_a_whole_number_of_times(backbone, photo):
    """At least 256 px on the page, whatever the size of the picture."""
    findings = find(photo, adapters(backbone)["global"], backbone)
    for small in (
        findings,
        replace(findings, **{name: getattr(findings, name)[:50, :33] for name in ("bicubic", "before", "after")}),
    ):
        crop = small.after[find_detailed_square(small.after, 90)]
        zoom = 360 // max(crop.shape[:2])
        assert zoom * max(crop.shape[:2]) >= 256
        panel = draw(small, "", "")[128:488, 792:1152]
        top, left = ((360 - zoom * side) // 2 for side in crop.shape[:2])
        shown = panel[top : top + zoom * crop.shape[0], left : left + zoom * crop.shape[1]]
        assert np.array_equal(shown, crop.repeat(zoom, 0).repeat(zoom, 1))


# ---- kernels


def adapter_of(kernel: np.ndarray, scale: int = 2, **facts: str) -> Adapter:
    return Adapter("none", scale, f"edge-x{scale}", "0" * 64, facts, {"kernel": np.float32(kernel)})


@pytest.mark.parametrize("scale", [2, 4])
def test_a_kernel_of_free_shape_has_its_gaussian_beside_it(scale):
    """Of the same moments about its own centre, wherever that is; a kernel of profile fast is one and stays alone."""
    turned = kernels.motion(14, 6, 0.5, 0.0, 0.8)
    shape = turned if scale == 2 else kernels.twice(turned)
    for facts in ({"chosen": "fitted", "profile": "thorough"}, {"chosen": "iterate 3", "profile": "paper"}):
        estimated, gaussian = kernels_of(adapter_of(np.roll(shape, 1, axis=0), scale, **facts))
        assert (estimated.name, gaussian.name) == ("estimated blur kernel", "Gaussian of the same spread")
        assert np.allclose(estimated.kernel, np.roll(shape, 1, axis=0))
        expected, found = shape_of(shape), shape_of(gaussian.kernel)
        for axis in ("sigma_long", "sigma_short"):  # averaging over the tap's area widens a Gaussian
            assert found[axis] == pytest.approx(expected[axis], rel=0.07)
        assert found["angle"] == pytest.approx(expected["angle"], abs=0.1) and found["down"] == 0
    for facts in ({"profile": "fast", "chosen": "told"}, {"profile": "thorough", "chosen": "told"}, {}):
        assert [each.name for each in kernels_of(adapter_of(shape, scale, **facts))] == ["estimated blur kernel"]


def test_where_no_gaussian_is_like_a_kernel_it_stands_alone():
    dip = kernels.gaussian(14, 1, 1, 0) - 0.5 * kernels.gaussian(14, 3, 3, 0)  # its variance is negative
    for kernel in (-kernels.gaussian(14, 1, 1, 0), np.zeros((14, 14)), dip):
        assert len(kernels_of(adapter_of(kernel, profile="paper"))) == 1
    assert kernels_of(adapter_of(np.ones((3, 4)), profile="paper")) == ()
    assert kernels_of(Adapter("none", 2, "edge-x2", "0" * 64, {"profile": "paper"})) == ()


@pytest.mark.parametrize("scale", [2, 4])
def test_kernels_are_placed_as_reduce_places_them(scale):
    """A single tap at the HR coordinate s * i, of kernels of any size, falls on one place of the window."""
    pictures = []
    for side in (6, 13, 14, 35, 40, 81):
        kernel = np.zeros((side, side), np.float32)
        lead = side // 2 if side % 2 else (side - scale) // 2
        kernel[lead, lead] = 1
        pictures.append(kernel)
        x = torch.arange(float((6 * scale) ** 2)).reshape(1, 1, 6 * scale, 6 * scale)
        assert torch.allclose(reduce(x, torch.from_numpy(kernel), scale), x[..., ::scale, ::scale], atol=1e-3)
    first, *others = colour_kernels(tuple(pictures), scale)
    assert all(np.array_equal(first, other) for other in others) and first.shape == (9 * scale, 9 * scale, 3)
    ((place, _),) = set(zip(*np.nonzero((first != 255).any(2))))
    marks = dict(axis_marks(9 * scale, scale))
    assert place + 0.5 == marks[0] - (scale - 1) / 2 and marks[0] == 4.5 * scale


def test_several_kernels_stand_side_by_side_with_their_errors(backbone, photo, monkeypatch):
    kernel = kernels.motion(14, 6, 0.5, 0.0, 0.8)
    adapter = replace(
        adapters(backbone)["network"], facts={"chosen": "fitted"}, arrays=darm_arrays() | {"kernel": kernel}
    )
    shown = kernels_of(adapter)
    alone, two, three = (
        replace(find(photo[:30, :40], adapter, backbone), kernels=each)
        for each in (shown[:1], shown, compare_kernels(shown, kernels.gaussian(12, 2.0, 1.0, 0)))
    )
    assert [each.name for each in find(photo[:30, :40], adapter, backbone).kernels] == [each.name for each in shown]
    said = []
    monkeypatch.setattr(Page, "text", lambda page, x, y, words, *rest, **more: said.append(words))
    one_row, second, third = (draw(findings, "", "") for findings in (alone, two, three))
    assert second.shape == third.shape and second.shape[0] - one_row.shape[0] > 360
    assert said.count("Gaussian of the same spread") == 2 and said.count("true blur kernel") == 1
    errors = [words for words in said if words.startswith("relative error against the true one: ")]
    assert errors == [f"relative error against the true one: {each.error:.2f}" for each in three.kernels[:2]]
    colours = colour_kernels(tuple(each.kernel for each in three.kernels), 2)
    for x, expected in zip((32, 412, 792), colours):  # a tap in the upper left quarter, which no line crosses
        picture = third[128 + 432 + 28 :, x + 44 :][: 16 * 18, : 16 * 18]
        for tap in ((6, 7), (8, 8), (7, 5)):
            assert (picture[16 * tap[0] + 8, 16 * tap[1] + 8] == expected[tap]).all()


# ---- drawing


def test_enlarging_repeats_pixels_and_reducing_keeps_the_shape(photo):
    assert (drawing.enlarge(photo[:7, :9], 30) == photo[:7, :9].repeat(3, 0).repeat(3, 1)).all()
    assert drawing.enlarge(photo, 48).shape == (40, 48, 3)
    assert drawing.enlarge(photo, 96) is not photo and (drawing.enlarge(photo, 96) == photo).all()


def test_colours_of_zero_and_of_the_ends():
    ends = drawing.map_diverging(np.array([[-9.0, -1, 0, 1, 9]]), 1)[0]
    assert (ends[2] == 255).all() and (ends[0] == ends[1]).all() and (ends[3] == ends[4]).all()
    assert ends[0, 0] > ends[0, 2] and ends[4, 2] > ends[4, 0]  # red below, blue above
    assert (drawing.map_diverging(np.zeros((2, 2)), 0.0) == 255).all()
    ramp = drawing.map_sequential(np.linspace(0, 1, 9)[None], 0, 1)[0].astype(int)
    assert (np.diff(ramp.sum(1)) > 0).all(), "brighter is more"


def test_a_sheet_holds_the_crop_of_the_most_detailed_place(photo):
    flat = np.full((200, 220, 3), 128, np.uint8)
    truth = flat.copy()
    truth[90:162, 100:172] = photo[:72, :72]
    images = {"bicubic": flat, "backbone": truth[:, :, ::-1], "truth": truth}
    strip = join_crops(images)
    assert strip.shape == (72, 3 * 72, 3)
    difference = [(images[name].astype(int) - flat).any(2).sum() for name in ("backbone", "truth")]
    shown = [(strip[:, i * 72 : (i + 1) * 72].astype(int) - 128).any(2).sum() for i in (1, 2)]
    assert shown[1] > 0.95 * difference[1] and shown[0] == shown[1]
    entries = [Entry(str(i), "+1.00 dB", strip, ("a", "b", "")) for i in range(9)]
    single, double = (
        draw_sheet("title", "remark", ("bicubic", "backbone", "truth"), e) for e in (entries[:8], entries)
    )
    assert double.shape[1] > 1.9 * single.shape[1] and double.shape[0] < single.shape[0]
    panel = drawing.enlarge(strip[:, 144:], 216)
    found = [
        top for top in range(single.shape[0] - 216) if (single[top : top + 216, 32 + 448 : 32 + 664] == panel).all()
    ]
    assert len(found) == 8  # all of them, one below the other


# ---- the command


def test_adapt_writes_a_page_for_each_image(photo, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.png", photo[:40, :44])
    brief = ("--steps", "1", "--device", "cpu", "--threads", "1")
    rows = strict_json(done("adapt", tmp_path / "in", *brief, "--preview", tmp_path / "out", "--json").stdout)
    assert names(tmp_path / "out") == {"a_preview.png", "b_preview.png"} and len(rows) == 2
    image = tmp_path / "in" / "a.png"
    done("adapt", image, *brief, "--overwrite", "--preview", tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes() == (tmp_path / "out" / "a_preview.png").read_bytes()
    (tmp_path / "in" / "a.darsr").unlink()
    command = ("adapt", image, *brief, "--preview", tmp_path / "page.png")
    assert "--overwrite" in refused(*command, name=tmp_path / "page.png")
    assert names(tmp_path / "in") == {"a.png", "b.png", "b.darsr"}, "the work began before its outputs were checked"


def test_a_true_kernel_is_drawn_if_it_is_given(photo, tmp_path, monkeypatch):
    image, page, true = tmp_path / "a.png", tmp_path / "page.png", tmp_path / "k.npz"
    write_image(image, photo)
    np.savez(true, k0=kernels.gaussian(12, 1.5, 1.0, 0))
    command = ("adapt", image, "--device", "cpu", "--threads", "1", "--kernel", true)
    refused(*command, name="--kernel: is drawn on the page of --preview alone")
    refused(*command, image.parent, "--preview", tmp_path, name="--kernel: applies to one image")
    refused(*command[:-1], image, "--preview", page, name=f"{image}: does not hold kernels")
    refused(
        *command[:-1], tmp_path / "no.npz", "--preview", page, name=f"{tmp_path / 'no.npz'}: there is no true kernel"
    )
    refused(*command, "--preview", true, "--overwrite", name=true)
    assert names(tmp_path) == {"a.png", "k.npz"}, "the work began before its inputs were checked"
    said = []
    monkeypatch.setattr(Page, "text", lambda page, x, y, words, *rest, **more: said.append(words))
    done(*command, "--preview", page)
    assert "true blur kernel" in said and any(words.startswith("relative error") for words in said)
