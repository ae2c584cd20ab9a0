"""The words of `lips` by the head `ordered` on encoded features: five folds, several seeds, beside an SVC.

Run: python -m benchmarks.learning.lips_words train --features features.parquet --out FOLDER [--seeds 1,2,3,4,5]
     python -m benchmarks.learning.lips_words collect --videos lips.parquet --out FOLDER [--seeds 1,2,3,4,5]
     python -m benchmarks.learning.lips_words

examples/lips_words_pretrained.sh writes both manifests. `train` trains examples/lips_words_ordered.toml: only the seed
of the feed, of the initial weights and of dropout changes. It resumes. `collect` adds the predictions of a support
vector machine on 20 frames of 8 x 8 pixels (examples/lips_words_baselines.py), trained on all other clips of a fold,
and writes lips_words.csv beside this file. The last line computes the published figures from that file.
"""

import argparse
import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
PREDICTIONS = HERE / "lips_words.csv"
SETTINGS = HERE.parents[1] / "examples" / "lips_words_ordered.toml"
RESAMPLES = 10_000


def main() -> None:
    """Train, collect, or print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", nargs="?", choices=("train", "collect", "compare"), default="compare")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the runs, one of five folds for each seed")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    arguments = parser.parse_args()
    seeds = [*map(int, arguments.seeds.split(","))]
    if arguments.step == "train":
        train_seeds(arguments.features, seeds=seeds, out=arguments.out)
    elif arguments.step == "collect":
        collect(arguments.videos, seeds=seeds, out=arguments.out)
    else:
        print(describe(compare(PREDICTIONS)))


def train_seeds(features: Path, *, seeds: list[int], out: Path) -> None:
    """Train five folds for each seed; finished folds are kept."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import tomllib

    from cinefeed.config import overlay, parse
    from cinefeed.training.fit import train
    from cinefeed.training.folds import train_folds

    table = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    for seed in seeds:
        changes = {
            "data": {"manifest": str(features)},
            "feed": {"seed": seed},
            "train": {"out": str(out / f"seed{seed}")},
            "evaluate": {"baselines": False},  # compared below, on the same folds
        }
        result = train_folds(parse(overlay(table, changes)), folds=5, train=train)
        print(f"seed {seed}: {result.metrics['accuracy']:.4f}", file=sys.stderr, flush=True)


def collect(videos: Path, *, seeds: list[int], out: Path) -> None:
    """Write the classes that the SVC and each network predict for each clip: numbers of the sorted words."""
    import pyarrow.parquet as pq
    from examples.lips_words_baselines import motion, support_vector_machine

    import cinefeed as cf

    manifest = cf.Manifest.read(videos)
    ids, words = (manifest.column(name).to_pylist() for name in ("id", "word"))
    classes = {word: number for number, word in enumerate(sorted({*words}))}
    truth = np.array([classes[word] for word in words])
    columns: dict[str, NDArray[Any]] = {"word": truth}
    total = np.zeros((len(ids), len(classes)))
    for seed in seeds:
        by_id = {}
        table = pq.read_table(out / f"seed{seed}" / "predictions.parquet")
        names = [name for name in table.column_names if name.startswith("score_")]
        scores = np.stack([table[name].to_numpy() for name in names], axis=1)
        numbers = [classes[name.removeprefix("score_")] for name in names]
        for row, video in enumerate(table["id"].to_pylist()):
            by_id[video] = (table["fold"][row].as_py(), numbers[int(scores[row].argmax())])
        folds = np.array([by_id[video][0] for video in ids])
        if not np.array_equal(columns.setdefault("fold", folds), folds):
            raise ValueError(f"the folds of seed {seed} are others than those of seed {seeds[0]}")
        columns[f"network_{seed}"] = np.array([by_id[video][1] for video in ids])
        place = {video: row for row, video in enumerate(table["id"].to_pylist())}
        total[:, numbers] += scores[[place[video] for video in ids]]
    columns["together"] = total.argmax(axis=1)
    clips = motion(manifest)
    svc = np.empty(len(ids), np.int64)
    for fold in np.unique(folds):
        test = folds == fold
        svc[test] = support_vector_machine().fit(clips[~test], truth[~test]).predict(clips[test])
    columns["svc"] = svc
    with PREDICTIONS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *columns])
        writer.writerows(zip(ids, *(each.tolist() for each in columns.values()), strict=True))


def compare(path: Path) -> dict[str, Any]:
    """Return the accuracies of the networks and of the SVC, and their difference with its interval.

    The difference is that of the mean accuracy over seeds. Each bootstrap sample draws clips, and seeds, with
    replacement: the interval is for other clips and another seed, with the same folds.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    seeds = [name for name in columns if name.startswith("network_")]
    right = np.stack([columns[name] == columns["word"] for name in seeds]).astype(float)  # (seeds, clips)
    svc, together = ((columns[name] == columns["word"]).astype(float) for name in ("svc", "together"))
    rng = np.random.default_rng(0)
    networks, differences, of_mean = (np.empty(RESAMPLES) for _ in range(3))
    for sample in range(RESAMPLES):
        clips, some_seeds = rng.integers(0, len(svc), len(svc)), rng.integers(0, len(seeds), len(seeds))
        networks[sample] = right[some_seeds][:, clips].mean()
        differences[sample] = networks[sample] - svc[clips].mean()
        of_mean[sample] = (together - svc)[clips].mean()
    return {
        "clips": len(svc),
        "seeds": {name.removeprefix("network_"): float(each.mean()) for name, each in zip(seeds, right, strict=True)},
        "network": (float(right.mean()), *np.quantile(networks, [0.025, 0.975]).tolist()),
        "svc": float(svc.mean()),
        "together": float(together.mean()),
        "together_difference": (float((together - svc).mean()), *np.quantile(of_mean, [0.025, 0.975]).tolist()),
        "difference": (float(right.mean() - svc.mean()), *np.quantile(differences, [0.025, 0.975]).tolist()),
    }


def describe(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    each = ", ".join(f"{100 * accuracy:.1f}" for accuracy in result["seeds"].values())
    mean, low, high = (100 * value for value in result["network"])
    points, least, most = (100 * value for value in result["difference"])
    together = [100 * value for value in result["together_difference"]]
    return (
        f"{result['clips']} clips, {len(result['seeds'])} seeds: {each} %; "
        f"mean {mean:.1f} % ({low:.1f} to {high:.1f} %)\n"
        f"support vector machine on 8 x 8 pixels, the same folds: {100 * result['svc']:.1f} %\n"
        f"paired difference: {points:.1f} points ({least:.1f} to {most:.1f})\n"
        f"the mean probabilities of all seeds: {100 * result['together']:.1f} %, a paired difference of "
        f"{together[0]:.1f} points ({together[1]:.1f} to {together[2]:.1f})"
    )


if __name__ == "__main__":
    main()
