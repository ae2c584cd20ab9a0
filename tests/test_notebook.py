"""The example notebook runs from top to bottom, and its stored outputs are those of its cells."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

import cinefeed as cf

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "cardiac_cine.ipynb"


@pytest.fixture
def notebook():
    nbformat = pytest.importorskip("nbformat", reason="the extra `docs` has it")
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    """Return the text that a cell shows, without numbers, which differ between machines where a network was trained."""
    text = ["".join(each.get("text", "")) or each.get("data", {}).get("text/plain", "") for each in cell.outputs]
    return re.sub(r"-?\d+(\.\d+)?", "0", "\n".join(text))


def test_the_stored_notebook_is_complete_and_small(notebook):
    assert NOTEBOOK.stat().st_size < 1_000_000
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run scripts/notebook.py"
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert "error" not in kinds and kinds.count("display_data") >= 6
    streams = [output.name for cell in cells for output in cell.outputs if output.output_type == "stream"]
    assert set(streams) == {"stdout"}, "a cell warns"
    assert not re.search(r"/(tmp|home|root|work)/", NOTEBOOK.read_text()), "a path of this machine is stored"


@pytest.mark.slow
def test_the_notebook_runs(notebook, monkeypatch):
    pytest.importorskip("nbclient", reason="the extra `docs` has it")
    pytest.importorskip("ipykernel", reason="the extra `docs` has it")
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "scripts" / "notebook.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(cf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    result = script.run(NOTEBOOK)
    for stored, new in zip(code_cells(notebook), code_cells(result), strict=True):
        assert printed(new) == printed(stored), f"outputs have changed: run scripts/notebook.py\n{stored.source}"
