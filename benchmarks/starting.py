"""Seconds until the first batch, and memory, of a feed and of a DataLoader with torchcodec, in processes of their own.

Run: python -m benchmarks.starting

Batches are those of benchmarks.whole_path on `lips`, RGB, by two workers. The clock starts when all libraries are
imported and the files are listed, for the peer also its clips, and includes the start of the workers and loading
compiled code from its cache.
Memory is that of all processes after 20 batches, in which pages that several share are counted once (Linux's
proportional set size).
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import torch

import cinefeed as cf
from benchmarks.page import section_table
from benchmarks.rows import DATA, Row, contestants, missing

WAYS = {
    "cinefeed, threads": "thread",
    "cinefeed, processes": "process",
    "DataLoader + torchcodec": "DataLoader",
}
BATCHES = 20


def run_contestant(way: str) -> None:
    """Print the seconds until the first batch and the memory in bytes, as JSON."""
    from benchmarks.whole_path import BATCH, DataLoader, Peer, make_feed

    torch.set_num_threads(1)
    manifest = cf.Manifest.scan(DATA / "lips", verify="packets", progress=False).readable()
    batches: Iterator[Any]
    if way == "DataLoader":
        clips = Peer(make_feed(manifest, 0, channels=3, backend="thread"), range(1), resize=True)
        began = time.perf_counter()
        batches = iter(DataLoader(clips, batch_size=BATCH, num_workers=2))
    else:
        began = time.perf_counter()
        batches = iter(make_feed(manifest, 2, channels=3, backend=way))
    next(batches)
    seconds = time.perf_counter() - began
    for _ in range(BATCHES):
        next(batches)
    process = psutil.Process()
    memory = sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True)))
    print(json.dumps({"seconds": seconds, "bytes": memory}), flush=True)


def measure(way: str) -> dict[str, float]:
    """Return what `run_contestant` prints in a process of its own."""
    code = f"from benchmarks.starting import run_contestant; run_contestant({way!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{way} failed")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def rows(*, quick: bool) -> Iterator[Row | str]:
    """Yield the rows of the benchmarks page: seconds, and memory."""
    if not (DATA / "lips").exists():
        yield "`lips` is left out: CINEFEED_DATA has no folder of this name."
        return
    ways = {name: way for name, way in WAYS.items() if not quick or way != "process"}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    problems: dict[str, str] = {}
    if not quick:
        measure("thread")  # compiles, if the cache is empty
    for _ in range(1 if quick else 4):
        for name in [name for name in ways if name not in problems]:
            try:
                results[name].append(measure(WAYS[name]))
            except RuntimeError as error:
                problems[name] = missing(error)
    for key, unit, scale in (("seconds", "s", 1.0), ("bytes", "MB", 1e6)):
        yield Row(
            what="first batch of `lips`" if key == "seconds" else "memory on `lips`",
            unit=unit,
            check="The frames of this peer are compared in the whole path.",
            higher_is_better=False,
            contestants=contestants(
                {name: [run[key] / scale for run in runs] for name, runs in results.items() if runs},
                problems=problems,
                bounds=["cinefeed, processes"],
            ),
        )


if __name__ == "__main__":
    for row in rows(quick=False):
        print(row if isinstance(row, str) else "\n".join(section_table([row])))
