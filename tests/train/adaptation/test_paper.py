"""Profile ``paper``: the published procedure runs, repeats, resumes; its schedule and the order of its steps."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_train.adaptation import checkpoint
from darsr_train.adaptation import paper as adapt_paper
from darsr_train.adaptation.checkpoint import Checkpoint
from darsr_train.adaptation.fit import Evidence
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.adaptation.published import judging, losses
from darsr_train.adaptation.published.judging import Average, Judge, correction_at
from darsr_train.adaptation.published.schedule import KernelWeights, Schedule, rate_factor, set_rates
from darsr_train.adaptation.published.step import Networks, adversarial_step, step_losses
from darsr_train.adaptation.result import Result, read_curves
from darsr_train.backbones import EdgeSR
from darsr_train.networks.darm import DARM
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.networks.dsem import DSEM
from darsr_train.networks.gan import GENERATOR_KERNELS, Discriminator, Generator

OPTIONS = AdaptOptions.profile("paper", 2, batch=2, steps=3, dsem_steps=2, crop=32)
IMAGE = np.ascontiguousarray(data.coffee()[100:250, 150:310])  # 150 x 160


def backbone(scale: int = 2) -> nn.Module:
    torch.manual_seed(11)
    return EdgeSR(scale, channels=8, blocks=1).eval().requires_grad_(False)


class Killed(Exception):
    """What the tests raise in the middle of a run."""


def adapt(
    path,
    resume: bool = False,
    report: Callable[[dict], None] = lambda _: None,
    pixels: np.ndarray = IMAGE,
    options: AdaptOptions = OPTIONS,
    **watch: Callable[[int, Networks, Average], None],
) -> Result:
    return adapt_paper.adapt_paper(
        pixels, backbone(options.scale), options, "cpu", Checkpoint(path, "a test", resume), report, **watch
    )


@pytest.fixture(scope="module", autouse=True)
def keep_the_network():
    """Steps as few as here leave networks that are worse than nothing, and an adapter would not hold them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Judge, "__init__", lambda self, *args: (INIT(self, *args), setattr(self, "uncorrected", 1e10))[0])
        yield


INIT = Judge.__init__


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> tuple[Result, list[dict]]:
    """An uninterrupted run and what it reported."""
    reported: list[dict] = []
    return adapt(tmp_path_factory.mktemp("paper") / "a.partial", report=reported.append), reported


def assert_same(a: Result, b: Result) -> None:
    assert a.arrays.keys() == b.arrays.keys() and a.facts == b.facts
    for name, array in a.arrays.items():
        assert np.array_equal(array, b.arrays[name]), name


# --- Whole runs --------------------------------------------------------------------------------------------------------


def test_a_run_reports_every_step_and_returns_a_whole_network(adapted):
    result, reported = adapted
    assert [(r["phase"], r["step"], r["steps"]) for r in reported] == [("degradation score", i, 2) for i in (1, 2)] + [
        ("adapting", i, 3) for i in (1, 2, 3)
    ]
    assert all(np.isfinite(r["loss"]) for r in reported)
    assert re.fullmatch(r"step [123] of 3, average of weights, strength (0.25|0.5|0.75|1)", result.facts["chosen"])
    assert result.facts["steps"] == 3
    curves = read_curves(result.facts, "a test")
    assert {name: curve.steps for name, curve in curves.items()} == {
        "degradation score": 2,
        "adapting": 3,
        "cycles of the average": 3,
    }
    assert result.correction == "network"
    darm = DARM()
    darm.load_state_dict(
        {
            name.removeprefix("darm."): torch.from_numpy(array)
            for name, array in result.arrays.items()
            if name.startswith("darm.")
        }
    )
    assert result.arrays["kernel"].shape == (13, 13)
    assert result.facts["kernel_sum"] == pytest.approx(result.arrays["kernel"].sum())
    assert all(np.isfinite(array).all() for array in result.arrays.values())


def test_a_run_repeats(adapted, tmp_path):
    torch.rand(5)  # the state of the global generator must not count
    assert_same(adapted[0], adapt(tmp_path / "b.partial"))


