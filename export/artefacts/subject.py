"""The subject of an export: an adapter or a backbone alone, each part loaded once, on first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from darsr_deploy.bundle.adapter_inputs import load_adapter
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.model_spec import ModelSpec

from ..samples import Samples, find_photo, gather


@dataclass(frozen=True)
class Source:
    """Name what to run: an adapter, a model file (a bundle takes an adapter too), or a backbone alone at a scale."""

    adapter: Path | None = None
    model: Path | None = None
    backbone: str | None = None
    scale: int | None = None


class Subject:
    """An adapter, or a backbone alone, with its photo, samples, network and spec.

    Args:
        source: of its fields ``model`` is not looked at.
        device: PyTorch's, for the network.
        image: the adapted image; by default the one that lies beside the adapter.
        calibration: a folder of photographs for int8.
    """

    def __init__(
        self, source: Source, device: str = "cpu", *, image: Path | None = None, calibration: Path | None = None
    ) -> None:
        self.source, self.path, self._device = source, source.adapter, device
        self._image, self._calibration = image, calibration

    @property
    def adapter(self) -> Adapter:
        """Return the adapter; one of kind ``none`` for a backbone alone.

        Raises:
            DarsrError: it is damaged, or has parts that this version cannot run.
        """
        if self.path is None:
            _, spec = self._network
            return Adapter("none", spec.scale, spec.backbone, spec.backbone_sha256)
        return self._file[0]

    @cached_property
    def _file(self) -> tuple[Adapter, str]:
        return load_adapter(self.path)

    @cached_property
    def photo(self) -> Path | None:
        """Return the path of the adapted image, if it is available."""
        return self._image or (None if self.path is None else find_photo(self.path, self.adapter))

    @cached_property
    def samples(self) -> Samples:
        """Return the pictures for the parity check, calibration and baked forms."""
        return gather(self.photo, given=self._image is not None, calibration=self._calibration)

    @property
    def pipeline(self):
        """Return the network in PyTorch, a :class:`darsr_train.pipeline.Pipeline` in eval mode."""
        return self._network[0]

    @property
    def spec(self) -> ModelSpec:
        """Return scale, form and origin as a model's metadata hold them."""
        return self._network[1]

    def needs_backbone(self) -> bool:
        """Return whether the backbone must be loaded and checked: the adapter's file alone does not identify what runs."""
        source = self.source
        return self.path is None or source.backbone is not None or source.scale not in (None, self.adapter.scale)

    def require_torch(self) -> None:
        """Require PyTorch, which turns an adapter into a model.

        Raises:
            DarsrError: it is not installed; or the adapter is damaged, which is the more useful thing to say.
        """
        if self.path is not None:
            self.adapter  # noqa: B018
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise DarsrError(
                str(self.path or "the backbone alone"),
                "needs PyTorch to become a model, and it is not installed",
                "run darsr export where you adapted and give the file with --model",
            ) from error

    @cached_property
    def _network(self) -> tuple:
        self.require_torch()
        from torch import nn

        from darsr_train.backbones import load_backbone
        from darsr_train.pipeline import Pipeline, backbone_for, pipeline_of

        source, device = self.source, self._device
        if self.path is None:
            backbone = load_backbone(source.backbone or "edge", source.scale, device)
            pipeline, form, digest = Pipeline(nn.Identity(), backbone.module).eval(), "none", ""
        else:
            backbone = backbone_for(self.adapter, self.path, source.backbone, source.scale, device)
            pipeline = pipeline_of(self.adapter, backbone.module, self.path).to(device)
            form, digest = self.adapter.correction, self._file[1]
        origin = {"backbone": backbone.name, "backbone_sha256": backbone.sha256, "adapter_sha256": digest}
        return pipeline, ModelSpec(backbone.scale, form=form, **origin)


def require_onnx() -> None:
    """Require onnx and onnxscript.

    Raises:
        DarsrError: onnx or onnxscript is not installed.
    """
    from darsr_deploy.install import install

    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DarsrError(
            "export to ONNX", f"{error.name} is not installed", f"{install('export')}, or use --engine torch"
        ) from error
