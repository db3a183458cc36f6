"""Measuring tasks: the images of several sets, each with everything its figures depend on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.hashing import hash_file, hash_json

from ..adaptation.adapt import shipped_networks, versions
from ..adaptation.told import told_networks
from ..backbones import Backbone, load_backbone
from ..networks.prior import load_prior
from ..runtime import checked_options
from .measure import METHODS, Plan
from .sets import ImageSet, Pair


@dataclass(frozen=True)
class Task:
    """One image to measure, with all that another process needs to do so.

    Attributes:
        set: name of its set.
        fingerprint: of everything the row depends on; a known row with the same one is not measured again.
        work: folder for the state of an adaptation and the crops of the contact sheet.
    """

    set: str
    pair: Pair
    plan: Plan
    scale: int
    backbone: str
    backbone_sha256: str
    device: str
    fingerprint: str
    work: Path
    resume: bool = False
    sheet: bool = False

    def __str__(self) -> str:
        return str(self.pair.lr)

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return the files that it reads, for the manifest of a cluster."""
        return (self.pair.lr, self.pair.hr)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """Return the files that it writes: none, its row is all."""
        return ()

    @property
    def key(self) -> str:
        """Return what its line in a manifest is found by."""
        return self.fingerprint

    @property
    def strip(self) -> Path:
        """Return the file of the crops for the contact sheet, side by side."""
        return self.work / f"{self.fingerprint}.png"


@dataclass(frozen=True)
class Request:
    """What the user asked for: ``backbone`` is a name or a file; ``steps`` None leaves the number to the profile."""

    method: str
    backbone: str
    seed: int
    steps: int | None
    with_prior: bool
    device: str
    sheet: bool
    resume: bool
    kernels: bool = False

    def plan(self, scale: int) -> Plan:
        """Return how images of this scale are measured.

        Raises:
            DarsrError: an unknown method, or an option out of range.
        """
        if self.method not in METHODS:
            raise DarsrError(f"method {self.method}", "is not known", f"choose one of {', '.join(METHODS)}")
        options = None
        if self.method in ("fast", "thorough", "paper"):
            options = checked_options(self.method, scale, seed=self.seed, steps=self.steps)
        return Plan(self.method, options, self.with_prior and self.method != "prior", self.kernels)


def prepare(
    sets: list[ImageSet], request: Request, work: Path, complain: Callable[[DarsrError], None]
) -> tuple[list[Task], dict, list[dict]]:
    """Return the tasks of all sets, how they are measured, and the sets as the summary names them.

    A set that cannot be measured at all is one complaint; the others are still measured. Kernels are compared in the sets
    that hold true ones.

    Raises:
        DarsrError: the request cannot be met for any set.
    """
    request.plan(2)  # an unknown method is reported once, not for every set
    if request.kernels and sets and not any(map(_has_kernels, sets)):
        raise DarsrError("--kernels", "no set holds true kernels (kernel/NAME.npz)", "make sets with darsr degrade")
    tasks, parts = [], []
    networks: dict[int, Backbone] = {}
    for found in sets:
        try:
            plan = request.plan(found.scale)
            plan = dataclasses.replace(plan, kernels=plan.kernels and _has_kernels(found))
            if found.scale not in networks:
                networks[found.scale] = load_backbone(request.backbone, found.scale)  # for its name and hash alone
            _check(found, plan)
        except DarsrError as error:
            complain(DarsrError(found.name, str(error)))
            continue
        network = networks[found.scale]
        tasks += [
            Task(
                found.name, pair, plan, found.scale, request.backbone, network.sha256, request.device,
                fingerprint(found.name, pair, plan, network, request.device), work, request.resume, request.sheet,
            )
            for pair in found.pairs
        ]  # fmt: skip
        parts.append(
            {"name": found.name, "folder": str(found.folder), "scale": found.scale, "backbone": network.name}
            | {"backbone_sha256": network.sha256, "asked": len(found.pairs)}
            | ({"masked": True} if found.pairs[0].mask else {})
        )
    options = next((task.plan.options.to_json() for task in tasks if task.plan.options), None)
    head = {"method": request.method, "backbone": request.backbone, "options": options, "device": request.device}
    return tasks, head | {"versions": _versions()}, parts


def _check(found: ImageSet, plan: Plan) -> None:
    """Report once what would fail for every image of a set."""
    if plan.method == "nonblind" and not _has_kernels(found):
        raise DarsrError("method nonblind", "the set holds no true kernels (kernel/NAME.npz)", "use another --method")
    if _needs_prior(plan):
        load_prior(found.scale)


def _has_kernels(found: ImageSet) -> bool:
    return (found.folder / "kernel").is_dir()


def _needs_prior(plan: Plan) -> bool:
    return plan.with_prior or plan.method in ("prior", "fast")


def _networks(scale: int) -> list[Path]:
    return [*shipped_networks(scale), *told_networks(scale)]


def _versions() -> dict[str, str]:
    return versions() | {name: importlib.metadata.version(name) for name in ("numpy", "scikit-image")}


def fingerprint(set_name: str, pair: Pair, plan: Plan, backbone: Backbone, device: str) -> str:
    """Hash what an image's row depends on (names, images, options, networks, versions) to 32 hexadecimal digits.

    The number of threads does not count: it moves figures by rounding only.
    """
    uses_kernel = plan.method == "nonblind" or plan.kernels
    ways = dataclasses.asdict(plan)
    del ways["kernels"]  # the kernel's hash says it, and without one a row is what it was before there was this choice
    facts = {
        "plan": ways,
        "name": [set_name, pair.lr.name],
        "lr": _hash(pair.lr),
        "hr": _hash(pair.hr),
        "kernel": _hash(pair.kernel) if uses_kernel else "",
        "backbone": backbone.sha256,
        "scale": backbone.scale,
        "networks": [_hash(path) for path in _networks(backbone.scale)] if _needs_prior(plan) else [],
        "device": device.partition(":")[0],
        "versions": _versions(),
    }
    if pair.mask is not None:
        facts["mask"] = _hash(pair.mask)
    return hash_json(facts)[:32]


def _hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError:  # reported when it is measured
        return ""
