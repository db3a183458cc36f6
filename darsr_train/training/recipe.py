"""Train everything that ships, stage by stage: ``python -m darsr_train.training.recipe PHOTOS OUT``.

Every stage is a command of its own, which can be given by hand as well. A stage whose file is there is left out, one that was
stopped goes on from its checkpoint, so the recipe may be interrupted at any time and run again. On one core of 2026 the whole
takes about two days; nothing of it needs a GPU. The order is that of what depends on what.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SHARP = ("--half-share", "0.5", "--sharpened-share", "0.5")
_BLUR_ALONE = (
    *("--blur-share", "0.94", "--dirty-share", "0", "--web-share", "0", "--camera-share", "0"),
    *("--enlarged-share", "0", "--scene-share", "0.04", "--half-share", "0.5", "--sharpened-share", "0.4"),
)
_ALL_BUT_BLUR = (
    *("--blur-share", "0.06", "--dirty-share", "0.52", "--web-share", "0.2"),
    *("--camera-share", "0.06", "--enlarged-share", "0.1"),
)


@dataclass(frozen=True)
class Stage:
    """One training: a module of this package, or ``darsr backbone train``.

    Attributes:
        out: name of the file that it makes.
        module: below :mod:`darsr_train.training`; ``backbone`` stands for the command.
        options: as on its command line; ``@name`` is a file of an earlier stage.
    """

    out: str
    module: str
    options: tuple[str, ...] = ()

    def command(self, photographs: Path, folder: Path) -> list[str]:
        """Return the command line, with ``--resume`` where there is a checkpoint to go on from."""
        out = folder / self.out
        options = [str(folder / option[1:]) if option.startswith("@") else option for option in self.options]
        program = ["cli", "backbone", "train"] if self.module == "backbone" else [f"{__package__}.{self.module}"]
        resume = ["--resume"] if out.with_suffix(".checkpoint").is_file() else []
        return [sys.executable, "-m", *program, str(photographs), "--out", str(out), *options, *resume]


def _of_scale(scale: int) -> list[Stage]:
    """Return the stages of a scale, all but its backbone."""
    at = ("--scale", str(scale))
    patch = () if scale == 2 else ("--patch", "40")
    stage1, wild = f"stage1-x{scale}.safetensors", f"modulated-wild-x{scale}.safetensors"
    return [
        Stage(f"prior-x{scale}.safetensors", "prior", (*at, "--steps", "16500")),
        Stage(f"blur-x{scale}.safetensors", "blur", (*at, *_SHARP)),
        Stage(f"family-start-x{scale}.safetensors", "family", (*at, "--start", f"@prior-x{scale}.safetensors")),
        Stage(
            f"family-x{scale}.safetensors",
            "family",
            (*at, "--family", f"@family-start-x{scale}.safetensors", "--enlarged", "0.5", *_SHARP, "--patch", "64"),
        ),
        Stage(stage1, "modulated", (*at, *patch, "--steps", "6500")),
        Stage(
            f"modulated-clean-x{scale}.safetensors",
            "modulated",
            (*at, *patch, "--start", f"@{stage1}", "--steps", "4500", "--rate", "4e-4", *_BLUR_ALONE),
        ),
        Stage(
            wild,
            "modulated",
            (*at, *patch, "--start", f"@{stage1}", "--steps", "4500", "--rate", "4e-4", *_ALL_BUT_BLUR),
        ),
    ]


STAGES = [
    Stage("edge-x2.safetensors", "backbone", ("--steps", "60000")),
    Stage("edge-x4.safetensors", "backbone", ("--scale", "4", "--start", "@edge-x2.safetensors", "--blocks", "20")),
    Stage("traces.safetensors", "camera_traces", ("--samples", "10000")),
    Stage("estimator.safetensors", "estimator", ("--steps", "7000")),
    *_of_scale(2),
    Stage("shape-x2.safetensors", "shape"),
    *_of_scale(4),
]


def run(photographs: Path, folder: Path, only: list[str] | None = None, *, dry: bool = False) -> list[list[str]]:
    """Run the stages whose files are missing, in order; returns their command lines.

    Args:
        only: names of files, without their suffix; all of them by default.
        dry: return the commands and run nothing.

    Raises:
        subprocess.CalledProcessError: a stage has failed; the others are not begun.
    """
    folder.mkdir(parents=True, exist_ok=True)
    commands = []
    for stage in STAGES:
        if (only and Path(stage.out).stem not in only) or (folder / stage.out).is_file():
            continue
        commands.append(stage.command(photographs, folder))
        if not dry:
            subprocess.run(commands[-1], check=True)
    return commands


def main() -> None:
    """Command line, see the top of this file."""
    parser = argparse.ArgumentParser(description="Train everything that ships.")
    parser.add_argument("photographs", type=Path, help="folder of sharp photographs of a megapixel and more")
    parser.add_argument("out", type=Path, help="folder of the weights to be")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of stages' files, without the suffix")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    given = parser.parse_args()
    for command in run(given.photographs, given.out, given.only, dry=given.dry_run):
        print(" ".join(command[1:]))


if __name__ == "__main__":
    main()
