"""Which GPU an engine is for, and whether it is the one at hand."""

from __future__ import annotations

from .cuda_driver import Device
from .engine_file import EngineFacts
from .errors import DarsrError
from .trt_library import Library, works_here


def known_targets(library: Library) -> list[str]:
    """Compute capabilities that a TensorRT for RTX builds for."""
    members = library.module.ComputeCapability.__members__
    return [f"sm_{name[2:]}" for name in members if name.startswith("SM")]


def check_targets(library: Library, targets: tuple[str, ...]) -> None:
    """Refuse what the library does not build for.

    Raises:
        DarsrError: for ``trt`` any target, for ``trt-rtx`` one it does not know, such as a Jetson's.
    """
    if library.family.name == "trt":
        if targets:
            raise DarsrError(
                f"--target {','.join(targets)}",
                "TensorRT builds for the GPU it runs on",
                "use --format trt-rtx, or build there",
            )
        return
    for target in targets:
        if target not in known_targets(library):
            raise DarsrError(
                f"--target {target}",
                f"TensorRT for RTX {library.version} builds for {', '.join(known_targets(library))}",
                "for a Jetson (Orin is sm_87) or another GPU use --format trt on the device itself",
            )


def require_gpu(library: Library) -> tuple[str, str]:
    """Name and compute capability of the GPU, if this family runs on it.

    Raises:
        DarsrError: no GPU, or for TensorRT for RTX one that it does not know; the line names what works here.
    """
    with Device() as device:
        name, target = device.name, device.target
    if library.family.name == "trt-rtx":
        try:
            check_targets(library, (target,))
        except DarsrError as error:
            raise DarsrError(
                f"{name} ({target})", error.args[1], f"use TensorRT itself (--engine trt, --format trt); {works_here()}"
            ) from error
    return name, target


def require_version(model: str, facts: EngineFacts, library: Library) -> None:
    """An engine loads in the family and version that built it.

    Raises:
        DarsrError: another one is installed.
    """
    if facts.family != library.family.name:
        raise DarsrError(
            model,
            f"is an engine of {facts.family}, and {library.family.name} was asked for",
            f"use --engine {facts.family}",
        )
    if facts.tensorrt != library.version:
        raise DarsrError(
            model,
            f"was built by {library.family.title} {facts.tensorrt}, and {library.version} is installed",
            "build it again with darsr export, or install that version",
        )


def require_device(model: str, facts: EngineFacts, device: Device) -> None:
    """An enterprise engine runs on the GPU model it was built on; one for RTX on the targets it was built for.

    Raises:
        DarsrError: another GPU.
    """
    if facts.family == "trt":
        if (facts.gpu, facts.target) != (device.name, device.target):
            raise DarsrError(
                model,
                f"was built on {facts.gpu} ({facts.target}), and this is {device.name} ({device.target})",
                "build it here with darsr export --format trt",
            )
    elif facts.targets and device.target not in facts.targets:
        raise DarsrError(
            model,
            f"was built for {', '.join(facts.targets)}, and this is {device.name} ({device.target})",
            f"build it with --target {device.target}"
            if device.target != "sm_87"
            else "use --format trt on this device",
        )
