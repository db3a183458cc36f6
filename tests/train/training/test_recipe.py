"""The recipe of everything that ships: complete, in order, and made of commands that their modules take."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from darsr_deploy.files.folders import WEIGHTS
from darsr_train.training import recipe

# Made of published experiments or for research alone: no part of profile fast with the default backbone.
APART = {"edge-plus-x2", "prior-camera-x2"}


def test_everything_that_ships_has_a_stage():
    made = {Path(stage.out).stem for stage in recipe.STAGES}
    shipped = {path.stem for path in WEIGHTS.glob("*.safetensors")}
    assert shipped - APART <= made


def test_stages_come_after_what_they_start_from():
    before: set[str] = set()
    for stage in recipe.STAGES:
        assert {option[1:] for option in stage.options if option.startswith("@")} <= before, stage.out
        before.add(stage.out)


@pytest.mark.parametrize("stage", recipe.STAGES, ids=lambda stage: stage.out)
def test_options_are_known_to_their_module(stage, monkeypatch, capsys, tmp_path):
    """Every option is accepted: with --help behind them, a parser stops before it trains, and complains of unknown ones first."""
    command = stage.command(tmp_path / "photos", tmp_path)
    if stage.module == "backbone":
        from tests.support.commands import darsr

        result = darsr(*command[3:], "--help")
        assert result.exit_code == 0
        assert all(option in result.stdout for option in stage.options if option.startswith("--"))
        return
    monkeypatch.setattr(sys, "argv", [command[2], "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(command[2]).main()
    known = capsys.readouterr().out
    assert all(f"{option} " in known for option in stage.options if option.startswith("--")), known


def test_what_is_there_is_left_out_and_checkpoints_are_gone_on_from(tmp_path):
    first, second = recipe.STAGES[2], recipe.STAGES[3]
    (tmp_path / first.out).write_bytes(b"")
    (tmp_path / second.out).with_suffix(".checkpoint").write_bytes(b"")
    commands = recipe.run(tmp_path, tmp_path, [Path(s.out).stem for s in (first, second)], dry=True)
    (command,) = commands
    assert str(tmp_path / second.out) in command and command[-1] == "--resume"
