"""Explain in words what was found in an image, what was chosen, and why. An adapter's facts may hold anything."""

from __future__ import annotations

import math

import numpy as np

from darsr_deploy.degradation.covariance import shape_of
from darsr_deploy.files.adapter import Adapter
from darsr_train.evaluation.kernel_error import kernel_error
from darsr_train.plots.kernels import kernels_of

NAMES = {"bicubic": "Bicubic", "backbone": "Backbone alone", "adapted": "Adapted", "truth": "Truth"}
_CANDIDATES = {
    "prior": "the pre-trained one",
    "adapted by half": "half-way to the one for this blur",
    "adapted": "the one for this blur",
}


_FOUND = {
    "blur_px": "Blur found, standard deviation in HR pixels",
    "noise": "Noise found, grey levels",
    "jpeg_quality": "JPEG quality found",
    "enlarged_before": "Enlarged before, times",
}
_REASONS = {
    "loss": "A bolder one is taken only if it explains the image clearly better.",
    "width": "The blur is far wider or narrower than what the pre-trained one is made for, so the one for this blur is taken.",
    "amount": "An amount of {amount:g} was asked for, so the one for a blur of so many times the variance is taken.",
}


def number(facts: dict, key: str) -> float | None:
    """Return a finite number of the facts; None where there is none."""
    value = facts.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def candidates(facts: dict) -> dict[str, float]:
    """Return the held-out loss of every candidate by its name in words; empty where none were compared."""
    found = facts.get("held_out_loss")
    if not isinstance(found, dict):
        return {}
    names = sorted(found, key=lambda name: (list(_CANDIDATES).index(name) if name in _CANDIDATES else 9, name))
    return {
        _CANDIDATES.get(name, name): value for name in names if (value := number(found, name)) is not None and value > 0
    }


def chosen_candidate(facts: dict) -> str:
    """Return the chosen candidate's name in words; empty where there is none."""
    chosen = facts.get("chosen")
    return _CANDIDATES.get(chosen, chosen) if isinstance(chosen, str) else ""


def _amount(facts: dict) -> float:
    options = facts.get("options")
    amount = number(options, "amount") if isinstance(options, dict) else None
    return 1.0 if amount is None else amount


def why(adapter: Adapter) -> list[str]:
    """Return sentences that say what was chosen and why."""
    facts = adapter.facts
    chosen, camera = facts.get("chosen"), number(facts, "camera_probability")
    amount = _amount(facts)
    if adapter.correction == "none":
        if facts.get("profile") == "paper":
            return ["Nothing is corrected: the image left as it is explains itself better than any correction learned."]
        if isinstance(facts.get("decision"), str):
            return [f"Found: {facts['decision']}.", "The backbone alone is best for such an image."]
        found = "the blur that was found" if amount == 1 else f"{amount:g} times the blur that was found"
        words = [f"Nothing is corrected: {found} is no wider than that of a bicubic reduction."]
        words.append("The backbone alone is best for such an image.")
        return words
    if facts.get("profile") == "paper":
        return [f"The average of the iterates that explains the image best is kept: {chosen}."]
    words = []
    if chosen == "told":
        words += _told(facts)
    elif chosen == "fitted":
        words += _fitted(adapter)
    elif camera is not None and camera > 0.5:
        strength = number(facts, "strength")
        words.append(
            f"The image shows a camera’s treatment (denoising, sharpening, JPEG), with a certainty of {camera:.0%}."
        )
        at = f" at {strength:.0%} of its strength" if strength is not None else ""
        words.append(f"Full correction harms such images, so the correction that knows cameras is used{at}.")
    elif len(candidates(facts)) > 1:
        words.append(
            f"{len(candidates(facts))} corrections were compared on the image, without a truth: how well does each explain it?"
        )
        by = str(facts.get("chosen_by"))
        words.append(_REASONS.get(by, _REASONS["loss"]).format(amount=amount))
        words.append(f"Chosen: {chosen_candidate(facts)}.")
    elif isinstance(chosen, str):
        words.append(f"Chosen: {chosen_candidate(facts)}.")
    if adapter.rounds:
        rounds = (
            "one round of back-projection adds"
            if adapter.rounds == 1
            else f"{adapter.rounds} rounds of back-projection add"
        )
        words.append(f"After the backbone, {rounds} what the given image says and the result lacks.")
    return words


