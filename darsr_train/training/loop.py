"""The training loop of all networks: Adam, warm-up and cosine, averaged weights, exact resume."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import write_bytes, write_text
from darsr_deploy.images.arrays import write_image

from ..adaptation.checkpoint import saved_bytes
from ..plots.learning_curve import draw_curve


@dataclass(frozen=True)
class TrainingOptions:
    """What every training has in common."""

    scale: int = 2
    steps: int = 60_000
    batch: int = 8  # crops a step
    patch: int = 48  # side of an LR crop in pixels
    rate: float = 1e-3  # peak learning rate of Adam
    final_rate: float = 1e-6  # learning rate at the last step
    warmup: int = 500  # steps of linear warm-up
    clip: float = 1.0  # largest gradient norm
    average: float = 0.999  # decay of the averaged (EMA) weights, which are what is kept
    seed: int = 0
    bf16: bool = True  # autocast to bfloat16
    validate_every: int = 2000
    save_every: int = 1000

    def __post_init__(self) -> None:
        if self.scale not in (2, 4):
            raise ValueError(f"scale is {self.scale}; expected 2 or 4")
        least = {"seed": 0} | dict.fromkeys(("steps", "batch", "patch", "warmup", "validate_every", "save_every"), 1)
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {value}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}; expected 0 <= average < 1")

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then half a cosine."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.final_rate + (self.rate - self.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))

    def autocast(self, device: str) -> torch.autocast:
        """Return the context for the network's forward pass alone: crops and losses stay float32."""
        return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=self.bf16)


def add_numbers(parser: argparse.ArgumentParser, options: type[TrainingOptions]) -> None:
    """Add a command-line option, ``--name``, for every field that is a number."""
    for field in dataclasses.fields(options):
        if field.type in ("int", "float"):
            kind = {"int": int, "float": float}[field.type]
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)


def train(
    model: nn.Module,
    options: TrainingOptions,
    loss_of: Callable[[nn.Module, int], Tensor],
    out: Path,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    device: str = "cpu",
    resume: bool = False,
    report: Callable[[dict], None] = lambda _: None,
) -> nn.Module:
    """Train ``model`` and return its averaged copy: on the CPU, in eval mode, without gradients.

    Args:
        loss_of: ``(model, step) -> loss``; must depend on the step number alone, so that a resumed run on a CPU ends
            with the very weights of an uninterrupted one.
        out: the file to be; ``.checkpoint``, ``.log.json`` and the learning curve ``.log.png`` are written beside it.
        validate: measures the averaged model; its figures are logged and decide nothing.
        report: called after every step with ``step, loss, rate, seconds`` and, where measured, the figures.

    Raises:
        DarsrError: ``resume`` without a checkpoint or with one of other options.
    """
    model = model.to(device, memory_format=torch.channels_last)
    averaged = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.Adam(model.parameters(), lr=options.rate)
    checkpoint = out.with_suffix(".checkpoint")
    first, log, recent = _restore(checkpoint, options, model, averaged, optimiser) if resume else (0, [], [])
    started = time.perf_counter()
    for step in range(first, options.steps):
        for group in optimiser.param_groups:
            group["lr"] = options.rate_at(step)
        loss = loss_of(model, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip)
        optimiser.step()
        _average(averaged, model, min(options.average, (1 + step) / (10 + step)))
        done = step + 1
        last = done == options.steps
        entry = {
            "step": done,
            "loss": loss.item(),
            "rate": options.rate_at(step),
            "seconds": time.perf_counter() - started,
        }
        if validate and (done % options.validate_every == 0 or last):
            entry |= validate(averaged)
        recent.append(entry["loss"])
        if len(entry) > 4 or done % 100 == 0:
            log.append({**entry, "loss": sum(recent) / len(recent)})  # one step's is that of a few crops
            recent.clear()
        report(entry)
        if done % options.save_every == 0 or last:
            _save(checkpoint, options, done, model, averaged, optimiser, log, recent)
            write_text(out.with_suffix(".log.json"), json.dumps({"options": asdict(options), "log": log}, indent=1))
            write_image(out.with_suffix(".log.png"), draw_curve(log, out.name))
    return averaged.to("cpu").eval()


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for target, source in zip(averaged.parameters(), model.parameters()):
        target.lerp_(source, 1 - decay)


def _save(
    path: Path,
    options: TrainingOptions,
    step: int,
    model: nn.Module,
    averaged: nn.Module,
    optimiser: torch.optim.Optimizer,
    log: list[dict],
    recent: list[float],
) -> None:
    state = {"options": asdict(options), "step": step, "log": log, "recent": recent}
    state |= {"model": model.state_dict(), "averaged": averaged.state_dict(), "optimiser": optimiser.state_dict()}
    write_bytes(path, saved_bytes(state))


def _restore(
    path: Path, options: TrainingOptions, model: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, list[dict], list[float]]:
    """Load a checkpoint; return the step to continue from, the log, and the losses since its last entry."""
    if not path.is_file():
        raise DarsrError(str(path), "there is no checkpoint to resume from", "leave out --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        different = [name for name, value in asdict(options).items() if state["options"].get(name) != value]
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DarsrError(str(path), "is not a readable training checkpoint", "leave out --resume") from error
    if different:
        raise DarsrError(
            str(path),
            f"was written with another {', '.join(different)}",
            "give the same options, or leave out --resume",
        )
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["log"], state.get("recent", [])
