"""docs/tour.ipynb runs from top to bottom, as a reader would run it, and shows what it says."""

from __future__ import annotations

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

TOUR = Path(__file__).parent.parent / "docs" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TOUR.parent.parent))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(TOUR, as_version=4)
    kept = _printed(notebook)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = _printed(notebook)
    bicubic, adapted = (float(figure) for figure in re.findall(r"([\d.]+) dB", printed))
    assert adapted > bicubic + 1
    figures = re.compile(r"\d+\.\d+")  # may differ in their last digit on another processor
    assert figures.sub("", printed) == figures.sub("", kept)  # the page shows what it does


def _printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
