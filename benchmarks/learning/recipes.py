"""Ablations of the recipe that `init` writes: each choice on and off, on small frames of four sets, several seeds.

Run: python -m benchmarks.learning.recipes prepare NAME MANIFEST --out FOLDER     (fight: its folder)
     python -m benchmarks.learning.recipes train --out FOLDER [--only lips,pocus] [--seeds 0,1,2,3,4]
     python -m benchmarks.learning.recipes [RECORDS.jsonl]

`prepare` decodes the videos of a scanned manifest once, to small grey frames in NAME_32.npz and NAME_64.npz. `train`
trains every choice for a seed before the next seed, appends a line to FOLDER/recipes.jsonl, and does not repeat
finished ones. The last line prints the tables of the published records, recipes.jsonl beside this file.

A seed is another split by group, other initial weights, clips and transforms; all choices of a seed have the same
split. There is no validation part: the weights of the last step are scored on the test part, three tenths of the rows,
one clip of each.

demo    300 videos of `cinefeed demo` (seed 11): ejection fraction, by patient
lips    566 clips of 30 words; features in the order of time, as `init` chooses for them
pocus   63 lung ultrasound videos, regular or pneumonia, by patient
gait    340 clips of ten people who walk steadily or not, by person: see first_runs.py
fight   300 clips of surveillance cameras, with a fight or without, by source video:
        github.com/seymanurakti/fight-detection-surv-dataset, MIT; rights to the footage are unclear, so it is not part
        of this project. The 30 clips without an address in its videos.txt are one source here.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RECORDS = Path(__file__).parent / "recipes.jsonl"
TEST = 0.3


class Task(NamedTuple):
    """A set of videos, and the clip and the length of a training."""

    target: str
    group: str | None
    metric: str
    frames: int
    epochs: int
    batch: int
    stride: int = 1
    every: int = 1  # frames that `prepare` keeps
    where: tuple[str, ...] = ()
    pooling: str = "mean"  # of `cnn3d`, over time


TASKS = {
    "pocus": Task("label", "patient_group", "auroc", 12, 30, 8, stride=3, where=("regular", "pneumonia")),
    "fight": Task("label", "source", "auroc", 12, 12, 8, stride=2),
    "demo": Task("ejection_fraction", "patient", "r2", 16, 12, 8, every=2),
    "lips": Task("word", None, "accuracy", 16, 30, 16, pooling="ordered"),
    "gait": Task("gait", "person", "auroc", 16, 30, 8, stride=2, every=2),
}
MAX_FRAMES = 96
SIDES = (32, 64)
# Features of EfficientNet-Lite0, as the scripts of examples/ write them; `train` reads FOLDER/NAME/features.parquet.
HEADS = {
    "pocus_features": TASKS["pocus"]._replace(frames=16, stride=4),
    "lips_features": TASKS["lips"]._replace(frames=20, batch=32),
}

BASE: dict[str, Any] = {
    "model": {"name": "cnn3d", "dropout": 0.2},
    "train": {
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "warmup_epochs": 2,
        "weight_decay": 0.05,
        "label_smoothing": 0.1,
    },
    "feed": {"mixing": {"name": "MixUp", "alpha": 0.2}},
    "augmented": True,
}


def heads(task: Task) -> dict[str, dict[str, Any]]:
    """Return the settings of each head on features."""
    models = {
        "base": {"name": "linear", "dropout": 0.2},
        "attentive": {"name": "attentive", "dropout": 0.2},
        "ordered": {"name": "ordered", "dropout": 0.5},
        "feature_rnn": {"name": "feature_rnn", "dropout": 0.2},
    }
    settings = {
        "train": {**BASE["train"], "epochs": task.epochs, "learning_rate": 1e-3},
        "feed": BASE["feed"],
        "augmented": False,
    }
    return {name: {"model": model, **settings} for name, model in models.items()}


def recipes(task: Task) -> dict[str, dict[str, Any]]:
    """Return the settings of each choice: the base, and the base with one change."""

    def changed(
        *,
        model: dict[str, Any] | None = None,
        mixing: bool = True,
        augmented: bool = True,
        side: int = 32,
        epochs: int = task.epochs,
        **train: Any,
    ) -> dict[str, Any]:
        return {
            "side": side,
            "model": model or {**BASE["model"], "pooling": task.pooling},
            "train": {**BASE["train"], "epochs": epochs, **train},
            "feed": BASE["feed"] if mixing else {},
            "augmented": augmented,
        }

    rnn = {"name": "cnn_rnn", "dropout": 0.2}
    every = {
        "base": changed(),
        "as before: cnn_rnn, 1e-3, cosine": changed(
            model=rnn, mixing=False, learning_rate=1e-3, warmup_epochs=0, weight_decay=0.0, label_smoothing=0.0
        ),
        "cnn3d, 3e-3, cosine": changed(mixing=False, warmup_epochs=0, weight_decay=0.0, label_smoothing=0.0),
        "cnn_rnn": changed(model=rnn),
        "cnn_rnn, layer norm": changed(model={**rnn, "norm": "layer"}),
        "cnn_rnn, batch norm": changed(model={**rnn, "norm": "batch"}),
        "rate 1e-3": changed(learning_rate=1e-3),
        "no cosine": changed(schedule="constant"),
        "no warm-up": changed(warmup_epochs=0),
        "no weight decay": changed(weight_decay=0.0),
        "no label smoothing": changed(label_smoothing=0.0),
        "no MixUp": changed(mixing=False),
        "no transforms": changed(augmented=False),
        "64 x 64 pixels": changed(side=64),
        "twice the epochs": changed(epochs=2 * task.epochs),
    }
    if task.pooling != "mean":
        every["mean over time"] = changed(model=BASE["model"])
    if task.metric == "r2":
        del every["no label smoothing"]
        for each in every.values():
            each["train"] = {**each["train"], "label_smoothing": 0.0}
    return every


def main() -> None:
    """Prepare, train, or print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="step")
    one = commands.add_parser("prepare")
    one.add_argument("name", choices=TASKS)
    one.add_argument("manifest", type=Path)
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("train")
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--only", default=",".join(TASKS))
    two.add_argument("--seeds", default="0,1,2,3,4")
    two.add_argument("--recipes", help="names that contain one of these words, by comma")
    arguments = parser.parse_args()
    if arguments.step == "prepare":
        prepare(arguments.name, manifest=arguments.manifest, out=arguments.out)
    elif arguments.step == "train":
        os.environ.setdefault("KERAS_BACKEND", "torch")
        for seed in map(int, arguments.seeds.split(",")):
            for name in arguments.only.split(","):
                train_missing(name, seed=seed, out=arguments.out, words=(arguments.recipes or "").split(","))
    else:
        print(tables(read(RECORDS)))


