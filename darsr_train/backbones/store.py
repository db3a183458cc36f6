"""Locate backbones: those of the package, those in the user's folder, and those that can be downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.folders import WEIGHTS, data_folder
from darsr_deploy.files.kinds import another_kind


@dataclass(frozen=True)
class Published:
    """Weights published by others, which this package does not ship.

    Attributes:
        file: path of the file below :attr:`base`.
        size: bytes.
        licence: as the file's own place states it; shown to the user, and kept in the imported file.
    """

    name: str
    architecture: str
    scale: int
    file: str
    size: int
    sha256: str
    base: str
    licence: str

    @property
    def command(self) -> str:
        """Return the command that downloads it."""
        return f"darsr backbone download {self.name}"

    def facts(self) -> dict:
        """Return what an imported file records of its origin: the same however it was obtained, for an equal sha256."""
        return {"licence": self.licence, "source": f"{self.base}/{self.file}", "source_sha256": self.sha256}


_SRFBN = {
    "architecture": "srfbn-s",
    "base": "https://raw.githubusercontent.com/edbca/DARSR/16b5b00857629ed7f0f69dea1c8c773246f94073",
    "licence": "none stated (github.com/edbca/DARSR)",
}
PUBLISHED = {
    p.name: p
    for p in (
        Published(
            name="srfbn-s-x2",
            scale=2,
            file="SRFBN/SRFBN-S_x2_BI.pth",
            size=1_138_055,
            sha256="dd2426939a8df95f8ad79591f98ce6c564a5311cb8194020f3cb391723210132",
            **_SRFBN,
        ),
        Published(
            name="srfbn-s-x4",
            scale=4,
            file="SRFBN/SRFBN-S_x4_BI.pth",
            size=1_940_885,
            sha256="7ae85e3c298e7ce5087f156ead06b7245a5564b6960611aa18d51bea77c97e7f",
            **_SRFBN,
        ),
    )
}


def installed_folder() -> Path:
    """Return the folder of downloaded backbones: in the user's data folder, or in the one that DARSR_DATA names."""
    return data_folder() / "backbones"


def embedded_names() -> list[str]:
    """Return the names of the backbones that come with the package, the default ones first."""
    names = (path.stem for path in WEIGHTS.glob("edge*-x[24].safetensors"))
    return sorted(names, key=lambda name: (not name.startswith("edge-x"), name))


def installed_names() -> list[str]:
    """Return the names of all installed backbones, those of the package first."""
    embedded = embedded_names()
    own = sorted(path.stem for path in installed_folder().glob("*-x[24].safetensors"))
    return embedded + [name for name in own if name not in embedded]


def locate(name_or_path: str, scale: int) -> Path:
    """Return the file of a backbone given as ``edge-x2``, as ``edge`` (with the scale), or as a path.

    Raises:
        DarsrError: neither an installed name nor a file; the line says what is installed, or the command that downloads.
    """
    if scale not in (None, 2, 4):
        raise DarsrError(f"scale {scale}", "is not supported", "choose 2 or 4")
    names = (name_or_path, f"{name_or_path}-x{scale}")
    for name in names:
        if name in embedded_names():
            return WEIGHTS / f"{name}.safetensors"
        if name in installed_names():
            return installed_folder() / f"{name}.safetensors"
    path = Path(name_or_path)
    if path.is_file():
        return path
    for name in names:
        if name in PUBLISHED:
            raise DarsrError(f"backbone {name_or_path}", "is not installed", f"download it: {PUBLISHED[name].command}")
    raise another_kind(path, "backbone") or DarsrError(
        f"backbone {name_or_path}",
        "is neither a file nor the name of one that is installed for this scale",
        f"installed: {', '.join(installed_names()) or 'none'}; see darsr backbone list",
    )
