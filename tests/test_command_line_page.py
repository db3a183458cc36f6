"""docs/command-line.md says what is so: variables, exit codes, the lines that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

from darsr_deploy.errors import DarsrError
from darsr_deploy.install import install

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "command-line.md").read_text()
CODE = [ROOT / "cli.py", *(p for f in ("darsr_deploy", "darsr_train", "export") for p in (ROOT / f).rglob("*.py"))]


def test_every_variable_of_ours_is_in_the_table_and_no_other():
    used = {name for path in CODE for name in re.findall(r"\bDARSR_[A-Z_]+\b", path.read_text())}
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))
    assert used == listed and "DARSR_CACHE" in used


def test_the_environment_is_read_by_names_that_can_be_found():
    """So that the test above sees them all: a name is a literal, or one of the libraries' variables that bench sets."""
    found = set()
    for path in CODE:
        found |= set(re.findall(r"environ(?:\.get\(|\[)([^)\],]+)", path.read_text()))
    assert {name for name in found if not name.startswith('"')} <= {"name"}
    ours = {name.strip('"') for name in found if name.startswith('"')} - {
        "PATH",
        "PYTHONPATH",
        "RAY_ADDRESS",
        "RAY_TMPDIR",
    }
    assert ours == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M))


def test_the_lines_it_shows_are_those_that_are_printed(tmp_path, photo, monkeypatch):
    from darsr_deploy.files.adapter import Adapter
    from darsr_deploy.images.arrays import write_image
    from tests.support.commands import darsr

    monkeypatch.chdir(tmp_path)
    write_image(Path("photo.png"), photo)
    Adapter("none", 2, "edge-x2", "0" * 64).save("photo.darsr")
    assert darsr("infer", "photo.png", "--model", "photo.darsr").stderr.strip() in PAGE
    requirements = install("train").split(" install ")[1]
    assert f"pip install {requirements}" in PAGE
    (row,) = re.findall(r"^\| nothing was done \| `(.*)` \|$", PAGE, re.M)
    (error,) = json.loads(row)["errors"]
    assert error.keys() == DarsrError("a", "b", "c").to_json().keys()


def test_it_is_linked():
    assert "(command-line.md)" in (ROOT / "docs" / "README.md").read_text()
