"""The work of ``darsr upscale``: what each input becomes and where, pictures in one or several processes, then clips."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from darsr_deploy.console.cluster import refuse_on_cluster
from darsr_deploy.console.command import progress, say
from darsr_deploy.errors import DarsrError
from darsr_deploy.files import places
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.formats import check_target
from darsr_deploy.video.frames import STREAM, check_video_target
from darsr_train.adaptation.inputs import check_input
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.runtime import each_in_jobs, threads_of_each

from ..artefacts.subject import Source
from ..inference.pictures import UpscaleTask, result_suffix, upscale_picture, what_was_done
from ..inference.session import open_engine, require_runtime
from ..inference.video import VideoOptions, adapt_to_clip, clip_target, infer_video
from .infer import is_clip

if TYPE_CHECKING:
    from darsr_deploy.cluster.run import ClusterRun

FORMATS = ("png", "jpg", "webp", "tiff")
_LOSSY = (".jpg", ".jpeg", ".webp")
_SAME = {".jpeg": ".jpg", ".tif": ".tiff"}


@dataclass(frozen=True)
class Plan:
    """One input, where its result goes, and where its adapter is kept; None: it is not."""

    file: Path
    target: Path
    adapter: Path | None
    is_clip: bool

    def __str__(self) -> str:
        return str(self.file)


@dataclass(frozen=True)
class Upscaling:
    """The options of ``darsr upscale``, checked against each other.

    Attributes:
        out: of one input the file or an existing folder, of several a folder; None: beside each input.
        format: one of :data:`FORMATS`; None: each picture's own.
        quality: of JPEG and WebP; None: their own.
        run: on a cluster, which does the pictures then.

    Raises:
        DarsrError: a format or a runtime that is not known or missing, or two options that do not go together.
    """

    options: AdaptOptions
    out: Path | None
    several: bool
    backbone: str | None
    engine: str
    provider: str
    format: str | None
    quality: int | None
    keep_adapter: bool
    threads: int
    overwrite: bool
    run: ClusterRun | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise DarsrError(f"--format {self.format}", "is not known", f"choose one of {', '.join(FORMATS)}")
        self._check_quality(f"x.{self.format}" if self.format else "x.jpg")
        named = self.out is not None and not self.several and not self.out.is_dir()
        suffix = self.out.suffix.lower() if named else ""
        if self.format is not None and named and _SAME.get(suffix, suffix) != f".{self.format}":
            raise DarsrError(f"--format {self.format}", f"does not fit -o {self.out}", "leave one of them out")
        require_runtime(self.engine, self.provider, here=self.run is None)

    def plan(self, targets: places.Targets, file: Path) -> Plan:
        """Check an input and claim the paths of its results.

        Raises:
            DarsrError: it cannot be read or adapted to, or its results cannot be written.
            AlreadyThere: its result exists and is to stay as it is.
        """
        scale = self.options.scale
        if file == STREAM:
            why = "can be read only once, and a clip is looked at before it is enlarged"
            raise DarsrError("standard input", why, "use darsr infer - with --adapter, --model or --no-adapter")
        if clip := is_clip(file):
            refuse_on_cluster(self.run, file, "a video")
            target = clip_target(file, self.out, self.several, scale)
            check_video_target(target)
        else:
            check_input(file, self.options)
            suffix = f".{self.format}" if self.format else result_suffix(file)
            target = places.output_path(file, self.out, self.several, f"_x{scale}", suffix)
            check_target(target, 1, 1, 3, 8)  # the suffix
            if not self.several:  # a folder may hold others too, which stay exact
                self._check_quality(target.name)
        adapter = places.adapter_target(file, None, self.several) if self.keep_adapter else None
        if self.run is not None:
            self.run.check((file,), (target, *filter(None, (adapter,))), targets)
        targets.claim(target)
        if adapter is not None:
            try:
                targets.claim(adapter)
            except places.AlreadyThere:  # it stays as it is
                adapter = None
        return Plan(file, target, adapter, clip)

    def pictures(self, plans: list[Plan], at_a_time: int, device: str, told: bool) -> Iterator[dict | DarsrError]:
        """Adapt to pictures and enlarge them, ``at_a_time`` in processes of their own; yield rows as they are done."""
        at_a_time = min(at_a_time, len(plans))
        threads = self.run.demands.cpus if self.run else threads_of_each(at_a_time, self.threads)
        same = {"backbone": self.backbone, "options": self.options, "device": device, "threads": threads, "told": told}
        same |= {"engine": self.engine, "provider": self.provider, "quality": self.quality, "replace": self.overwrite}
        tasks = [UpscaleTask(plan.file, plan.target, plan.adapter, **same) for plan in plans]
        count = len(tasks)
        with (
            progress("upscale" if count > 1 else plans[0].file.name) as report,
            contextlib.closing(
                each_in_jobs(tasks, upscale_picture, at_a_time, self.threads, report, self.run)
            ) as results,
        ):
            for done, (_, row) in enumerate(results):
                if count > 1 and not self.run:
                    report({"step": done, "steps": count})
                yield row

    def clip(self, plan: Plan) -> dict:
        """Adapt to a clip and enlarge it; return the row that ``--json`` prints."""
        options = self.options
        with tempfile.TemporaryDirectory(prefix="darsr-") as folder:
            path = plan.adapter or Path(folder) / "clip.darsr"

            def adapt(clip: Path) -> Path:
                wishes = {"amount": options.amount, "denoise": options.denoise, "deblock": options.deblock}
                adapt_to_clip(clip, path, self.backbone, options.scale, progress, **wishes)
                return path

            def open_source(source: Source):
                more = {"tile": None, "threads": self.threads, "progress": progress}
                return open_engine(source, self.engine, self.provider, **more)

            how = VideoOptions(open_source, None, adapt=adapt, backbone=self.backbone, say=say, progress=progress)
            targets = places.Targets(self.overwrite, [plan.file])
            row = infer_video(plan.file, self.out, self.several, targets, how)
            facts = Adapter.load(path).facts  # just made
        row |= {"adapter": str(plan.adapter)} if plan.adapter else {}
        return row | what_was_done(facts)

    def _check_quality(self, name: str) -> None:
        if self.quality is not None and not name.lower().endswith(_LOSSY):
            why = f"{Path(name).suffix[1:].upper()} is exact and has none"
            raise DarsrError(f"--quality {self.quality}", why, "use --format jpg or webp")
