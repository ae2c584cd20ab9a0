"""Run the benchmarks and write docs/benchmarks.md and its chart: `make bench`, or `QUICK=1 make bench`.

    python -m benchmarks [PART ...] [--quick] [--page-only]

Each part runs in a process of its own, and its rows are stored in .bench. Without names all parts run, and the page is
written; with names only these, and their tables are printed. `--page-only` measures nothing, and writes the page from
the stored rows. A quick run shows that everything works; its page is .bench/quick/benchmarks.md, and docs/ stays.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.page import machine, section_table, versions, write_page
from benchmarks.parts import PARTS, Part
from benchmarks.rows import Result, missing

ROOT = Path(__file__).parents[1]


def measured(part: Part, *, quick: bool) -> Result:
    """Return the rows of a part, measured in this process."""
    began, load = time.perf_counter(), os.getloadavg()[0]
    rows, problems = [], []
    try:
        for row in import_module(f"benchmarks.{part.module}").rows(quick=quick):
            if isinstance(row, str):
                problems.append(row)
            else:
                rows.append(row)
    except (ImportError, SystemExit) as error:
        problems.append(f"This part could not run: {missing(error)}.")
    date = datetime.now(UTC).date().isoformat()
    return Result(rows=tuple(rows), problems=tuple(problems), seconds=time.perf_counter() - began, date=date, load=load)


def run_part(part: Part, path: Path, *, quick: bool) -> Result:
    """Run a part in a process of its own, which writes its rows to a file; return them, or why there are none."""
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks", part.name, "--write", str(path), *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=part.limit, check=False)
        failure = "" if path.exists() else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        failure = f"it took more than {part.limit} s"
    result = Result.read(path) if path.exists() else Result(problems=(f"This part failed: {failure}",))
    if failure:
        result.write(path)
    return result


def head(results: list[Result], *, quick: bool, note: str) -> str:
    """Return the text below the title of the page."""
    dates = sorted({result.date for result in results if result.date})
    minutes = sum(result.seconds for result in results) / 60
    load = max((result.load for result in results), default=0.0)
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    warning = "\n**A quick run: one run of little work each, whose figures are noise.**\n" if quick else ""
    busy = f" When a part began, the load was up to {load:.0f}, that of earlier parts included." if load > 3 else ""
    return f"""
`make bench` measures and writes this page: it installs the peers at the versions of `benchmarks/peers.txt` into
`.venv-bench` and runs the contestants of each row one after the other, in turns, in one session. `QUICK=1 make bench`
shows in three minutes that all of it works. What was tried, and figures of other data and settings:
[the history](../benchmarks/README.md).
{warning}
Machine: {machine()}. {" and ".join(dates) or "Not measured"}, {minutes:.0f} minutes.{busy} {note}

Versions: {packages}. torchcodec needs the FFmpeg libraries of the system; where it cannot be loaded, its rows say so.

**How to read it.** Values are medians of the runs, with the lowest and the highest. "cinefeed / peer" says how many
times better cinefeed was, as the median of the ratios within each run, with their range: above 1 cinefeed is faster (or
smaller), below 1 the peer wins. Before anything is timed, the frames of each peer are compared; one that returns other
frames gets no ratio. Contestants without a ratio are variants of cinefeed, or bounds such as decoding alone.
"""


def main() -> None:
    """Run parts, and write the page or print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    by_name = {part.name: part for part in PARTS}
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"by default all: {', '.join(by_name)}")
    parser.add_argument("--quick", action="store_true", help="little work: does it run?")
    parser.add_argument("--page-only", action="store_true", help="write the page from what was measured before")
    parser.add_argument("--note", default="", help="a sentence for the page, such as what else the machine did")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.parts) - by_name.keys():
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are: {', '.join(by_name)}")
    if options.write:
        measured(by_name[options.parts[0]], quick=options.quick).write(options.write)
        return
    store = ROOT / ".bench" / ("quick" if options.quick else "full")
    store.mkdir(parents=True, exist_ok=True)
    for part in [] if options.page_only else [by_name[name] for name in options.parts] or PARTS:
        print(f"{part.name} ...", end=" ", flush=True)
        result = run_part(part, store / f"{part.name}.json", quick=options.quick)
        print(f"{result.seconds:.0f} s", *result.problems, sep="\n", flush=True)
        if options.parts:
            print("\n".join(section_table(result.rows)))
    if options.page_only or not options.parts:
        paths = {part: store / f"{part.name}.json" for part in PARTS}
        results = {part: Result.read(path) for part, path in paths.items() if path.exists()}
        absent = Result(problems=("Not measured in this run.",))
        sections = [replace(part.section, result=results.get(part, absent)) for part in PARTS]
        folder = store if options.quick else ROOT / "docs"
        print(write_page(folder, sections, head=head(list(results.values()), quick=options.quick, note=options.note)))


if __name__ == "__main__":
    main()
