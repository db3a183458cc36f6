"""The package as users get it: contents, console script, imports, and versions from the lowest to the newest.

Fresh environments are made in temporary folders. Where the package index cannot be reached, what needs it is skipped.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from darsr_deploy.engines import ort as ort_engine
from darsr_deploy.errors import DarsrError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]  # where a package is not in the folder of its name
TOPS = {name: FOLDERS.get(name, name) for name in PACKAGES if "." not in name}
HEAVY = (
    "av",
    "fsspec",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "ray",
    "skimage",
    "tensorrt",
    "tensorrt_bindings",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "torch",
)
# What pip prints once it has given a connection up; a failure without any of these is a failure of ours.
UNREACHABLE = re.compile(
    r"Retry\(total=0\b.*|Max retries exceeded.*|Failed to connect to .*|ReadTimeoutError.*|.*Read timed out.*"
)
IMPORT_DARSR = """
import darsr, sys
assert not {"PIL", "cv2", "darsr_deploy", "numpy"} & set(sys.modules), sys.modules.keys()
darsr.upscale, darsr.adapt, darsr.open_engine
"""
UPSCALE = """
import darsr, numpy as np, PIL.Image as I
image = I.fromarray((np.indices((48, 64, 3)).sum(0) * 2).astype(np.uint8))
assert darsr.upscale(image).size == (128, 96)
"""
LOAD_PAGE = """
import darsr.page.server
from darsr.page.app import Page
from darsr.page.guard import Access
app = Page(None, None, Access()).app()
"""
IMPORT_DEPLOY = """
import importlib, pkgutil, darsr_deploy
for module in pkgutil.walk_packages(darsr_deploy.__path__, "darsr_deploy."):
    importlib.import_module(module.name)
"""
SHOW_HELP = """
import sys
sys.argv = ["darsr", "--help"]
from darsr.cli import app
try:
    app()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def run(*command: str | Path, **options) -> str:
    """Run a command that must end well; returns what it printed on stdout."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments: str | Path) -> None:
    """Run pip; skip the test if the package index cannot be reached, fail it on any other failure."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "3",
        "--timeout",
        "60",
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode and (gave_up := UNREACHABLE.search(done.stderr + done.stdout)):
        pytest.skip(f"the package index cannot be reached: {gave_up[0][:200]}")
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def requirements(*extras: str, python: str | None = None, machine: str | None = None) -> list[Requirement]:
    """What pyproject.toml asks for on the running Python and machine, or on another Linux one; without the markers.

    pip evaluates markers for the Python it runs on, whatever ``--python-version`` says, so this is done here.
    """
    lines = PROJECT["project"]["dependencies"] + [
        line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]
    ]
    elsewhere = (
        {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "platform_machine": machine,
            "sys_platform": "linux",
        }
        if python
        else {}
    )
    found = [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate(elsewhere)]
    for requirement in found:
        requirement.marker = None
    return found


def lowest(requirement: Requirement) -> str:
    """``typer==0.16.0`` of ``typer>=0.16.0``."""
    (bound,) = (specifier.version for specifier in requirement.specifier if specifier.operator == ">=")
    return f"{requirement.name}=={bound}"


def is_for_devices(test_file: Path) -> bool:
    """Whether a test file needs darsr_deploy only; imports inside its functions do not count."""
    needed = imported(test_file)
    return (
        test_file != Path(__file__)
        and "darsr_deploy" in needed
        and not needed & {"darsr", "darsr_train", "export", *HEAVY}
    )


def imported(test_file: Path) -> set[str]:
    """Packages that a test file imports at its top, itself or by way of other files of the tests."""
    text = test_file.read_text(encoding="utf-8")
    packages = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    beside = [
        ROOT / f"{name.replace('.', '/')}.py"
        for name in re.findall(r"^from (tests\.[\w.]+) import", text, re.MULTILINE)
    ]
    others = [
        path for path in beside if path.is_file() and path != test_file
    ]  # a script in a test may import that test
    return packages.union(*map(imported, others))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive, which is built from a copy: nothing is left in the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = [ROOT / name for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "cli.py", "darsr.py")]
    files += [
        path for top in TOPS.values() for path in (ROOT / top).rglob("*") if path.is_file() and path.suffix != ".pyc"
    ]
    for path in files:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, source, cwd=target)
    (built,) = target.glob("*.whl")
    return built


