"""Networks of others as ONNX files: what is taken and refused, that they run as they are, and that they are exported whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from torch import nn

from darsr_deploy.engines import trial
from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.images.arrays import read_image, write_image
from darsr_train.backbones import EdgeSR, describe, load_backbone, save_backbone
from darsr_train.backbones.onnx_cost import bytes_moved
from darsr_train.backbones.onnx_file import read_onnx
from darsr_train.backbones.onnx_network import check_contract
from darsr_train.backbones.probe import check_range, picture, probe_scale
from darsr_train.pipeline import GlobalCorrection, Pipeline
from export.artefacts.model import export_onnx
from export.artefacts.parity import natural_noise
from export.onnx_graphs.build import build_model
from tests.support.commands import darsr, done
from tests.support.onnx_models import ENLARGE, convolutional, onnx_model
from tests.support.shared import needs_shared, srfbn


@pytest.fixture
def path(tmp_path):
    return tmp_path / "theirs.onnx"


class Deconvolution(nn.Module):
    """A bilinear enlargement and what a transposed convolution adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8)
        self.up = nn.ConvTranspose2d(8, 3, 8, 4, 2)
        nn.init.normal_(self.up.weight, std=0.01)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return F.interpolate(picture, scale_factor=4, mode="bilinear") + self.up(self.act(self.head(picture)))


# --- What is taken -------------------------------------------------------------------------------------------------------


def test_what_pytorch_exports_by_default_is_taken(path):
    """Its weights lie in a second file, which belongs to the network as much as the first."""
    torch.manual_seed(0)
    network = Deconvolution().eval()
    axes = {axis: torch.export.Dim(name, min=2) for axis, name in ((0, "n"), (2, "height"), (3, "width"))}
    example = (torch.rand(2, 3, 16, 20),)
    torch.onnx.export(network, example, path, dynamic_shapes={"picture": axes}, dynamo=True, verbose=False)
    weights = path.with_name("theirs.onnx.data")
    assert weights.is_file()
    backbone = load_backbone(str(path), 4)
    assert (backbone.name, backbone.architecture, backbone.scale) == ("theirs", "onnx", 4)
    assert backbone.sha256 == hashlib.sha256(path.read_bytes() + weights.read_bytes()).hexdigest()
    x = torch.rand(2, 3, 9, 13)
    with torch.no_grad():
        torch.testing.assert_close(backbone.module(x), network(x), rtol=1e-4, atol=1e-5)
    facts = describe(backbone)
    assert facts["macs_per_lr_pixel"] == 8 * 3 * 9 + 8 * 3 * 64
    assert {"Conv", "ConvTranspose", "PRelu"} <= set(facts["operators"])
    weights.unlink()
    with pytest.raises(DarsrError, match=r"theirs\.onnx: is not a usable ONNX file"):
        load_backbone(str(path), 4)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_scale_is_found_by_running_it(scale, path):
    onnx.save(onnx_model(scale=scale), path)
    backbone = load_backbone(str(path), None)
    assert backbone.scale == backbone.module.scale == scale
    x = torch.rand(3, 3, 5, 7)
    assert torch.equal(backbone.module(x), F.interpolate(x, scale_factor=scale))
    with pytest.raises(
        DarsrError, match=f"is a backbone for scale {scale}, asked for {6 - scale}; use --scale {scale}"
    ):
        load_backbone(str(path), 6 - scale)


def test_a_fixed_batch_of_one_runs_one_by_one(path):
    onnx.save(onnx_model(takes="float[1, 3, h, w] picture", gives="float[1, 3, hh, ww] big"), path)
    x = torch.rand(3, 3, 5, 7)
    assert torch.equal(load_backbone(str(path), 2).module(x), F.interpolate(x, scale_factor=2))


def test_a_network_of_ours_is_the_same_as_an_onnx_file(path):
    network = load_backbone("edge", 2)
    onnx.save(build_model(Pipeline(nn.Identity(), network.module)), path)
    foreign = load_backbone(str(path), 2)
    x = torch.rand(1, 3, 12, 17)
    torch.testing.assert_close(foreign.module(x), network.module(x).clamp(0, 1), rtol=0, atol=1e-5)
    ours, theirs = describe(network), describe(foreign)
    # the fixed 1x1 convolution of the nearest-neighbour skip is all that is added: 3 to 12 channels
    assert theirs["macs_per_lr_pixel"] == ours["macs_per_lr_pixel"] + 36


