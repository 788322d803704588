"""The tour runs from its first cell to its last, and is committed without what it shows."""

import os

import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
TOUR = ROOT / "notebooks" / "tour.ipynb"


def test_it_is_committed_without_outputs():
    cells = nbformat.read(TOUR, 4).cells
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("CI", raising=False)  # where there are no bars
    notebook = nbformat.read(TOUR, 4)
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "\n".join(output["text"] for output in outputs if output.output_type == "stream")
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert "Did you mean model=cnn?" in text
    assert "epoch 8/8" in text
    assert "(turned around)" in text
    assert "of model=mlp minus model=cnn" in text
    assert "best val/accuracy" in text
    assert "error:" not in text
    assert shown.count("image/png") >= 5  # data, augmented data, three pictures
    assert any("best=" in str(output) for output in outputs)  # the bar, as text or as a widget
    assert (tmp_path / "tour" / "cnn" / "report.html").exists()
