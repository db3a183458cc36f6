"""Large images: as little memory as was allowed, the picture of the whole image, and what is done when memory ends."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darsr_deploy import memory
from darsr_deploy.engines import tiling
from darsr_deploy.engines.tiled import TiledEngine, tile_side
from darsr_deploy.engines.tiling import automatic_tile, grid
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError, OutOfMemory
from darsr_deploy.files.model_spec import Locality, ModelSpec
from darsr_deploy.images import arrays as imaging
from darsr_deploy.images.arrays import write_image

HALO, BYTES = 3, 500


class Enlarger:
    """Every pixel twice, less the average of the whole picture: what it was asked for is written down."""

    name, provider, spec = "ort", "CPUExecutionProvider", ModelSpec(2)

    def __init__(self, room: int | None = None, stages: int = 1, locality: Locality | None = None) -> None:
        self.room, self.stages, self.asked = room, stages, []
        self.locality = locality or Locality(HALO, 1, BYTES, (HALO - 1,) * stages)

    def run(self, lr):
        return self.run_tile(lr, [lr.mean((2, 3), keepdims=True)] * self.stages, slice(None), slice(None))

    def check_size(self, lr):
        pass

    def sums(self, lr, core, pooled):
        self._take(lr)
        return (lr * core).sum((2, 3), keepdims=True)

    def run_tile(self, lr, pooled, rows, columns):
        self._take(lr)
        return (0.5 * lr - 0.2 * sum(pooled, np.float32(0)) + 0.2).repeat(2, 2).repeat(2, 3)

    def __exit__(self, *_):
        pass

    def _take(self, lr):
        pixels = lr.shape[2] * lr.shape[3]
        if self.room is not None and pixels > self.room:
            raise OutOfMemory("m.onnx", "no memory", "use a smaller --tile")
        self.asked.append(pixels)


def picture(height: int, width: int, gray: bool = False) -> np.ndarray:
    shape = (height, width) if gray else (height, width, 3)
    return np.random.default_rng(height).integers(0, 256, shape, np.uint8)


@given(st.integers(3, 70), st.integers(3, 70), st.integers(16, 40), st.booleans())
def test_an_image_in_tiles_is_the_whole_image(height, width, tile, gray):
    image = picture(height, width, gray)
    whole, tiled = upscale(Enlarger(), image), upscale(TiledEngine(Enlarger(), tile), image)
    assert tiled.shape == whole.shape and tiled.dtype == np.uint8
    assert np.abs(tiled.astype(int) - whole).max() <= 1
    lr = imaging.to_tensor(image)
    assert np.abs(TiledEngine(Enlarger(), tile).run(lr) - Enlarger().run(lr)).max() < 1e-6


def test_batches_have_averages_of_their_own():
    lr = np.random.default_rng(0).random((2, 3, 40, 50), np.float32)
    lr[1] *= 0.5
    assert np.abs(TiledEngine(Enlarger(), 16).run(lr) - Enlarger().run(lr)).max() < 1e-6


@given(st.integers(1, 30000), st.integers(1, 30000), st.integers(0, 60), st.integers(20, 4000), st.integers(24, 38))
def test_automatic_tiles_stay_within_half_of_the_free_memory(height, width, halo, needs, free):
    free = 1 << free
    tile = automatic_tile(height, width, halo, needs, free)
    if tile == 0:
        assert height * width * needs <= min(free / 2, 1 << 30)
        return
    assert tile >= tiling.LEAST_TILE and height * width * needs * tiling._OVERHEAD > min(free / 2, 1 << 30)
    if tile > tiling.LEAST_TILE:
        assert (tile + 2 * halo) ** 2 * needs <= min(free / 2, 1 << 30)
    assert automatic_tile(height, width, halo, needs, None) in (0, *range(tile, 2000))  # nobody knows: a usual machine


def test_a_large_image_never_asks_for_more_than_a_tile_at_a_time():
    engine, image, steps = Enlarger(), picture(500, 700), []
    tiled = TiledEngine(engine, free=lambda: 40 << 20, report=steps.append)
    result = upscale(tiled, image)
    assert result.shape == (1000, 1400, 3)
    assert max(engine.asked) * BYTES * tiling._OVERHEAD <= 20 << 20
    assert steps[-1]["step"] == steps[-1]["steps"] == len(engine.asked)
    # the writer's order of colours is how they lie in memory: turning them around copies nothing
    assert result[:, :, ::-1].flags.c_contiguous
    assert np.abs(result.astype(int) - upscale(Enlarger(), image)).max() <= 1


def test_small_images_run_whole():
    engine = Enlarger()
    upscale(TiledEngine(engine, free=lambda: 1 << 33), picture(50, 60))
    upscale(TiledEngine(engine, 64), picture(50, 60))
    upscale(TiledEngine(engine, 0, free=lambda: 0), picture(50, 60))
    assert engine.asked == [3000] * 3


def test_out_of_memory_means_smaller_tiles_and_is_said():
    said, image = [], picture(200, 150)
    engine = Enlarger(room=60 * 60)
    result = upscale(TiledEngine(engine, 128, said.append), image)
    assert np.abs(result.astype(int) - upscale(Enlarger(), image)).max() <= 1
    assert said == [
        "out of memory with 128 pixels at a time; going on with tiles of 64",
        "out of memory with 64 pixels at a time; going on with tiles of 32",
    ]
    said.clear()
    lr = imaging.to_tensor(image)
    TiledEngine(Enlarger(room=60 * 60), None, said.append).run(lr)  # the whole image was tried first
    assert said[0] == "out of memory with 200 pixels at a time; going on with tiles of 100" and len(said) == 2
    with pytest.raises(OutOfMemory, match="no memory"):
        TiledEngine(Enlarger(room=100), None, said.append).run(lr)
    with pytest.raises(OutOfMemory, match="no memory"):  # asked for in one piece
        TiledEngine(Enlarger(room=100), 0, said.append).run(lr)


def test_tiles_far_smaller_than_they_have_to_be_say_what_they_cost():
    said, engine, image = [], Enlarger(), picture(100, 140)
    tiled = TiledEngine(engine, 16, said.append, free=lambda: 1 << 33)
    upscale(tiled, image)
    computed = sum(engine.asked[len(engine.asked) // 2 :]) / (100 * 140)  # behind the pass that collects the average
    assert said == [
        f"--tile 16: overlap makes {computed:.1f} times the multiply-adds; memory allows the whole image at once (--tile 0)"
    ]
    upscale(tiled, picture(100, 150))
    assert len(said) == 1, "once"
    said.clear()
    least = int(2 * tiling._OVERHEAD * BYTES * (48 + 2 * HALO) ** 2)
    upscale(TiledEngine(Enlarger(), 16, said.append, free=lambda: least), picture(400, 300))
    assert said[0].endswith("times the multiply-adds; memory allows tiles of 48")
    said.clear()
    for tile, free in ((16, 0), (80, 1 << 33), (0, 1 << 33), (None, 1 << 33), (200, 1 << 33)):
        upscale(TiledEngine(Enlarger(), tile, said.append, free=lambda free=free: free), image)
    assert said == [], "no more than they must, or hardly more"


def test_a_model_that_takes_whole_images_alone_says_why():
    locality = Locality(None, 1, BYTES, why="it averages", hint="export it with --split")
    with pytest.raises(DarsrError, match=r"--tile 64: it averages; export it with --split"):
        TiledEngine(Enlarger(locality=locality), 64)


def test_an_image_that_cannot_fit_is_refused_where_there_are_no_tiles():
    """Before anything is computed, by what is free and the factor that was measured; --tile 0 tries all the same."""
    locality = Locality(None, 1, BYTES, why="it averages", hint="export it with --split")
    needed, image = int(1.6 * BYTES * 90 * 90), picture(90, 90)
    engine = Enlarger(locality=locality)
    with pytest.raises(OutOfMemory, match=r"an image of 90x90: takes about .* GB at once, .* GB are free, and this model "
                       r"takes no tiles \(it averages\); export it with --split, or try --tile 0$"):  # fmt: skip
        upscale(TiledEngine(engine, free=lambda: needed - 1), image)
    assert engine.asked == []
    for tile, free in ((None, needed), (None, None), (0, 1000)):
        upscale(TiledEngine(engine, tile, free=lambda free=free: free), image)
    assert engine.asked == [8100] * 3


def test_out_of_memory_without_tiles_names_the_hint():
    """Not a smaller tile, which such a model does not take."""
    locality = Locality(None, 1, 0, why="it averages", hint="export it with --split")
    with pytest.raises(OutOfMemory, match=r"no memory; export it with --split$"):
        TiledEngine(Enlarger(room=100, locality=locality)).run(imaging.to_tensor(picture(90, 90)))


@given(st.integers(3, 90), st.integers(3, 90), st.integers(24, 60), st.sampled_from([None, 16, 40, 80]))
def test_an_engine_with_a_largest_size_is_never_asked_for_more(height, width, most, tile):
    engine, lr = (
        Enlarger(locality=Locality(HALO, 1, BYTES, (HALO - 1,), most=most)),
        imaging.to_tensor(picture(height, width)),
    )
    got = TiledEngine(engine, tile, lambda line: None).run(lr)
    assert np.abs(got - Enlarger().run(lr)).max() < 1e-6
    assert max(engine.asked) <= most**2


def test_sides_of_tiles_that_are_none():
    assert (tile_side("auto"), tile_side("0"), tile_side("512")) == (None, 0, 512)
    for text in ("-1", "15", "many", "", "1e3", "²"):
        with pytest.raises(DarsrError, match="give auto, 0, or at least 16 pixels"):
            tile_side(text)


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_limits_the_memory(version, tmp_path):
    base, names = {
        1: (tmp_path / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file 7")),
        2: (tmp_path, ("memory.max", "memory.current", "inactive_file 7")),
    }[version]
    inner = base / "outer" / "inner"
    inner.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text({1: "4:memory:/outer/inner\n3:cpu:/other\n", 2: "0::/outer/inner\n"}[version])
    assert list(memory._left_in_groups(tmp_path, own)) == []
    for folder, limit in ((inner, "max"), (inner.parent, "1000")):
        (folder / names[0]).write_text(limit)
        (folder / names[1]).write_text("300")
        (folder / "memory.stat").write_text(names[2] + "\nanon 5\n")
    assert list(memory._left_in_groups(tmp_path, own)) == [707]
    assert list(memory._left_in_groups(tmp_path, tmp_path / "missing")) == []


def test_free_memory_is_that_of_a_machine():
    free = memory.free_memory()
    assert free is None or 1 << 20 < free < 1 << 50


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([None, 3, 4]),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(1, 50),
)
def test_a_png_in_parts_is_what_it_was_made_from(tmp_path_factory, height, width, channels, dtype, rows):
    shape = (height, width) if channels is None else (height, width, channels)
    image = np.random.default_rng(width).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    path = tmp_path_factory.getbasetemp() / "large.png"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("darsr_deploy.images.writer._ROWS", rows)
        write_image(path, image)
    got = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert got.dtype == dtype
    assert (got == (image if channels is None else image[:, :, [2, 1, 0, 3][:channels]])).all()


def test_tiles_of_an_image_are_all_of_one_size():
    sizes = {(r.last - r.first, c.last - c.first) for r, c in grid(8000, 12000, 976, 36)}
    assert sizes == {(1048, 1048)}
