"""Train networks on synthetic data with known answers, and print tables of their scores and the required bounds.

Run: python -m benchmarks.learning --out FOLDER [--only order,clips] [--seeds 0,1,2] [--demo] [--write FILE.md]
Every finished training is a line of FOLDER/results.jsonl. An interrupted run resumes, and finished trainings are not
repeated. Exits with 1 if a score is outside its bound.

two_views   a label that depends on two views together, and on neither alone
covariate   a label that depends on clip and covariate together
order       a label that depends on the order of frames only
clips       the autoencoder compared with two mean frames

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
    """Run the missing trainings, print the tables, and return 1 if a score is outside its bound, else 0."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from benchmarks.learning.real import sections
    from benchmarks.learning.tables import failed, tables
    from benchmarks.learning.tasks import DEMO, DEMO_SEED, TASKS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results, and of the demo")
    parser.add_argument("--only", default=",".join(TASKS), help="tasks, by comma")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--demo", action="store_true", help="train the demo too: minutes")
    parser.add_argument("--write", type=Path, help="Markdown file that the tables go to")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.jsonl"
    for name in filter(None, arguments.only.split(",")):
        for seed in map(int, arguments.seeds.split(",")):
            run_missing(name, seed=seed, results=results)
    if arguments.demo:
        from benchmarks.learning.demo import run_demo

        for trial in DEMO.trials:
            if not done(read(results), "demo", trial.name, seed=DEMO_SEED, settings=DEMO.settings(trial)):
                add(results, run_demo(arguments.out / "demo", trial=trial))
    records = read(results)
    text = tables(records)
    print(text)
    if arguments.write:
        arguments.write.write_text(f"{HEAD}\n\n{text}\n\n{sections()}\n", encoding="utf-8")
    failures = failed(records)
    for line in failures:
        print(f"OUT OF BOUNDS: {line}", file=sys.stderr)
    return int(bool(failures))


HEAD = """# Does it learn?

Networks are trained on synthetic data with known answers. The answer cannot be found from a part of the input, so
networks with all inputs are compared with networks that lack one. `python -m benchmarks.learning` trains them and
writes this page. Numbers are those of the test part; with several seeds their mean (minimum to maximum), each with
other data and other initial weights.

The first tasks are easy by design: they show that the inputs of a network reach its output, and that information
outside its inputs does not. They are no evidence for real videos; the last three sections are about those."""


def done(records: list[dict[str, Any]], task: str, trial: str, *, seed: int, settings: str) -> bool:
    """Return whether a training with these settings is among the records."""
    record_key = {"task": task, "trial": trial, "seed": seed, "settings": settings}
    return any(record_key.items() <= each.items() for each in records)


def run_missing(name: str, *, seed: int, results: Path) -> None:
    """Train each network of a task that has no result yet, and append its record."""
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
        start_time = time.perf_counter()
        result = train(data, task=task, trial=trial, seed=seed)
        record = {
            "task": name,
            "trial": trial.name,
            "seed": seed,
            "settings": task.settings(trial),
            "value": result[task.metric],
            "parameters": result["parameters"],
            "baselines": data.baselines,
            "backend": os.environ["KERAS_BACKEND"],
            "seconds": round(time.perf_counter() - start_time, 1),
        }
        add(results, record)
        print(json.dumps(record), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