def prepare(name: str, *, manifest: Path, out: Path) -> None:
    """Write small grey frames of all videos, with labels and groups, to NAME_32.npz and NAME_64.npz."""
    import cv2

    import cinefeed as cf

    task = TASKS[name]
    rows = _fight(manifest) if name == "fight" else cf.Manifest.read(manifest)
    rows = rows.where(task.target, [*task.where]) if task.where else rows.readable()
    by_side: dict[int, list[Any]] = {side: [] for side in SIDES}
    for row in range(len(rows)):
        with rows.open(row, channels=1) as source:
            pixels = source.read([*range(0, len(source), task.every)][:MAX_FRAMES])[..., 0]
        cut = min(pixels.shape[1:])
        top, left = ((size - cut) // 2 for size in pixels.shape[1:])
        square = pixels[:, top : top + cut, left : left + cut]
        for side, videos in by_side.items():
            videos.append([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in square])
    for side, videos in by_side.items():
        np.savez(
            out / f"{name}_{side}.npz",
            frames=np.concatenate(videos).astype(np.uint8),
            lengths=[len(each) for each in videos],
            labels=np.array(rows.column(task.target).to_pylist()),
            groups=np.array(rows.column(task.group or "id").to_pylist(), dtype=str),
        )


def _fight(folder: Path) -> Any:
    """Return the manifest of `fight`; videos.txt has the address of each source video above the names of its clips."""
    import cinefeed as cf

    address, sources = "", {}
    for line in (folder / "videos.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("http"):
            address = line.strip()
        elif ":" in line:
            sources[line.partition(":")[0].strip()] = address
    rows = cf.Manifest.scan(folder)
    stems = [Path(path).stem for path in rows.column("path").to_pylist()]
    rows = rows.with_column("label", ["none" if stem.startswith("no") else "fight" for stem in stems])
    return rows.with_column("source", [sources.get(stem, "unlisted") for stem in stems])


def train_missing(name: str, *, seed: int, out: Path, words: list[str]) -> None:
    """Train the choices of a task and a seed that have no record yet, and append their records."""
    task, path = (TASKS | HEADS)[name], out / "recipes.jsonl"
    done = {(each["task"], each["recipe"], each["seed"]) for each in (read(path) if path.exists() else [])}
    missing = {
        recipe: changes
        for recipe, changes in (heads(task) if name in HEADS else recipes(task)).items()
        if (name, recipe, seed) not in done and any(word in recipe for word in words)
    }
    for recipe, changes in missing.items():
        rows = _read_rows(out, name, task=task, side=changes.get("side"))
        parts = rows.split(val=0, test=TEST, group="group", stratify="y", seed=seed)
        start_time = time.perf_counter()
        value = train(parts, task=task, changes=changes, seed=seed)
        seconds = round(time.perf_counter() - start_time, 1)
        record = {
            "task": name,
            "recipe": recipe,
            "seed": seed,
            "metric": task.metric,
            "value": value,
            "seconds": seconds,
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), file=sys.stderr, flush=True)


def _read_rows(out: Path, name: str, *, task: Task, side: int | None) -> Any:
    """Return the manifest of a task with the columns `y` and `group`: small frames, or features for `side` None."""
    import cinefeed as cf

    if side is None:
        rows = cf.Manifest.read(out / name / "features.parquet")
        rows = rows.where(task.target, [*task.where]) if task.where else rows
        rows = rows.with_column("y", rows.column(task.target).to_pylist())
        return rows.with_column("group", rows.column(task.group or "id").to_pylist())
    data = np.load(out / f"{name}_{side}.npz")
    videos = np.split(data["frames"][..., np.newaxis], np.cumsum(data["lengths"])[:-1])
    return cf.Manifest.from_arrays(videos, {"y": data["labels"].tolist(), "group": data["groups"].tolist()})


def train(parts: Any, *, task: Task, changes: dict[str, Any], seed: int) -> float:
    """Train by the settings of a recipe, and return the metric of the test part."""
    import keras

    from cinefeed.adapters.keras import FeedDataset
    from cinefeed.config import parse
    from cinefeed.data.manifest.encoded import feature_frame
    from cinefeed.metrics import classification_metrics, regression_metrics
    from cinefeed.training.network import build_model, compile_model
    from cinefeed.training.setup import build_feed

    shift = max(changes.get("side", 0) // 20, 1)
    transforms = [{"name": "Rotate", "degrees": 10}, {"name": "Shift", "pixels": shift}] if changes["augmented"] else []
    regression = task.metric == "r2"
    times = {"position": "spread"} if task.target == "word" else {"stride": task.stride, "position": "random"}
    settings = parse(
        {
            "data": {"manifest": "arrays", "target": "y", "split": {"group": "group"}},
            "clip": {"frames": task.frames, **times},
            "frame": feature_frame(parts.train) or {"height": changes["side"], "width": changes["side"], "channels": 1},
            "transforms": transforms,
            "sampler": {"name": "UniformLabels", "bins": 8, "strength": 0.7}
            if regression
            else {"name": "BalancedClasses"},
            "feed": {"batch_size": task.batch, "seed": seed, "workers": {"count": 1}, **changes["feed"]},
            "model": changes["model"],
            "train": {"out": "unused", **changes["train"]},
        }
    )
    feed = build_feed(settings, parts.train)
    keras.utils.set_random_seed(seed)
    model = build_model(settings, feed.spec)
    compile_model(model, settings, feed.spec, steps=settings.train.epochs * len(feed))
    dataset = FeedDataset(feed)
    model.fit(dataset, epochs=settings.train.epochs, verbose=0, callbacks=[dataset.callback])
    targets, scores = [], []
    for batch in feed.evaluation(parts.test, clips=1):
        targets.append(np.array(batch.targets))
        scores.append(np.asarray(model.predict_on_batch(batch.inputs(padded=feed.spec.padded)), np.float64))
    truth, score = np.concatenate(targets), np.concatenate(scores)
    if regression:
        return float(regression_metrics(targets=truth.astype(np.float64), scores=score[:, 0])["r2"])
    score = score[:, 0] if score.shape[1] == 1 else score
    return float(classification_metrics(targets=truth, scores=score, classes=feed.spec.classes)[task.metric])


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean of some values and its 95 % interval by Student's t.

    >>> [round(each, 2) for each in interval(np.array([1.0, 2.0, 3.0]))]
    [2.0, -0.48, 4.48]
    """
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def tables(records: list[dict[str, Any]]) -> str:
    """Return a Markdown table for each task: the mean of each choice, and its paired difference to the base."""
    texts = []
    for name, task in (TASKS | HEADS).items():
        by_recipe: dict[str, dict[int, float]] = {}
        for each in records:
            if each["task"] == name:
                by_recipe.setdefault(each["recipe"], {})[each["seed"]] = each["value"]
        if "base" not in by_recipe:
            continue
        base = by_recipe["base"]
        lines = [f"| {name}: test {task.metric} | seeds | mean | minus the base (95 %) |", "| --- | --- | --- | --- |"]
        for recipe, values in by_recipe.items():
            seeds = sorted({*values} & {*base})
            mean = np.mean([values[seed] for seed in seeds])
            text = ""
            if recipe != "base" and len(seeds) > 1:
                middle, low, high = interval(np.array([values[seed] - base[seed] for seed in seeds]))
                text = f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"
            label = "linear (the base)" if name in HEADS and recipe == "base" else recipe
            lines.append(f"| {label} | {len(seeds)} | {mean:.3f} | {text} |")
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


if __name__ == "__main__":
    main()
