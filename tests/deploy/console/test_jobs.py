"""Several inputs in one command: which files are read, where results go, and that a failure stops nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from darsr_deploy.console import jobs
from darsr_deploy.console.command import output_place
from darsr_deploy.errors import DarsrError
from darsr_deploy.files import places


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


# ---- expand


def test_files_as_they_are_and_folders_as_their_images(tmp_path):
    inside = touch(tmp_path / "folder", "a.png", "b.jpg")
    touch(tmp_path / "folder", "a_x2.png", "a.darsr", "notes.txt")
    (alone,) = touch(tmp_path, "z.png")
    assert jobs.expand([alone, tmp_path / "folder"], pytest.fail) == [alone, *inside]


def test_a_named_file_is_taken_whatever_its_name(tmp_path):
    """Only folders are filtered: who names photo_x2.png means it; a missing one is said when it is read."""
    named = [*touch(tmp_path, "photo_x2.png", "photo.txt"), tmp_path / "missing.png"]
    assert jobs.expand(named, pytest.fail) == named


def test_a_folder_without_images_is_said_and_the_others_are_done(tmp_path):
    touch(tmp_path, "notes.txt", "a_x2.png")
    (alone,) = touch(tmp_path, "z.jpg")
    touch(tmp_path / "empty", "notes.txt")
    said = []
    assert jobs.expand([tmp_path / "empty", alone], said.append) == [alone]
    assert len(said) == 1 and str(said[0]).startswith(f"{tmp_path / 'empty'}: holds no images (.png")


def test_what_of_a_folder_is_passed_over_is_one_line(tmp_path, capsys):
    images = touch(tmp_path, "a.avif", "b.heic", "c.mpo", "d.png")
    touch(tmp_path, "room_x2.png", "clip.mp4", "clip.mkv", "e.gif", "f.nef", "notes.txt", ".hidden.gif", "d.darsr")
    assert jobs.expand([tmp_path], pytest.fail) == images
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}: passed over 1 named like results of this toolkit (room_x2.png), 2 videos, "
        "2 of formats that are not read (.gif .nef); give by name what is meant"
    ]
    jobs.expand(images, pytest.fail)
    touch(tmp_path / "plain", "a.png", "notes.txt")
    jobs.expand([tmp_path / "plain"], pytest.fail)
    assert capsys.readouterr().err == "", "nothing to say"


def test_a_pattern_is_the_pictures_that_it_matches(tmp_path, capsys):
    images = touch(tmp_path / "in", "a.png", "b.jpg")
    clips = touch(tmp_path / "in", "clip.mp4", "clip_x2.mp4")[:1]
    touch(tmp_path / "in", "a_x2.png", "b_x2.jpg", "a.darsr", "e.gif")
    (tmp_path / "in" / "folder.png").mkdir()
    assert jobs.gather([tmp_path / "in" / "*"], pytest.fail) == (images, True)
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path / 'in' / '*'}: passed over 2 named like results of this toolkit (a_x2.png), 2 videos, "
        "1 of formats that are not read (.gif); give by name what is meant"
    ]
    assert jobs.gather([tmp_path / "in" / "*.mp4"], pytest.fail) == (clips, True)
    assert "passed over 1 named like results of this toolkit (clip_x2.mp4)" in capsys.readouterr().err
    assert jobs.gather([tmp_path / "**" / "b.*"], pytest.fail) == (images[1:], True)
    assert capsys.readouterr().err == ""


def test_a_pattern_without_pictures_is_said_and_the_others_are_done(tmp_path):
    (alone,) = touch(tmp_path, "z.jpg")
    said = []
    assert jobs.expand([tmp_path / "*.png", alone], said.append) == [alone]
    assert [str(error) for error in said] == [
        f"{tmp_path / '*.png'}: matches no images (.png, .jpg, .jpeg, .tif, .tiff, .webp, .bmp); check the pattern"
    ]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    named = touch(tmp_path, "a[1].png", "what?.png")
    touch(tmp_path, "a1.png")
    assert jobs.expand(named, pytest.fail) == named


def test_what_a_shell_expands_leaves_out_results_beside_their_sources(tmp_path, capsys):
    files = touch(tmp_path, "a.png", "a_x2.png", "a_x2_preview.png", "b.png", "clip.mp4", "clip_x2.mkv", "own_x2.png")
    assert jobs.gather(files, pytest.fail) == ([files[0], files[3], files[4], files[6]], True)
    assert capsys.readouterr().err.splitlines() == [
        "passed over 3 named like results of this toolkit (a_x2.png), beside what they were made from; "
        "give such a file alone if it is meant"
    ]
    assert jobs.gather(files[1:2], pytest.fail) == (files[1:2], False)
    assert capsys.readouterr().err == ""


# ---- where results go


def test_a_name_that_ends_like_a_folder_is_made_one(tmp_path):
    assert output_place(None) is None
    assert output_place("-") == Path("-") and output_place("-", several=True) == Path("-")
    assert output_place(f"{tmp_path}/new/deep/") == tmp_path / "new" / "deep" and (tmp_path / "new" / "deep").is_dir()
    assert output_place(f"{tmp_path}/several", several=True).is_dir()
    assert not output_place(f"{tmp_path}/file").exists()
    with pytest.raises(DarsrError, match=r"x\.png: is a file's name, and a folder is needed; give a folder's name"):
        output_place(f"{tmp_path}/x.png", several=True)


@pytest.mark.parametrize("several", [False, True])
def test_beside_the_image_by_default(several, tmp_path):
    image = tmp_path / "photo.1.JPG"
    assert places.output_path(image, None, several, "_x2") == tmp_path / "photo.1_x2.JPG"
    assert places.output_path(image, None, several, "_corrected", ".png") == tmp_path / "photo.1_corrected.png"
    assert places.adapter_target(image, None, several) == tmp_path / "photo.1.darsr"


def test_one_image_goes_to_the_file_named(tmp_path):
    image, out = tmp_path / "photo.png", tmp_path / "elsewhere" / "result.jpg"
    assert places.output_path(image, out, False, "_x2") == out
    assert places.adapter_target(image, out, False) == out


def test_one_image_goes_into_a_folder_that_exists(tmp_path):
    image = tmp_path / "photo.png"
    (tmp_path / "out").mkdir()
    assert places.output_path(image, tmp_path / "out", False, "_x2") == tmp_path / "out" / "photo_x2.png"
    assert places.adapter_target(image, tmp_path / "out", False) == tmp_path / "out" / "photo.darsr"


def test_several_go_into_a_folder_that_may_not_exist_yet(tmp_path):
    image = tmp_path / "photo.png"
    assert places.output_path(image, tmp_path / "out", True, "_x2") == tmp_path / "out" / "photo_x2.png"
    assert places.adapter_target(image, tmp_path / "out", True) == tmp_path / "out" / "photo.darsr"


def test_twins_do_not_write_the_same_adapter(tmp_path):
    images = touch(tmp_path / "in", "photo.png", "photo.jpg")
    for out in (None, tmp_path / "out"):
        targets = {places.adapter_target(image, out, True) for image in images}
        assert {t.name for t in targets} == {"photo.png.darsr", "photo.jpg.darsr"}


# ---- which adapter


def test_alone_the_given_one_comes_first_in_a_folder_its_own(tmp_path):
    image, own, given = touch(tmp_path, "photo.png", "photo.darsr", "given.darsr")
    assert places.adapter_for(image, given, several=False) == given
    assert places.adapter_for(image, given, several=True) == own
    for several in (False, True):
        assert places.adapter_for(image, None, several) == own
    own.unlink()
    for several in (False, True):
        assert places.adapter_for(image, given, several) == given


@pytest.mark.parametrize("several", [False, True])
def test_no_adapter_says_how_to_get_one(several, tmp_path):
    (image,) = touch(tmp_path, "photo.png")
    with pytest.raises(DarsrError) as caught:
        places.adapter_for(image, None, several)
    line = str(caught.value)
    assert line.startswith(f"{image}: ")
    for part in ("(photo.darsr)", f"darsr adapt {image}", "--adapter", "--no-adapter"):
        assert part in line


def test_twins_use_their_own_adapters(tmp_path):
    images = touch(tmp_path, "photo.png", "photo.jpg")
    adapters = touch(tmp_path, "photo.png.darsr", "photo.jpg.darsr")
    touch(tmp_path, "photo.darsr")  # from the time before the twin
    assert [places.adapter_for(image, None, True) for image in images] == adapters


def test_an_adapter_is_found_also_when_a_twin_came_or_went(tmp_path):
    """photo.darsr was made before photo.jpg appeared; photo.png.darsr before it was deleted."""
    image, adapter, twin = touch(tmp_path, "photo.png", "photo.darsr", "photo.jpg")
    assert places.adapter_for(image, None, False) == adapter
    twin.unlink()
    adapter = adapter.rename(tmp_path / "photo.png.darsr")
    assert places.adapter_for(image, None, False) == adapter


# ---- overwriting, and doing the rest


def test_nothing_that_stands_there_is_lost(tmp_path):
    (target,) = touch(tmp_path, "photo_x2.png")
    with pytest.raises(DarsrError, match=r"photo_x2\.png: exists already; .*--overwrite"):
        places.Targets(overwrite=False).claim(target)
    assert places.Targets(overwrite=True).claim(target) == target
    assert places.Targets(overwrite=False).claim(tmp_path / "new.png") == tmp_path / "new.png"


def test_what_exists_may_be_passed_over(tmp_path):
    (target,) = touch(tmp_path, "photo_x2.png")
    targets = places.Targets(False, [tmp_path / "photo.png"], skip_existing=True)
    with pytest.raises(places.AlreadyThere) as caught:
        targets.claim(target)
    assert caught.value.target == target
    assert targets.claim(tmp_path / "new.png") == tmp_path / "new.png"
    with pytest.raises(DarsrError, match="is an input of this command"):
        places.Targets(False, [target], skip_existing=True).claim(target)


def test_one_command_writes_no_file_twice(tmp_path):
    targets = places.Targets(overwrite=True)
    targets.claim(tmp_path / "a.png")
    with pytest.raises(DarsrError, match=r"a\.png: another input of this command has the same output"):
        targets.claim(tmp_path / "." / "a.png")


def test_a_folder_that_cannot_be_written_is_said_before_the_work(tmp_path):
    (file,) = touch(tmp_path, "file")
    for target in (file / "a.png", tmp_path / "none" / "a.png"):
        with pytest.raises(DarsrError, match=r"a\.png: its folder is missing or cannot be written"):
            places.Targets(overwrite=False).claim(target)


def test_a_failure_is_said_and_the_rest_is_done():
    said = []

    def work(item: int) -> dict:
        if item % 2:
            raise DarsrError(f"item {item}", "is odd")
        return {"item": item}

    assert list(jobs.each(range(5), work, said.append)) == [{"item": 0}, {"item": 2}, {"item": 4}]
    assert [str(error) for error in said] == ["item 1: is odd", "item 3: is odd"]


def test_what_is_there_already_is_a_row_of_its_own(tmp_path, capsys):
    def work(item: int) -> dict:
        if item:
            raise places.AlreadyThere(tmp_path)
        return {"input": "0"}

    rows = list(jobs.each(range(2), work, pytest.fail))
    assert rows == [{"input": "0"}, {"input": "1", "output": str(tmp_path), "skipped": True}]
    jobs.say_skipped(rows)
    jobs.say_skipped(rows[:1])
    assert capsys.readouterr().err == "1 done before and passed over (--skip-existing)\n"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ZeroDivisionError])
def test_what_is_no_users_mistake_is_not_swallowed(kind):
    def work(item: int) -> dict:
        raise kind

    with pytest.raises(kind):
        list(jobs.each([1], work, lambda error: pytest.fail(f"taken for a user's mistake: {error}")))


def test_an_error_is_one_line_whatever_is_in_it():
    assert str(DarsrError("a\nb.png", "why\n  because", "way\tout")) == "a b.png: why because; way out"
    assert str(DarsrError("a.png", "why")) == "a.png: why"
