"""A training and a feed beside programs that keep the cores busy, and networks on one and on several threads.

Run: python -m benchmarks.busy [--quick] [--part feed --part train --part demo --part threads] [--loops 0,2,4]

feed:     epochs of a feed without a model, on the demo's videos
train:    epochs of the demo's training, by the command line; "before" is how OpenMP waits by itself (it spins), with a
          thread a core
demo:     the whole of `cinefeed demo`, which `make demo` runs: alone and beside the most loops, before and after
threads:  steps of networks on one thread and on one a core, and the operations of a batch, which choose between them

Each runs in a process of its own beside 0, 2 and 4 endless loops. The fair share of a program that keeps `own` cores
busy when it is alone, beside n loops on c cores, is (own + n) / c times its time alone, or its time alone if all fit.
The aim is at most 1.3 times that. Load by other programs is printed: where there is some, the figures are too high.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rows import Row, contestants, in_turns
from cinefeed.config import parse, to_toml
from cinefeed.core.cores import usable_cores
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.demo import write_demo

AIM = 1.3
PARTS = "feed", "train", "demo", "threads"
# How torch's OpenMP waits if nothing is set (GNU's: 300,000 rounds), on a thread a core.
BEFORE = {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": str(usable_cores())}
_OF_THREADS = "OMP_NUM_THREADS OMP_WAIT_POLICY GOMP_SPINCOUNT KMP_BLOCKTIME".split()
_FEED = """
import json, sys, time
from benchmarks.busy import demo_settings
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.setup import build_feed
folder, epochs = sys.argv[1], int(sys.argv[2])
feed = build_feed(demo_settings(folder, epochs=1), Manifest.read(f"{folder}/manifest.parquet"))
seconds = []
for _ in range(epochs + 1):
    began = time.perf_counter()
    for batch in feed:
        pass
    seconds.append(time.perf_counter() - began)
print(json.dumps({"seconds": seconds[1:], **feed.stats().as_dict()}))
"""
_STEP = """
import json, sys, time
import keras, numpy as np, torch
from cinefeed import models
from cinefeed.feed.labels import FeedSpec
from cinefeed.training.threads import forward_flop
name, threads, steps, batch, *shape = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
spec = FeedSpec(clip_shape=tuple(shape), dtype=np.dtype("uint8"), batch_size=batch, target="age", task="regression")
function = getattr(models, name)
model = function(spec.clip_shape) if name == "reference_cnn_lstm" else function(spec)
model.compile("adam", "mse")
clips = np.random.default_rng(0).integers(0, 255, (batch, *shape)).astype(model.inputs[0].dtype)
seconds = []
for _ in range(steps + 2):
    began = time.perf_counter()
    model.train_on_batch({model.inputs[0].name: clips}, np.zeros((batch, 1), np.float32))
    seconds.append(time.perf_counter() - began)
print(json.dumps({"seconds": seconds[2:], "flop": forward_flop(model, spec)}))
"""
NETWORKS = (  # name, batch, frames, height, width, channels
    ("cnn_rnn", 8, 16, 48, 48, 1),
    ("cnn_rnn", 16, 16, 112, 112, 1),
    ("cnn_rnn", 16, 16, 112, 112, 3),
    ("cnn3d", 8, 16, 64, 64, 1),
    ("reference_cnn_lstm", 2, 25, 150, 150, 1),
)


class Measured(NamedTuple):
    """Seconds of an epoch (a median), the cores that the program kept busy, and the share that others had of them."""

    seconds: float
    own_cores: float
    others: float


@contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Keep so many endless loops running."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def demo_settings(folder: str | Path, *, epochs: int, out: str = "run") -> Any:
    """Return the settings of the demo's training, with its videos in a folder."""
    from cinefeed.cli.demo import demo_table

    table = demo_table(Path(folder), epochs=epochs, seed=7)
    table["train"]["out"] = str(Path(folder) / out)
    return parse(table)


