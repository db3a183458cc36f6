"""``--cluster`` of the commands that have it: its options, and the run that they ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DarsrError
from .command import output_place

if TYPE_CHECKING:
    from ..cluster.run import ClusterRun

Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="ADDRESS", help="Do it on a Ray cluster: HOST:PORT, or auto to join or start one here."
    ),
]
ManifestFile = Annotated[
    Path | None,
    typer.Option("--manifest", help="Of --cluster: what is finished, by default darsr-manifest.jsonl by the results."),
]
_NAME = "darsr-manifest.jsonl"


@contextlib.contextmanager
def on_cluster(
    address: str | None,
    manifest: Path | None,
    out: str | None,
    inputs: list[Path],
    several: bool,
    *,
    settings: Callable[[], dict],
    workers: int | None = None,
    threads: int = 0,
    gpu: bool = False,
) -> Iterator[tuple[ClusterRun | None, Path | None]]:
    """Yield the run on the cluster, if one is asked for, and the place of results as :func:`.command.output_place` has it.

    Args:
        inputs: beside the first lies the manifest where results have no place of their own.
        settings: gives what results depend on; called only for a cluster.
        workers: at most; None: as many as there is room for.
        threads: of each worker; 0 for one.
        gpu: whether each worker needs one.

    Raises:
        DarsrError: as :class:`darsr_deploy.cluster.run.ClusterRun`.
    """
    if address is None:
        if manifest is not None:
            raise typer.BadParameter("--manifest belongs to --cluster")
        yield None, output_place(out, several)
        return
    from ..cluster.run import ClusterRun
    from ..cluster.storage import is_url
    from ..cluster.worker import Demands

    place = out if is_url(out) else output_place(out, several)
    if manifest is None:
        beside = inputs[0].parent if inputs else Path()
        folder = beside if place is None else Path() if is_url(place) else Path(place)
        manifest = (folder if place is None or folder.is_dir() else folder.parent) / _NAME
    demands = Demands(workers, threads or 1, int(gpu))
    with ClusterRun(address, demands, place, manifest, settings()) as run:
        yield run, run.out


def refuse_on_cluster(run: ClusterRun | None, file: Path, kind: str) -> None:
    """Refuse an input that is not done on clusters.

    Raises:
        DarsrError: there is a cluster.
    """
    if run is not None:
        raise DarsrError(str(file), f"is {kind}, and a cluster does pictures", "do it without --cluster")