def _told(facts: dict) -> list[str]:
    """Describe networks that are functions of what was found."""
    words = [f"Found: {facts['decision']}."] if isinstance(facts.get("decision"), str) else []
    words.append(
        "The correction network and the scale of every channel of the backbone are set for just that; nothing is fitted."
    )
    options = facts.get("options")
    for name, thing in (("denoise", "noise"), ("deblock", "compression")):
        share = number(options, name) if isinstance(options, dict) else None
        if share is not None and share < 1:
            words.append(f"As asked for, {share:.0%} of the {thing} is taken away.")
    return words


def _fitted(adapter: Adapter) -> list[str]:
    """Describe networks that were fitted to the blur's own kernel."""
    facts = adapter.facts
    words = [f"Found: {facts['decision']}."] if isinstance(facts.get("decision"), str) else []
    steps, parts = number(facts, "steps"), number(facts, "local_kernels")
    fitted = "the networks were fitted" + (f", in {steps:.0f} steps," if steps else "")
    if parts and parts > 1:
        return [
            *words,
            f"The blur changes across the picture, so {fitted} to photographs blurred by the kernels of its {parts:.0f} parts.",
        ]
    apart = "Its kernel is no Gaussian"
    if len(shown := kernels_of(adapter)) == 2:
        kernel, gaussian = (each.kernel for each in shown)
        apart = (
            f"The Gaussian of the same spread differs from the blur’s kernel by {kernel_error(gaussian, kernel):.0%}"
        )
    return [*words, f"{apart}, so {fitted} to photographs blurred by that kernel itself."]


def kernel_words(kernel: np.ndarray) -> str:
    """Describe size, sum and spread of a kernel."""
    words = f"{len(kernel)} × {len(kernel)} taps in HR pixels, sum {kernel.sum():.2f}"
    shape = shape_of(kernel) if kernel.sum() > 0.1 else {"sigma_short": 0}
    if shape["sigma_short"] > 0:  # a kernel with much negative mass has no spread
        words += f", σ {shape['sigma_long']:.1f} and {shape['sigma_short']:.1f} px"
    return words


def facts_table(adapter: Adapter, lr_size: tuple[int, int]) -> list[tuple[str, str]]:
    """Return the adapter's other facts as names and values."""
    facts, scale = adapter.facts, adapter.scale
    height, width = lr_size
    rows = [
        ("Image", f"{width} × {height} px, enlarged {scale} times to {width * scale} × {height * scale}"),
        ("Correction", adapter.correction),
        ("Backbone", f"{adapter.backbone} (sha256 {adapter.backbone_sha256[:12]})"),
    ]
    if (amount := _amount(facts)) != 1:
        rows.append(("Amount asked for", f"{amount:g} times the variance that was estimated"))
    for key, name in (("profile", "Profile"), ("steps", "Steps of the fit"), ("seed", "Seed")):
        if isinstance(facts.get(key), str | int):
            rows.append((name, str(facts[key])))
    rows.append(("Rounds of back-projection", str(adapter.rounds)))
    found = facts.get("found")
    for key, name in _FOUND.items():
        value = number(found, key) if isinstance(found, dict) else None
        if value:
            rows.append((name, f"{value:g}"))
    if (camera := number(facts, "camera_probability")) is not None:
        rows.append(("Probability of a camera’s treatment", f"{camera:.1%}"))
    if isinstance(versions := facts.get("versions"), dict):
        rows.append(("Made with", ", ".join(f"{name} {value}" for name, value in versions.items())))
    return rows
