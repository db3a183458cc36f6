"""Seconds from the command to the picture, in separate processes: what a runtime bundle saves.

``python -m export.benchmarks.first_frame photo.png other.png``: each image needs its adapter beside it. The rows are a first
adapter with nothing in the cache, a second one, the first once more, and the second through a bundle as on a device without
PyTorch (its modules cannot be imported).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from darsr_deploy.errors import DarsrError

from .timing import parser, run

# "-c" with the modules of export hidden: as where only the extra ort is installed
_DEVICE = "import sys\nsys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript')))\nfrom cli import app\nsys.exit(app())"
_USUAL = "import sys\nfrom cli import app\nsys.exit(app())"


def seconds(program: str, arguments: list[str], cache: Path) -> tuple[float, float]:
    """Time one ``darsr`` command: seconds on the clock, and of the processor, which other work hardly changes.

    Raises:
        DarsrError: the command failed; the line is its last one.
    """
    paths = [str(Path(__file__).parent.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "DARSR_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths)}
    started, before = time.perf_counter(), _processor()
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DarsrError(f"darsr {' '.join(arguments)}", f"failed ({last})", "run it by hand")
    return time.perf_counter() - started, _processor() - before


def _processor() -> float:
    times = os.times()
    return times.children_user + times.children_system


def measure(first: Path, second: Path) -> dict[str, tuple[float, float]]:
    """Return the seconds of each row."""
    with tempfile.TemporaryDirectory() as folder:
        place, rows = Path(folder), {}
        cache, target = place / "cache", ["-o", str(place / "sr.png"), "--overwrite"]
        rows["one file for each adapter: export"] = seconds(
            _USUAL, ["export", str(first.with_suffix(".darsr")), "-o", str(place / "m.onnx")], cache
        )
        rows["one file for each adapter: infer"] = seconds(
            _USUAL, ["infer", str(first), "--model", str(place / "m.onnx"), *target], cache
        )
        rows["first adapter, nothing cached"] = seconds(_USUAL, ["infer", str(first), *target], cache)
        rows["second adapter"] = seconds(_USUAL, ["infer", str(second), *target], cache)
        rows["first adapter again"] = seconds(_USUAL, ["infer", str(first), *target], cache)
        bundle = str(place / "b")
        seconds(_USUAL, ["export", str(first.with_suffix(".darsr")), "--split", "-o", bundle], cache)
        device = ["infer", str(second), "--model", bundle, "--adapter", str(second.with_suffix(".darsr")), *target]
        rows["second adapter, bundle, no PyTorch"] = seconds(_DEVICE, device, cache)
        return rows


def main() -> None:
    """Print a Markdown table."""
    options = parser(__doc__)
    options.add_argument("images", nargs=2, type=Path, metavar="IMAGE", help="with its adapter beside it")
    print("| | s | processor s |\n|---|---|---|")
    for name, (clock, processor) in measure(*options.parse_args().images).items():
        print(f"| {name} | {clock:.2f} | {processor:.2f} |")


if __name__ == "__main__":
    run(main)