def run(command: list[str], *, environment: dict[str, str]) -> str:
    """Run Python with a command line in a clean environment; return what it prints. Raises what it failed with."""
    variables = {name: value for name, value in os.environ.items() if name not in _OF_THREADS}
    done = subprocess.run(
        [sys.executable, *command], env={**variables, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[:3]} failed: {done.stderr[-2000:]}")
    return done.stdout


def measure_feed(folder: Path, *, epochs: int, environment: dict[str, str]) -> Measured:
    """Return what an epoch of the feed takes."""
    return _measured(json.loads(run(["-c", _FEED, str(folder), str(epochs)], environment=environment).splitlines()[-1]))


def measure_train(folder: Path, *, epochs: int, environment: dict[str, str]) -> Measured:
    """Return what an epoch of a training by the command line takes, its validation included; the first is left out."""
    config = folder / "busy.toml"
    config.write_text(to_toml(demo_settings(folder, epochs=epochs + 1)), encoding="utf-8")
    run(["-m", "cinefeed", "train", "--config", str(config), "--overwrite"], environment=environment)
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    ends = [line["time"] for line in lines if line["event"] == "epoch"]
    stats = json.loads((folder / "run" / "feed_stats.json").read_text(encoding="utf-8"))
    print(f"    {stats['verdict']}")
    return _measured({**stats, "seconds": [end - begin for begin, end in pairwise(ends)]})


def _measured(result: dict[str, Any]) -> Measured:
    elapsed = result["elapsed_seconds"] or 1.0
    return Measured(
        statistics.median(result["seconds"]),
        result["own_cpu_seconds"] / elapsed,
        result["other_cpu_seconds"] / (result["available_cpu_seconds"] or 1.0),
    )


def fair_seconds(alone: Measured, *, loops: int, cores: int) -> float:
    """Return the seconds that an epoch may take beside some loops, by the share of the cores that is the program's.

    >>> alone = Measured(seconds=10.0, own_cores=1.5, others=0.0)
    >>> fair_seconds(alone, loops=2, cores=2), fair_seconds(alone, loops=0, cores=2)
    (17.5, 10.0)
    """
    return alone.seconds * max(1.0, (alone.own_cores + loops) / cores)


def beside_loops(part: str, folder: Path, *, loops: list[int], epochs: int, variants: dict[str, Any]) -> None:
    """Measure a part beside each number of loops, and print the seconds beside the fair ones."""
    measure = {"feed": measure_feed, "train": measure_train}[part]
    for name, environment in variants.items():
        print(f"\n{part}, {name} (load {os.getloadavg()[0]:.1f})", flush=True)
        alone = None
        for number in loops:
            with busy_loops(number):
                result = measure(folder, epochs=epochs, environment=environment)
            alone = alone or result  # the first, without loops
            fair = fair_seconds(alone, loops=number, cores=usable_cores())
            used = f"{result.own_cores:.2f} cores, others {100 * result.others:.0f} %"
            print(
                f"  {number} loops: {result.seconds:7.2f} s an epoch, fair {fair:6.2f}, "
                f"ratio {result.seconds / fair:.2f}, aim {AIM}; {used}",
                flush=True,
            )


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the row of the benchmarks page: the demo's training beside endless loops."""
    variants: dict[str, dict[str, str]] = {"cinefeed": {}, "OpenMP's own waiting, one thread a core": BEFORE}
    videos, epochs, loops = (20, 1, 1) if quick else (160, 3, 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_manifest(folder, videos=videos)

        def seconds(environment: dict[str, str]) -> float:
            return measure_train(folder, epochs=epochs, environment=environment).seconds

        ways = {variant: partial(seconds, environment) for variant, environment in variants.items()}
        with busy_loops(loops):
            values = in_turns(ways, runs=1 if quick else 2)
    yield Row(
        what=f"training, {videos} videos, beside {loops} loops on {usable_cores()} cores",
        unit="s an epoch",
        check="Both train with the same settings on the same clips.",
        higher_is_better=False,
        contestants=contestants(values),
    )


def write_demo_manifest(folder: Path, *, videos: int) -> None:
    """Write the videos of the demo and their manifest."""
    labels = write_demo(folder / "videos", videos=videos, seed=7)
    Manifest.scan(folder / "videos", labels=labels, out=folder / "manifest.parquet")


def whole_demo(*, loops: list[int], videos: int, epochs: int) -> None:
    """Time `cinefeed demo` alone and beside the most loops, before and after."""
    options = ["--videos", str(videos), "--epochs", str(epochs)]
    for name, environment in (("now", {}), ("before", BEFORE)):
        for number in sorted({0, max(loops)}):
            load = os.getloadavg()[0]
            with tempfile.TemporaryDirectory() as folder, busy_loops(number):
                began = time.perf_counter()
                run(["-m", "cinefeed", "demo", "--out", folder, *options], environment=environment)
                seconds = time.perf_counter() - began
            print(f"  demo, {name}, beside {number} loops: {seconds:.0f} s (load {load:.1f})", flush=True)


def thread_steps(networks: Sequence[tuple[Any, ...]], *, steps: int) -> None:
    """Time a training step of each network on one thread and on one a core, and print the operations of its batch."""
    print(f"\nms a step on 1 and on {usable_cores()} threads, passive waiting (load {os.getloadavg()[0]:.1f})")
    for name, *numbers in networks:
        rows = []
        for threads in (1, usable_cores()):
            command = ["-c", _STEP, name, str(threads), str(steps), *map(str, numbers)]
            environment = {"OMP_WAIT_POLICY": "PASSIVE", "KERAS_BACKEND": "torch"}
            rows.append(json.loads(run(command, environment=environment).splitlines()[-1]))
        one, several = (min(each["seconds"]) for each in rows)
        size = " x ".join(map(str, numbers))
        print(
            f"  {name:20}{size:26}{1e3 * one:8.0f}{1e3 * several:8.0f}  gain {one / several:.2f}, "
            f"{rows[0]['flop'] / 1e9:.2f} GFLOP forward",
            flush=True,
        )


def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="by default all")
    parser.add_argument("--loops", default="0,2,4", help="the first is what the others are compared with")
    parser.add_argument("--quick", action="store_true", help="few videos, epochs and steps: does it run?")
    args = parser.parse_args()
    parts, loops = args.part or PARTS, [int(number) for number in args.loops.split(",")]
    videos, epochs, steps = (80, 2, 3) if args.quick else (800, 5, 20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if {"feed", "train"} & {*parts}:
            write_demo_manifest(folder, videos=videos)
        if "threads" in parts:
            thread_steps(NETWORKS[:1] if args.quick else NETWORKS, steps=steps)
        if "feed" in parts:
            beside_loops("feed", folder, loops=loops, epochs=epochs, variants={"now": {}})
        if "train" in parts:
            beside_loops("train", folder, loops=loops, epochs=epochs, variants={"now": {}, "before": BEFORE})
        if "demo" in parts:
            print(flush=True)
            whole_demo(loops=loops, videos=videos, epochs=epochs if args.quick else 22)


if __name__ == "__main__":
    main()
