"""Every precision and form of some adapters side by side: parity, size, cost, speed and the result.

``python -m export.benchmarks.precisions a.darsr b.darsr`` with the adapted images beside them; ``--gt FOLDER`` holds their
truths under the same names. Timings are of alternating runs in one process, so that a busy machine hits all alike.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.engines.upscale import upscale
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_image
from darsr_deploy.images.metrics import psnr_y

from ..artefacts.model import export_onnx
from ..artefacts.parity import FLOORS_DB
from ..artefacts.subject import Source, Subject
from ..folding.forms import FORMS
from .timing import alternate, parser, run


def measure(
    adapter: Path, folder: Path, rounds: int, backbone: str | None = None, gt: Path | None = None
) -> list[dict]:
    """Return one row for each form and precision: what the export reports and what ONNX Runtime measures on a CPU.

    The latter are ``grey_levels`` (largest difference of the 8-bit picture from that of ``network`` in fp32), ``ms``
    (median), ``ratio`` (by that of ``network`` in fp32) and, with a truth, ``psnr_y``.

    Raises:
        DarsrError: the adapted image does not lie beside the adapter, or a parity check fails.
    """
    subject = Subject(Source(adapter=adapter, backbone=backbone))
    if subject.photo is None:
        raise DarsrError(str(adapter), "its image does not lie beside it", "copy it there")
    pixels, spec = read_image(subject.photo), subject.spec
    rows, engines = [], {}
    for form in FORMS:
        for precision in FLOORS_DB:
            target = folder / f"{adapter.stem}_{form}_{precision}.onnx"
            wanted = spec.extended(form=form, precision=precision)
            row = {"adapter": adapter.stem, **export_onnx(subject.pipeline, target, wanted, samples=subject.samples)}
            print(f"{row['model']}: {row['parity_psnr_db']} dB", file=sys.stderr)
            rows.append(row)
            if precision != "bf16":  # which ONNX Runtime does not have on a CPU
                engines[form, precision] = OrtEngine(target, threads=1)
    reference = upscale(engines["network", "fp32"], pixels)
    timings = alternate({key: partial(upscale, engine, pixels) for key, engine in engines.items()}, rounds)
    for row in rows:
        key = row["form"], row["precision"]
        if key not in engines:
            continue
        picture = upscale(engines[key], pixels)
        row["grey_levels"] = int(np.abs(picture.astype(int) - reference).max())
        row["ms"] = timings[key].median_ms
        row["ratio"] = timings[key].median_ms / timings["network", "fp32"].median_ms
        if gt is not None:
            row["psnr_y"] = psnr_y(picture, read_image(gt / subject.photo.name), spec.scale)
    return rows


def table(rows: list[dict]) -> str:
    """Return Markdown, one line for each form and precision: the worst parity and difference, means of the rest."""
    lines = [
        "| form | precision | parity dB (floor) | kB | multiply-adds | dB from `network` | grey levels | ms | ratio | Y-PSNR |"
    ]
    lines.append("|" + "---|" * 10)
    for form in FORMS:
        for precision, floor in FLOORS_DB.items():
            of = [r for r in rows if (r["form"], r["precision"]) == (form, precision)]

            def mean(name: str, digits: int, of: list[dict] = of) -> str:
                return f"{statistics.mean(r[name] for r in of):.{digits}f}" if of[0].get(name) is not None else "-"

            cells = [f"`{form}`", precision, f"{min(r['parity_psnr_db'] for r in of):.1f} ({floor:.0f})"]
            macs = of[0]["macs_per_lr_pixel"]
            cells += [f"{of[0]['bytes'] / 1000:.0f}", "-" if macs is None else f"{macs:,}"]
            cells.append(mean("psnr_from_network_db", 1))
            cells.append(str(max(r["grey_levels"] for r in of)) if "grey_levels" in of[0] else "-")
            lines.append("| " + " | ".join([*cells, mean("ms", 1), mean("ratio", 2), mean("psnr_y", 3)]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print a Markdown table, or one JSON list."""
    options = parser(__doc__, backbone=None, repeats=15, json=False)
    options.add_argument("adapters", nargs="+", type=Path)
    options.add_argument("--gt", type=Path, help="folder with the truths, under the names of the adapted images")
    given = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for adapter in given.adapters:
            rows += measure(adapter, Path(folder), given.repeats, given.backbone, given.gt)
    print(json.dumps(rows, indent=1) if given.json else table(rows))


if __name__ == "__main__":
    run(main)