def test_cost_is_counted_as_by_hand(path):
    onnx.save(convolutional(), path)
    facts = describe(load_backbone(str(path), 2))
    assert facts["parameters"] == 8 * 27 + 8 + 8 * 3 * 36 + 12
    assert facts["macs_per_lr_pixel"] == 8 * 27 + 8 * 3 * 36 + 3 * 4
    assert facts["gradients"] is False


def test_cost_is_left_open_where_shapes_cannot_be_known(path):
    """How many pixels are bright is known only when it runs."""
    counted = """
        bright = Greater (picture, half)
        places = NonZero (bright)
        numbers = Cast <to = 1> (places)
        turned = Transpose (numbers)
        unused = MatMul (numbers, turned)
    """
    onnx.save(onnx_model(counted + ENLARGE, half=np.float32([0.5])), path)
    assert describe(load_backbone(str(path), 2))["macs_per_lr_pixel"] is None


def test_bytes_are_those_of_the_operators_counted_by_hand():
    """convolutional(): per LR pixel its values are 3, 8, 8, 3 x 4 (detail), 3 x 4 (coarse), 3 x 4 (sum), of 4 bytes."""
    model = convolutional()
    moved = (3 + 8) + (8 + 8) + (8 + 12) + (3 + 12) + (12 + 12 + 12)
    assert bytes_moved(model) == 4 * moved == bytes_moved(model, 20)
    half = onnx_model("wide = Cast <to = 10> (picture)\nbig = Cast <to = 1> (wide)", gives="float[n, 3, h, w] big")
    assert bytes_moved(half) == 3 * (4 + 2) + 3 * (2 + 4)
    unknown = onnx_model("big = Mystery (picture)")
    assert bytes_moved(unknown) is None


def test_weights_of_float16_compute_in_float32(path):
    onnx.save(FOREIGN["float16"](), path)
    x = torch.rand(2, 3, 5, 7)
    expected = F.interpolate(x, scale_factor=2) * np.float16(0.9).item()
    torch.testing.assert_close(load_backbone(str(path), 2).module(x), expected)


@pytest.mark.parametrize("size", [(5, 7), (6, 7), (6, 8), (3, 3)])
def test_a_network_for_even_sizes_takes_any(size, path):
    """The last row and column are repeated, and what comes of them is cut off."""
    onnx.save(unshuffle(), path)
    x = torch.rand(2, 3, *size)
    even = F.pad(x, (0, size[1] % 2, 0, size[0] % 2), mode="replicate")
    (expected,) = onnxruntime.InferenceSession(str(path)).run(None, {"picture": even.numpy()})
    sr = load_backbone(str(path), 2).module(x)
    assert torch.equal(sr, torch.from_numpy(expected[:, :, : 2 * size[0], : 2 * size[1]]))


def external(path, where: str = "initializer", location: str = "weights.bin"):
    """The enlargement with its weights in a file beside it, as an initializer or as a constant in the graph."""
    model = onnx_model()
    array = np.ones((3, 1, 2, 2), np.float32)
    if where == "constant":
        del model.graph.initializer[:]
        model.graph.node.insert(
            0, onnx.helper.make_node("Constant", [], ["weight"], value=numpy_helper.from_array(array))
        )
        tensor = model.graph.node[0].attribute[0].t
    else:
        tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return array.tobytes()


@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_the_checksum_covers_weights_wherever_they_are_named(where, path):
    weights = external(path, where)
    path.with_name("weights.bin").write_bytes(weights)
    backbone = load_backbone(str(path), 2)
    assert backbone.sha256 == hashlib.sha256(path.read_bytes() + weights).hexdigest()
    path.with_name("weights.bin").write_bytes((0.9 * np.frombuffer(weights, np.float32)).tobytes())
    assert load_backbone(str(path), 2).sha256 != backbone.sha256


