"""The pictures that a page has open: decoded once, looked at once, so that a slider costs a matrix product and a window."""

from __future__ import annotations

import base64
import functools
import secrets
import shutil
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from darsr_deploy.adaptation.adapt import build_adapter
from darsr_deploy.blind.compression import read_jpeg_quality
from darsr_deploy.blind.judgement import Findings, Wishes, examine, judge
from darsr_deploy.bundle.ort_bundle import open_bundle
from darsr_deploy.bundle.shipped import bundle_for
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_picture
from darsr_deploy.images.detail import find_detailed_square
from darsr_deploy.images.reader import eight_bit
from darsr_deploy.images.resample import imresize
from darsr_deploy.machine.facts import usable_cores
from darsr_deploy.memory import free_memory
from darsr_train.adaptation.inputs import check_size
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.runtime import checked_options, open_networks

from ..report.drawings import kernel_svg
from ..report.explain import kernel_words

WINDOW = {2: 384, 4: 192}  # side in LR pixels of what a slider redoes, by scale: about a second on two cores
MOST_OPEN = 4  # pictures; the least recently used one is closed
_RIM = 8  # LR pixels around a part that are computed with it
_SHARE = 0.25  # of the free memory that decoded pictures may keep
_THUMBNAIL = 480  # longest side in pixels
_LONGEST_NAME = 80  # characters
_FORBIDDEN = '<>:"|?*\\/'  # by some file system


@dataclass(frozen=True)
class Wanted:
    """What the controls of the page say, checked.

    Raises:
        DarsrError: a value out of range.
    """

    scale: int = 2
    amount: float = 1.0
    denoise: float = 1.0
    deblock: float = 1.0

    def __post_init__(self) -> None:
        values = (self.amount, self.denoise, self.deblock)
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (self.scale, *values)):
            raise DarsrError("the request", "has an option that is no number", "reload the page")
        self.options()

    def options(self) -> AdaptOptions:
        """Return them as ``darsr upscale`` has them."""
        wishes = {"amount": self.amount, "denoise": self.denoise, "deblock": self.deblock}
        return checked_options("fast", self.scale, **wishes)

    def words(self) -> str:
        """Return them as options of the command line, those left at their defaults omitted."""
        usual = Wanted()
        given = {name: value for name, value in vars(self).items() if value != getattr(usual, name)}
        return " ".join(f"--{name} {value:g}" for name, value in given.items())


@dataclass(frozen=True)
class Made:
    """A finished file: what it was made for, and a line that says what of the picture it cannot hold, if anything."""

    wanted: Wanted
    path: Path
    note: str = ""


