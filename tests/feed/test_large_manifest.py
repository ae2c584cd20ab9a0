"""A million rows: the feed begins at once, and a worker process holds little of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import cinefeed as cf
from cinefeed.data.manifest.columns import METADATA_COLUMNS, metadata_to_row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read in /proc"),
]
ROWS, FILES = 1_000_000, 8
UNWANTED = {
    "pyarrow.dataset",
    "pyarrow.parquet",
    "cinefeed.data.manifest.manifest",
    "sklearn",
    "keras",
    "torch",
    "jax",
    "tensorflow",
    "typer",
    "rich",
    "pytest",
}
# A transform that writes down what its process has imported, in a module that worker processes can import.
NOTING = """
import json, os, sys
from dataclasses import dataclass
from pathlib import Path

@dataclass(frozen=True)
class Noting:
    folder: str

    def sample(self, rng, info):
        return {}

    def apply(self, frames, parameters):
        note = Path(self.folder, f"{os.getpid()}.json")
        if not note.exists():
            note.write_text(json.dumps(sorted(sys.modules)))
        return frames
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A manifest of a million rows on eight files, with the columns that a scan writes."""
    folder = tmp_path_factory.mktemp("large")
    for number in range(FILES):
        np.save(folder / f"{number}.npy", np.full((16, 64, 64), 20 * number, np.uint8))
    numbers = np.arange(ROWS)
    metadata = metadata_to_row(cf.probe(folder / "0.npy"))
    columns = {
        "id": pa.array([f"study-{number:07}" for number in range(ROWS)]),
        "path": pa.array([f"{number}.npy" for number in range(FILES)]).take(pa.array(numbers % FILES)),
        "age": pa.array((numbers % 71 + 20).astype(np.float64)),
    }
    for name, kind in METADATA_COLUMNS.items():
        value = metadata.get(name)
        columns[name] = pa.nulls(ROWS, kind) if value is None else pa.repeat(pa.scalar(value, kind), ROWS)
    cf.Manifest.from_table(pa.table(columns), root=folder).write(folder / "m.parquet")
    return folder / "m.parquet"


def make(manifest, **changes):
    settings = {
        "target": "age",
        "clip": cf.Clip(frames=8),
        "frame": cf.Frame(height=32, width=32, channels=1),
        "transforms": [cf.Rotate(degrees=5)],
        "batch_size": 16,
        "workers": 2,
    }
    return cf.Feed(manifest, **{**settings, **changes})


@pytest.mark.parametrize("backend", ["thread", "process"])
@pytest.mark.parametrize("sampler", [cf.Natural(), cf.UniformLabels()], ids=["natural", "uniform"])
def test_the_first_batch(path, backend, sampler):
    marks = [time.perf_counter()]
    manifest = cf.Manifest.read(path)
    marks.append(time.perf_counter())
    feed = make(manifest, workers=cf.Workers(count=2, backend=backend), sampler=sampler)
    marks.append(time.perf_counter())
    batches = iter(feed)  # kept: letting go of it stops the workers
    batch = next(batches)
    marks.append(time.perf_counter())
    read, built, first = np.diff(marks)
    print(f"{backend}: {read:.1f} s to read, {built:.1f} s to build the feed, {first:.1f} s to the first batch")
    assert len(feed) == ROWS // 16
    for name, clip, age in zip(batch.ids, batch.clips, batch.targets, strict=True):
        number = int(name[6:])
        assert (clip == 20 * (number % FILES)).mean() > 0.9, "but for the corners that turning leaves empty"
        assert age == number % 71 + 20


def unshared(pid):
    """Return the bytes that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return sizes["Private_Clean"] + sizes["Private_Dirty"]


@pytest.fixture(scope="module")
def workers(path, tmp_path_factory):
    """What two worker processes hold of their own after some thousand clips, in MB, and what they have imported."""
    folder = tmp_path_factory.mktemp("notes")
    (folder / "noting_transform.py").write_text(NOTING)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        from noting_transform import Noting

        feed = make(
            cf.Manifest.read(path),
            workers=cf.Workers(count=2, backend="process"),
            transforms=[cf.Rotate(degrees=5), Noting(str(folder))],
        )
        batches = iter(feed)
        deadline = time.monotonic() + 60
        while len(list(folder.glob("*.json"))) < 2 and time.monotonic() < deadline:
            next(batches)
        for _ in range(200):  # their rows lie all over the columns
            next(batches)
        pids = batches._prefetcher.worker_pool.pids
        held = [unshared(pid) / 1e6 for pid in pids]
        modules = [set(json.loads((folder / f"{pid}.json").read_text())) for pid in pids]
    print("a worker process has", *(f"{each:.0f}" for each in held), "MB of its own")
    return held, modules


def test_a_worker_holds_little(workers):
    held, _ = workers
    assert len(held) == 2 and max(held) < 150


def test_a_worker_imports_little(workers):
    for modules in workers[1]:
        assert modules >= {"numpy", "pyarrow", "noting_transform", "cinefeed.feed.clip_pipeline"}
        assert modules & UNWANTED == set()


def test_a_worker_imports_no_pandas(workers):
    assert not any("pandas" in modules for modules in workers[1])


def test_memory_of_its_own_is_found():
    held = []
    for code in ("", "kept = bytearray(b'x' * 50_000_000); "):
        command = [sys.executable, "-c", f"{code}print(flush=True); input()"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            held.append(unshared(process.pid))
            process.communicate(b"\n")
    assert 40_000_000 < held[1] - held[0] < 60_000_000
