"""Every module of the folder but the shared one is an experiment that runs by its name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import export.benchmarks
from export.benchmarks.timing import run

NAMES = sorted(p.stem for p in Path(export.benchmarks.__file__).parent.glob("*.py") if p.stem[0] != "_")
NAMES.remove("timing")


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_explains_its_options(name, monkeypatch, capsys):
    module = importlib.import_module(f"export.benchmarks.{name}")
    assert f"python -m export.benchmarks.{name}" in module.__doc__
    assert 'if __name__ == "__main__":\n    run(main)' in Path(module.__file__).read_text()
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        run(module.main)
    assert "usage: " in capsys.readouterr().out