def test_a_download_cache_of_links_is_taken(tmp_path):
    """models--A--B/snapshots/REVISION/onnx/model.onnx and its weights are links into models--A--B/blobs."""
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123" / "onnx"
    weights = external(blobs / "aaaa")
    (blobs / "bbbb").write_bytes(weights)
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").symlink_to("../../../blobs/aaaa")
    (snapshot / "weights.bin").symlink_to("../../../blobs/bbbb")
    backbone = load_backbone(str(snapshot / "model.onnx"), 2)
    assert backbone.sha256 == hashlib.sha256((blobs / "aaaa").read_bytes() + weights).hexdigest()
    (snapshot / "weights.bin").unlink()
    (tmp_path / "elsewhere").write_bytes(weights)
    (snapshot / "weights.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DarsrError, match=r"is not a usable ONNX file \(weights.bin is a link out of its folder\)"):
        load_backbone(str(snapshot / "model.onnx"), 2)


@pytest.mark.parametrize("kind", ["initializer", "constant"])
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:/secret", ""])
def test_a_model_names_no_file_outside_of_its_folder(location, kind, tmp_path):
    (tmp_path / "secret").write_bytes(external(tmp_path / "m" / "theirs.onnx", kind, location))
    with pytest.raises(DarsrError, match=r"theirs\.onnx: .*it names weights outside of its folder"):
        load_backbone(str(tmp_path / "m" / "theirs.onnx"), 2)


# --- What is refused -----------------------------------------------------------------------------------------------------

PICTURE = "float[n, 3, h, w] picture"
BIG = "float[n, 3, hh, ww] big"
REFUSED = {
    "fixed size": (
        lambda: onnx_model(takes="float[n, 3, 32, 48] picture"),
        r"its input is n x 3 x 32 x 48: height, width or batch size is fixed; export it again",
    ),
    "fixed batch": (
        lambda: onnx_model(takes="float[4, 3, h, w] picture"),
        "its input is 4 x 3 x h x w: height, width or",
    ),
    "fixed inside": (
        lambda: onnx_model(
            f"same = Reshape (picture, shape)\n{ENLARGE.replace('(picture', '(same')}", shape=np.array([2, 3, 24, 20])
        ),
        r"does not run on 2 x 3 x 17 x 30 \(",
    ),
    "gray": (
        lambda: onnx_model(
            ENLARGE.replace("3>", "1>"), takes="float[n, 1, h, w] picture", weight=np.ones((1, 1, 2, 2), np.float32)
        ),
        "its input is n x 1 x h x w, expected N x 3 x H x W",
    ),
    "channels last": (
        lambda: onnx_model(
            "first = Transpose <perm = [0, 3, 1, 2]> (picture)\n" + ENLARGE.replace("(picture", "(first"),
            takes="float[n, h, w, 3] picture",
        ),
        r"its input is n x h x w x 3: it takes and gives the channels last \(N x H x W x 3\), expected N x 3 x H x W",
    ),
    "channels last, of no stated sizes": (
        lambda: onnx_model(
            "first = Transpose <perm = [0, 3, 1, 2]> (picture)\n"
            + ENLARGE.replace("(picture", "(first").replace("big", "last")
            + "\nbig = Transpose <perm = [0, 2, 3, 1]> (last)",
            takes="float[a, b, c, d] picture",
            gives="float[aa, bb, cc, dd] big",
        ),
        r"takes and gives the channels last \(N x H x W x 3\)",
    ),
    "gray out": (
        lambda: onnx_model(
            ENLARGE.replace("big", "all") + "\nbig = ReduceMean (all, axes)",
            axes=np.array([1]),
            gives="float[n, 1, hh, ww] big",
        ),
        r"gives \(2, 1, 48, 40\) for \(2, 3, 24, 20\), expected 2 images of 3 channels",
    ),
    "scale 3": (lambda: onnx_model(scale=3), "enlarges 3 times; give a network for scale 2 or 4"),
    "scale 1": (lambda: onnx_model("big = Identity (picture)"), "enlarges 1 times"),
    "another height than width": (
        lambda: onnx_model(ENLARGE.replace("[{scale}, {scale}]", "[2, 4]"), weight=np.ones((3, 1, 2, 4), np.float32)),
        "which is not a whole-number enlargement",
    ),
    "a border is missing": (
        lambda: onnx_model(ENLARGE.replace("group", "pads = [1, 1, 1, 1], group")),
        "which is not a whole-number enlargement",
    ),
    "double precision": (
        lambda: onnx_model(
            takes="double[n, 3, h, w] picture",
            gives="double[n, 3, hh, ww] big",
            weight=np.ones((3, 1, 2, 2), np.float64),
        ),
        "its input is double, expected float32 or float16",
    ),
    "bytes out": (
        lambda: onnx_model(ENLARGE.replace("big", "b") + "\nbig = Cast <to = 2> (b)", gives="uint8[n, 3, hh, ww] big"),
        "its output is uint8, expected float32 or float16",
    ),
    "two inputs": (
        lambda: onnx_model(ENLARGE.replace("big", "b") + "\nbig = Mul (b, noise)", takes=f"{PICTURE}, float[1] noise"),
        "has 2 inputs and 1 outputs, expected one of each",
    ),
    "two outputs": (
        lambda: onnx_model(ENLARGE + "\nsame = Identity (picture)", gives=f"{BIG}, float[n, 3, h, w] same"),
        "has 1 inputs and 2 outputs",
    ),
    "NaN": (lambda: onnx_model(weight=np.full((3, 1, 2, 2), np.nan, np.float32)), "gives NaN or infinity"),
    "bytes": (
        # what is darker than 8 becomes 8: nothing in [0, 255], everything in [0, 1]
        lambda: onnx_model(
            "less = Sub (picture, dark)\ncut = Relu (less)\nmore = Add (cut, dark)\n"
            + ENLARGE.replace("(picture", "(more"),
            dark=np.float32([[[[8.0]]]]),
        ),
        r"works on pictures in \[0, 255\], expected \[0, 1\] .*; export it with its scaling inside",
    ),
    "untrained": (
        lambda: onnx_model(weight=np.zeros((3, 1, 2, 2), np.float32)),
        r"does not give back a picture in \[0, 1\] \(\d\.\d dB\): it is not trained",
    ),
    "unknown operator": (
        lambda: onnx_model("big = Enlarge (picture)"),
        "is not a usable ONNX file|cannot load it",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_breaks_the_contract_is_named_in_one_line(kind, path):
    make, message = REFUSED[kind]
    onnx.save(make(), path)
    with pytest.raises(DarsrError, match=rf"^{re.escape(str(path))}: .*({message})") as caught:
        load_backbone(str(path), 2)
    assert "; " in str(caught.value), "no way out"


ENDLESS = """
    most = ReduceMax <keepdims = 0> (picture)
    yes = Greater (most, limit)
    far = Loop (times, yes, most) <body = b (int64 i, bool go, float v) => (bool again, float more) {
        again = Identity (go)
        more = Add (v, v) }>
    none = Mul (far, limit)
"""


@pytest.mark.parametrize("where", ["graph", "branch", "function"])
def test_loops_are_refused_wherever_they_are(where, path):
    body, functions = ENDLESS + ENLARGE.replace("big", "b") + "\nbig = Add (b, none)", ""
    if where == "branch":
        loop = ENDLESS.replace("yes = ", "sure = ").replace("yes", "sure").replace("most", "top")
        branch = f"then_branch = t () => (float none) {{ {loop} }}, else_branch = e () => (float o) {{ o = Identity (limit) }}"
        body = f"most = ReduceMax <keepdims = 0> (picture)\nyes = Greater (most, limit)\nmore = If (yes) <{branch}>\n"
        body += ENLARGE.replace("big", "b") + "\nbig = Add (b, more)"
    if where == "function":
        functions = '<domain: "local", opset_import: ["" : 18]>\nf (picture, limit, times) => (none) {' + ENDLESS + "}"
        body = "none = local.f (picture, limit, times)\n" + ENLARGE.replace("big", "b") + "\nbig = Add (b, none)"
    model = onnx_model(body, functions=functions, limit=np.float32(0.5), times=np.int64(2**62))
    onnx.save(model, path)
    done = darsr("backbone", "info", path)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"error: {path}: holds Loop nodes, which may run for ever; export it without loops\n"


def test_functions_that_multiply_are_refused(path):
    lines = "".join(
        f'<domain: "local", opset_import: ["" : 18, "local" : 1]>\nf{i} (x) => (z) {{ y = local.f{i - 1} (x)\n z = local.f{i - 1} (y) }}\n'
        for i in range(1, 30)
    )
    first = '<domain: "local", opset_import: ["" : 18]>\nf0 (x) => (z) { z = Identity (x) }\n'
    model = onnx_model("same = local.f29 (picture)\n" + ENLARGE.replace("(picture", "(same"), functions=first + lines)
    onnx.save(model, path)
    with pytest.raises(DarsrError, match=r"its functions call each other more than 100,000 times"):
        load_backbone(str(path), 2)


LARGE = """
    wide = ConstantOfShape <value = float[1] {1.0}> (size)
    most = ReduceMax <keepdims = 0> (picture)
    more = Mul (wide, most)
    product = MatMul (more, more)
    second = MatMul (product, product)
    third = MatMul (second, second)
    top = ReduceMax <keepdims = 0> (third)
    none = Sub (top, top)
    enlarged = ConvTranspose <strides = [2, 2], group = 3> (picture, weight)
    big = Add (enlarged, none)
"""


def test_a_network_that_takes_too_much_time_is_stopped(path, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 2)
    onnx.save(onnx_model(LARGE, size=np.array([8000, 8000])), path)
    with pytest.raises(
        DarsrError, match=r"theirs.onnx: does not enlarge a picture of 20x24 pixels in 2 seconds; give a"
    ):
        load_backbone(str(path), 2)


def test_a_network_that_takes_too_much_memory_is_stopped(path):
    onnx.save(onnx_model(LARGE, size=np.array([200_000, 200_000])), path)
    with pytest.raises(
        DarsrError, match=r"theirs.onnx: needs more than 4 GB of memory for a picture of 20x24 pixels; "
    ):
        load_backbone(str(path), 2)


def test_a_network_that_crashes_the_runtime_is_one_line(path, monkeypatch):
    crashed = subprocess.CompletedProcess([], -11, b"", b"Segmentation fault\n")
    monkeypatch.setattr(trial.subprocess, "run", lambda *_, **__: crashed)
    onnx.save(onnx_model(), path)
    with pytest.raises(DarsrError, match=r"ONNX Runtime crashes on it \(exit code -11: Segmentation fault\)"):
        load_backbone(str(path), 2)


def test_a_damaged_file_is_refused_or_still_a_model(path):
    """A byte changed at random: no other exception than that of a line."""
    random, data = np.random.default_rng(0), bytearray(convolutional().SerializeToString())
    for _ in range(500):
        damaged = bytearray(data)
        damaged[random.integers(len(data))] = random.integers(256)
        path.write_bytes(damaged[: random.integers(len(data)) if random.random() < 0.2 else None])
        with contextlib.suppress(DarsrError):
            check_contract(read_onnx(path)[0], str(path))


@pytest.mark.parametrize(
    "content", [b"", b"no model", b"\x08\x08", b"\x00" * 50], ids=["empty", "text", "cut", "zeros"]
)
def test_what_is_no_onnx_file_is_one_line(content, path):
    path.write_bytes(content)
    done = darsr("backbone", "info", path)
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(f"error: {path}: is not a usable ONNX file")


def test_an_adapted_model_is_no_backbone(path):
    correction = GlobalCorrection(torch.tensor([0.01] * 12 + [0.76]))
    export_onnx(Pipeline(correction, EdgeSR(2, channels=4, blocks=1).eval()), path, ModelSpec(2, form="global"))
    with pytest.raises(
        DarsrError, match=r"is an adapted model: its correction is inside; run it with darsr infer --model"
    ):
        load_backbone(str(path), 2)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_what_is_not_installed_is_named(package, path, monkeypatch):
    onnx.save(onnx_model(), path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DarsrError, match=rf"{package}.*pip install"):
        load_backbone(str(path), 2)


@needs_shared
def test_a_published_network_in_bytes_is_told_from_one_in_zero_to_one():
    """The probe's threshold on trained networks: SRFBN-S as it was published works in [0, 255], and any network can be made to."""
    for network in (srfbn(2).module, srfbn(4).module, load_backbone("edge", 2).module):
        scale = network.scale

        def run(lr, factor=1.0, network=network):
            with torch.no_grad():
                return network(torch.from_numpy(lr) / factor).numpy() * factor

        assert probe_scale(run, "ours") == scale
        check_range(run, "ours", scale)
        with pytest.raises(DarsrError, match=r"works on pictures in \[0, 255\]"):
            check_range(lambda lr, run=run: run(lr, 255), "theirs", scale)


def test_the_picture_of_the_probe_is_a_picture():
    probe = picture(17, 30)
    assert probe.shape == (1, 3, 17, 30) and probe.dtype == np.float32
    assert 0 <= probe.min() < 0.25 and 0.75 < probe.max() <= 1


# --- Without gradients ---------------------------------------------------------------------------------------------------


def test_no_gradient_passes_silently(path):
    onnx.save(onnx_model(), path)
    network = load_backbone(str(path), 2).module
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    with pytest.raises(DarsrError, match="gives no gradients, and a loss asks for them"):
        network(x)
    with torch.no_grad():
        assert network(x).shape == (1, 3, 16, 16)


@pytest.fixture
def image(photo, tmp_path):
    write_image(tmp_path / "photo.png", photo)
    return tmp_path / "photo.png"


def test_paper_needs_gradients_and_says_so_at_once(photo, path, tmp_path):
    onnx.save(onnx_model(), path)
    write_image(tmp_path / "large.png", np.tile(photo, (2, 2, 1)))
    done = darsr("adapt", tmp_path / "large.png", "--profile", "paper", "--backbone", path)
    assert done.exit_code == 1
    assert done.stderr == (
        "error: profile paper: needs gradients through the backbone, and an ONNX model gives none; "
        "use --profile fast, or give PyTorch weights\n"
    )


# --- The whole way -------------------------------------------------------------------------------------------------------


def test_adapt_infer_and_export_through_an_onnx_file(image, path, tmp_path, monkeypatch):
    onnx.save(convolutional(), path)
    through = ("--backbone", path)
    done = darsr("adapt", image, *through, "--steps", 2, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["backbone"] == "theirs"
    adapter = Adapter.load(tmp_path / "photo.darsr")
    assert (adapter.backbone, adapter.backbone_sha256) == ("theirs", hashlib.sha256(path.read_bytes()).hexdigest())
    # a second run gives the same bytes
    assert (
        darsr("adapt", image, *through, "--steps", 2, "--device", "cpu", "-o", tmp_path / "again.darsr").exit_code == 0
    )
    assert (tmp_path / "again.darsr").read_bytes() == (tmp_path / "photo.darsr").read_bytes()
    facts = json.loads(darsr("export", tmp_path / "photo.darsr", *through, "--json").stdout)
    assert facts["parity_psnr_db"] > 100
    ways = {
        "ort": through,
        "torch": (*through, "--engine", "torch"),
        "model": ("--model", tmp_path / "photo.onnx"),
    }
    results = {}
    for name, arguments in ways.items():
        done = darsr("infer", image, *arguments, "-o", tmp_path / f"{name}.png")
        assert done.exit_code == 0, done.stderr
        results[name] = read_image(tmp_path / f"{name}.png").astype(int)
    assert np.abs(results["ort"] - results["torch"]).max() <= 1
    assert np.abs(results["model"] - results["torch"]).max() <= 1
    # without the file the adapter is of no use, and says what it needs; another file is noticed
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "empty"))  # what was exported from it still runs
    line = darsr("infer", image).stderr
    assert "was fitted through the backbone theirs, which is not installed; give its file with --backbone" in line
    onnx.save(convolutional(seed=1), path)
    assert (
        "was fitted through another theirs" in darsr("export", tmp_path / "photo.darsr", *through, "--overwrite").stderr
    )


@pytest.mark.parametrize("engine", ["ort", "torch"])
def test_an_onnx_backbone_alone_at_its_own_scale(engine, image, photo, path, tmp_path):
    onnx.save(onnx_model(scale=4), path)
    done = darsr("infer", image, "--no-adapter", "--backbone", path, "--engine", engine, "-o", tmp_path / "out.png")
    assert done.exit_code == 0, done.stderr
    assert np.array_equal(read_image(tmp_path / "out.png"), photo.repeat(4, 0).repeat(4, 1))


def test_a_network_for_even_sizes_is_run_and_exported_at_odd_ones(photo, path, tmp_path):
    """Its multiply-adds cannot be counted, and its tiles are not known: the files say so by leaving them out."""
    onnx.save(unshuffle(), path)
    write_image(tmp_path / "photo.png", photo[:61, :75])
    pictures = []
    for engine in ("ort", "torch"):
        alone = ("--no-adapter", "--backbone", path, "--engine", engine)
        done("infer", tmp_path / "photo.png", *alone, "-o", tmp_path / f"{engine}.png")
        pictures.append(read_image(tmp_path / f"{engine}.png").astype(int))
    assert pictures[0].shape == (122, 150, 3) and np.abs(pictures[0] - pictures[1]).max() <= 1
    Adapter("none", 2, "theirs", hashlib.sha256(path.read_bytes()).hexdigest()).save(tmp_path / "photo.darsr")
    said = done("export", tmp_path / "photo.darsr", "--backbone", path, "-o", tmp_path / "m.onnx").stdout
    assert "dB from PyTorch" in said and "multiply-adds" not in said


def test_weights_of_ours_under_another_suffix_are_still_ours(path):
    target = path.with_suffix(".safetensors")
    save_backbone(EdgeSR(2, channels=4, blocks=1), target, {})
    assert load_backbone(str(target), 2).architecture == "edge"


# --- One file out of two -------------------------------------------------------------------------------------------------

HALF = np.float32([[[[0.5]]]])


def unshuffle(opset: int = 18, picture: str = "picture", big: str = "big") -> onnx.ModelProto:
    """As Real-ESRGAN at x2: cells of 2 x 2 pixels become channels, and each of their positions 4 x 4 pixels."""
    kernel = 0.001 * np.random.default_rng(0).standard_normal((48, 12, 3, 3))
    for row, column, colour in np.ndindex(4, 4, 3):  # nearest neighbour, in the order of DepthToSpace
        kernel[(4 * row + column) * 3 + colour, (row // 2 * 2 + column // 2) * 3 + colour, 1, 1] += 1
    body = f"""
        cells = SpaceToDepth <blocksize = 2> ({picture})
        phases = Conv <pads = [1, 1, 1, 1]> (cells, kernel)
        {big} = DepthToSpace <blocksize = 4> (phases)
    """
    takes, gives = f"float[n, 3, h, w] {picture}", f"float[n, 3, hh, ww] {big}"
    return onnx_model(body, takes=takes, gives=gives, opset=opset, kernel=kernel.astype(np.float32))


FOREIGN = {
    "plain": lambda: onnx_model(),
    "convolutional": convolutional,
    # names that our own graph uses, and the input's used for the output
    "names": lambda: onnx_model(
        "corrected = Identity (sr)\nlr = ConvTranspose <strides = [2, 2], group = 3> (corrected, weight)",
        takes="float[n, 3, h, w] sr",
        gives="float[n, 3, hh, ww] lr",
    ),
    # axes were an attribute before opset 18: has to be converted
    "old opset": lambda: onnx_model(
        "gray = ReduceMean <axes = [1], keepdims = 1> (picture)\nless = Sub (picture, gray)\nmore = Add (less, gray)\n"
        + ENLARGE.replace("(picture", "(more"),
        opset=11,
    ),
    # came with opset 20: the rest has to follow
    "new opset": lambda: onnx_model(
        "curved = Gelu (picture)\nnone = Sub (curved, curved)\nsame = Add (picture, none)\n"
        + ENLARGE.replace("(picture", "(same"),
        opset=20,
        ir_version=9,
    ),
    # a branch that uses the input and makes the output
    "branch": lambda: onnx_model(
        """
        most = ReduceMax <keepdims = 0> (picture)
        bright = Greater (most, limit)
        big = If (bright) <
            then_branch = t () => (float[n, 3, a, b] one) { one = ConvTranspose <strides = [2, 2], group = 3> (picture, weight) },
            else_branch = e () => (float[n, 3, a, b] two) { two = ConvTranspose <strides = [2, 2], group = 3> (picture, weight) }
        >
        """,
        limit=np.float32(0.5),
    ),
    "function": lambda: onnx_model(
        "same = local.f (picture, half)\n" + ENLARGE.replace("(picture", "(same"),
        functions='<domain: "local", opset_import: ["" : 18]>\nf (x, y) => (z) { lr = Mul (x, y)\n z = Add (lr, lr) }',
        half=HALF,
    ),
    "linear Resize of opset 10": lambda: onnx_model(
        'big = Resize <mode = "linear"> (picture, scales)', opset=10, scales=np.float32([1, 1, 2, 2])
    ),
    "linear Upsample of opset 9": lambda: onnx_model(
        'big = Upsample <mode = "linear"> (picture, scales)', opset=9, scales=np.float32([1, 1, 2, 2])
    ),
    "nearest Upsample of opset 9": lambda: onnx_model(
        'big = Upsample <mode = "nearest"> (picture, scales)', opset=9, scales=np.float32([1, 1, 2, 2])
    ),
    "float16": lambda: onnx_model(
        "wide = Cast <to = 1> (picture)\nsame = Cast <to = 10> (wide)\n" + ENLARGE.replace("(picture", "(same"),
        takes="float16[n, 3, h, w] picture",
        gives="float16[n, 3, hh, ww] big",
        weight=np.full((3, 1, 2, 2), 0.9, np.float16),
    ),
    "float16 in, float32 out": lambda: onnx_model(
        ENLARGE.replace("big", "half") + "\nbig = Cast <to = 1> (half)",
        takes="float16[n, 3, h, w] picture",
        weight=np.ones((3, 1, 2, 2), np.float16),
    ),
    "unshuffle": unshuffle,
    "unshuffle of opset 10": lambda: unshuffle(opset=10),
    # names that padding might use
    "unshuffle with names": lambda: unshuffle(picture="shape", big="pads"),
    "batch of one": lambda: onnx_model(takes="float[1, 3, h, w] picture", gives="float[1, 3, hh, ww] big"),
    "weights among the inputs": lambda: onnx_model(
        takes="float[n, 3, h, w] picture, float[3, 1, 2, 2] weight", ir_version=3
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_graphs_are_merged_into_one_file_that_computes_the_same(kind, path, tmp_path):
    onnx.save(FOREIGN[kind](), path)
    network = load_backbone(str(path), 2).module
    correction = GlobalCorrection(torch.tensor([0.01] * 12 + [0.76]))
    pipeline = Pipeline(correction, network).eval()
    model = tmp_path / "m.onnx"
    assert export_onnx(pipeline, model, ModelSpec(2, form="global"))["parity_psnr_db"] > 100
    proto = onnx.load(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["lr", "sr"]
    assert not proto.functions, "a global correction is a plain depthwise convolution"
    opset = next(entry.version for entry in proto.opset_import if entry.domain == "")
    assert opset == (20 if kind == "new opset" else 18)
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert (batch.dim_value == 1) == (kind == "batch of one")
    lr = natural_noise(19, 26)
    with OrtEngine(model) as engine:
        assert (engine.spec.scale, engine.spec.opset) == (2, opset)
        np.testing.assert_allclose(engine.run(lr), pipeline(torch.from_numpy(lr)).numpy(), rtol=0, atol=1e-5)


def test_the_merged_file_is_the_same_every_time_and_tells_nothing_of_this_machine(path, tmp_path):
    model = convolutional()
    model.graph.node[0].doc_string = model.doc_string = str(path)
    model.graph.node[0].metadata_props.add(key="trace", value=str(path))
    onnx.save(model, path)
    network = load_backbone(str(path), 2).module
    for name in ("a.onnx", "b.onnx"):
        export_onnx(Pipeline(nn.Identity(), network), tmp_path / name, ModelSpec(2, form="none"))
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "b.onnx").read_bytes()
    assert str(tmp_path).encode() not in data


def test_an_opset_that_cannot_be_converted_is_one_line(path, tmp_path, monkeypatch):
    onnx.save(onnx_model(opset=11), path)
    network = load_backbone(str(path), 2).module

    def fails(*_: object):
        raise RuntimeError("no adapter for Old")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fails)
    with pytest.raises(
        DarsrError, match=r"theirs\.onnx: cannot be converted from opset 11 to 18 \(no adapter for Old\)"
    ):
        export_onnx(Pipeline(nn.Identity(), network), tmp_path / "m.onnx", ModelSpec(2))
    assert not (tmp_path / "m.onnx").exists()
