"""Run folders in the format of training, written without training."""

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.metrics.assess import assess
from cinefeed.metrics.predictions import predictions_of, target_columns
from cinefeed.training.run import write_arrays

TOML = """[data]
manifest = "demo.parquet"
target = "ef"

[data.split]
val = 0.15
group = "patient <1>"

[[transforms]]
name = "Rotate"
degrees = 25

[train]
out = "runs/x"
monitor = "val_loss"

[evaluate]
clips = 3
"""


def blobs(count: int, *, channels: int = 1) -> np.ndarray:
    """Return clips of a pulsating bright disc, uint8 (count, 16, 64, 64, channels)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    radius = 14 + 6 * np.cos(np.linspace(0, 2 * np.pi, 16))
    clips = []
    for _ in range(count):
        cy, cx = rng.uniform(24, 40, 2)
        disc = np.stack([200 * np.exp(-((((y - cy) ** 2 + (x - cx) ** 2) / r**2) ** 3)) for r in radius])
        clips.append(np.clip(disc + rng.gamma(2, 14, disc.shape), 0, 255))
    return np.repeat(np.stack(clips)[..., np.newaxis].astype(np.uint8), channels, axis=-1)


def write_run(
    folder: Path, *, tasks: Mapping[str, str], private: bool = False, balanced: bool = False, folds: int = 0
) -> Path:
    """Write the folder of a run, or with `folds` of a cross-validation; `tasks` maps each target to its task."""
    made = _run(tuple(tasks.items()), private=private, balanced=balanced, folds=folds)
    return Path(shutil.copytree(made.name, folder))


@cache
def _run(targets: tuple[tuple[str, str], ...], *, private: bool, balanced: bool, folds: int) -> TemporaryDirectory[str]:
    """Write a run once for all tests of a session, because an assessment takes a second."""
    temporary, tasks = TemporaryDirectory(), dict(targets)
    folder = Path(temporary.name)
    rng, task, epochs = np.random.default_rng(1), next(iter(tasks.values())), 20
    classes = {"regression": [], "binary": ["no", "yes"], "multiclass": ["regular", "pneumonia", "covid"]}[task]

    def dump(name: str, data: object) -> None:
        (folder / name).write_text(json.dumps(data))

    labels = rng.beta(6, 2, 500) * 80
    names = rng.choice(classes, 500, p=[0.8, 0.2] if len(classes) == 2 else [0.5, 0.4, 0.1]) if classes else labels
    fed = rng.uniform(15, 78, 500) if not classes else rng.choice(classes, 500)
    (folder / "settings.toml").write_text(TOML)
    dump("spec.json", {"target": "ef", "task": task, "classes": classes})
    dump("labels.json", {"raw": list(names), "fed": list(fed), "classes": classes or None})
    dump("versions.json", {"cinefeed": "0.1.0", "python": "3.13", "device": "CPU, 2 threads"})
    dump("flow.json", [["videos found", 812], ["with a label", 806], ["train", 566], ["val", 120], ["test", 120]])
    dump("failures.json", [{"id": "812", "path": "a/<b>.mp4", "error": "breaks after 28 of 50 frames"}])
    dump(
        "run.json",
        {
            "epochs": epochs,
            "best_epoch": 17,
            "monitor": "val_loss",
            "stopped": "all 20 epochs are done",
            "seconds": 184.2,
            "parameters": 124_321,
        },
    )
    stats = {"read_seconds": 6.0, "decode_seconds": 91.0, "transform_seconds": 40.0, "wait_seconds": 6.0}
    verdict = "the model is the bottleneck: workers idle 54 % of the time"
    dump("feed_stats.json", {**stats, "elapsed_seconds": 150.0, "workers": 2, "clips_per_second": 75.0,
                             "verdict": verdict})  # fmt: skip
    falling = 90 * np.exp(-np.arange(epochs) / 6) + 12
    metrics = ["r2", "rmse", "mae"] if task == "regression" else ["auroc", "average_precision", "f1"]
    columns = {
        "epoch": np.arange(epochs),
        "loss": falling,
        "learning_rate": np.where(np.arange(epochs) < 12, 1e-3, 5e-4),
    }
    columns["val_loss"] = falling * 1.15 + rng.normal(0, 2, epochs)
    for name in metrics:
        columns[f"val_{name}"] = 1 - falling / 110 + rng.normal(0, 0.01, epochs)
    lines = [",".join(columns), *(",".join(f"{values[i]:.6g}" for values in columns.values()) for i in range(epochs))]
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    write_arrays(
        folder / "clips.npz", clips=blobs(8), captions=np.array([f"p{i:03d} · {30 + 5 * i}" for i in range(8)])
    )
    levels = np.arange(256)
    counts = (40_000 * np.exp(-levels / 50) + 200_000 * (levels == 0)).astype(int)
    dump("pixels.json", {"dtype": "uint8", "edges": list(range(257)), "counts": counts.tolist()})
    _write_manifest(folder, private=private)
    predictions = made_predictions(tasks)
    pq.write_table(predictions.table, folder / "predictions.parquet")
    priors = {name: {"draws": [50, 50], "raw": [80, 20]} for name, task in tasks.items() if task == "binary"}
    assessment = assess(
        predictions,
        unit="patient",
        cluster="patient",
        subgroups=["sex", "centre"],
        resamples=50,
        priors=priors if balanced else None,
    )
    dump("assessment.json", assessment)
    _write_pictures(folder, private=private)
    if folds:
        _make_cross_validation(folder, folds)
    return temporary


def _write_manifest(folder: Path, *, private: bool) -> None:
    parts = ["train"] * 100 + ["val"] * 30 + ["test"] * 30
    table = pa.table(
        {
            "id": [f"v{i}" for i in range(160)],
            "path": [f"{i}.mp4" for i in range(160)],
            "split": parts,
            "patient <1>": [f"p{i // 2}" for i in range(160)],
            "study": [f"s{i // 2}" for i in range(160)],
        }
    )
    manifest = Manifest.from_table(table, root=folder)
    (manifest.as_private() if private else manifest).write(folder / "manifest.parquet")


def _write_pictures(folder: Path, *, private: bool) -> None:
    ids = [f"v{i}" for i in range(10)]
    captions = [f"true {30 + i} · predicted {61 - i}" for i in range(10)]
    none = np.zeros((0, 1, 1, 1, 1), np.uint8)
    note = "the data are private" if private else ""
    write_arrays(folder / "worst.npz", clips=none if private else blobs(10), captions=captions, ids=ids, note=note)
    rng = np.random.default_rng(5)
    space = rng.normal(0, 1, (4, 6, 6)).astype(np.float32)
    space[:, 2:4, 2:4] += 9
    maps = {} if private else {"space": space, "time": rng.normal(0, 1, (4, 8)).astype(np.float32)}
    clips = none if private else blobs(4)
    write_arrays(folder / "saliency.npz", clips=clips, captions=captions[:4], ids=ids[:4], note=note, **maps)


def _make_cross_validation(folder: Path, folds: int) -> None:
    runs = [
        {"fold": i + 1, "run": f"fold{i + 1}", "rows": 30, "metrics": {"r2": 0.6 + i / 50, "mae": None}}
        for i in range(folds)
    ]
    blank = {"mean": None, "sd": None, "low": None, "high": None, "folds": 0}
    mean = {"r2": {"mean": 0.64, "sd": 0.03, "low": 0.58, "high": 0.7, "folds": folds}, "mae": blank}
    table = {"folds": folds, "group": "patient", "rows": 150, "level": 0.95, "runs": runs, "metrics": mean}
    (folder / "folds.json").write_text(json.dumps(table))
    absent = "run.json spec.json manifest.parquet worst.npz saliency.npz history.csv clips.npz pixels.json labels.json"
    for name in f"{absent} flow.json feed_stats.json versions.json".split():
        (folder / name).unlink()


def made_predictions(tasks: Mapping[str, str], *, parts: tuple[str, ...] = ("val", "test")):
    """Return predictions of 160 clips of 80 videos of 40 patients per part."""
    rng = np.random.default_rng(3)
    count = 160
    columns: dict[str, list] = {name: [] for name in ("id", "path", "split", "clip", "patient", "sex", "centre")}
    targets = {}
    for part in parts:
        columns["id"] += [f"{part}{i // 2}" for i in range(count)]
        columns["path"] += [f"{part}{i // 2}.mp4" for i in range(count)]
        columns["split"] += [part] * count
        columns["clip"] += [i % 2 for i in range(count)]
        columns["patient"] += [f"{part}p{i // 4}" for i in range(count)]
        columns["sex"] += ["fm"[i // 4 % 2] for i in range(count)]
        columns["centre"] += [("A <&>", "B", "C")[i // 4 % 3] for i in range(count)]
        for name, task in tasks.items():
            classes = {"regression": (), "binary": ("no", "yes"), "multiclass": ("regular", "pneumonia", "covid")}[task]
            target = target_columns(name, task=task, classes=classes, several=len(tasks) > 1)
            targets[name] = target
            if task == "regression":
                truth = np.repeat(rng.normal(55, 12, count // 4), 4)
                values = {target.target: truth.tolist(), target.scores[0]: truth * 0.8 + 10 + rng.normal(0, 5, count)}
            else:
                truth = np.repeat(rng.integers(0, len(classes), count // 4), 4)
                own = np.repeat(rng.dirichlet(np.ones(len(classes)), count // 4), 4, axis=0)  # of the patient
                shares = (
                    own * 0.7 + rng.dirichlet(np.ones(len(classes)), count) * 0.1 + np.eye(len(classes))[truth] * 0.2
                )
                values = {target.target: [classes[k] for k in truth]}
                scores = shares[:, 1:] if task == "binary" else shares
                values |= {column: scores[:, k] for k, column in enumerate(target.scores)}
            for key, value in values.items():
                columns.setdefault(key, [])
                columns[key] += list(value)
    return predictions_of(pa.table(columns), list(targets.values()))


def made_baselines(target: str, *, guess: tuple[float, float, float] = (0.3, 0.2, 0.4)) -> dict[str, object]:
    """Return the content of baselines.json for one target of two classes; `guess` is the difference to the constant."""

    def estimate(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "dropped": 0, "reason": None}

    def baseline(value: float, difference: tuple[float, float, float]) -> dict[str, object]:
        names = ("difference", "low", "high")
        metrics = {"auroc": estimate(value), "balanced_accuracy": estimate(value)}
        return {"metrics": metrics, "difference": {**dict(zip(names, difference, strict=True)), "reason": None}}

    return {
        "note": "",
        "seconds": 3.2,
        "part": "test",
        "rows": 160,
        "rows_of_manifest": 160,
        "view": "",
        "views": [],
        "notes": {"columns": "container, rate_hz"},
        "models": {target: {"constant": "class shares of training", "thumbnail": "linear SVC, C 0.1"}},
        "targets": {
            target: {
                "task": "binary",
                "metric": "auroc",
                "units": 15,
                "metrics": {"auroc": estimate(0.8), "balanced_accuracy": estimate(0.7)},
                "baselines": {"constant": baseline(0.5, guess), "thumbnail": baseline(0.83, (-0.03, -0.09, 0.04))},
            }
        },
    }
