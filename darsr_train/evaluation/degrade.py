"""Test sets with ground truth: photographs blurred by random kernels and reduced, as blind super-resolution is tested.

The kinds:

* ``gaussian``: anisotropic, variances U(0.6, 5), taps multiplied by 1 + U(-0.25, 0.25), as DIV2KRK has them
  (Bell-Kligler et al., KernelGAN, NeurIPS 2019);
* ``narrow``: Gaussians as narrow as a scene's own softness, variances from 0.3 to 1.3, log-uniform;
* ``variant``: spatially variant blur, from one Gaussian at the left to another at the right;
* ``motion``: camera shake; ``disk``: defocus; ``other``: one of the two, drawn per image;
* ``odd``: what no Gaussian describes (:mod:`darsr_train.degradation.odd_kernels`), a shape drawn per image;
* ``none``: only reduced bicubically, so there is nothing to correct.

At x4 the x2 operation is applied twice, as one kernel (``none``: bicubic by 4). LR pixel i sits at HR coordinate
``s * i + (s - 1) / 2``; borders are mirrored with the border sample repeated; LR images have 8 bits.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.covariance import shape_of
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import write_bytes, write_text
from darsr_deploy.files.hashing import hash_file
from darsr_deploy.files.places import Targets
from darsr_deploy.images.arrays import read_image, write_image
from darsr_deploy.images.resample import to_uint8

from ..adaptation.adapt import versions
from ..degradation import odd_kernels
from ..degradation.reduction import bicubic_table, reduce
from .sets import least_side

KINDS = ("gaussian", "narrow", "variant", "motion", "disk", "other", "odd", "none")
_SIZE = 12  # side of an x2 kernel in HR pixels; even: centred between its middle taps
_MAKE = {
    "gaussian": kernels.random_gaussian,
    "narrow": functools.partial(kernels.random_gaussian, low=0.3, high=1.3, by_logarithm=True),
    "motion": kernels.random_motion,
    "disk": kernels.random_disk,
}


@dataclass(frozen=True)
class Degradation:
    """The degradation drawn for one image.

    Attributes:
        kind: one of :data:`KINDS`; for ``other`` and ``odd`` what was drawn, ``motion`` or ``path``, say.
        kernels: one, or for ``variant`` those of the left and the right edge; square, even-sized, sum 1, float64.
    """

    kind: str
    kernels: tuple[np.ndarray, ...]

    def facts(self) -> dict:
        """Return JSON values: the kind and, of every kernel, size and shape (see :func:`shape_of`)."""
        return {"kind": self.kind, "kernels": [{"size": len(k), **shape_of(k)} for k in self.kernels]}


def draw(kind: str, scale: int, seed: int, name: str) -> Degradation:
    """Draw an image's degradation, which depends on kind, scale, seed and the image's name alone.

    Args:
        name: without folder and suffix.

    Raises:
        ValueError: unknown kind or scale.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if scale not in (2, 4):
        raise ValueError(f"scale is {scale}; expected 2 or 4")
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    random = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    if kind == "other":
        kind = "motion" if random.random() < 0.5 else "disk"
    if kind == "none":
        return Degradation(kind, (kernels.normalised(bicubic_table(scale).double().numpy()),))
    if kind == "variant":
        drawn = [kernels.random_gaussian(random, _SIZE, noise=0) for _ in range(2)]
    elif kind == "odd":
        kind, kernel = odd_kernels.random_odd(random, _SIZE)
        drawn = [kernel]
    else:
        drawn = [_MAKE[kind](random, _SIZE)]
    return Degradation(kind, tuple(k if scale == 2 else kernels.twice(k) for k in drawn))


def degrade(hr: np.ndarray, degradation: Degradation, scale: int) -> np.ndarray:
    """Blur and reduce: uint8 H x W or H x W x 3, sides divisible by ``scale`` -> uint8 H/s x W/s (x 3)."""
    values = blur_and_reduce(hr.astype(np.float64), degradation.kernels, scale)
    return to_uint8(values.round(9))  # so that a tie of half a level rounds the same in any order of summation


def blur_and_reduce(hr: np.ndarray, kernels: tuple[np.ndarray, ...], scale: int) -> np.ndarray:
    """Blur and reduce in float64; two kernels are blended linearly from the first to the last column."""
    planes = torch.from_numpy(hr[None] if hr.ndim == 2 else hr.transpose(2, 0, 1))[None]  # 1, C, H, W
    results = [reduce(planes, torch.from_numpy(kernel), scale)[0] for kernel in kernels]
    result = results[0]
    if len(results) > 1:
        right = torch.linspace(0, 1, result.shape[-1], dtype=torch.float64)
        result = (1 - right) * results[0] + right * results[1]
    return result[0].numpy() if hr.ndim == 2 else result.permute(1, 2, 0).numpy()


def crop_centre(image: np.ndarray, scale: int, side: int | None = None) -> np.ndarray:
    """Crop the centre of an image, at most ``side`` wide and high, to sides divisible by the scale."""
    height, width = (min(length, side or length) // scale * scale for length in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def make_set(
    photos: list[Path],
    out: Path,
    kind: str,
    scale: int,
    *,
    seed: int,
    side: int | None,
    targets: Targets,
    complain: Callable[[DarsrError], None],
    make_folder: Callable[[Path], None],
) -> dict:
    """Write ``LR/NAME.png``, ``HR/NAME.png`` and ``kernel/NAME.npz`` of every photograph, and ``manifest.json``.

    The manifest is written after each image, so that an interrupted run has one.

    Args:
        side: longest side of HR in pixels; the centre is taken.
        complain: receives the error of a photograph; the others are still written.
        make_folder: creates a folder unless it exists.

    Returns:
        The manifest: ``{kind, scale, seed, crop, darsr, images: [...]}``.
    """
    make_folder(out)
    targets.claim(out / "manifest.json")
    for part in ("HR", "kernel", "LR"):
        make_folder(out / part)
    manifest = {"kind": kind, "scale": scale, "seed": seed, "crop": side, "darsr": versions()["darsr"], "images": []}

    def one(photo: Path) -> dict:
        files = [
            targets.claim(out / part / f"{photo.stem}{suffix}")
            for part, suffix in (("HR", ".png"), ("kernel", ".npz"), ("LR", ".png"))
        ]
        hr = crop_centre(read_image(photo), scale, side)
        if min(hr.shape[:2]) < least_side(scale):
            raise DarsrError(str(photo), f"is too small for a set (least side {least_side(scale)})", "leave it out")
        drawn = draw(kind, scale, seed, photo.stem)
        write_image(files[0], hr)
        write_bytes(files[1], _npz(drawn.kernels))
        write_image(files[2], degrade(hr, drawn, scale))
        own = {"name": photo.stem, "source": photo.name, "source_sha256": hash_file(photo)}
        return {**own, "height": hr.shape[0], "width": hr.shape[1], **drawn.facts()}

    for photo in photos:
        try:
            manifest["images"].append(one(photo))
        except DarsrError as error:
            complain(error)
            continue
        write_text(out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return manifest


def _npz(arrays: tuple[np.ndarray, ...]) -> bytes:
    """Return numpy's archive of ``k0``, ``k1``, ...; it holds no time, so equal kernels give equal bytes."""
    file = io.BytesIO()
    np.savez(file, **{f"k{i}": kernel for i, kernel in enumerate(arrays)})
    return file.getvalue()