class Environment:
    """A fresh virtual environment without pip; the pip of the running Python installs into it."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.scripts = folder / "bin"
        self.folder = folder

    def install(self, *arguments: str | Path) -> None:
        pip("--python", self.scripts / "python", "install", "--only-binary=:all:", *arguments)

    def python(self, code: str) -> str:
        # Not in the checkout: what is imported must be what was installed.
        return run(self.scripts / "python", "-c", code, cwd=self.folder)

    def versions(self) -> dict[str, str]:
        code = "import importlib.metadata, json; print(json.dumps({d.name: d.version for d in importlib.metadata.distributions()}))"
        return {canonicalize_name(name): version for name, version in json.loads(self.python(code)).items()}


def test_every_package_is_listed():
    found = {
        ".".join((top, *path.parent.relative_to(ROOT / folder).parts))
        for top, folder in TOPS.items()
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(PACKAGES)


def test_base_needs_neither_torch_nor_a_runtime():
    names = {canonicalize_name(r.name) for r in map(Requirement, PROJECT["project"]["dependencies"])}
    assert names == {
        "filelock",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "platformdirs",
        "rich",
        "safetensors",
        "typer",
    }
    assert {r.name for r in requirements("export")} - names == {"onnx", "onnxscript", "ml-dtypes"}


def test_every_requirement_has_a_lower_bound():
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    for requirement in (Requirement(line) for group in groups for line in group):
        assert lowest(requirement)


def test_console_script_is_the_typer_app():
    import typer

    ((name, value),) = PROJECT["project"]["scripts"].items()
    assert (name, value) == ("darsr", "darsr.cli:app")
    assert isinstance(importlib.metadata.EntryPoint(name, value, "console_scripts").load(), typer.Typer)


def test_installed_version_is_that_of_pyproject():
    assert importlib.metadata.version("darsr") == PROJECT["project"]["version"]


@pytest.mark.parametrize(
    "code", [SHOW_HELP, IMPORT_DEPLOY, IMPORT_DARSR], ids=["darsr --help", "import darsr_deploy", "import darsr"]
)
def test_starts_without_heavy_imports(code):
    report = f"import sys, json; print(json.dumps([name for name in {HEAVY} if name in sys.modules]), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []


def test_two_onnx_runtimes_at_once_are_an_error(monkeypatch):
    monkeypatch.setattr(ort_engine, "installed_runtimes", lambda: ["onnxruntime", "onnxruntime-gpu"])
    with pytest.raises(DarsrError, match=r"both installed.*repair: .*pip uninstall"):
        ort_engine.import_onnxruntime()


def test_wheel_installs_names_of_its_own_and_the_weights(wheel):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")]
    info = f"darsr-{PROJECT['project']['version']}.dist-info"
    tops = {name.split("/")[0] for name in names}
    assert tops == {"darsr", "darsr_deploy", "darsr_train", info}  # names of our own: neither cli.py nor export/
    assert f"{info}/licenses/LICENSE" in names
    weights = {name for name in names if name.endswith(".safetensors")}
    assert weights == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "darsr_deploy" / "weights").glob("*.safetensors")
    }
    assert weights, "no weights are shipped"
    sources = {f"darsr/plugin/{path.name}" for path in (ROOT / "export/plugin").glob("*.*") if path.suffix != ".py"}
    assert len(sources) == 3 and sources <= set(names)
    parts = [f"{place}.{kind}" for place in ("report/page", "report/viewer", "page/page") for kind in ("css", "js")]
    assert {f"darsr/{name}" for name in (*parts, "report/page.html", "page/page.html")} <= set(names)
    assert {"darsr_deploy/bench/bench_schema.json", "darsr/py.typed", "darsr_deploy/py.typed"} <= set(names)
    modules = {
        f"{top}/{path.relative_to(ROOT / folder).as_posix()}"
        for top, folder in TOPS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == modules


def test_source_archive_holds_what_a_clone_runs(wheel):
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"cli.py", "darsr.py", "export/cli.py", "pyproject.toml", "LICENSE", "README.md"} <= names


def test_archives_say_what_an_index_wants_to_know(wheel):
    """As ``make release`` checks them."""
    run(sys.executable, "-m", "twine", "check", "--strict", *wheel.parent.glob("darsr-*"))
    with zipfile.ZipFile(wheel) as files:
        metadata = files.read(f"darsr-{PROJECT['project']['version']}.dist-info/METADATA").decode()
    for line in (
        "Project-URL: Paper, https://openaccess.thecvf.com/",
        "Classifier: Typing :: Typed",
        "Keywords: super-",
    ):
        assert f"\n{line}" in metadata


def test_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['project']['version']}\n" in text
    assert PROJECT["project"]["urls"]["Paper"] in text


@pytest.mark.parametrize("path", ["Dockerfile", "docker/jetson.Dockerfile"])
def test_container_has_what_it_installs_and_no_rights(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", text).splitlines()
    bases = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.M))
    assert bases and all(re.search(r":[\w.-]+$", base) and not base.endswith(":latest") for base in bases.values())
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {f"${{{name}}}" for name in bases}
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000:1000"]
    (extras,) = re.findall(r'^ARG EXTRAS="([\w,-]+)"$|"\.\[([\w,-]+)\]"', text, re.M)
    extras = "".join(extras)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    for line in lines:
        assert "apt-get install" not in line or ("--no-install-recommends" in line and "rm -rf /var/lib/apt" in line)
    kept = re.findall(r"^!(\S+?)/?$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.M)
    assert {*TOPS.values(), "pyproject.toml", "README.md", "LICENSE"} <= set(kept)
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.slow
def test_editable_install_finds_the_clone(wheel, tmp_path):
    """Outside the clone the package's own names are found, and nothing called export or cli."""
    clone = wheel.parent / "clone"
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as files:
        files.extractall(clone, filter="data")
    (folder,) = clone.iterdir()
    environment = Environment(tmp_path / "editable")
    environment.install("setuptools>=77", "wheel")
    environment.install("--no-build-isolation", "-e", folder)
    where = environment.python("import darsr, darsr_deploy; print(darsr.__file__, darsr_deploy.__file__, sep='\\n')")
    assert where.split() == [str(folder / "export/__init__.py"), str(folder / "darsr_deploy/__init__.py")]
    find = "from importlib.util import find_spec; print([find_spec(name) for name in ('cli', 'export')])"
    assert environment.python(find).strip() == "[None, None]"
    assert "Usage: darsr" in run(environment.scripts / "darsr", "--help", cwd=tmp_path)
    assert "Usage: cli.py" in run(environment.scripts / "python", folder / "cli.py", "--help", cwd=tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is copied to a device: a model, exported where PyTorch is, and the adapter that it was made from."""
    pytest.importorskip("torch", reason="exporting needs PyTorch (extra train)")
    from darsr_deploy.files.adapter import Adapter
    from darsr_train.backbones import load_backbone
    from tests.support.commands import done

    folder, backbone = tmp_path_factory.mktemp("exported"), load_backbone("edge", 2)
    taps = {"taps": np.eye(13, dtype=np.float32)[12]}
    Adapter("global", 2, backbone.name, backbone.sha256, {}, taps).save(folder / "photo.darsr")
    done("export", folder / "photo.darsr", "-o", folder / "model.onnx")
    done("export", folder / "photo.darsr", "--split", "-o", folder / "photo.bundle")
    return folder


MAKE_INPUTS = """
import cv2, numpy as np
from pathlib import Path
from darsr_deploy.images.arrays import write_image
from darsr_deploy.video.frames import Frame, VideoInfo
from darsr_deploy.video.y4m import Y4mWriter
from fractions import Fraction
picture = (np.indices((24, 32, 3)).sum(0) * 4).astype(np.uint8)
Path("folder").mkdir()
for name, image in {"photo.png": picture, "folder/a.jpg": picture, "folder/b.tif": picture.astype(np.uint16) * 257}.items():
    write_image(name, image)
write_image("large.jpg", cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 1.5))
clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 24, (32, 24))
for _ in range(4):
    clip.write(picture)
