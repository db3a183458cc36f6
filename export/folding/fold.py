"""Rewrite an adapted model as plain convolutions that compute the same.

Every function returns a new module and leaves its argument unchanged.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_deploy.bundle import weights
from darsr_train.backbones import SRFBN, EdgeSR
from darsr_train.backbones.onnx_network import OnnxNetwork
from darsr_train.networks.darm import DARM, TAP_RADIUS, symmetric_basis
from darsr_train.pipeline import GlobalCorrection, Pipeline

from .backprojection import plain_backprojection
from .layers import single_slopes
from .placeholder import BackbonePlaceholder
from .srfbn import FeedbackOnPhases
from .subpixel import on_phases, rewrite, shuffled, to_phases


@torch.no_grad()
def fold_dictionary(darm: DARM) -> DARM:
    """Return a DARM of 13 symmetric taps equal to one with a dictionary, or a copy of one without.

    Raises:
        ValueError: as :func:`darsr_deploy.bundle.weights.fold_dictionary`.
    """
    if darm.dictionary is None:
        return copy.deepcopy(darm)
    state = {name: tensor.cpu() for name, tensor in darm.state_dict().items()}
    arrays = [state.pop(name).numpy() for name in ("dictionary", "tail.weight", "tail.bias")]
    state["tail.weight"], state["tail.bias"] = map(torch.from_numpy, weights.fold_dictionary(*arrays))
    folded = DARM(channels=darm.channels)
    folded.load_state_dict(state)
    return folded.eval()


class DepthwiseCorrection(nn.Module):
    """One symmetric 5x5 filter for the whole image, as a depthwise convolution."""

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        kernel = torch.einsum("t,tij->ij", taps, symmetric_basis().to(taps))
        self.register_buffer("kernel", kernel.expand(3, 1, 5, 5).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (TAP_RADIUS,) * 4, mode="reflect"), self.kernel, groups=3)


class PlainSRFBN(nn.Module):
    """SRFBN with the [0, 255] range and both mean shifts folded into its convolutions; [0, 1] in and out, as SRFBN.

    Everything runs at the LR size: HR features are kept as phases, and only the image is shuffled.

    The first shift stays a 1x1 convolution of its own: the 3x3 convolution after it pads with zeros *after* the shift,
    which no merged convolution could do at the border.
    """

    def __init__(self, network: SRFBN) -> None:
        super().__init__()
        network = copy.deepcopy(network)
        self.scale, self.steps = network.scale, network.steps
        self.shift_in, self.conv_in, self.feat_in = network.sub_mean, network.conv_in, network.feat_in
        self.block = FeedbackOnPhases(network.block, self.scale)
        self.out = nn.Sequential(to_phases(network.out[0]), network.out[1])
        conv_out = network.conv_out[0]
        back, bias = network.add_mean.weight.double()[:, :, 0, 0], network.add_mean.bias.double()
        forth, shift = network.sub_mean.weight.double()[:, :, 0, 0], network.sub_mean.bias.double()
        self.shift_in.weight.data *= 255
        # add_mean(conv_out(h) + up(sub_mean(x))): both are linear and ``up`` keeps constants, so add_mean moves into
        # conv_out and, for the skip, in front of the enlargement.
        conv_out.weight.data = (torch.einsum("oc,cijk->oijk", back, conv_out.weight.double()) / 255).float()
        conv_out.bias.data = ((back @ conv_out.bias.double()) / 255).float()
        self.conv_out = shuffled(on_phases(conv_out, self.scale), self.scale)
        self.skip = nn.Conv2d(3, 3, 1)
        self.skip.weight.data = (back @ forth)[:, :, None, None].float()
        self.skip.bias.data = ((back @ shift + bias) / 255).float()

    def forward(self, x: Tensor) -> Tensor:
        skip = F.interpolate(self.skip(x), scale_factor=self.scale, mode="bilinear", align_corners=False)
        features = self.feat_in(self.conv_in(self.shift_in(x)))
        hidden = features
        for _ in range(self.steps):
            hidden = self.block(features, hidden)
        return self.conv_out(self.out(hidden)) + skip


class PlainEdgeSR(nn.Module):
    """EdgeSR whose nearest-neighbour skip is a fixed 1x1 convolution, which every runtime supports."""

    def __init__(self, network: EdgeSR) -> None:
        super().__init__()
        network = copy.deepcopy(network)
        self.scale, self.body = network.scale, network.body
        self.activations, self.tail = network.activations, network.tail
        self.skip = nn.Conv2d(3, 3 * self.scale**2, 1, bias=False)
        self.skip.weight.data = torch.eye(3).repeat_interleave(self.scale**2, dim=0)[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for convolution, activation in zip(self.body, self.activations):
            features = activation(convolution(features))
        return F.pixel_shuffle(self.tail(features) + self.skip(x), self.scale)


@torch.no_grad()
def fold(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline that is exported: 13 taps, plain backbone; equal to ``pipeline`` up to float rounding."""
    correction, backbone = pipeline.correction, pipeline.backbone
    if isinstance(correction, DARM):
        correction = fold_dictionary(correction)
    elif isinstance(correction, GlobalCorrection):
        correction = DepthwiseCorrection(correction.taps)
    known = {SRFBN: PlainSRFBN, EdgeSR: PlainEdgeSR, OnnxNetwork: BackbonePlaceholder}
    plain = known.get(type(backbone), rewrite)
    backprojection = plain_backprojection(pipeline.backprojection)
    folded = Pipeline(copy.deepcopy(correction), single_slopes(plain(backbone)), backprojection)
    return folded.eval().requires_grad_(False)
