"""Trains networks on data whose answer is known, and prints tables of what they reach and what they must.

Run: python -m benchmarks.learning --out FOLDER [--only order,clips] [--seeds 0,1,2] [--demo] [--write FILE.md]
Every finished training is a line of FOLDER/results.jsonl. A run that was stopped goes on where it was, and what is
there is not done again. Ends with 1 where a network misses what it must reach, or reaches what it must not.

two_views   a label that two views tell together, and neither alone
covariate   a label that clip and covariate tell together
order       a label that the order of frames tells, and not the frames
clips       the autoencoder beside two mean frames

A training takes 8 to 20 s on one core; --demo adds the demo's ejection fraction, with cnn_rnn and with cnn3d, each
about three minutes on two, and its videos.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.balance.__main__ import add, read


def main() -> int:
    """Train what is missing, print the tables, and return whether something is not as it must be."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from benchmarks.learning.tables import failed, tables
    from benchmarks.learning.tasks import DEMO, DEMO_SEED, TASKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, and of the demo")
    parser.add_argument("--only", default=",".join(TASKS), help="tasks, by comma")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--demo", action="store_true", help="train the demo too: minutes")
    parser.add_argument("--write", type=Path, help="Markdown file that the tables go to")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "results.jsonl"
    for name in filter(None, given.only.split(",")):
        for seed in map(int, given.seeds.split(",")):
            run_missing(name, seed=seed, results=results)
    if given.demo:
        from benchmarks.learning.demo import run_demo

        for trial in DEMO.trials:
            if not done(read(results), "demo", trial.name, seed=DEMO_SEED, settings=DEMO.settings(trial)):
                add(results, run_demo(given.out / "demo", trial=trial))
    records = read(results)
    text = tables(records)
    print(text)
    if given.write:
        given.write.write_text(f"{HEAD}\n\n{text}\n", encoding="utf-8")
    wrong = failed(records)
    for line in wrong:
        print(f"NOT AS IT MUST BE: {line}", file=sys.stderr)
    return int(bool(wrong))


HEAD = """# Does it learn?

Data whose answer is known, drawn by code, in which who lacks a part of the clip cannot find the answer; then networks
that have all of it and networks that do not. `python -m benchmarks.learning` trains them and writes this page. Numbers
are those of the test part; with several seeds their mean (least to most), each with other data and other first weights.

The tasks are easy, and were made so: they show that what the network is given reaches the answer, on this path, and
what the network is not given does not. They say nothing of real videos."""


def done(records: list[dict[str, Any]], task: str, trial: str, *, seed: int, settings: str) -> bool:
    """Whether a training is among the records, with these settings."""
    wanted = {"task": task, "trial": trial, "seed": seed, "settings": settings}
    return any(wanted.items() <= each.items() for each in records)


def run_missing(name: str, *, seed: int, results: Path) -> None:
    """Train each network of a task that has no result yet, and add a line for it."""
    from benchmarks.learning.learn import train
    from benchmarks.learning.tasks import TASKS

    task, records = TASKS[name], read(results)
    missing = [
        each for each in task.trials if not done(records, name, each.name, seed=seed, settings=task.settings(each))
    ]
    if not missing:
        return
    data = task.make(seed=seed)
    for trial in missing:
        started = time.perf_counter()
        found = train(data, task=task, trial=trial, seed=seed)
        record = {
            "task": name,
            "trial": trial.name,
            "seed": seed,
            "settings": task.settings(trial),
            "value": found[task.metric],
            "parameters": found["parameters"],
            "known": data.known,
            "backend": os.environ["KERAS_BACKEND"],
            "seconds": round(time.perf_counter() - started, 1),
        }
        add(results, record)
        print(json.dumps(record), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
