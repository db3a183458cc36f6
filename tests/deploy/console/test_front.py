"""The front door: a path in the place of a command, names that were mistyped, -h and -s in every command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

import cli
from darsr_deploy.console.front import looks_like_path
from darsr_deploy.errors import option_error
from tests.support.commands import darsr, done, names, refused

ADAPTED = ("adapt", "infer", "upscale")


def commands(group=None, way=()) -> dict[tuple[str, ...], object]:
    """Every command by the words that call it, those of groups too."""
    group = typer.main.get_command(cli.app) if group is None else group
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= commands(command, (*way, name)) if inner else {(*way, name): command}
    return found


def usage(result) -> str:
    """What a frame on stderr says, in one line."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


@pytest.mark.parametrize(
    "word", ["-", "a.jpg", "a.b", "folder/", "some/where", "*.png", "photo?", "[ab]", "/absolute", "../a"]
)
def test_what_looks_like_a_path(word):
    assert looks_like_path(word)


@pytest.mark.parametrize("word", ["holidai", "imfer", "-x", "--version", ""])
def test_what_does_not(word):
    assert not looks_like_path(word)


def test_what_is_there_is_a_path_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("holiday").mkdir()
    Path("dangling").symlink_to("nowhere")
    assert looks_like_path("holiday") and looks_like_path("dangling")


def test_a_path_alone_goes_to_upscale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = refused("upscale", "missing.jpg", name="missing.jpg: cannot be read (No such file or directory)")
    for words in (
        ("missing.jpg",),
        ("--scale", "4", "missing.jpg"),
        ("-s", "4", "missing.jpg"),
        ("--scale=4", "missing.jpg"),
    ):
        assert refused(*words, name="missing.jpg") == expected
    Path("adapt").mkdir()  # a command's name stays the command's
    assert "Missing argument" in usage(darsr("adapt"))
    Path("empty").mkdir()
    assert "holds no images" in refused("empty", name="empty")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("imfer", "No such command 'imfer', nor a file or folder of that name. Did you mean 'infer'?"),
        ("upscal", "No such command 'upscal', nor a file or folder of that name. Did you mean 'upscale'?"),
        ("holidai", "No such command 'holidai', nor a file or folder of that name."),
    ],
)
def test_a_mistyped_command_says_what_it_may_have_been(word, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in usage(darsr(word, "a.png"))
    assert said.partition(".")[2].strip() or "Did you mean" not in usage(darsr(word, "a.png"))


def test_so_does_a_mistyped_command_of_a_group():
    assert "No such command 'lst'. Did you mean 'list'?" in usage(darsr("backbone", "lst"))


def test_a_mistyped_option_says_what_it_may_have_been():
    assert "--overwrite" in usage(darsr("upscale", "a.png", "--overwrit"))


@pytest.mark.parametrize("words", [(), ("backbone",), *commands()], ids=" ".join)
def test_h_is_help(words):
    assert "Usage:" in done(*words, "-h").stdout


def test_scale_is_short_everywhere_and_says_which_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_scale = [words for words, command in commands().items() if "scale" in {p.name for p in command.params}]
    assert {("upscale",), ("adapt",), ("infer",), ("eval",), ("degrade",), ("bench",)} <= set(with_scale)
    for words in with_scale:
        out = ("-o", "out") if words in (("degrade",), ("backbone", "train")) else ()
        for option in ("--scale", "-s"):
            line = refused(*words, "x", *out, option, "3", name="--scale 3: there are networks for 2 and 4")
            assert line.endswith("; use --scale 2 or --scale 4")
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("upscale a.png --amount 9", "--amount 9.0: expected 0.1 to 4; see darsr adapt -h"),
        ("adapt a.png --deblock 2", "--deblock 2.0: expected 0 to 1; see darsr adapt -h"),
        ("adapt a.png --profile slow", "--profile slow: expected one of fast, thorough, paper; see darsr adapt -h"),
        ("adapt a.png --profile paper --budget 3", "--budget: belongs to profile fast, and the profile is paper"),
        ("bench --scenario server", "--scenario server: expected one of single-stream"),
        ("upscale a.png --format gif", "--format gif: is not known; choose one of png, jpg, webp, tiff"),
        ("upscale a.png --engine x", "engine x: is not known; choose one of auto, ort, trt, trt-rtx, torch"),
        (
            "upscale a.png --quality 80 --format png",
            "--quality 80: PNG is exact and has none; use --format jpg or webp",
        ),
    ],
)
def test_the_subject_of_an_error_is_the_option_as_typed(words, said):
    refused(*words.split(), name=said)


def test_an_option_that_is_refused_in_other_words():
    assert (
        str(option_error(ValueError("seconds are too few"), "darsr bench"))
        == "--seconds: are too few; see darsr bench -h"
    )


@pytest.mark.parametrize("command", ADAPTED)
def test_to_keep_and_to_replace_exclude_each_other(command):
    said = usage(darsr(command, "a.png", "--overwrite", "--skip-existing"))
    assert "give only one of --overwrite and --skip-existing" in said
