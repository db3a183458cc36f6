"""TIFF: what a file declares, checked before anything is decoded, and the pixels of 16 bits that Pillow would reduce to 8.

Never more is decoded than was declared: a strip or tile yields the bytes of its own pixels and no more.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DarsrError
from . import ifd
from .formats import damaged, unsupported

_NEW_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 274, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT, _DEPTH, _DNG = (
    322,
    323,
    324,
    325,
    338,
    339,
    32997,
    50706,
)
_ICC = 34675
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_SENSOR = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_PLAIN, _DEFLATE = 1, (8, 32946)
_BY_LIBTIFF = (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
_ONE_PAGE = "save the page you want as a file of its own"
_INTEGERS = "save it with unsigned integers of 8 or 16 bits"
_MOST_PAGES = 16
_MOST_TILE = 16 << 20  # bytes; a larger tile must not be larger than the picture


@dataclass(frozen=True)
class Declared:
    """The picture that a TIFF declares.

    Attributes:
        page: its index in the chain of directories.
        bits: a sample, the most of all.
        offsets, sizes: of the strips or tiles in the file, in bytes.
        segment: height and width of a strip or tile in pixels.
    """

    page: int
    order: str
    tags: ifd.Directory
    height: int
    width: int
    samples: int
    bits: int
    photometric: int
    planar: bool
    tiled: bool
    segment: tuple[int, int]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 to 8."""
        return _number(self.tags, _ORIENTATION, 1)

    @property
    def icc(self) -> bytes | None:
        """The colour profile."""
        return self.tags[_ICC].data if _ICC in self.tags else None

    @property
    def stored(self) -> int:
        """Bytes of all pixels."""
        return -(-self.height * self.width * self.samples * self.bits // 8)


def read_declared(path: Path, data: bytes) -> Declared:
    """Read and check the directory of the one full picture of a TIFF; reduced copies and masks are passed over.

    Raises:
        DarsrError: damaged, contradictory, or a kind of TIFF that is not supported; says which.
    """
    try:
        order, pages = _read_pages(data)
        full = [index for index, tags in enumerate(pages) if not _number(tags, _NEW_SUBFILE) & (_REDUCED | _MASK)]
        if _DNG in pages[0] or any(_number(tags, _PHOTOMETRIC) in _SENSOR for tags in pages):
            raise unsupported(path, "is a camera raw file, which is not supported")
        if not full:
            why = "holds only a reduced copy (a thumbnail) of its picture, as camera raw files do"
            raise DarsrError(str(path), why, "develop it in a raw converter, and save it as PNG or TIFF")
        if len(full) > 1:
            raise DarsrError(str(path), "is a TIFF of several pages", _ONE_PAGE)
        return _declared(path, data, full[0], order, pages[full[0]])
    except (ValueError, KeyError, IndexError) as error:
        raise damaged(path, f" ({error})" if isinstance(error, ValueError) else "") from error


def decode(path: Path, data: bytes, declared: Declared) -> np.ndarray:
    """Decode the pixels of a TIFF of 16 bits a sample, as they are stored: not turned, alpha not divided out.

    Returns:
        uint16, H x W x samples; black is 0 in all of them.

    Raises:
        DarsrError: damaged, or compressed by a method that is not supported.
    """
    d = declared
    (rows, columns), planes = d.segment, d.samples if d.planar else 1
    samples = 1 if d.planar else d.samples
    pixels = np.empty((planes, d.height, d.width, samples), np.uint16)
    corners = [(plane, top, left) for plane in range(planes) for top in range(0, d.height, rows)
               for left in range(0, d.width, columns)]  # fmt: skip
    for (plane, top, left), offset, size in zip(corners, d.offsets, d.sizes):
        height = rows if d.tiled else min(rows, d.height - top)
        raw = _inflate(path, data[offset : offset + size], d, 2 * height * columns * samples)
        part = np.frombuffer(raw, f"{d.order}u2").reshape(height, columns, samples)
        if _number(d.tags, _PREDICTOR, 1) == 2:
            part = np.cumsum(part, axis=1, dtype=np.uint16)
        target = pixels[plane, top : top + height, left : left + columns]
        target[:] = part[: target.shape[0], : target.shape[1]]
    if d.photometric == _WHITE_IS_ZERO:
        np.subtract(65535, pixels[:1, ..., :1], out=pixels[:1, ..., :1])
    return pixels[0] if planes == 1 else np.moveaxis(pixels[..., 0], 0, -1)


def extra_sample(declared: Declared) -> int | None:
    """Return the kind of the channel beside the colours: 0 unspecified, 1 premultiplied alpha, 2 alpha; None without."""
    if declared.samples in (1, 3):
        return None
    return _number(declared.tags, _EXTRA, 2)


def _read_pages(data: bytes) -> tuple[str, list[ifd.Directory]]:
    order, big, offset = ifd.read_header(data)
    pages: list[ifd.Directory] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(pages) < _MOST_PAGES:
        seen.add(offset)
        tags, offset = ifd.read_directory(data, offset, order, big)
        pages.append(tags)
    if not pages:
        raise ValueError("it holds no picture")
    return order, pages


def _declared(path: Path, data: bytes, page: int, order: str, tags: ifd.Directory) -> Declared:
    width, height = _number(tags, _WIDTH, None), _number(tags, _HEIGHT, None)
    samples, photometric = _number(tags, _SAMPLES, 1), _number(tags, _PHOTOMETRIC, _BLACK_IS_ZERO)
    bits = _check_samples(path, tags, samples)
    if depth := max(_number(tags, _DEPTH, 1) - 1, 0):
        raise DarsrError(str(path), f"is a TIFF of {depth + 1} slices (ImageDepth)", _ONE_PAGE)
    if photometric == _CMYK:
        raise DarsrError(str(path), "is a TIFF in CMYK colours, which are not supported", "convert it to RGB")
    planar, tiled = _number(tags, _PLANAR, 1), _TILES in tags
    if not (width and height and samples) or planar not in (1, 2):
        raise ValueError("its size cannot be")
    rows = min(_number(tags, _ROWS, height), height) or height
    segment = (_number(tags, _TILE_HEIGHT, None), _number(tags, _TILE_WIDTH, None)) if tiled else (rows, width)
    places, lengths = (_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)
    offsets = tuple(map(int, tags[places].values()))
    sizes = tuple(map(int, tags[lengths].values())) if lengths in tags else (len(data),) * len(offsets)
    if not all(segment):
        raise ValueError("its tiles have no size")
    planes = samples if planar == 2 else 1
    count = planes * -(-height // segment[0]) * -(-width // segment[1])
    found = Declared(page, order, tags, height, width, samples, bits, photometric, planar == 2, tiled, segment,
                     offsets, sizes)  # fmt: skip
    if segment[0] * segment[1] * samples * bits // 8 > max(_MOST_TILE, found.stored):
        raise ValueError("a tile is larger than the picture")
    if len(offsets) < count or len(sizes) < count:
        raise ValueError(f"it has {min(len(offsets), len(sizes))} strips or tiles, and its size takes {count}")
    if bits == 16:
        _check_deep(path, found)
    return found


def _check_samples(path: Path, tags: ifd.Directory, samples: int) -> int:
    """Return the bits of a sample, 1 to 8 or 16; refuse other numbers."""
    bits = tags[_BITS].values() if _BITS in tags else (1,)
    formats = set(tags[_FORMAT].values()) if _FORMAT in tags else {1}
    most = int(max(bits))
    if 3 in formats:
        raise DarsrError(str(path), f"is a TIFF of {most}-bit floating-point numbers, which are not read", _INTEGERS)
    if 2 in formats:
        raise DarsrError(str(path), f"is a TIFF of signed {most}-bit integers, which are not read", _INTEGERS)
    if not formats <= {1, 4} or most > 16 or 8 < most < 16:
        raise DarsrError(str(path), f"is a TIFF of {most}-bit integers, which are not read", _INTEGERS)
    if len(bits) not in (1, samples) or len(set(bits)) != 1:
        raise ValueError(f"it declares {samples} samples a pixel, and the bits of {len(bits)}")
    return most


def _check_deep(path: Path, declared: Declared) -> None:
    """Refuse what :func:`decode` cannot give as gray or RGB, with or without alpha."""
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3}.get(declared.photometric)
    if colours is None:
        why = f"is a 16-bit TIFF of colours (photometric interpretation {declared.photometric}) that are not read"
        raise DarsrError(str(path), why, "convert it to RGB")
    if declared.samples < colours:
        raise ValueError(f"it declares {declared.samples} samples a pixel for {colours} colours")
    if declared.samples > colours + 1:
        why = f"is a 16-bit TIFF of {declared.samples} channels, and up to {colours + 1} are read"
        raise DarsrError(str(path), why, "flatten it to RGB with alpha")
    if _number(declared.tags, _PREDICTOR, 1) not in (1, 2):
        raise ValueError("its predictor is not one of integers")


def _inflate(path: Path, segment: bytes, declared: Declared, size: int) -> bytes:
    """Return the first ``size`` bytes that a strip or tile holds."""
    method = _number(declared.tags, _COMPRESSION, _PLAIN)
    if method == _PLAIN:
        raw = segment[:size]
    elif method in _DEFLATE:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(segment, size)
        unpacker.decompress(unpacker.unconsumed_tail, 1)  # the checksum behind the last byte
    elif method in _BY_LIBTIFF:
        raw = _by_libtiff(segment, method, size, _number(declared.tags, _FILL_ORDER, 1))
    else:
        why = f"is a 16-bit TIFF compressed by a method that is not read ({method})"
        raise DarsrError(str(path), why, "save it uncompressed, or with Deflate or LZW")
    if len(raw) < size:
        raise damaged(path)
    return raw


def _by_libtiff(segment: bytes, method: int, size: int, fill_order: int) -> bytes:
    """Decode through Pillow, as the one strip of a gray TIFF of 8 bits and ``size`` x 1 pixels."""
    tags = {_WIDTH: size, _HEIGHT: 1, _BITS: 8, _COMPRESSION: method, _PHOTOMETRIC: _BLACK_IS_ZERO, _STRIPS: 8,
            _FILL_ORDER: fill_order, _SAMPLES: 1, _ROWS: 1, _STRIP_BYTES: len(segment)}  # fmt: skip
    made = {code: ifd.make_tag(ifd.LONG if value > 65535 else ifd.SHORT, value) for code, value in tags.items()}
    place = 8 + len(segment) + len(segment) % 2
    file = b"II*\0" + place.to_bytes(4, "little") + segment.ljust(place - 8, b"\0") + ifd.build_directory(made, place)
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as image:
        return image.tobytes()


def _number(tags: ifd.Directory, code: int, default: int | None = 0) -> int:
    """Return the first value of a tag; KeyError where it is missing and has no default."""
    if code not in tags and default is not None:
        return default
    return int(tags[code].values()[0])
