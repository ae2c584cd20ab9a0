"""Large manifests: seconds to read one, to build a feed and to the first batch, and the memory of a worker process.

Run it with `python -m benchmarks.manifests [--rows 1000000 3000000 10000000] [--runs 3]`. The manifests are synthetic,
with the columns that a scan writes, on eight small `.npy` files; each run is a process of its own. Times are of the
wall clock, with the processor time of the main process beside them, which matters on a busy machine.

read      Manifest.read: the Parquet file, its checksums and digest
feed      Feed(...)
plan      the plan of an epoch alone (also part of "first")
first     from the feed to the first batch, from two worker processes
worker    memory of a worker process of its own, after 50 batches; the columns of the manifest are shared by all workers
main      peak of the main process; ten million rows took 6 GB, and 8 GB to write the manifest
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import cinefeed as cf
from benchmarks.rows import Row, contestants
from cinefeed.data.manifest.columns import METADATA_COLUMNS, metadata_to_row

_FILES = 8
_CODE = """
import json, resource, sys, time
from pathlib import Path
times = {}
class timed:
    def __init__(self, name): self.name = name
    def __enter__(self): self.start = time.perf_counter(), time.process_time()
    def __exit__(self, *error):
        times[self.name] = [time.perf_counter() - self.start[0], time.process_time() - self.start[1]]
def own_bytes(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
if __name__ == "__main__":
    import cinefeed as cf
    cf.Manifest, cf.Feed, cf.Rotate  # imported before the clock starts
    with timed("read"):
        manifest = cf.Manifest.read(sys.argv[1])
    sampler = getattr(cf, sys.argv[2])()
    with timed("feed"):
        feed = cf.Feed(manifest, target="age", clip=cf.Clip(frames=8), sampler=sampler, batch_size=16,
                       frame=cf.Frame(height=32, width=32, channels=1), transforms=[cf.Rotate(degrees=5)],
                       workers=cf.Workers(count=2, backend="process"))
    with timed("first"):
        batches = iter(feed)
        next(batches)
    for _ in range(50):
        next(batches)
    memory = [own_bytes(pid) for pid in batches._prefetcher.worker_pool.pids]
    with timed("plan"):
        feed.sampler.plan(feed.labels, seed=0, epoch=1)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"times": times, "memory": max(memory), "main": peak}), flush=True)
"""


def write_manifest(folder: Path, rows: int) -> Path:
    """Write a manifest of this many rows, and return its path."""
    for number in range(_FILES):
        np.save(folder / f"{number}.npy", np.full((16, 64, 64), 20 * number, np.uint8))
    numbers = np.arange(rows)
    metadata = metadata_to_row(cf.probe(folder / "0.npy"))
    digits = pa.array(np.char.zfill(numbers.astype("U8"), 8))
    columns = {
        "id": pc.binary_join_element_wise("study-", digits, ""),
        "path": pa.array([f"{number}.npy" for number in range(_FILES)]).take(pa.array(numbers % _FILES)),
        "age": pa.array((numbers % 71 + 20).astype(np.float64)),
    }
    for name, kind in METADATA_COLUMNS.items():
        value = metadata.get(name)
        columns[name] = pa.nulls(rows, kind) if value is None else pa.repeat(pa.scalar(value, kind), rows)
    path = folder / f"{rows}.parquet"
    cf.Manifest.from_table(pa.table(columns), root=folder).write(path)
    return path


def write_apart(path: Path, rows: int) -> None:
    """Write a manifest in a process of its own, whose memory is returned."""
    code = f"from benchmarks.manifests import *; write_manifest(Path({str(path.parent)!r}), {rows})"
    subprocess.run([sys.executable, "-c", code], check=True)


def measure(path: Path, sampler: str) -> dict[str, Any]:
    """Return the times and the memory of a run."""
    command = [sys.executable, "-c", _CODE, str(path), sampler]
    result: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return result


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the row of the benchmarks page: a manifest of a million rows until its first batch."""
    count, parts = 100_000 if quick else 1_000_000, ("read", "feed", "first")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, f"{count}.parquet")
        write_apart(path, count)
        runs = [measure(path, "UniformLabels")["times"] for _ in range(1 if quick else 3)]
    yield Row(
        what=f"a manifest of {count:,} rows, uniform labels, 2 process workers",
        unit="s",
        check="There is no peer: none has a manifest or plans an epoch.",
        higher_is_better=False,
        contestants=contestants({"cinefeed": [sum(run[part][0] for part in parts) for run in runs]}),
    )


def main() -> None:
    """Print a line per number of rows and sampler, with the median of the runs and their range."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 3_000_000, 10_000_000])
    arguments.add_argument("--runs", type=int, default=3)
    options = arguments.parse_args()
    print(f"{'rows':>10} {'sampler':14}" + "".join(f"{name:>24}" for name in ("read", "feed", "plan", "first")), end="")
    print(f"{'worker':>10}{'main':>10}   (seconds: median, range, processor)")
    with tempfile.TemporaryDirectory() as name:
        for rows in options.rows:
            path = Path(name, f"{rows}.parquet")
            write_apart(path, rows)
            for sampler in ("Natural", "UniformLabels"):
                runs = [measure(path, sampler) for _ in range(options.runs)]
                print(f"{rows:>10,} {sampler:14}", end="")
                for what in ("read", "feed", "plan", "first"):
                    wall, processor = zip(*(each["times"][what] for each in runs), strict=True)
                    middle, low, high = statistics.median(wall), min(wall), max(wall)
                    print(f"{middle:>8.2f} {low:.2f}-{high:.2f} {statistics.median(processor):.2f}".rjust(24), end="")
                sizes = [max(each[key] for each in runs) / 1e6 for key in ("memory", "main")]
                print("".join(f"{size:>7,.0f} MB" for size in sizes), flush=True)
            path.unlink()


if __name__ == "__main__":
    main()
