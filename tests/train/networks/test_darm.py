"""DARM, its dictionary, and the algebra that folds 72 filters into 13 taps; DSEM's size beside it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from darsr_train.backbones import SRFBN, EdgeSR
from darsr_train.networks.darm import (
    DARM,
    TAP_OFFSETS,
    correct_by_taps,
    filter_with_dictionary,
    filter_with_taps,
    symmetric_basis,
)
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.networks.dsem import DSEM
from darsr_train.pipeline import GlobalCorrection, Pipeline
from export.folding.fold import fold, fold_dictionary
from tests.support.shared import SHARED, needs_shared

SIZES = [(3, 3), (4, 7), (5, 3), (16, 16), (17, 23)]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- The dictionary --------------------------------------------------------------------------------------------------


def test_dictionary_is_72_symmetric_filters_of_sum_one_and_rank_13():
    dictionary = correction_dictionary()
    assert dictionary.shape == (72, 5, 5) and dictionary.dtype == torch.float32
    torch.testing.assert_close(dictionary.sum((1, 2)), torch.ones(72), rtol=0, atol=1e-6)
    torch.testing.assert_close(dictionary, dictionary.flip(1, 2), rtol=0, atol=1e-7)
    singular = torch.linalg.svdvals(dictionary.double().flatten(1))
    assert singular[12] > 1e-3 * singular[0]
    assert singular[13] < 1e-6 * singular[0]


def test_first_51_filters_follow_the_formula():
    coarse, fine = [0, 150, 120, 90, 60, 30], [0, 165, 150, 135, 120, 105, 90, 75, 60, 45, 30, 15]
    listed = [(2.0, 1.0, 0)] + [(2.0, r, a) for r in (0.8, 0.6, 0.4) for a in coarse] + [(2.0, 0.2, a) for a in fine]
    listed += [(1.2, 1.0, 0)] + [(1.2, r, a) for r in (0.8, 0.6, 0.4) for a in coarse] + [(0.4, 1.0, 0)]
    assert len(listed) == 51
    expected = []
    for sigma, ratio, degrees in listed:
        # by the covariance matrix: another way than the code's
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        precision = torch.linalg.inv(
            turn @ torch.diag(torch.tensor([sigma**2, (ratio * sigma) ** 2], dtype=torch.float64)) @ turn.T
        )
        points = torch.tensor([[(x, y) for x in range(-2, 3)] for y in range(-2, 3)], dtype=torch.float64)
        kernel = torch.exp(-0.5 * torch.einsum("yxi,ij,yxj->yx", points, precision, points))
        expected.append(kernel / kernel.sum())
    torch.testing.assert_close(correction_dictionary()[:51].double(), torch.stack(expected), rtol=0, atol=1e-7)


def test_last_21_filters_sharpen():
    sharpening = correction_dictionary()[51:]
    checkerboard = torch.tensor([[(-1.0) ** (x + y) for x in range(5)] for y in range(5)])
    # response to the highest frequency: a blur's is under 1, a sharpening filter's over it
    assert ((sharpening * checkerboard).sum((1, 2)) > 1).all()
    assert ((correction_dictionary()[:51] * checkerboard).sum((1, 2)) < 1).all()
    assert (sharpening[:, 2, 2] > 1).all()


@needs_shared
@pytest.mark.parametrize("name", ["reference_x2", "reference_x2_b"])
def test_first_51_filters_equal_the_references(name):
    from safetensors import safe_open

    with safe_open(SHARED / "golden" / f"{name}.safetensors", "pt") as file:
        expected = file.get_tensor("dictionary")
    torch.testing.assert_close(correction_dictionary()[:51], expected[:51], rtol=0, atol=1e-7)


# --- Filtering -------------------------------------------------------------------------------------------------------


def test_basis_covers_every_pixel_once():
    basis = symmetric_basis()
    assert torch.equal(basis.sum(0), torch.ones(5, 5))
    assert torch.equal(basis, basis.flip(1, 2))
    assert len(set(TAP_OFFSETS)) == 13 and TAP_OFFSETS[12] == (0, 0)


@pytest.mark.parametrize("height, width", SIZES)
def test_taps_equal_the_dictionary_of_the_symmetric_basis(height, width):
    torch.manual_seed(height)
    x, coefficients = torch.rand(2, 3, height, width), torch.randn(2, 13, height, width)
    expected = filter_with_dictionary(x, coefficients, symmetric_basis())
    assert expected.std() > 0.1
    torch.testing.assert_close(filter_with_taps(x, coefficients), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("height, width", SIZES)
def test_coefficients_of_the_identity_give_the_input(height, width):
    x = torch.rand(1, 3, height, width)
    coefficients = torch.zeros(1, 13, height, width)
    coefficients[:, 12] = 1
    assert torch.equal(filter_with_taps(x, coefficients), x)
    assert torch.equal(filter_with_dictionary(x, coefficients, symmetric_basis()), x)


def test_coefficients_belong_to_their_own_pixel():
    x, coefficients = torch.rand(1, 3, 8, 8), torch.zeros(1, 72, 8, 8)
    coefficients[0, 5, 3, 4] = 1
    result = filter_with_dictionary(x, coefficients, correction_dictionary())
    expected = (x[0, :, 1:6, 2:7] * correction_dictionary()[5]).sum((1, 2))
    torch.testing.assert_close(result[0, :, 3, 4], expected)
    assert (result != 0).sum() == 3


def test_dictionary_filters_keep_constants():
    coefficients = torch.rand(1, 72, 9, 9).softmax(1)
    x = torch.full((1, 3, 9, 9), 0.4)
    torch.testing.assert_close(filter_with_dictionary(x, coefficients, correction_dictionary()), x)


# --- The networks ----------------------------------------------------------------------------------------------------


def test_published_parameter_counts():
    assert parameters(DARM(correction_dictionary())) == 681_304
    assert parameters(DSEM()) == 3_535_233


@pytest.mark.parametrize("dictionary", [None, correction_dictionary()], ids=["taps", "dictionary"])
def test_batch_equals_stacked_singles(dictionary):
    torch.manual_seed(6)
    darm, dsem = DARM(dictionary, channels=16), DSEM((8, 16, 16))
    x = torch.rand(3, 3, 12, 15)
    with torch.no_grad():
        assert darm(x).shape == x.shape
        assert dsem(x).shape == (3,)
        torch.testing.assert_close(darm(x), torch.cat([darm(one[None]) for one in x]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(dsem(x), torch.cat([dsem(one[None]) for one in x]), rtol=1e-5, atol=1e-6)
        assert darm(x).std() > 0


def test_attention_pools_the_whole_image():
    # two images that agree in one corner get other coefficients there: the pooled attention has seen the rest
    torch.manual_seed(7)
    darm = DARM(channels=16)
    x = torch.rand(1, 3, 40, 40)
    other = x.clone()
    other[..., 20:, 20:] = 0
    with torch.no_grad():
        assert (darm.coefficients(x) - darm.coefficients(other))[..., :5, :5].abs().max() > 1e-4


# --- Folding ---------------------------------------------------------------------------------------------------------


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_unchanged(module: nn.Module, before: dict[str, Tensor]) -> None:
    assert module.state_dict().keys() == before.keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("height, width", [(3, 3), (13, 21), (24, 32)])
def test_folding_the_dictionary_is_exact(height, width):
    torch.manual_seed(8)
    darm = DARM(correction_dictionary(), channels=32)
    nn.init.normal_(darm.tail.bias)  # zero as it is: would hide a bias that is folded wrongly
    before, x = state_of(darm), torch.rand(2, 3, height, width)
    folded = fold_dictionary(darm)
    assert folded.dictionary is None and folded.tail.out_channels == 13
    with torch.no_grad():
        expected = darm(x)
        error = (folded(x) - expected).abs().max() / expected.abs().max()
    assert error < 2e-6, f"needs a tolerance of {error:.1e}"
    assert_unchanged(darm, before)


def test_correcting_by_taps_gives_the_same_values_and_gradients():
    torch.manual_seed(0)
    darm, x = DARM(correction_dictionary(), channels=16), torch.rand(2, 3, 9, 12, requires_grad=True)
    found = []
    for correct in (darm, lambda x: correct_by_taps(darm, x)):
        darm.zero_grad()
        x.grad = None
        corrected = correct(x)
        corrected.square().sum().backward()
        found.append([corrected.detach(), x.grad, *(p.grad.clone() for p in darm.parameters())])
    for slow, fast in zip(*found):
        assert (slow - fast).norm() <= 1e-5 * slow.norm()


def test_folding_refuses_an_asymmetric_dictionary():
    dictionary = correction_dictionary()
    dictionary[40, 0, 1] += 1e-3
    with pytest.raises(ValueError, match="not point-symmetric"):
        fold_dictionary(DARM(dictionary, channels=8))


def drifted(network: nn.Module) -> nn.Module:
    """Mean shifts that are not the identity's, as in the published files: exact cancellation would hide errors."""
    with torch.no_grad():
        for layer in (network.sub_mean, network.add_mean):
            layer.weight += 0.02 * torch.randn_like(layer.weight)
            layer.bias += torch.randn_like(layer.bias)
    return network


