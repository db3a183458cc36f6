"""Forms of an adapted model: how much of the correction is computed on the device.

* ``network``: DARM, the filter, the backbone. Works on other images of the same camera too.
* ``filters``: DARM's 13 coefficients per pixel are computed here, for one image, and are a second input.
* ``global``: the mean of these coefficients, one depthwise 5x5 convolution for every image: the cheapest.
* ``none``: the backbone alone, for an adapter that found no correction to be best.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.images.metrics import psnr
from darsr_train.networks.darm import DARM, filter_with_taps
from darsr_train.pipeline import GlobalCorrection, Pipeline

from ..samples import Samples
from .fold import fold_dictionary

FORMS = ("network", "filters", "global")


class GivenFilters(nn.Module):
    """The correction filter with its coefficients, N x 13 x H x W, as a second input."""

    def forward(self, x: Tensor, coefficients: Tensor) -> Tensor:
        return filter_with_taps(x, coefficients)


@dataclass(frozen=True)
class Formed:
    """A model in one of its forms.

    Attributes:
        pipeline: what is exported; with :class:`GivenFilters` it takes the coefficients as a second argument.
        coefficients: of form ``filters``: float32 1 x 13 x H x W for the photo.
        psnr_from_network_db: cost of the form: PSNR between its result on the photo and that of the network form; None
            for the adapter's own form.
    """

    pipeline: Pipeline
    coefficients: np.ndarray | None = None
    psnr_from_network_db: float | None = None

    def run(self, lr: np.ndarray, coefficients: np.ndarray | None = None) -> np.ndarray:
        """Run in PyTorch in float32: N x 3 x H x W, and N x 13 x H x W with form ``filters``, to N x 3 x sH x sW."""
        pipeline = self.pipeline
        with torch.inference_mode():
            x = torch.from_numpy(lr)
            if coefficients is None:
                return pipeline(x).numpy()
            return pipeline.finish(x, pipeline.correction(x, torch.from_numpy(coefficients))).numpy()


def choose_form(kind: str, asked: str | None, what: str) -> str:
    """Return the form of a file: the one asked for, or the adapter's own.

    Raises:
        DarsrError: unknown, or one that an adapter of this kind does not have.
    """
    if asked is None or asked == kind:
        return kind
    if asked not in FORMS:
        raise DarsrError(f"form {asked}", "is not known", f"choose one of {', '.join(FORMS)}")
    if kind != "network":
        raise DarsrError(
            what,
            f"its correction is of kind {kind}, so it has no form {asked}",
            "leave out --form" if kind == "none" else f"use --form {kind}",
        )
    return asked


@torch.inference_mode()
def take_form(pipeline: Pipeline, form: str, samples: Samples) -> Formed:
    """Convert a pipeline to a form that :func:`choose_form` allowed.

    Raises:
        DarsrError: the form is made from the adapted image, which is missing.
    """
    darm = pipeline.correction
    if form not in ("filters", "global") or not isinstance(darm, DARM):
        return Formed(pipeline)
    if samples.photo is None:
        raise DarsrError(
            f"form {form}",
            "is made from the adapted image, which does not lie beside the adapter",
            "name it with --image",
        )
    photo = torch.from_numpy(samples.photo)
    coefficients = fold_dictionary(darm).coefficients(photo)  # 1, 13, H, W
    rest = copy.deepcopy(pipeline.backbone), copy.deepcopy(pipeline.backprojection)
    if form == "filters":
        formed = Formed(Pipeline(GivenFilters(), *rest).eval(), coefficients.numpy().copy())
    else:
        taps = coefficients.double().mean((0, 2, 3)).float()
        formed = Formed(Pipeline(GlobalCorrection(taps), *rest).eval())
    distance = psnr(formed.run(samples.photo, formed.coefficients), pipeline(photo).numpy(), peak=1.0)
    return Formed(formed.pipeline, formed.coefficients, round(min(distance, 200.0), 2))
