"""The correction filter alone, in every formulation, on a CPU: ``python -m export.benchmarks.filter``.

Runs alternate in one process. PyTorch's plain version stands beside for comparison.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable

import torch

from darsr_train.networks.darm import filter_with_taps

from .filter_variants import BODIES, model_of
from .timing import alternate, compared, machine, markdown, ort_session

BASE = next(iter(BODIES))


def ways(height: int, width: int, threads: int) -> dict[str, Callable[[], object]]:
    """Every formulation, the present body first, on one random image."""
    x, c = torch.rand(1, 3, height, width), torch.randn(1, 13, height, width)
    feeds = {"x": x.numpy(), "c": c.numpy()}

    def in_runtime(session) -> Callable[[], object]:
        return lambda: session.run(None, feeds)

    made = {name: in_runtime(ort_session(model_of(body()), threads)) for name, body in BODIES.items()}
    made["PyTorch eager, 13 taps"] = lambda: filter_with_taps(x, c)
    return made


def bench(sizes: list[tuple[int, int]], threads: list[int], repeats: int) -> list[dict]:
    """One table for each size (height, width) and number of threads: ``{height, width, threads, machine, rows}``."""
    tables = []
    for count in threads:
        torch.set_num_threads(count)
        for height, width in sizes:
            timings = alternate(ways(height, width, count), repeats, warm_up=3)
            facts = {"height": height, "width": width, "threads": count, "machine": machine(count)}
            tables.append({**facts, "rows": compared(timings, BASE)})
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["64x64", "240x160", "640x480"], help="width x height")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15, help="runs that count; three before them warm up")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of tables")
    arguments = parser.parse_args()
    found = [re.fullmatch(r"(\d+)x(\d+)", size) for size in arguments.sizes]
    if not all(found) or min(int(side) for size in found for side in size.groups()) < 3:
        parser.error("--sizes are WIDTHxHEIGHT, sides of at least 3")
    if min(arguments.repeats, *arguments.threads) < 1:
        parser.error("--threads and --repeats are at least 1")
    sizes = [(int(size[2]), int(size[1])) for size in found]
    tables = bench(sizes, arguments.threads, arguments.repeats)
    if arguments.json:
        print(json.dumps(tables, indent=1))
        return
    for table in tables:
        print(", ".join(f"{name} {value}" for name, value in table["machine"].items()) + "\n")
        print(markdown(f"{table['width']} x {table['height']}", BASE, table["rows"]) + "\n")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
