"""Fixtures that every test may use."""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.video import readers
from cinefeed.video.kinds import unregister_kind

pytest_plugins = ["quick"]

os.environ.setdefault("KERAS_BACKEND", "torch")  # before any test imports keras; JAX runs in processes of its own
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of torch: several test processes share the cores
TORCH_THREADS = int(os.environ["OMP_NUM_THREADS"])
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real videos; a test that needs it is skipped, or fails where it is required, if it is absent."""
    if not (DATA / "facts.csv").exists():
        reason = f"no real videos in {DATA}"
        if "data" in os.environ.get("CINEFEED_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    return DATA


@pytest.fixture(autouse=True)
def threads_of_torch():
    """Begin with the environment's number of torch threads, which decides the last bits of what a test computes."""
    torch = sys.modules.get("torch")
    if hasattr(torch, "set_num_threads"):
        torch.set_num_threads(TORCH_THREADS)


@pytest.fixture
def forgotten_readers():
    """Readers that a test registers are removed after it."""
    before = {**readers._readers}
    yield
    for container in readers._readers.keys() - before.keys():
        unregister_kind(container)
        del readers._readers[container]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Rows 0 to 10, each a .npy of 12 frames of 20 x 24; every pixel of frame f of row r is 20 r + f."""
    rows, count = range(11), 12
    for row in rows:
        frames = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None] + 20 * row, (count, 20, 24))
        np.save(tmp_path / f"{row:02}.npy", frames)
    table = pa.table(
        {
            "id": [f"v{row}" for row in rows],
            "path": [f"{row:02}.npy" for row in rows],
            "age": [20.0 + row * row for row in rows],
            "sick": ["no" if row < 8 else "yes" for row in rows],
        }
    )
    return Manifest.from_table(table, root=tmp_path)