def gentle(darm: DARM) -> DARM:
    """Coefficients near the identity's: the corrected image stays a picture."""
    with torch.no_grad():
        darm.tail.weight.mul_(0.02)
        darm.tail.bias[-1] = 1
    return darm


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("network", ["srfbn", "edge"])
@pytest.mark.parametrize("height, width", [(11, 17), (3, 5)])
def test_folded_pipeline_equals_the_unfolded(scale, network, height, width):
    torch.manual_seed(9)
    backbone = (
        drifted(SRFBN(scale, channels=16, steps=2, groups=2))
        if network == "srfbn"
        else EdgeSR(scale, channels=16, blocks=3)
    )
    pipeline = Pipeline(gentle(DARM(correction_dictionary(), channels=16)), backbone).eval()
    before = state_of(pipeline)
    folded = fold(pipeline)
    x = torch.rand(2, 3, height, width)
    with torch.no_grad():
        expected, found = pipeline(x), folded(x)
        raw_expected, raw_found = backbone(x), folded.backbone(x)  # not clipped: nothing can hide behind the clamp
    assert found.shape == (2, 3, scale * height, scale * width)
    assert expected.std() > 0.01 and ((expected > 0) & (expected < 1)).float().mean() > 0.5
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(raw_found, raw_expected, rtol=0, atol=1e-5)
    assert_unchanged(pipeline, before)
    with torch.no_grad():
        for p in folded.parameters():
            p.zero_()
    assert_unchanged(pipeline, before)  # the folded one shares no memory with it
    assert any(p.requires_grad for p in pipeline.parameters()), "folding has frozen its argument"


@pytest.mark.parametrize(
    "correction", [nn.Identity(), GlobalCorrection(torch.tensor([0.01] * 12 + [0.76]))], ids=["none", "global"]
)
def test_other_corrections_are_folded_too(correction):
    torch.manual_seed(10)
    pipeline = Pipeline(correction, EdgeSR(2, channels=8, blocks=1)).eval()
    x = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(fold(copy.deepcopy(pipeline))(x), pipeline(x), rtol=0, atol=1e-5)
