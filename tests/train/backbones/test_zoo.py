"""PyTorch weights of others through spandrel: two of its architectures with random weights, where it is installed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, write_image
from darsr_train.backbones import EdgeSR, describe, load_backbone, save_backbone
from darsr_train.backbones.zoo import is_foreign
from tests.support.commands import darsr, refused

# --- Without spandrel ----------------------------------------------------------------------------------------------------


def test_files_of_ours_are_told_from_those_of_others(tmp_path):
    save_backbone(EdgeSR(2, channels=4, blocks=1), tmp_path / "ours.safetensors", {})
    save_file({"body.0.weight": torch.zeros(3)}, tmp_path / "theirs.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes((tmp_path / "ours.safetensors").read_bytes()[:50])
    foreign = {name: is_foreign(tmp_path / f"{name}.safetensors") for name in ("ours", "theirs", "damaged")}
    assert foreign == {"ours": False, "theirs": True, "damaged": False}
    assert is_foreign(Path("any.pth")) and is_foreign(Path("ANY.PT"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_without_spandrel_the_line_says_how_to_get_it(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"theirs{suffix}"
    (torch.save if suffix == ".pth" else save_file)({"body.0.weight": torch.zeros(3)}, path)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    done = darsr("backbone", "info", path)
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(f"error: {path}: is not a backbone of this project, and spandrel")
    assert 'pip install "spandrel' in done.stderr and f"darsr backbone import {path}" in done.stderr


class Trap:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def hostile(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Ways to save a pickle that makes a folder when it is read, by the name of the file."""
    trap, code = Trap(os.mkdir, str(folder)), Trap(exec, f"import os; os.mkdir({str(folder)!r})")
    return {
        "top.pth": lambda path: torch.save(trap, path),
        "nested.pth": lambda path: torch.save({"params": {"body.0.weight": torch.zeros(3), "more": [trap]}}, path),
        "key.pth": lambda path: torch.save({"params": OrderedDict([(trap, torch.zeros(3))])}, path),
        "code.pt": lambda path: torch.save({"params": code}, path),
        "old.ckpt": lambda path: torch.save({"params": trap}, path, _use_new_zipfile_serialization=False),
        "bare.pth": lambda path: path.write_bytes(pickle.dumps(trap)),
        "eval.pth": lambda path: path.write_bytes(pickle.dumps(Trap(eval, f"__import__('os').mkdir({str(folder)!r})"))),
    }


@pytest.mark.parametrize("name", hostile(Path("folder")))
def test_a_hostile_pickle_is_refused_before_anything_of_it_runs(name, tmp_path, monkeypatch):
    """Spandrel need not be installed: what stands for it here fails if the file gets as far."""
    monkeypatch.setitem(sys.modules, "spandrel", types.ModuleType("spandrel"))
    path = tmp_path / name
    hostile(tmp_path / "executed")[name](path)
    for command in (("backbone", "info", path), ("backbone", "import", path)):
        line = refused(*command, name=path)
        assert "is not a weight file that can be loaded safely" in line and "Traceback" not in line
    write_image(tmp_path / "photo.png", np.zeros((16, 16, 3), np.uint8))
    alone = ("--no-adapter", "--backbone", path, "--engine", "torch")
    assert darsr("infer", tmp_path / "photo.png", *alone, "-o", tmp_path / "out.png").exit_code == 1
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out.png").exists()


def cyclic() -> dict:
    state = {"weight": torch.zeros(3)}
    state["params"] = state
    return state


@pytest.mark.filterwarnings("ignore:.*quantize")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: {0: torch.zeros(3), (1, 2): torch.zeros(3)}, "does not hold SRFBN-S|no architecture that spandrel"),
        (lambda: {"a": torch.quantize_per_tensor(torch.rand(4), 0.1, 0, torch.qint8)}, "tensor a is quantized"),
        (lambda: {"params": {"a": torch.eye(3).to_sparse()}}, "tensor a is sparse"),
        (lambda: {"a": torch.zeros(1).expand(10**6, 10**6)}, r"a is \(1000000, 1000000\), more numbers than the file"),
        (lambda: {"a": Trap(torch._utils._rebuild_tensor_v2, torch.zeros(4).storage(), 0, (2,), (10**12,), False, {})}, "safely"),
        (cyclic, "dictionaries that hold each other"),
        (lambda: [torch.zeros(3)], "does not hold SRFBN-S|no architecture that spandrel"),
    ],
    ids=["integer keys", "quantized", "sparse", "4 TB", "a stride of 4 TB", "cyclic", "a list"],
)  # fmt: skip
def test_tensors_that_are_no_weights_are_one_line(make, why, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", types.ModuleType("spandrel"))
    path = tmp_path / "theirs.pth"
    torch.save(make(), path)
    for command in ("info", "import"):
        assert re.search(why, refused("backbone", command, path, name=path))


# --- With it -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spandrel():
    return pytest.importorskip("spandrel", reason="spandrel is not installed (extra zoo; it needs torchvision)")


def compact(scale: int, channels: int = 3) -> torch.nn.Module:
    """Convolutions and a pixel shuffle on top of the nearest-neighbour enlargement."""
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale).eval()


def swinir(scale: int) -> torch.nn.Module:
    """Attention in windows of 8x8, which a size has to be padded to."""
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(0)
    narrow = {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2.0}
    return SwinIR(img_size=16, upscale=scale, upsampler="pixelshuffledirect", **narrow).eval()


