"""The Triton kernel: equal to the plain version in Triton's interpreter, and compiled for the GPUs that it is meant for."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from darsr_train.networks import darm
from darsr_train.networks.darm import TAP_OFFSETS, filter_with_taps, shifted_sums

triton = pytest.importorskip("triton", reason="Triton is not installed (pip install triton)")


@pytest.fixture(scope="module")
def interpreted():
    """The kernel's module as Triton's interpreter runs it, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.delitem(sys.modules, "darsr_train.networks.triton_filter", raising=False)
        yield importlib.import_module("darsr_train.networks.triton_filter")
        sys.modules.pop("darsr_train.networks.triton_filter")


def drawn(n: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(height * width)
    return torch.rand(n, 3, height, width), torch.randn(n, 13, height, width)


@pytest.mark.parametrize("size", [(1, 3, 3), (2, 3, 11), (1, 17, 31), (1, 3, 300), (2, 40, 3)])
def test_the_kernel_equals_the_plain_filter(size, interpreted):
    x, c = drawn(*size)
    y = interpreted.fused_filter(x, c)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert (y - shifted_sums(x, c)).abs().max() < 1e-5


def test_half_precision_is_rounded_once_at_the_end(interpreted):
    x, c = (t.half() for t in drawn(1, 9, 13))
    y = interpreted.fused_filter(x, c)
    assert y.dtype == torch.float16
    exact = shifted_sums(x.float(), c.float())
    assert (y - exact).abs().max() <= 2**-11 * exact.abs().max()  # half a unit in the last place of the largest
    assert (shifted_sums(x, c) - exact).abs().max() > (y - exact).abs().max()
    mixed = interpreted.fused_filter(x, c.float())  # an image under autocast, coefficients that are not
    assert mixed.dtype == torch.float32 and (mixed - exact).abs().max() < 1e-5


def test_any_memory_layout(interpreted):
    x, c = drawn(2, 7, 10)
    expected = shifted_sums(x, c)
    last = interpreted.fused_filter(x.to(memory_format=torch.channels_last), c.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last) and (last - expected).abs().max() < 1e-5
    wide = torch.zeros(2, 13, 7, 20)
    wide[..., ::2] = c
    assert (interpreted.fused_filter(x, wide[..., ::2]) - expected).abs().max() < 1e-5


def test_one_tap_alone_is_that_pair_of_pixels(interpreted):
    x = drawn(1, 6, 6)[0]
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    for i, (dy, dx) in enumerate(TAP_OFFSETS[:12]):
        c = torch.zeros(1, 13, 6, 6)
        c[:, i] = 1
        pair = padded[..., 2 + dy : 8 + dy, 2 + dx : 8 + dx] + padded[..., 2 - dy : 8 - dy, 2 - dx : 8 - dx]
        assert torch.equal(interpreted.fused_filter(x, c), pair)


def test_shapes_that_do_not_fit_are_refused(interpreted):
    x, c = drawn(1, 5, 5)
    for image, coefficients in ((x[:, :1], c), (x[..., :2], c[..., :2]), (x, c[:, :12]), (x, c[..., :4])):
        with pytest.raises(ValueError, match="do not fit"):
            interpreted.fused_filter(image, coefficients)


_COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from darsr_train.networks.triton_filter import correction_filter_kernel as kernel

floats = dict(x="*fp16", c="*fp16", y="*fp16")
signature = {name: floats.get(name, "i32") for name in kernel.arg_names if name != "BLOCK"}
source = ASTSource(kernel, signature=signature | {"BLOCK": "constexpr"}, constexprs={"BLOCK": 256})
for capability in (87, 120):
    ptx = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]
    print(capability, ptx.count("ld.global"), ptx.count("st.global"), ptx.count("ld.local"))
"""


def test_the_kernel_compiles_without_a_gpu(tmp_path):
    """In a process of its own, since the interpreter must be off. No GPU is needed: only running it would."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = [str(Path(__file__).parents[3]), environment.get("PYTHONPATH", "")]
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    counted = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [line[0] for line in counted] == [87, 120]
    for _, loads, stores, spilled in counted:
        assert loads > 0 and stores > 0 and spilled == 0


def test_on_a_cpu_and_for_gradients_the_plain_version_runs(monkeypatch):
    monkeypatch.setattr(darm, "_fused_filter", lambda: pytest.fail("the kernel was asked for"))
    x, c = drawn(1, 5, 6)
    assert torch.equal(filter_with_taps(x, c), shifted_sums(x, c))


class _OnCuda:
    """A tensor that says it is on CUDA."""

    is_cuda = True

    def __init__(self, tensor: torch.Tensor, requires_grad: bool = False) -> None:
        self.tensor, self.shape, self.requires_grad = tensor, tensor.shape, requires_grad


def test_on_cuda_the_kernel_runs_where_no_gradient_is_wanted(monkeypatch):
    x, c = drawn(1, 5, 6)
    asked = []
    monkeypatch.setattr(darm, "_fused_filter", lambda: lambda image, coefficients: asked.append(1))
    monkeypatch.setattr(darm, "shifted_sums", lambda image, coefficients: asked.append(0))
    with torch.no_grad():
        filter_with_taps(_OnCuda(x, True), _OnCuda(c, True))
    filter_with_taps(_OnCuda(x), _OnCuda(c))
    filter_with_taps(_OnCuda(x), _OnCuda(c, True))
    filter_with_taps(_OnCuda(x[:, :1]), _OnCuda(c))
    assert asked == [1, 1, 0, 0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_kernel_on_a_gpu(dtype):
    x, c = (t.to("cuda", dtype) for t in drawn(2, 123, 77))
    y = filter_with_taps(x, c)
    exact = shifted_sums(x.double(), c.double())
    assert (y - exact).abs().max() < {torch.float32: 1e-5, torch.float16: 2e-2}[dtype]
