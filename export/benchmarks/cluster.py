"""How the throughput of ``darsr upscale --cluster`` grows with workers, and what a million photographs cost on paper.

``python -m export.benchmarks.cluster FOLDER --workers 1 2``: images a second between the first and the last result, so that
starting does not count, and the efficiency (1: n workers are n times as fast as one). A photograph of 12 megapixels is made
by repeating the first image, and enlarged here with one thread: a million of them take a million times its seconds.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from darsr_deploy.cluster.run import ClusterRun
from darsr_deploy.cluster.worker import Demands
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import list_images, read_image, write_image
from darsr_train.adaptation.options import AdaptOptions

from ..inference.pictures import UpscaleTask, upscale_picture
from .timing import parser, run

MILLION = 1_000_000
_PHOTO = (3000, 4000)  # height and width


def throughput(images: list[Path], workers: int, address: str) -> float:
    """Return images a second between the first and the last result.

    Raises:
        DarsrError: the cluster cannot be used, or an image failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        tasks = [_task(image, Path(folder)) for image in images]
        moments = []
        with ClusterRun(address, Demands(workers), None, Path(folder) / "manifest.jsonl", {}) as cluster:
            for _, row in cluster.each(tasks, upscale_picture, lambda entry: None):
                if isinstance(row, DarsrError):
                    raise row
                moments.append(time.perf_counter())
    return (len(moments) - 1) / (moments[-1] - moments[0])


def seconds_of_photograph(image: Path) -> tuple[float, float]:
    """Return the seconds of a photograph of 12 megapixels with one thread: on the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = read_image(image)
        copies = [-(-wanted // side) for wanted, side in zip(_PHOTO, pixels.shape)]
        tiled = np.tile(pixels, (*copies, 1) if pixels.ndim == 3 else tuple(copies))
        photograph = Path(folder) / "photograph.png"
        write_image(photograph, np.ascontiguousarray(tiled[: _PHOTO[0], : _PHOTO[1]]))
        clock, processor = time.perf_counter(), time.process_time()
        upscale_picture(_task(photograph, Path(folder)), lambda entry: None)
        return time.perf_counter() - clock, time.process_time() - processor


def cost(seconds: float, price: float) -> tuple[float, float]:
    """Return the core-hours of a million photographs, and their price at one of a core-hour."""
    hours = MILLION * seconds / 3600
    return hours, hours * price


def _task(image: Path, folder: Path) -> UpscaleTask:
    target = folder / f"{image.stem}_x2.png"
    return UpscaleTask(image, target, None, None, AdaptOptions.profile("fast", 2), threads=1, told=True)


def main() -> None:
    """Print a Markdown table, and the cost in one line."""
    options = parser(__doc__)
    options.add_argument("folder", type=Path, help="of images")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--cluster", default="auto", metavar="ADDRESS")
    options.add_argument("--price", type=float, default=0.04, help="of one core for an hour, for example in dollars")
    given = options.parse_args()
    images = list_images(given.folder)
    if len(images) < 3:
        raise DarsrError(str(given.folder), "holds fewer than three images", "give more")
    rates = {count: throughput(images, count, given.cluster) for count in given.workers}
    least = min(rates)
    print("| workers | images a second | efficiency |\n|---|---|---|")
    for count, rate in rates.items():
        print(f"| {count} | {rate:.2f} | {rate / rates[least] * least / count:.2f} |")
    clock, processor = seconds_of_photograph(images[0])
    hours, price = cost(processor, given.price)
    print(
        f"\n12 megapixels: {clock:.1f} s, {processor:.1f} s of one core; a million: {hours:,.0f} core-hours, {price:,.0f}"
    )


if __name__ == "__main__":
    run(main)