def saved(module: torch.nn.Module, path: Path, key: str | None = "params") -> Path:
    """As the authors of such weights save them: under a key in a .pth, or bare as safetensors."""
    state = module.state_dict()
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save({key: state} if key else state, path)
    return path


ARCHITECTURES = {"Compact": compact, "SwinIR": swinir}
architectures = pytest.mark.parametrize("kind", ARCHITECTURES)


@pytest.mark.zoo
@architectures
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("scale", [2, 4])
def test_architecture_and_scale_are_found_out(kind, suffix, scale, spandrel, tmp_path):
    module = ARCHITECTURES[kind](scale)
    path = saved(module, tmp_path / f"theirs{suffix}")
    backbone = load_backbone(str(path), None)
    assert (backbone.name, backbone.architecture, backbone.scale) == ("theirs", kind, scale)
    assert backbone.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    facts = describe(backbone)
    assert facts["parameters"] == sum(p.numel() for p in module.parameters())
    assert facts["macs_per_lr_pixel"] > 0 and facts["gradients"] is True
    json.dumps(facts)
    x = torch.rand(2, 3, 32, 24)
    with torch.no_grad():
        torch.testing.assert_close(backbone.module(x), module(x))
    with pytest.raises(DarsrError, match=f"is a backbone for scale {scale}, asked for {6 - scale}"):
        load_backbone(str(path), 6 - scale)


@pytest.mark.zoo
@architectures
@pytest.mark.parametrize("size", [(3, 3), (17, 30)])
def test_any_size_goes_and_gradients_pass(kind, size, spandrel, tmp_path):
    network = load_backbone(str(saved(ARCHITECTURES[kind](2), tmp_path / "theirs.pth")), 2).module
    x = torch.rand(1, 3, *size, requires_grad=True)
    sr = network(x)
    assert sr.shape == (1, 3, 2 * size[0], 2 * size[1])
    sr.mean().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.zoo
def test_what_pads_a_size_keeps_the_picture_in_its_place(spandrel, tmp_path):
    """Deep inside, a padded picture gives what the same picture gives as a part of a larger one."""
    network = load_backbone(str(saved(swinir(2), tmp_path / "theirs.pth")), 2).module
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        whole = network(x)
        part = network(x[..., :15, :14])
    assert part.shape == (1, 3, 30, 28)
    assert (part - whole[..., :30, :28]).abs()[..., :8, :8].max() < 0.1
    assert (part - whole[..., :30, :28]).abs().mean() < (part - whole[..., 2:, 4:]).abs().mean() / 2


@pytest.mark.zoo
def test_adapt_infer_and_export_through_weights_of_others(spandrel, photo, tmp_path):
    image, path = tmp_path / "photo.png", saved(compact(2), tmp_path / "theirs.pth")
    write_image(image, photo)
    through = ("--backbone", path)
    done = darsr("adapt", image, *through, "--steps", 2, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.stderr
    assert Adapter.load(tmp_path / "photo.darsr").backbone == "theirs"
    facts = json.loads(darsr("export", tmp_path / "photo.darsr", *through, "--json").stdout)
    assert facts["parity_psnr_db"] > 80
    for name, more in {"torch": (*through, "--engine", "torch"), "model": ("--model", tmp_path / "photo.onnx")}.items():
        assert darsr("infer", image, *more, "-o", tmp_path / f"{name}.png").exit_code == 0
    one, other = (read_image(tmp_path / f"{name}.png").astype(int) for name in ("torch", "model"))
    assert np.abs(one - other).max() <= 1


@pytest.mark.zoo
def test_what_does_not_export_still_runs_in_pytorch(spandrel, photo, tmp_path):
    """Windows are counted while PyTorch traces: such a network is refused, or right at every size."""
    image, path = tmp_path / "photo.png", saved(swinir(2), tmp_path / "theirs.pth")
    write_image(image, photo)
    done = darsr("infer", image, "--no-adapter", "--backbone", path, "--engine", "ort", "-o", tmp_path / "ort.png")
    if done.exit_code:
        assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert re.search("PyTorch cannot export it|does not work|differs from PyTorch|cannot run it on", done.stderr)
        assert not (tmp_path / "ort.png").exists()
    done = darsr("infer", image, "--no-adapter", "--backbone", path, "--engine", "torch", "-o", tmp_path / "torch.png")
    assert done.exit_code == 0, done.stderr
    assert read_image(tmp_path / "torch.png").shape == (160, 192, 3)


@pytest.mark.zoo
def test_what_cannot_be_used_is_one_line(spandrel, tmp_path):
    trap = tmp_path / "executed"
    torch.save({"params": Trap(os.mkdir, str(trap))}, tmp_path / "code.pth")
    torch.save({"unheard.weight": torch.zeros(4)}, tmp_path / "unknown.pth")
    saved(compact(2, channels=1), tmp_path / "gray.pth")
    saved(compact(3), tmp_path / "three.pth")
    saved(compact(1), tmp_path / "one.pth")
    (tmp_path / "text.pth").write_bytes(b"no weights")
    messages = {
        "code": "is not a weight file that can be loaded safely",
        "unknown": "is of no architecture that spandrel knows; SRFBN-S weights are imported first",
        "gray": "maps 1 to 1 channels",
        "three": "enlarges 3 times",
        "one": "is not a super-resolution network",
        "text": "is not a weight file",
    }
    for name, message in messages.items():
        done = darsr("backbone", "info", tmp_path / f"{name}.pth")
        assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), name
        assert message in done.stderr and "; " in done.stderr, done.stderr
    assert not trap.exists()
