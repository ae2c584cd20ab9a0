"""A run folder without a training: small enough to be made in each test, and independent of `fit`."""

import numpy as np
import pyarrow as pa

from cinefeed.config import overlay, parse
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.finish import finish_run
from cinefeed.training.network import build_model
from cinefeed.training.run import RunResult, check_out, clear, write_json, write_settings, write_spec
from cinefeed.training.setup import build_feed, choose_rows, keep_flow, make_parts, usable_rows
from cinefeed.training.weights import save_weights

FRAMES = 12


def make_manifest(folder, *, rows=24, patients=12, **columns):
    """Write videos that are brighter the later, two a patient; return the path of their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(rows):
        ramp = np.arange(FRAMES, dtype=np.uint8)[:, None, None]
        np.save(folder / f"{row:02}.npy", np.broadcast_to(9 * row + ramp, (FRAMES, 12, 12)).astype(np.uint8))
    table = {
        "id": [f"v{row}" for row in range(rows)],
        "path": [f"{row:02}.npy" for row in range(rows)],
        "patient": [f"p{row * patients // rows}" for row in range(rows)],
        "age": [20.0 + row for row in range(rows)],
        "sick": ["no" if (row * patients // rows) % 3 else "yes" for row in range(rows)],
        "kind": ["abc"[(row * patients // rows) % 3] for row in range(rows)],
        "sex": ["fm"[row * patients // rows % 2] for row in range(rows)],
        **columns,
    }
    path = folder / "m.parquet"
    Manifest.from_table(pa.table(table), root=folder).write(path)
    return path


def settings_for(path, **sections):
    """Settings of a tiny network on these videos."""
    table = {
        "data": {
            "manifest": str(path),
            "target": "age",
            "split": {"group": "patient", "val": 0.25, "test": 0.25, "seed": 1},
        },
        "clip": {"frames": 4},
        "frame": {"height": 8, "width": 8, "channels": 1},
        "feed": {"batch_size": 4, "seed": 7, "workers": 0},
        "model": {"filters": [4, 4], "units": 4, "dense": 0},
        "train": {"out": str(path.parent / "run"), "epochs": 1},
        "evaluate": {"resamples": 50},
    }
    return parse(overlay(table, sections))


def make_run(settings, *, overwrite=False):
    """Do all that a training does but train: the network keeps its first weights, a little moved."""
    folder = check_out(settings.train.out, overwrite=overwrite)
    rows, failures = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    parts = make_parts(rows, settings)
    feed = build_feed(settings, parts.train)
    val, test = feed.evaluation(parts.val), feed.evaluation(parts.test)
    model = build_model(settings, feed.spec)
    rng = np.random.default_rng(settings.feed.seed)
    model.set_weights([each + rng.normal(0, 0.1, each.shape).astype(np.float32) for each in model.get_weights()])
    clear(folder)
    write_settings(folder, settings)
    write_spec(folder, feed.spec)
    parts.all.write(folder / "manifest.parquet")
    keep_flow(folder, feed=feed, counts=rows.history, failures=failures)
    save_weights(model, folder / "best.weights.h5")
    metrics = finish_run(folder, settings=settings, model=model, feed=feed, val=val, test=test)
    write_json(
        folder / "run.json", {"epochs": 1, "best_epoch": 1, "monitor": "val_loss", "stopped": "made", "seconds": 0}
    )
    return RunResult(
        folder=folder,
        metrics=metrics,
        epochs=1,
        best_epoch=1,
        monitor="val_loss",
        stopped="made",
        seconds=0.0,
        feed_verdict="",
    )