clip.release()
with Y4mWriter(Path("stream.y4m"), VideoInfo(32, 24, Fraction(24))) as writer:
    writer.write(Frame(picture, 0, Fraction(1, 24)))
    writer.finish()
"""


@pytest.mark.slow
def test_runs_without_torch_in_a_fresh_environment(wheel, exported, tmp_path):
    fresh = Environment(tmp_path / "fresh")
    fresh.install(wheel)
    assert_doctor_names_what_is_missing(fresh)
    fresh.install(f"{wheel}[ort]")
    assert json.loads(run(fresh.scripts / "darsr", "doctor", "--json", cwd=tmp_path))["works"]
    assert "Usage: darsr" in run(fresh.scripts / "darsr", "--help", cwd=tmp_path)
    fresh.python(IMPORT_DEPLOY)
    fresh.python(IMPORT_DARSR)
    fresh.python(UPSCALE)
    versions = fresh.versions()
    assert "onnxruntime" in versions
    assert not {"torch", "onnx", "onnxscript", "scikit-image"} & set(versions)
    assert_bench_runs_a_model_file(fresh, exported)
    fresh.install(f"{wheel}[ui]")
    fresh.python(LOAD_PAGE)
    run_on_the_device(fresh, exported, tmp_path / "device")
    fresh.install(f"{wheel}[video]")  # until now OpenCV read and wrote the clip
    more = ("--model", "model.onnx", "--overwrite", "--json")
    done = run(fresh.scripts / "darsr", "infer", "clip.mp4", *more, cwd=tmp_path / "device")
    assert json.loads(done)["frames"] == 4
    count = "import av; print([s.codec_context.name for s in av.open('clip_x2.mp4').streams])"
    assert run(fresh.scripts / "python", "-c", count, cwd=tmp_path / "device") == "['mpeg4']\n"


def assert_doctor_names_what_is_missing(base: Environment) -> None:
    """With the base install alone: each missing part with its command, exit 1, and nothing else is said to be missing."""
    command = [base.scripts / "darsr", "doctor", "--json"]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=base.folder)
    assert ended.returncode == 1 and ended.stderr.startswith("error: infer: cannot run here"), ended.stderr
    parts = {part["part"]: part for part in json.loads(ended.stdout)["parts"]}
    missing = {name: part["repair"] for name, part in parts.items() if part["state"] == "missing"}
    extras = {"torch": "train", "scikit-image": "train", "onnx": "export", "onnxscript": "export", "spandrel": "zoo"}
    extras |= {
        "onnxruntime": "ort",
        "av": "video",
        "nvidia-ml-py": "bench",
        "starlette": "ui",
        "uvicorn": "ui",
        "tensorrt": "trt",
        "tensorrt_rtx": "trt-rtx",
    }
    assert missing.keys() - {"nvidia driver"} == extras.keys()  # the machine of the test may have a GPU
    for name, extra in extras.items():
        assert re.search(rf'pip install .*"{name.replace("_", "-")}', missing[name]), (extra, missing[name])
    assert {name for name, part in parts.items() if part["state"] == "broken"} == set()


def assert_bench_runs_a_model_file(fresh: Environment, exported: Path) -> None:
    """A model that was exported elsewhere; no PyTorch and no onnx are here."""
    brief = ("--shape", "16x16", "--seconds", "0", "--iterations", "2", "--json")
    report = json.loads(run(fresh.scripts / "darsr", "bench", "model.onnx", *brief, cwd=exported))
    (row,) = [row for row in report["rows"] if row["n"]]
    assert row["engine"] == "ort" and row["psnr_vs_torch_db"] is None and row["reasons"]["psnr_vs_torch_db"]


def run_on_the_device(fresh: Environment, exported: Path, folder: Path) -> None:
    """Image, folder, video and stream through an exported model; and what is said where there is none."""
    folder.mkdir()
    run(fresh.scripts / "python", "-c", MAKE_INPUTS, cwd=folder)
    (folder / "model.onnx").write_bytes((exported / "model.onnx").read_bytes())
    inputs = ("photo.png", "folder", "clip.mp4", "stream.y4m")
    command = [str(fresh.scripts / "darsr"), "infer"]
    rows = json.loads(run(*command, *inputs, "--model", "model.onnx", "-o", "out", "--json", cwd=folder))
    assert [Path(row["output"]).name for row in rows] == [
        "photo_x2.png",
        "a_x2.jpg",
        "b_x2.tif",
        "clip_x2.mp4",
        "stream_x2.y4m",
    ]
    assert {(row["engine"], row["height"], row["width"]) for row in rows} == {("ort", 48, 64)}
    assert [row.get("frames") for row in rows] == [None, None, None, 4, 1]
    (folder / "photo.darsr").write_bytes((exported / "photo.darsr").read_bytes())
    cache = {**os.environ, "DARSR_CACHE": str(folder / "cache")}  # with nothing in it that runs an adapter
    quiet = {"cwd": folder, "capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "env": cache}
    for words in (("infer", "photo.png"), ("adapt", "large.jpg"), ("infer", "large.jpg")):
        done = subprocess.run([command[0], *words], **quiet)
        assert done.returncode == 0 and not done.stderr, done.stderr
    assert (folder / "photo_x2.png").exists() and (folder / "large_x2.jpg").exists()
    (folder / "photo_x2.png").unlink()
    for name, why in (("folder/a.jpg", "there is no adapter beside it"), ("clip.mp4", "too small to adapt")):
        done = subprocess.run([*command, name], **quiet)
        (line,) = done.stderr.splitlines()[-1:]
        assert done.returncode == 1 and why in line, line
    shutil.copytree(exported / "photo.bundle", folder / "photo.bundle")
    bundle = ("--model", "photo.bundle", "--adapter", "photo.darsr", "--json")
    row = json.loads(run(*command, "photo.png", *bundle, "-o", "from_bundle.png", cwd=folder))
    assert (row["engine"], row["height"]) == ("ort", 48)


@pytest.mark.slow
def test_runs_on_the_lowest_versions(wheel, tmp_path):
    pins = [lowest(requirement) for requirement in requirements("ort")]
    (tmp_path / "lowest.txt").write_text("\n".join(pins))
    old = Environment(tmp_path / "old")
    old.install(f"{wheel}[ort]", "--constraint", tmp_path / "lowest.txt")
    versions = old.versions()
    assert {pin: versions[canonicalize_name(pin.split("==")[0])] for pin in pins} == {
        pin: pin.split("==")[1] for pin in pins
    }
    assert "Usage: darsr" in run(old.scripts / "darsr", "--help", cwd=tmp_path)
    old.python(f"{IMPORT_DEPLOY}\nfrom darsr_deploy.engines.ort import import_onnxruntime\nimport_onnxruntime()")

    old.install("hypothesis", "pillow", "pytest", "tifffile", "--constraint", tmp_path / "lowest.txt")
    tests = [path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py")) if is_for_devices(path)]
    assert tests, "no test file is about darsr_deploy alone"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run(
        old.scripts / "python",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        *tests,
        cwd=ROOT,
        env=environment,
    )


@pytest.mark.slow
@pytest.mark.parametrize("bounds", ["newest", "lowest"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.10", "3.12"])
def test_wheels_exist(python, machine, bounds, tmp_path):
    """Base, ort, video, cluster, export and ui resolve together (hence each alone) to wheels for Linux with glibc 2.28.

    Markers of *their* dependencies are evaluated by pip for the running Python.
    """
    wanted = requirements("ort", "video", "cluster", "export", "ui", python=python, machine=machine)
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)] + [
        f"--platform=manylinux2014_{machine}"
    ]
    target = [
        "--dry-run",
        "--only-binary=:all:",
        f"--python-version={python}",
        *platforms,
        "--target",
        tmp_path / "target",
    ]
    pip("install", *target, *(lowest(r) if bounds == "lowest" else str(r) for r in wanted))
