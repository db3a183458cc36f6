"""What a tile needs, counted in the graph: never too little, and for plain networks not a pixel too much."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from darsr_deploy.engines.tiling import grid, spans
from export.onnx_graphs.receptive_field import NotLocal, Reach, reach

# One layer each, written so that the size at the LR grid comes back: {0} is its input, {1} its result.
LAYERS = {
    "conv": "{1} = Conv <pads = [1, 1, 1, 1]> ({0}, k3)",
    "dilated": "{1} = Conv <pads = [2, 2, 2, 2], dilations = [2, 2]> ({0}, k3)",
    "uneven": "{1} = Conv <pads = [1, 1, 2, 2]> ({0}, k4)",
    "mirrored": "p{1} = Pad <mode = \"reflect\"> ({0}, rim)\n{1} = Conv (p{1}, k3)",
    "repeated": "p{1} = Pad <mode = \"edge\"> ({0}, rim)\n{1} = Conv (p{1}, k3)",
    "slices": "p{1} = Pad ({0}, rim)\na{1} = Slice (p{1}, zero2, minus2, plane)\nb{1} = Slice (p{1}, two2, far2, plane)\n"
    "{1} = Add (a{1}, b{1})",
    "pooled": "{1} = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> ({0})",
    "there and back": "d{1} = SpaceToDepth <blocksize = 2> ({0})\nc{1} = Conv <pads = [1, 1, 1, 1]> (d{1}, k12)\n"
    "{1} = DepthToSpace <blocksize = 2, mode = \"CRD\"> (c{1})",
    "down and up": "d{1} = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> ({0}, k4)\n"
    "{1} = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (d{1}, k4)",
    "up and down": "u{1} = ConvTranspose <strides = [2, 2], pads = [2, 2, 2, 2]> ({0}, k6)\n"
    "{1} = Conv <strides = [2, 2], pads = [2, 2, 2, 2]> (u{1}, k6)",
    "enlarged": "u{1} = Resize <mode = \"linear\"> ({0}, , twice)\n{1} = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (u{1}, k4)",
    "cubic": "u{1} = Resize <mode = \"cubic\"> ({0}, , twice)\n{1} = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (u{1}, k4)",
    "branches": "a{1} = Conv <pads = [2, 2, 2, 2]> ({0}, k5)\nb{1} = LeakyRelu ({0})\n{1} = Add (a{1}, b{1})",
}  # fmt: skip


def model(*bodies: str) -> onnx.ModelProto:
    """A network of 3 channels: ``lr`` -> ``sr``."""
    names = ["lr", *(f"v{i}" for i in range(len(bodies) - 1)), "sr"]
    lines = "\n".join(body.format(a, b) for body, a, b in zip(bodies, names, names[1:]))
    text = (
        f'<ir_version: 9, opset_import: ["": 18]>\ng (float[n, 3, h, w] lr) => (float[n, 3, a, b] sr) {{\n{lines}\n}}'
    )
    made, random = onnx.parser.parse_model(text), np.random.default_rng(1)
    weights = {f"k{k}": random.uniform(0.1, 1, (3, 3, k, k)) / (3 * k * k) for k in (3, 4, 5, 6)}
    weights["k12"] = random.uniform(0.1, 1, (12, 12, 3, 3)) / 108
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    weights["twice"] = np.array([1, 1, 2, 2], np.float32)
    for name, values in {
        "rim": [0, 0, 1, 1, 0, 0, 1, 1],
        "zero2": [0, 0],
        "two2": [2, 2],
        "minus2": [-2, -2],
        "far2": [2**31, 2**31],
        "plane": [2, 3],
        "all": [2, 3],
        "channels": [1],
    }.items():
        weights[name] = np.array(values)
    weights = {n: a for n, a in weights.items() if n in lines}
    made.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    return made


def run(made: onnx.ModelProto):
    session = ort.InferenceSession(made.SerializeToString())
    return lambda lr: session.run(None, {"lr": lr})[0]


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=3),
    st.tuples(st.integers(3, 40), st.integers(3, 40)),
    st.integers(1, 20),
)
def test_tiles_of_any_network_give_the_whole_picture(layers, halves, tile):
    height, width = (2 * half for half in halves)  # what is halved in between must be even
    made = model(*(LAYERS[layer] for layer in layers))
    network, found = run(made), reach(made)
    lr = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    whole, tiled = network(lr), np.full((1, 3, height, width), np.nan, np.float32)
    assume(whole.shape == tiled.shape)
    for rows, columns in grid(height, width, tile, found.halo, found.alignment):
        part = network(np.ascontiguousarray(lr[:, :, rows.outer, columns.outer]))
        tiled[:, :, rows.own(), columns.own()] = part[:, :, rows.inner(), columns.inner()]
    assert np.abs(tiled - whole).max() < 1e-5


@pytest.mark.parametrize("layers", [[name] for name in sorted(LAYERS)] + [["conv", "up and down", "enlarged"]])
def test_the_reach_is_exact(layers):
    """A pixel changes what is within reach, and something right at its end."""
    made = model(*(LAYERS[layer] for layer in layers))
    network, found = run(made), reach(made)
    lr = np.full((1, 3, 64, 64), 0.5, np.float32)
    before, distances = network(lr), set()
    for row in range(32, 32 + found.alignment):
        changed = lr.copy()
        changed[:, :, row, row] += 1
        for other in np.flatnonzero(np.abs(network(changed) - before).max((0, 1, 3)) > 1e-7):
            block = other - other % found.alignment  # tiles begin and end at multiples of the alignment
            distances |= {block - row, row - (block + found.alignment - 1)}
    assert max(distances) == found.halo


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("m = ReduceMean (lr, all)\nsr = Mul (lr, m)", "ReduceMean over the whole picture"),
        ("m = GlobalAveragePool (lr)\nsr = Mul (lr, m)", "GlobalAveragePool over the whole picture"),
        ("t = Transpose <perm = [0, 1, 3, 2]> (lr)\nsr = Identity (t)", "Transpose is not known to be local"),
        ("p = Pad <mode = \"wrap\"> (lr, rim)\nsr = Conv (p, k3)", "Pad that wraps around"),
        ("sr = Slice (lr, minus2, far2, plane)", "Slice that counts from the end"),
        ("sr = Concat <axis = 2> (lr, lr)", "Concat along rows or columns"),
        ("sr = Resize <mode = \"linear\", coordinate_transformation_mode = \"align_corners\"> (lr, , twice)", "align_corners"),
        ("sr = Conv <auto_pad = \"SAME_UPPER\"> (lr, k3)", "automatic padding SAME_UPPER"),
        ("b = SpaceToDepth <blocksize = 1> (lr)\nd = Conv <strides = [2, 2]> (lr, k3)\nsr = Add (b, d)", "different sizes"),
        ("s = Shape (lr)\nf = Cast <to = 1> (s)\nr = Reshape (lr, s)\nsr = Identity (r)", "Reshape whose parameters are computed"),
    ],
)  # fmt: skip
def test_what_is_not_local_is_named(body, why):
    with pytest.raises(NotLocal, match=why):
        reach(model(body))


def test_what_the_result_does_not_need_does_not_matter():
    body = "m = ReduceMean (lr, all)\nunused = Mul (lr, m)\nmean = ReduceMean (lr, channels)\nsr = Mul (lr, mean)"
    assert reach(model(body)) == Reach(0)
    assert reach(model(LAYERS["down and up"])).alignment == 2
    with pytest.raises(NotLocal, match="does not depend on the picture"):
        reach(model(body), {"other": 1})


def test_a_picture_at_scale_counts_in_lr_pixels():
    made = model(LAYERS["branches"])  # two pixels on every side
    assert reach(made, {"lr": Fraction(1, 2)}).halo == 1
    assert reach(made, {"lr": Fraction(1, 4)}).halo == 1


@given(st.integers(1, 400), st.integers(1, 120), st.integers(0, 40), st.sampled_from([1, 2, 4]))
def test_spans_cover_each_row_once_with_their_surroundings(side, tile, halo, alignment):
    found = spans(side, tile, halo, alignment)
    assert [s.start for s in found] == [0, *(s.stop for s in found[:-1])] and found[-1].stop == side
    for s in found:
        assert s.first <= max(0, s.start - halo) and s.last >= min(side, s.stop + halo) and s.first % alignment == 0
        assert 0 <= s.first <= s.start < s.stop <= s.last <= side
    sizes = {s.last - s.first for s in found}
    assert max(sizes) <= tile + 2 * halo + 3 * alignment
    assert len(sizes) == 1 or alignment > 1
