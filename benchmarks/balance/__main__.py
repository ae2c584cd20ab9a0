"""Does balancing help? Trains the same small network with and without it, and prints tables of what came out.

Run: python -m benchmarks.balance --out FOLDER [--only ef] [--methods natural,uniform] [--seeds 0,1,2,3,4] [--tables]
Every finished training is a line of FOLDER/results.jsonl. A run that was stopped goes on where it was, and what is
there is not done again; --tables prints without training. About 45 s a training on two slow cores, 50 trainings.

ef          the demo's ejection fraction, of which low values are made rare: error by how rare the label is
ef_long     two methods of it, trained three times as long; only where --only names it
lips_rare   clips of more than three words, thinned to a tenth: F1, average precision, calibration
lips_start  when the word begins: skewed, and hard
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Train what is missing and print the tables."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # 2.7 times as fast as torch here: a GRU is a loop of small steps
    from benchmarks.balance.experiments import EXPERIMENTS
    from benchmarks.balance.tables import tables

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and of the videos")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/lips"), help="folder of lips")
    parser.add_argument("--only", default="ef,lips_rare,lips_start", help="experiments, by comma")
    parser.add_argument("--methods", default="", help="all by default")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--tables", action="store_true", help="print them and train nothing")
    args = parser.parse_args()
    results = args.out / "results.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(args.out / "compiled"))  # the network is always the same
    if not args.tables:
        for seed in map(int, args.seeds.split(",")):
            for name in args.only.split(","):
                method_names = args.methods.split(",") if args.methods else list(EXPERIMENTS[name].methods)
                run_missing(name, seed=seed, methods=method_names, out=args.out, source=args.data)
    print(tables(read(results)))


def read(results: Path) -> list[dict[str, Any]]:
    """Return the finished trainings; a last line that was cut off by a kill is none."""
    if not results.exists():
        return []
    records = []
    for line in results.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"a line of {results} is not whole and counts for nothing")
    return records


def add(results: Path, record: dict[str, Any]) -> None:
    """Add a training; it never joins a line that a kill cut off."""
    cut = results.exists() and not results.read_bytes().endswith(b"\n")
    with results.open("a", encoding="utf-8") as file:
        file.write("\n" * cut + json.dumps(record) + "\n")


def run_missing(name: str, *, seed: int, methods: list[str], out: Path, source: Path) -> None:
    """Train with each method that has no result yet, and add a line for it."""
    from benchmarks.balance.experiments import EXPERIMENTS
    from benchmarks.balance.learn import train

    results = out / "results.jsonl"
    done = {(one["experiment"], one["method"], one["seed"]) for one in read(results)}
    missing = [each for each in methods if (name, each, seed) not in done and each in EXPERIMENTS[name].methods]
    if not missing:
        return
    experiment = EXPERIMENTS[name]
    data = experiment.make(out, source=source, seed=seed)
    for method in missing:
        started = time.perf_counter()
        outcome = train(data, sampler=experiment.methods[method], training=experiment.training, seed=seed)
        seconds = round(time.perf_counter() - started, 1)
        record = {
            "experiment": name,
            "method": method,
            "seed": seed,
            "settings": str(experiment.methods[method]),
            "epochs": experiment.training.epochs,
            "learning_rate": experiment.training.learning_rate,
            "seconds": seconds,
            "train_labels": data.train.labels.tolist(),
            **outcome,
        }
        add(results, record)
        print(f"{name}, {method}, seed {seed}: {outcome['steps']} steps in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
