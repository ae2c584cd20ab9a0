"""Moving batches out of workers, beside the peers; and what a second worker adds.

Run: python -m benchmarks.feeding [--runs 5] [--seconds 1] [--only moving] [--data ../shared/data/pocus] [--json a.json]
Peers that are not installed are named and left out (pip install torch keras spdl grain).

moving   milliseconds a batch of 16 x 16 x 112 x 112 x 3, two workers, the consumer looking at one pixel a clip. All do
         the same NumPy work, and that it arrived, in order, is checked. "touched": a worker writes one pixel a frame,
         which costs nearly nothing, so that a batch's time is what moving it costs. "filled": it writes every byte, as
         real work does; "the work alone" is then the floor: two threads that write into memory which is there, and
         hand over nothing. Peers make their clips in fresh memory, for they have no other; where it is only touched,
         most of what they copy was never written, which is cheaper than real pixels, in their favour. Every run of a
         contestant is a process of its own, turn by turn, so that none is slowed by another's threads.
scaling  clips a second of a feed with one worker and with two, of both kinds, turn by turn.
choosing the same of the feed that chooses workers, backend and prefetch for itself, beside a grid made by hand.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import cinefeed as cf
from benchmarks.feeding_peers import BATCH, CLIP, CONTESTANTS, MARKS, SHAPE, WORKERS
from benchmarks.rows import Row, contestants
from cinefeed.feed.throughput import measure_feed
from cinefeed.feed.workers.pools import Backend

LIMIT = 60  # seconds of a contestant's run
WARM_BATCHES, LEAST_BATCHES = 8, 5
COLUMNS = [(dtype, filled) for filled in (False, True) for dtype in ("uint8", "float32")]


def time_batches(batches: Iterator[Any], seconds: float, dtype: str) -> float:
    """Return the milliseconds a batch, and see that each holds what it should."""
    began = until = 0.0
    for number, batch in enumerate(batches):
        marks = np.asarray(batch[:, 0, 0, 0, 0])
        expected = (BATCH * number + np.arange(BATCH)) % MARKS
        if tuple(batch.shape) != SHAPE or marks.dtype != dtype or not np.array_equal(marks, expected):
            raise SystemExit(f"batch {number} is wrong: {batch.shape} {marks.dtype} {marks}")
        del batch
        now = time.perf_counter()
        if number == WARM_BATCHES:
            began, until = now, now + seconds
        elif number >= WARM_BATCHES + LEAST_BATCHES and now >= until:
            return 1e3 * (now - began) / (number - WARM_BATCHES)
    raise SystemExit("the batches ended")


def one_run(name: str, seconds: float, columns: list[tuple[str, bool]] = COLUMNS) -> None:
    """Print the milliseconds of a contestant, one a column, or that it is missing."""
    results: dict[str, Any] = {"ms": []}
    for dtype, filled in columns:
        try:
            batches = CONTESTANTS[name](dtype, filled)
            results["ms"].append(time_batches(batches, seconds, dtype))
            batches.close()  # type: ignore[attr-defined]  # a generator
        except ImportError as error:
            results = {"missing": str(error)}
            break
    print("found " + json.dumps(results), flush=True)
    os._exit(0)  # Keras' forked workers may hang at the end of the interpreter; `run_apart` ends them


def run_apart(code: str) -> dict[str, Any]:
    """Run code in a process of its own, whose group is ended after a minute; return what `one_run` prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        process.wait(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return {"failure": f"it was not ready within {LIMIT} s"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        output, errors = process.communicate()
    lines = [line.removeprefix("found ") for line in output.splitlines() if line.startswith("found ")]
    return json.loads(lines[0]) if lines else {"failure": errors.strip()[-100:]}


def timed(
    names: Iterable[str], columns: list[tuple[str, bool]], *, runs: int, seconds: float
) -> tuple[dict[str, list[list[float]]], dict[str, str]]:
    """Time contestants in turn; return the milliseconds of each run and column, and why others are left out."""
    times: dict[str, list[list[float]]] = {name: [] for name in names}
    problems: dict[str, str] = {}
    for _ in range(runs):
        for name in list(times):
            code = f"import benchmarks.feeding as here; here.one_run({name!r}, {seconds}, {columns!r})"
            result = run_apart(code)
            if "failure" in result:
                problems[name] = f"failed: {result['failure']}"
                del times[name]
            elif "missing" in result:
                problems[name] = f"cannot be loaded here: {result['missing'][:90]}"
                del times[name]
            else:
                times[name].append(result["ms"])
    return times, problems


def moving(runs: int, seconds: float) -> dict[str, list[list[float]]]:
    """Time all contestants; print medians and how many times ours they are."""
    times, problems = timed(CONTESTANTS, COLUMNS, runs=runs, seconds=seconds)
    for name, problem in problems.items():
        print(f"{name} is left out, it {problem}", flush=True)
    heads = [f"{dtype}, {'filled' if filled else 'touched'}" for dtype, filled in COLUMNS]
    print(f"\nms a batch (from least to most; times ours by threads), {runs} runs\n{'':34}", end="")
    print("".join(f"{head:>29}" for head in heads))
    columns = {name: list(zip(*each, strict=True)) for name, each in times.items()}
    ours = [statistics.median(column) for column in columns["cinefeed, threads"]]
    for name, each in columns.items():
        cells = []
        for column, base in zip(each, ours, strict=True):
            middle = statistics.median(column)
            cells.append(f"{middle:9.2f} ({min(column):.1f}-{max(column):.1f}; {middle / base:.1f} x)")
        print(f"{name:34}" + "".join(f"{cell:>29}" for cell in cells))
    return times


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of the benchmarks page: batches whose every byte is written."""
    columns = [(dtype, filled) for dtype, filled in COLUMNS if filled and not (quick and dtype == "float32")]
    names = list(CONTESTANTS) if not quick else ["cinefeed, threads", "torch DataLoader", "Grain, threads"]
    times, problems = timed(names, columns, runs=1 if quick else 3, seconds=0.2 if quick else 0.4)
    for number, (dtype, _) in enumerate(columns):
        yield Row(
            what=f"{dtype}, {' x '.join(map(str, SHAPE))}, {WORKERS} workers",
            unit="ms a batch",
            check="Each batch's shape, type, and a pixel of each clip, which has its number, were compared.",
            higher_is_better=False,
            contestants=contestants(
                {name: [run[number] for run in runs] for name, runs in times.items()},
                problems=problems,
                bounds=["cinefeed, processes", "the work alone"],
            ),
        )


def scaled_feeds(folder: Path, data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is scaled: a name, and the settings of a feed."""
    if data.exists():
        grey = cf.Frame(height=112, width=112, channels=1)
        manifest = cf.Manifest.scan(data).readable()
        yield f"decoding, {data.name}", {"manifest": manifest, "clip": cf.Clip(frames=16, stride=2), "frame": grey}
    else:
        print(f"decoding is left out: {data} is not there; see --data")
    rng = np.random.default_rng(0)
    for name, shape in (("large", (32, *CLIP[1:])), ("cine", (25, 150, 150))):
        (folder / name).mkdir()
        for number in range(32):
            np.save(folder / name / f"{number}.npy", rng.integers(0, 256, shape, np.uint8))
    frame = cf.Frame(height=CLIP[1], width=CLIP[2], channels=CLIP[3])
    manifest = cf.Manifest.scan(folder / "large")
    yield "reading .npy, 112 x 112 x 3", {"manifest": manifest, "clip": cf.Clip(frames=CLIP[0]), "frame": frame}
    yield (
        "transforms of the 2020 system",
        {
            "manifest": cf.Manifest.scan(folder / "cine"),
            "clip": cf.Clip(frames=25),
            "frame": cf.Frame(height=150, width=150, channels=1),
            "transforms": [cf.Rotate(degrees=25), cf.Shift(pixels=15), cf.Normalize()],
        },
    )


def scaling(runs: int, seconds: float, data: Path) -> dict[str, dict[str, list[float]]]:
    """Print clips a second with one worker and with two, and the gain."""
    results: dict[str, dict[str, list[float]]] = {}
    backends: tuple[Backend, ...] = ("thread", "process")
    ways = {f"{workers} {backend}": (workers, backend) for backend in backends for workers in (1, 2)}
    print(f"\nclips/s (gain over one), medians of {runs} runs\n{'':34}" + "".join(f"{way:>18}" for way in ways))
    with tempfile.TemporaryDirectory() as folder:
        for title, settings in scaled_feeds(Path(folder), data):
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(runs):
                for way, (workers, backend) in ways.items():
                    source = cf.Feed(
                        target=None, batch_size=BATCH, workers=cf.Workers(count=workers, backend=backend), **settings
                    )
                    rates[way].append(measure_feed(source, seconds=seconds).clips_per_second)
            results[title] = rates
            medians = {way: statistics.median(each) for way, each in rates.items()}
            cells = (f"{rate:.1f} ({rate / medians['1' + way[1:]]:.2f} x)" for way, rate in medians.items())
            print(f"{title:34}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    return results


def choosing(runs: int, seconds: float, data: Path) -> dict[str, dict[str, list[float]]]:
    """Print clips a second of the feed that chooses for itself, and of the best of a grid made by hand."""
    results: dict[str, dict[str, list[float]]] = {}
    backends: tuple[Backend, ...] = ("thread", "process")
    grid = [(workers, backend, ahead) for workers in (1, 2) for backend in backends for ahead in (1, 2, 4)]
    ways: dict[str, dict[str, Any]] = {
        "auto": {"workers": cf.Workers(count="auto", backend="auto", prefetch="auto")}
    } | {
        f"{workers} {backend}, prefetch {ahead}": {
            "workers": cf.Workers(count=workers, backend=backend, prefetch=ahead)
        }
        for workers, backend, ahead in grid
    }
    with tempfile.TemporaryDirectory() as folder:
        for title, settings in scaled_feeds(Path(folder), data):
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(runs):
                for way, options in ways.items():
                    source = cf.Feed(target=None, batch_size=BATCH, **options, **settings)
                    rates[way].append(measure_feed(source, seconds=seconds).clips_per_second)
            results[title] = rates
            medians = {way: statistics.median(each) for way, each in rates.items()}
            best = max(list(medians)[1:], key=medians.__getitem__)
            share = medians["auto"] / medians[best]
            print(f"{title:34} auto {medians['auto']:.1f}, best {medians[best]:.1f} ({best}): {share:.2f}", flush=True)
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="that each measurement lasts")
    parser.add_argument("--only", choices=("moving", "scaling", "choosing"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/pocus"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    if args.only in (None, "moving"):
        results["moving_ms"] = {"columns": COLUMNS, "runs": moving(args.runs, args.seconds)}
    if args.only in (None, "scaling"):
        results["scaling_clips_per_second"] = scaling(args.runs, args.seconds, args.data)
    if args.only in (None, "choosing"):
        results["choosing_clips_per_second"] = choosing(args.runs, args.seconds, args.data)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
