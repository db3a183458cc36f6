"""What an error line tells a user to install can be installed: the package is on no index, so requirements are named."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from darsr_deploy import install as installing
from darsr_deploy.install import install, pip

ROOT = Path(__file__).parents[2]
EXTRAS = [e for e in importlib.metadata.metadata("darsr").get_all("Provides-Extra") if e not in ("dev", "browser")]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_what_an_extra_requires(extra):
    packaging = pytest.importorskip("packaging.requirements")
    wanted = {
        requirement.name
        for requirement in map(packaging.Requirement, importlib.metadata.requires("darsr"))
        if requirement.marker and re.search(rf'extra == "{extra}"', str(requirement.marker))
    }
    words = shlex.split(install(extra).split(" install ", 1)[1])
    assert wanted and {packaging.Requirement(word).name for word in words} == wanted


def test_several_extras_are_one_command():
    assert install("ort", "export").count("pip install") == 1
    assert install("ort", "ort") == install("ort")


def test_a_source_folder_that_was_never_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    folder, _, extras = shlex.split(install("export", "ort"))[-1].partition("[")
    assert Path(folder, "pyproject.toml").is_file() and extras == "export,ort]"


def test_pip_is_that_of_this_python(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: str(Path(sys.executable).with_name("pip")))
    assert pip() == "pip"
    monkeypatch.setattr(installing.shutil, "which", lambda name: str(tmp_path / "pip"))  # another environment's
    assert pip() == f"{sys.executable} -m pip"


def test_no_text_sends_a_user_to_an_index_that_has_no_such_package():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "cli.py"]
    pages += [p for folder in ("darsr_deploy", "darsr_train", "export") for p in (ROOT / folder).rglob("*.py")]
    assert len(pages) > 100
    wrong = re.compile(r"pip install\b[^\n`]*['\" ]darsr(\[|['\"`\s]|$)")
    found = [f"{p.name}: {line}" for p in pages for line in p.read_text().splitlines() if wrong.search(line)]
    assert found == []