@pytest.mark.parametrize("phase, step", [("degradation score", 2), ("adapting", 2)])
def test_a_killed_run_goes_on_to_the_same_result(adapted, phase, step, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_EVERY_SECONDS", 0.0)

    def kill(entry: dict) -> None:
        if (entry["phase"], entry["step"]) == (phase, step):
            raise Killed

    with pytest.raises(Killed):
        adapt(tmp_path / "a.partial", report=kill)
    reported: list[dict] = []
    resumed = adapt(tmp_path / "a.partial", resume=True, report=reported.append)
    assert (reported[0]["phase"], reported[0]["step"]) == (phase, step), "it goes on where it stopped"
    assert_same(adapted[0], resumed)


@pytest.fixture
def scores(monkeypatch) -> list[float]:
    """What the judge says of the averages at half strength, in order; at others it says 0.1 more."""
    told: list[float] = []
    monkeypatch.setattr(Judge, "scores", lambda self, darm: {0.5: (score := told.pop(0)), 1.0: score + 0.1})
    return told


def test_the_average_and_the_strength_that_are_judged_best_are_kept(scores, tmp_path):
    scores += [0.4, 0.2, 0.3]
    seen = {}

    def watch(step: int, nets: Networks, average: Average, strength: float) -> None:
        assert strength == 0.5
        seen[step] = copy.deepcopy(average)

    result = adapt(tmp_path / "a.partial", watch=watch)
    assert result.facts["chosen"] == "step 2 of 3, average of weights, strength 0.5"
    assert result.facts["judged"]["best"] == 0.2
    assert np.array_equal(result.arrays["kernel"], seen[2].kernel)
    for name, tensor in correction_at(seen[2].darm, 0.5).state_dict().items():
        assert np.array_equal(result.arrays[f"darm.{name}"], tensor), name


def test_a_correction_at_a_strength_lies_between_the_image_and_the_whole_correction():
    darm, y = small_networks().darm, torch.rand(1, 3, 12, 15)
    with torch.no_grad():
        whole = darm(y)
        for strength in (0.0, 0.25, 1.0):
            torch.testing.assert_close(correction_at(darm, strength)(y), y.lerp(whole, strength))


def test_nothing_is_corrected_where_the_image_explains_itself_better(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(Judge, "__init__", INIT)
    scores += [0.8, 0.6, 0.7]
    result = adapt(tmp_path / "a.partial")
    assert (result.correction, list(result.arrays), result.facts["chosen"]) == ("none", ["kernel"], "backbone alone")


def test_a_run_ends_once_nothing_gets_better_also_when_it_is_resumed_there(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "PATIENCE", 2)
    monkeypatch.setattr(checkpoint, "_EVERY_SECONDS", 0.0)
    scores += [0.3, 0.2, 0.25, 0.21]
    options = replace(OPTIONS, steps=9)
    result = adapt(tmp_path / "a.partial", options=options)
    assert not scores and result.facts["steps"] == 4
    assert result.facts["chosen"] == "step 2 of 9, average of weights, strength 0.5"
    assert_same(result, adapt(tmp_path / "a.partial", resume=True, options=options))


def test_an_average_weighs_iterates_by_their_age():
    nets = small_networks()
    average, iterates = Average(nets), []
    for iterate in (1, 2, 3):
        with torch.no_grad():
            for p in [*nets.darm.parameters(), *nets.generator.parameters()]:
                p.mul_(1.5)
        average.update(nets, iterate)
        iterates.append((nets.darm.tail.weight.detach().clone(), nets.generator.kernel().detach()))
    weights = [judging.DECAY**age for age in (2, 1, 0)]
    for ours, parts in zip((average.darm.tail.weight, average.kernel), zip(*iterates)):
        torch.testing.assert_close(ours, sum(w * part for w, part in zip(weights, parts)) / sum(weights))


def test_a_judge_prefers_the_strength_that_is_right(monkeypatch):
    """A blurred image, a network that sharpens twice as much as is right: half its strength is judged best."""
    monkeypatch.setattr(Judge, "__init__", INIT)
    truth = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    class Double(DARM):
        def forward(self, x: Tensor) -> Tensor:
            return x + 2 * (truth - x)

    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    evidence = Evidence(truth, blurred, truth, torch.full((2, 2), 0.25), np.eye(2))
    judge = Judge(evidence, lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3), 2)
    error = judge.uncorrected
    expected = {0.25: error / 2, 0.5: 0.0, 0.75: error / 2, 1.0: error}
    assert judge.scores(Double(channels=4)) == pytest.approx(expected, abs=1e-6)


def test_without_resume_a_checkpoint_is_not_read(adapted, tmp_path):
    (tmp_path / "a.partial").write_bytes(b"garbage")
    assert_same(adapted[0], adapt(tmp_path / "a.partial"))


def test_a_state_of_other_options_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "a.partial"
    Checkpoint(path, "these options", resume=False).save("adapt", {"step": 1}, force=True)
    assert Checkpoint(path, "these options", resume=True).restore("adapt") == {"step": 1}
    assert Checkpoint(path, "these options", resume=True).restore("dsem") is None
    with pytest.raises(DarsrError, match=r"a\.partial: belongs to another image, backbone or other options"):
        Checkpoint(path, "those options", resume=True)
    for content in (b"", b"garbage", path.read_bytes()[:-20]):
        path.write_bytes(content)
        with pytest.raises(DarsrError, match=r"a\.partial: is not the state of an unfinished adaptation"):
            Checkpoint(path, "these options", resume=True)


@pytest.mark.parametrize("pixels, scale", [(IMAGE[:, :, 0], 2), (IMAGE, 4)], ids=["gray", "x4"])
def test_gray_images_and_scale_4_run(pixels, scale, tmp_path):
    options = AdaptOptions.profile("paper", scale, batch=2, steps=1, dsem_steps=1, crop=32 if scale == 2 else 16)
    result = adapt(tmp_path / "a.partial", pixels=pixels, options=options)
    assert all(np.isfinite(array).all() for array in result.arrays.values())


# --- The schedule --------------------------------------------------------------------------------------------------------


def test_schedule_opens_after_three_consecutive_iterations_under_the_gate():
    schedule = Schedule(gate=0.4)
    for iteration, term in enumerate([0.3, 0.3, 0.5, 0.3, 0.3], start=1):
        schedule.after(iteration, term)
        assert not schedule.open, f"iteration {iteration}"
    schedule.after(6, 0.4)  # not under it
    schedule.after(7, 0.3)
    schedule.after(8, 0.3)
    assert not schedule.open
    schedule.after(9, 0.3)
    assert schedule.open
    schedule.after(10, 5.0)
    assert schedule.open, "once open it stays open"


def test_weights_fall_at_multiples_of_200_down_to_5e_6():
    schedule, path = Schedule(gate=0.4), {}
    assert schedule.weights == KernelWeights(5.0, 0.5, 0.5, 0.0, 0.0)
    for iteration in range(1, 1201):
        before = schedule.weights
        schedule.after(iteration, 0.1)
        if schedule.weights != before:
            path[iteration] = schedule.weights
    assert list(path) == [200, 400, 600]
    found = [(w.bicubic, w.off_centre, w.sparse) for w in path.values()]
    np.testing.assert_allclose(found, [(0.05, 0, 0), (5e-4, 1, 5), (5e-6, 1, 5)])
    assert all((w.sum_to_one, w.boundaries) == (0.5, 0.5) for w in path.values())


@pytest.mark.parametrize("steps, places", [(1500, [100, 200, 300]), (1000, [67, 134, 200]), (45, [3, 6, 9])])
def test_fewer_steps_take_the_same_ladder_at_the_same_shares(steps, places):
    schedule, path = Schedule(0.4, steps), []
    for iteration in range(1, steps + 1):
        before = schedule.weights
        schedule.after(iteration, 0.1)
        path += [iteration] if schedule.weights != before else []
    assert path == places


def test_weights_stay_while_the_gate_is_shut():
    schedule = Schedule(gate=0.4)
    for iteration in range(1, 601):
        schedule.after(iteration, 0.1 if iteration % 3 else 0.9)  # never three in a row
    assert schedule.weights.bicubic == 5
    for iteration in range(601, 801):
        schedule.after(iteration, 0.1)
    assert schedule.weights.bicubic == pytest.approx(0.05), "the next multiple of 200 after it has opened"


def test_gate_may_open_at_the_very_iteration_that_lowers_the_weight():
    schedule = Schedule(gate=0.4)
    for iteration in (198, 199, 200):
        schedule.after(iteration, 0.1)
    assert schedule.weights.bicubic == pytest.approx(0.05)


@pytest.mark.parametrize(
    "iteration, factor",
    [(1, 1), (750, 1), (751, 1 / 4), (1500, 1 / 4), (1501, 1 / 16), (2250, 1 / 16), (2251, 1 / 64), (3000, 1 / 64)],
)
def test_rates_of_g_and_d_are_divided_by_four(iteration, factor):
    assert rate_factor(iteration, (750, 1500, 2250), 4) == pytest.approx(factor)


def test_optimisers_are_given_the_published_rates():
    expected = {
        1: (2e-4, 1e-3),
        751: (5e-5, 1e-3),
        1001: (5e-5, 5e-4),
        1501: (1.25e-5, 5e-4),
        2001: (1.25e-5, 2.5e-4),
        2251: (3.125e-6, 2.5e-4),
    }
    optimisers = {name: torch.optim.Adam([nn.Parameter(torch.zeros(1))]) for name in ("g", "d", "darm")}
    for iteration, (adversarial, correction) in expected.items():
        set_rates(optimisers, iteration, OPTIONS.rate)
        rates = {name: optimiser.param_groups[0]["lr"] for name, optimiser in optimisers.items()}
        assert rates == {
            "g": pytest.approx(adversarial),
            "d": pytest.approx(adversarial),
            "darm": pytest.approx(correction),
        }


def test_fewer_steps_take_the_same_rates_at_the_same_shares():
    def rates(iteration: int, steps: int) -> list[float]:
        optimisers = {name: torch.optim.Adam([nn.Parameter(torch.zeros(1))]) for name in ("g", "d", "darm")}
        set_rates(optimisers, iteration, OPTIONS.rate, steps)
        return [optimiser.param_groups[0]["lr"] for optimiser in optimisers.values()]

    for iteration in range(1, 301):
        assert rates(iteration, 300) == rates(10 * iteration, 3000), iteration


def test_dsem_is_trained_with_a_rate_that_is_halved_every_hundred_steps(monkeypatch, tmp_path):
    rates = []

    class Recorded(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim, "Adam", Recorded)

    class Crops:
        def sample(self, seed: int, step: int, batch: int) -> dict[str, np.ndarray]:
            return {name: np.full((1, 3, 4, 4), 0.5, np.float32) for name in "by"}

    options = AdaptOptions.profile("paper", 2, dsem_steps=201)
    adapt_paper.train_dsem(
        DSEM((4, 4)), Crops(), options, "cpu", Checkpoint(tmp_path / "a.partial", "a test", False), lambda _: None
    )
    np.testing.assert_allclose([rates[i] for i in (0, 99, 100, 199, 200)], [1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5])


def test_dsem_learns_to_tell_the_unknown_kind_from_bicubic(tmp_path):
    torch.manual_seed(0)

    class Crops:
        def sample(self, seed: int, step: int, batch: int) -> dict[str, np.ndarray]:
            noise = np.random.default_rng((seed, step)).random((batch, 3, 8, 8), np.float32)
            return {"b": noise, "y": np.repeat(noise.mean(3, keepdims=True), 8, 3)}  # y is smooth along rows

    reported: list[dict] = []
    options = AdaptOptions.profile("paper", 2, dsem_steps=60, batch=8)
    dsem = DSEM((32, 32))
    adapt_paper.train_dsem(
        dsem, Crops(), options, "cpu", Checkpoint(tmp_path / "a.partial", "a test", False), reported.append
    )
    assert reported[0]["loss"] == pytest.approx(0.5, abs=0.05)  # undecided: two times a half squared
    assert reported[-1]["loss"] < 0.8 * reported[0]["loss"]
    fresh = Crops().sample(9, 9, 16)
    with torch.no_grad():
        assert dsem(torch.from_numpy(fresh["y"])).min() > dsem(torch.from_numpy(fresh["b"])).max(), (
            "1 is the unknown kind, 0 bicubic"
        )


# --- One step ------------------------------------------------------------------------------------------------------------


def small_networks() -> Networks:
    torch.manual_seed(12)
    darm = DARM(correction_dictionary(), channels=8)
    with torch.no_grad():
        darm.tail.weight.mul_(0.05)
        darm.tail.bias.fill_(1 / 72)
    return Networks(Generator(2), Discriminator(), darm, DSEM((8, 8)).eval().requires_grad_(False), backbone())


def crops_of(side: int = 48, scale: int = 2) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = {"x": side, "u": side, "y": side // scale, "b": side // scale}
    return {name: torch.rand(2, 3, n, n, generator=random) for name, n in shapes.items()}


class Recorder:
    """Stands for an optimiser: notes when it steps, whose gradients were there, and does to the weights what it is told."""

    def __init__(
        self, name: str, module: nn.Module, events: list, effect: Callable[[Tensor], Tensor] = lambda p: p
    ) -> None:
        self.name, self.module, self.events, self.effect = name, module, events, effect

    def zero_grad(self) -> None:
        self.module.zero_grad()

    def step(self) -> None:
        self.events.append(self.name)
        with torch.no_grad():
            for p in self.module.parameters():
                p.copy_(self.effect(p))


def test_the_discriminator_is_stepped_last_on_what_the_generator_made_before_its_step():
    nets = small_networks()
    untouched = copy.deepcopy(nets)
    events: list[str] = []
    # G's and DARM's steps wreck the weights: had D been shown anything made after them, its gradients would tell
    wreck = {
        name: Recorder(name, getattr(nets, attribute), events, lambda p: torch.full_like(p, 7.0))
        for name, attribute in (("g", "generator"), ("darm", "darm"))
    }
    adversarial_step(nets, {**wreck, "d": Recorder("d", nets.discriminator, events)}, crops_of(), KernelWeights())
    assert sorted(events[:2]) == ["darm", "g"] and events[2:] == ["d"]

    outputs, _ = step_losses(untouched, crops_of())
    fake = outputs["x_d"].detach()
    loss = losses.gan_discriminator(
        untouched.discriminator(fake), untouched.discriminator(losses.window(crops_of()["y"], fake, losses.lr_front(2)))
    )
    loss.backward()
    for (name, ours), expected in zip(nets.discriminator.named_parameters(), untouched.discriminator.parameters()):
        assert expected.grad is not None
        torch.testing.assert_close(ours.grad, expected.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_a_step_moves_g_d_and_darm_and_nothing_else():
    nets = small_networks()
    before = {
        name: {k: v.clone() for k, v in getattr(nets, name).state_dict().items()}
        for name in ("generator", "discriminator", "darm", "dsem", "backbone")
    }
    optimisers = {
        n: torch.optim.Adam(getattr(nets, a).parameters(), 1e-3)
        for n, a in (("g", "generator"), ("d", "discriminator"), ("darm", "darm"))
    }
    adversarial_step(nets, optimisers, crops_of(), KernelWeights())
    for name in ("generator", "discriminator", "darm"):
        module = getattr(nets, name)
        for parameter, tensor in module.named_parameters():
            assert parameter.endswith("bias") or not torch.equal(tensor, before[name][parameter]), (
                f"{name}.{parameter} has not moved"
            )
    for name in ("dsem", "backbone"):
        module = getattr(nets, name)
        assert all(p.grad is None for p in module.parameters())
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in module.state_dict().items())
    assert torch.equal(nets.darm.dictionary, before["darm"]["dictionary"])


def test_gradients_of_every_network_pass_through_the_frozen_ones():
    nets = small_networks()
    _, terms = step_losses(nets, crops_of())
    for name, reaches_darm in (
        ("gan_g", False),
        ("dsem_zero", True),
        ("dsem_one", True),
        ("cycle_forward", True),
        ("cycle_backward", True),
        ("interpolation", True),
    ):
        nets.generator.zero_grad()
        nets.darm.zero_grad()
        terms[name].backward(retain_graph=True)
        darm_moves = any(p.grad is not None and p.grad.any() for p in nets.darm.parameters())
        assert darm_moves == reaches_darm, name
        if name != "interpolation":  # of y alone
            assert nets.generator.weights[0].grad.any(), name
    assert all(p.grad is None for p in nets.discriminator.parameters())


def test_the_total_is_the_published_sum():
    weights = KernelWeights(bicubic=5.0, sum_to_one=0.5, boundaries=0.5, off_centre=1.0, sparse=5.0)
    _, terms = step_losses(small_networks(), crops_of(), weights)
    kernel = (
        5 * terms["bicubic"]
        + 0.5 * terms["sum_to_one"]
        + 0.5 * terms["boundaries"]
        + terms["off_centre"]
        + 5 * terms["sparse"]
    )
    others = [
        terms[name] for name in ("gan_g", "cycle_forward", "cycle_backward", "dsem_zero", "dsem_one", "interpolation")
    ]
    torch.testing.assert_close(terms["total"], sum(others) + 2 * kernel)


class Ramp(nn.Module):
    """A backbone that is exact for images of the given slope along x: aligned by the convention, up to its border."""

    def __init__(self, scale: int, slope: float) -> None:
        super().__init__()
        self.scale, self.slope = scale, slope

    def forward(self, x: Tensor) -> Tensor:
        s = self.scale
        up = x.repeat_interleave(s, 2).repeat_interleave(s, 3)
        offsets = (torch.arange(up.shape[-1]) % s - (s - 1) / 2) / s  # in LR pixels
        return up + self.slope * s * offsets


def identity_darm() -> DARM:
    darm = DARM(channels=4)
    with torch.no_grad():
        darm.tail.weight.zero_()
        darm.tail.bias.zero_()
        darm.tail.bias[12] = 1
    return darm


def centred_generator(scale: int) -> Generator:
    """A generator whose kernel is a few taps in the middle of its 13: at 6 + (s - 1) / 2, where the centre term wants it."""
    generator = Generator(scale, channels=1)
    # tap positions on both axes: layers of 7, 5 and 3; 3.5 + 2 + 1 = 6.5 at x2, 3.5 + 3 + 1 = 7.5 at x4
    places = [(3, 4), (2,) if scale == 2 else (3,), (1,), (0,), (0,), (0,)]
    with torch.no_grad():
        for weight, side, taps in zip(generator.weights, GENERATOR_KERNELS, places):
            row = torch.zeros(side)
            row[list(taps)] = 1 / len(taps)
            weight[0, 0] = torch.outer(row, row)
    return generator


@pytest.mark.parametrize("scale", [2, 4])
def test_crops_and_centre_term_agree_on_where_the_kernel_is(scale):
    """A ramp, a centred kernel, exact networks: every term that compares places must be zero."""
    slope = 1 / 128
    ramp = slope * torch.arange(64.0).expand(1, 3, 64, 64)
    reduced = ramp.unfold(3, scale, scale).mean(-1)[..., : 64 // scale, :]
    nets = Networks(centred_generator(scale), Discriminator(), identity_darm(), DSEM((4, 4)).eval(), Ramp(scale, slope))
    with torch.no_grad():
        outputs, terms = step_losses(nets, {"x": ramp, "u": ramp, "b": reduced, "y": reduced})
    assert outputs["kernel"].sum().item() == pytest.approx(1, abs=1e-6)
    assert terms["off_centre"].item() < 1e-9
    torch.testing.assert_close(outputs["y_sr"], ramp, rtol=0, atol=1e-6)
    found = {name: terms[name].item() / (5 * slope) for name in ("cycle_forward", "cycle_backward")}  # in HR pixels
    assert found == {"cycle_forward": pytest.approx(0, abs=1e-4), "cycle_backward": pytest.approx(0, abs=1e-4)}


# --- The reference's fault -------------------------------------------------------------------------------------------------


def test_the_faulty_bicubic_term_cannot_be_reached_from_an_adaptation(monkeypatch, tmp_path):
    seen = []
    real = losses.bicubic_distance

    def spy(*args, **kwargs):
        seen.append(inspect.signature(real).bind(*args, **kwargs).arguments.get("sum_colours", False))
        return real(*args, **kwargs)

    monkeypatch.setattr(losses, "bicubic_distance", spy)
    adapt(tmp_path / "a.partial", options=AdaptOptions.profile("paper", 2, batch=2, steps=2, dsem_steps=1, crop=16))
    assert seen == [False, False]
    assert "sum_colours" not in {field.name for field in fields(AdaptOptions)}
    assert "sum_colours" not in inspect.signature(adversarial_step).parameters


def test_profile_paper_is_the_published_one():
    x2, x4 = (AdaptOptions.profile("paper", scale) for scale in (2, 4))
    for options in (x2, x4):
        assert (options.steps, options.dsem_steps, options.batch, options.rate, options.augment) == (
            3000,
            3000,
            16,
            1e-3,
            True,
        )
        assert options.crop * options.scale == 128
        assert options.least_side() == 148


def test_fewer_steps_and_smaller_crops_than_published():
    options = AdaptOptions.profile("paper", 2, steps=1500, batch=4, crop=32)
    assert (options.dsem_steps, options.least_side()) == (300, 84)
    assert AdaptOptions.profile("paper", 2, steps=5).dsem_steps == 5
    assert AdaptOptions.profile("paper", 2, steps=5, dsem_steps=7).dsem_steps == 7
    with pytest.raises(
        ValueError, match="crop is 15; expected at least 16 with profile paper, whose kernel has 13 taps"
    ):
        AdaptOptions.profile("paper", 2, crop=15)
