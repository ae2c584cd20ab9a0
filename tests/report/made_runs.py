"""Run folders as training writes them, made without training."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TOML = """[data]
manifest = "demo.parquet"
target = "ef"

[data.split]
val = 0.15
group = "patient <1>"

[train]
out = "runs/x"
monitor = "val_loss"
"""


def blobs(count: int, *, channels: int = 1) -> np.ndarray:
    """A bright disc that beats, uint8 (count, 16, 64, 64, channels)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    radius = 14 + 6 * np.cos(np.linspace(0, 2 * np.pi, 16))
    clips = []
    for _ in range(count):
        cy, cx = rng.uniform(24, 40, 2)
        disc = np.stack([200 * np.exp(-((((y - cy) ** 2 + (x - cx) ** 2) / r**2) ** 3)) for r in radius])
        clips.append(np.clip(disc + rng.gamma(2, 14, disc.shape), 0, 255))
    return np.repeat(np.stack(clips)[..., np.newaxis].astype(np.uint8), channels, axis=-1)


def write_run(folder: Path, *, task: str, epochs: int = 20) -> Path:
    """Write a run folder as training writes it, without training."""
    folder.mkdir()
    rng = np.random.default_rng(1)
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
    np.savez_compressed(
        folder / "clips.npz", clips=blobs(8), captions=np.array([f"p{i:03d} · {30 + 5 * i}" for i in range(8)])
    )
    tables = []
    for part in ("val", "test"):
        column = {"id": [str(i) for i in range(150)], "path": [f"{i}.mp4" for i in range(150)], "split": [part] * 150}
        if classes:
            truth = rng.integers(0, len(classes), 150)
            shares = rng.dirichlet(np.ones(len(classes)), 150) * 0.6 + np.eye(len(classes))[truth] * 0.4
            column["target"] = [classes[k] for k in truth]
            if task == "binary":
                column["score"] = shares[:, 1]
            else:
                column |= {f"score_{name}": shares[:, k] for k, name in enumerate(classes)}
        else:
            column["target"] = labels[:150]
            column["score"] = labels[:150] * 0.9 + 5 + rng.normal(0, 4, 150)
        tables.append(pa.table(column))
    pq.write_table(pa.concat_tables(tables), folder / "predictions.parquet")
    return folder
