"""The correction filter as one Triton kernel: image and 13 coefficient planes are read once, the result written once.

The plain version (:func:`.darm.filter_with_taps`) makes 50 passes over intermediate images; on a GPU all of it waits
for memory. Here reflect padding is arithmetic on indices, and sums are float32 whatever the type of the data is.

Triton comes with the CUDA builds of PyTorch for Linux. This module needs it, so it is imported only where it is used.
PyTorch itself is needed for :func:`fused_filter` alone: :mod:`export.plugin.aot_kernel` compiles the kernel without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 256  # pixels of one program


@triton.jit
def _reflected(i, size):
    """Mirror indices from -2 to size + 1 into the image; its sides are at least 3."""
    i = tl.abs(i)
    return tl.where(i >= size, 2 * (size - 1) - i, i)


@triton.jit
def _offset(row, column, row_stride, column_stride):
    """Return an offset in 64 bits: an image may have more than 2^31 values."""
    return row.to(tl.int64) * row_stride + column.to(tl.int64) * column_stride


@triton.jit
def _pair(image, one, other, inside):
    """Return the sum of two opposite pixels, in float32."""
    first = tl.load(image + one, mask=inside, other=0).to(tl.float32)
    return first + tl.load(image + other, mask=inside, other=0).to(tl.float32)


@triton.jit
def correction_filter_kernel(
    x, c, y, height, width,
    xn, xc, xh, xw, cn, cc, ch, cw, yn, yc, yh, yw,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Filter BLOCK pixels of one image in all 3 colours; strides of x, c and y, in elements, follow the sizes."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n = tl.program_id(1).to(tl.int64)
    inside = pixel < height * width
    row, column = pixel // width, pixel % width
    red = x + n * xn
    green, blue = red + xc, red + 2 * xc
    planes = c + n * cn + _offset(row, column, ch, cw)
    here = _offset(row, column, xh, xw)
    weight = tl.load(planes + 12 * cc, mask=inside, other=0).to(tl.float32)
    r = weight * tl.load(red + here, mask=inside, other=0).to(tl.float32)
    g = weight * tl.load(green + here, mask=inside, other=0).to(tl.float32)
    b = weight * tl.load(blue + here, mask=inside, other=0).to(tl.float32)
    for i in tl.static_range(12):  # in the order of .darm.TAP_OFFSETS
        dy = i // 5 - 2
        dx = i % 5 - 2
        one = _offset(_reflected(row + dy, height), _reflected(column + dx, width), xh, xw)
        other = _offset(_reflected(row - dy, height), _reflected(column - dx, width), xh, xw)
        weight = tl.load(planes + i * cc, mask=inside, other=0).to(tl.float32)
        r += weight * _pair(red, one, other, inside)
        g += weight * _pair(green, one, other, inside)
        b += weight * _pair(blue, one, other, inside)
    target = y + n * yn + _offset(row, column, yh, yw)
    tl.store(target, r.to(y.dtype.element_ty), mask=inside)
    tl.store(target + yc, g.to(y.dtype.element_ty), mask=inside)
    tl.store(target + 2 * yc, b.to(y.dtype.element_ty), mask=inside)


@triton.jit
def linear_filter_kernel(x, c, height, width, y, BLOCK: tl.constexpr):
    """Filter contiguous images, with parameters in TensorRT's order: inputs, sizes, output."""
    plane = height * width
    correction_filter_kernel(
        x, c, y, height, width,
        3 * plane, plane, width, 1, 13 * plane, plane, width, 1, 3 * plane, plane, width, 1,
        BLOCK,
    )  # fmt: skip


def fused_filter(x: Tensor, coefficients: Tensor) -> Tensor:
    """Compute :func:`.darm.filter_with_taps`, without gradients.

    Args:
        x: N x 3 x H x W, sides of at least 3, any float type and strides.
        coefficients: N x 13 x H x W on the same device; its type may be another.

    Returns:
        N x 3 x H x W, of the type that the two promote to.

    Raises:
        ValueError: other shapes.
    """
    import torch

    n, channels, height, width = x.shape
    if channels != 3 or min(height, width) < 3 or coefficients.shape != (n, 13, height, width):
        raise ValueError(f"an image of {tuple(x.shape)} and coefficients of {tuple(coefficients.shape)} do not fit")
    y = torch.empty_like(x, dtype=torch.promote_types(x.dtype, coefficients.dtype))
    grid = (triton.cdiv(height * width, _BLOCK), n)
    strides = (*x.stride(), *coefficients.stride(), *y.stride())
    correction_filter_kernel[grid](x, coefficients, y, height, width, *strides, BLOCK=_BLOCK)
    return y
