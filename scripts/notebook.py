"""Run examples/cardiac_cine.ipynb from top to bottom, and store its outputs without what differs between two runs.

    python scripts/notebook.py

The notebook runs in a temporary folder, which is removed.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "cardiac_cine.ipynb"


def run(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with new outputs. Raises nbclient's CellExecutionError for the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": folder}}, record_timing=False
        ).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    nbformat.write(run(path), path)
