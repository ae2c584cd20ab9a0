"""Seconds for the text and the HTML of a manifest and a feed of many rows: python benchmarks/display.py [rows]."""

import sys
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

import cinefeed as cf


def timed(name: str, function: Callable[[], object]) -> None:
    """Print the best of three runs."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    print(f"{name:<24} {min(seconds):8.4f} s")


def main(rows: int) -> None:
    """Time a manifest that was not scanned, and feeds of numbers and of classes."""
    rng = np.random.default_rng(0)
    columns = {
        "path": [f"v/{row:07d}.mp4" for row in range(rows)],
        "age": rng.normal(60, 12, rows),
        "finding": rng.choice(["a", "b", "c"], rows, p=[0.9, 0.08, 0.02]),
        "patient": [f"p{row // 3}" for row in range(rows)],
    }
    manifest = cf.Manifest.from_table(pa.table(columns))
    clip, frame = cf.Clip(frames=4), cf.Frame(height=8, width=8, channels=1)
    timed("manifest, repr", manifest.__repr__)
    timed("manifest, print", manifest.__str__)
    timed("manifest, HTML", manifest._repr_html_)
    for target, sampler in (("age", cf.UniformLabels()), ("finding", cf.BalancedClasses())):
        feed = cf.Feed(manifest, target=target, sampler=sampler, clip=clip, frame=frame, workers=0)
        timed(f"feed of {target}, repr", feed.__repr__)
        timed(f"feed of {target}, HTML", feed._repr_html_)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