@dataclass
class Opened:
    """A picture that is open.

    Attributes:
        file: as it was uploaded, in a folder of its own.
        pixels: uint8, H x W to H x W x 4.
        findings: what everything that looks at it says, by scale.
        progress: steps done and to do of the file that is being made.
        made: finished files by kind.
    """

    file: Path
    pixels: np.ndarray
    jpeg_quality: float | None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    progress: tuple[int, int] = (0, 0)
    made: dict[str, Made] = field(default_factory=dict)
    findings: dict[int, Findings] = field(default_factory=dict)

    def window(self, scale: int, place: tuple[int, int] | None) -> tuple[int, int, int, int]:
        """Return left, top, width and height of the part that is shown: all of a small picture, else around ``place``.

        Args:
            place: x and y of its middle; None: where there is most detail.
        """
        height, width = self.pixels.shape[:2]
        side = WINDOW[scale]
        if height * width <= side * side:
            return 0, 0, width, height
        size = min(side, width), min(side, height)
        x, y = place or self._most_detail
        left, top = (min(max(0, at - n // 2), most - n) for at, n, most in zip((x, y), size, (width, height)))
        return left, top, *size

    def thumbnail(self) -> np.ndarray:
        """Return the picture reduced, as it is where it is small."""
        height, width = self.pixels.shape[:2]
        ratio = min(1.0, _THUMBNAIL / max(height, width))
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        return cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA) if ratio < 1 else self.pixels

    @functools.cached_property
    def _most_detail(self) -> tuple[int, int]:
        small = eight_bit(self.thumbnail())
        ratio = self.pixels.shape[1] / small.shape[1]
        found = find_detailed_square(small, max(1, round(WINDOW[2] / ratio)))
        y, x = (round((part.start + part.stop) / 2 * ratio) for part in found)
        return x, y


class Studio:
    """The pictures that are open, and what is seen of them. All but :meth:`get` is called from one thread.

    Args:
        folder: for uploads and results; the studio removes what it puts there.
        threads: of the CPU; 0 leaves one core to the browser for what is looked at, and none for what is saved.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.folder, self.threads = folder, threads
        self._threads = threads or max(1, usable_cores() - 1)
        self._open: OrderedDict[str, Opened] = OrderedDict()

    def open(self, file: Path) -> dict:
        """Decode a picture that was uploaded; return what the page needs to know of it.

        Raises:
            DarsrError: it cannot be read, is too small, or memory does not suffice.
        """
        pixels = read_picture(file).pixels
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        height, width = pixels.shape[:2]
        check_size(file, width, height, Wanted().options())
        opened = Opened(file, pixels, read_jpeg_quality(file))
        self._open[opened.id] = opened
        self._close_some()
        facts = {"id": opened.id, "name": file.name, "width": width, "height": height}
        return facts | {"thumbnail": to_uri(opened.thumbnail())}

    def get(self, key: str) -> Opened:
        """Return an open picture.

        Raises:
            DarsrError: it was closed, or never open.
        """
        if key not in self._open:
            raise DarsrError("this picture", f"is no longer open: the page keeps the last {MOST_OPEN}", "open it again")
        self._open.move_to_end(key)
        return self._open[key]

    def view(self, opened: Opened, wanted: Wanted, place: tuple[int, int] | None, before: bool) -> dict:
        """Adapt to a picture as wished and enlarge the part of it that is looked at.

        Args:
            place: see :meth:`Opened.window`.
            before: whether the part enlarged bicubically is asked for too.
        """
        scale = wanted.scale
        if scale not in opened.findings:
            networks = open_networks(scale, "cpu", self._threads)
            colour = eight_bit(opened.pixels)
            opened.findings[scale] = examine(colour, networks, scale, opened.jpeg_quality)
        wishes = Wishes(wanted.amount, wanted.denoise, wanted.deblock)
        adapter = build_adapter(opened.findings[scale], wishes, scale, rounds=wanted.options().rounds)
        left, top, width, height = opened.window(scale, place)
        part = np.ascontiguousarray(opened.pixels[top : top + height, left : left + width])
        bundle = open_bundle(bundle_for(adapter), threads=self._threads)
        rows, columns = slice(max(0, top - _RIM), top + height + _RIM), slice(max(0, left - _RIM), left + width + _RIM)
        with TiledEngine(bundle.engine(adapter)) as engine:
            after = upscale(engine, np.ascontiguousarray(opened.pixels[rows, columns]))
        down, right = (top - rows.start) * scale, (left - columns.start) * scale
        after = after[down : down + height * scale, right : right + width * scale]
        kernel = adapter.arrays["kernel"]
        words = kernel_words(kernel)
        return {
            "decision": adapter.facts["decision"],
            "found": adapter.facts["found"],
            "steers": {name: _steers(opened.findings[scale], name) for name in ("denoise", "deblock")},
            "kernel": kernel_svg(kernel, scale, f"The blur that was found: {words}"),
            "kernel_words": words,
            "options": wanted.words(),
            "window": [left, top, width, height],
            "before": to_uri(imresize(part, height * scale, width * scale)) if before else None,
            "after": to_uri(after),
        }

    def _close_some(self) -> None:
        """Close the least recently used pictures beyond the most, or beyond the memory for them; never the newest."""
        room = _SHARE * (free_memory() or 4 << 30)
        while len(self._open) > 1:
            if len(self._open) <= MOST_OPEN and sum(one.pixels.nbytes for one in self._open.values()) <= room:
                return
            _, oldest = self._open.popitem(last=False)
            shutil.rmtree(oldest.file.parent, ignore_errors=True)


def _steers(findings: Findings, wish: str) -> bool:
    """Tell whether a wish changes what is told to the networks: a clean picture's compression, for one, is not."""
    all_, none = (judge(findings, Wishes(**{wish: share})).condition for share in (1.0, 0.0))
    return all_ is not none and (all_ is None or none is None or all_.to_json() != none.to_json())


def place_upload(folder: Path, name: str) -> Path:
    """Make a folder for an upload and return the file's path in it: the name that it had, without what may harm."""
    last = PurePosixPath(name.replace("\\", "/")).name
    kept = "".join("_" if c in _FORBIDDEN or unicodedata.category(c).startswith("C") else c for c in last).strip(". ")
    path = Path(kept or "picture")
    path = Path(path.stem[:_LONGEST_NAME] + path.suffix[:10])
    own = folder / secrets.token_hex(8)
    own.mkdir()
    return own / path


def to_uri(pixels: np.ndarray) -> str:
    """Encode a uint8 picture as a PNG data URI."""
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # OpenCV knows no gray with alpha
        pixels = pixels[:, :, [0, 0, 0, 1]]
    stored = pixels if pixels.ndim == 2 else pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    _, data = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return "data:image/png;base64," + base64.b64encode(data).decode()
