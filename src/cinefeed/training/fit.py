"""Training, from settings to a run folder; it reads from top to bottom."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import pyarrow as pa
import pyarrow.parquet as pq

from cinefeed.adapters.keras import FeedDataset
from cinefeed.config import Settings, to_toml
from cinefeed.errors import SettingError, TrainingError, did_you_mean
from cinefeed.feed.feed import Feed
from cinefeed.manifest.table import Manifest
from cinefeed.training.callbacks import BestWeights, Progress, StopAtNaN, StopWhenF1StaysZero, WholeSetMetrics, mode_of
from cinefeed.training.flow import build_feed, choose_rows, keep_flow, make_parts, usable_rows
from cinefeed.training.network import build_model, compile_model
from cinefeed.training.run import (
    WEIGHTS,
    RunResult,
    check_out,
    clear,
    spec_table,
    versions,
    write_atomically,
    write_json,
)
from cinefeed.training.scores import measure, metric_names, predictions_table, score

# Of the task's metrics, the ones that an epoch's line has room for.
_SHOWN = {
    "regression": ("val_r2", "val_rmse", "val_mae"),
    "binary": ("val_auroc", "val_average_precision", "val_f1", "val_balanced_accuracy"),
    "multiclass": ("val_accuracy", "val_f1", "val_balanced_accuracy"),
}


def train(
    settings: Settings,
    *,
    overwrite: bool = False,
    progress: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> RunResult:
    """Train the network that `settings` describe and keep all there is to know of it in the run folder.

    Nothing is written before the manifest, the split, the feed and the model have proved that they can be made.
    `progress` shows a bar on a terminal and a line an epoch elsewhere, on stderr. `callbacks` join cinefeed's own.
    Raises SettingError, TableError, ColumnError, SplitError or LabelError for what was asked wrongly, and
    TrainingError where the loss stops being a number: the weights of the best epoch until then are kept.
    """
    started = time.perf_counter()
    say = partial(print, file=sys.stderr, flush=True) if progress else _say_nothing
    folder = check_out(settings.train.out, overwrite=overwrite)
    rows, failures = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    parts = make_parts(rows, settings)
    feed = build_feed(settings, parts.train)
    val, test = feed.evaluation(parts.val), feed.evaluation(parts.test)
    _check_monitor(settings, feed)
    keras.utils.set_random_seed(settings.feed.seed)
    model = build_model(settings, feed.spec)
    say(f"{parts}\n{feed.summary()}\n{model.name}: {model.count_params():,} parameters")
    compile_model(model, settings, feed.spec, steps=settings.train.epochs * len(feed))

    clear(folder)
    write_atomically(folder / "settings.toml", lambda path: path.write_text(to_toml(settings), encoding="utf-8"))
    write_json(folder / "versions.json", versions())
    write_json(folder / "spec.json", spec_table(feed.spec))
    parts.all.write(folder / "manifest.parquet")
    counts = [*rows.history, *((name, len(getattr(parts, name))) for name in ("train", "val", "test"))]
    keep_flow(folder, feed=feed, counts=counts, failures=failures)

    best = BestWeights(folder / WEIGHTS, monitor=settings.train.monitor)
    stoppers = _stoppers(settings)
    shown = Progress(shown=_SHOWN[feed.spec.task], feed=feed) if progress else None
    dataset = FeedDataset(feed)
    try:
        history = model.fit(
            dataset,
            epochs=settings.train.epochs,
            verbose=0,
            callbacks=[
                dataset.callback,
                WholeSetMetrics(val),
                best,
                *stoppers,
                keras.callbacks.CSVLogger(folder / "history.csv"),
                *([shown] if shown else []),
                *callbacks,
            ],
        )
    finally:
        if shown is not None:
            shown.close()
    epochs = len(history.epoch)
    nan = next((each.reason for each in stoppers if isinstance(each, StopAtNaN)), "")
    if nan:
        kept = (
            f"weights of epoch {best.best_epoch + 1} are kept in {best.path}"
            if best.best is not None
            else ("no epoch was complete, so no weights are kept")
        )
        raise TrainingError(f"{nan}; {kept}. Lower --learning-rate, or look for odd labels with 'cinefeed inspect'")
    if best.best is None:
        raise TrainingError(f"{settings.train.monitor} was never a number in {epochs} epochs; no weights are kept")

    model.load_weights(folder / WEIGHTS)
    metrics: dict[str, dict[str, Any]] = {}
    tables = []
    for name, part in (("val", val), ("test", test)):
        scores = score(model, part)
        metrics[name] = measure(feed.spec, scores)
        paths = part.manifest.shown().to_pylist()
        tables.append(predictions_table(feed.spec, scores, paths=paths, part=name))
    write_atomically(folder / "predictions.parquet", lambda path: pq.write_table(pa.concat_tables(tables), path))
    write_json(folder / "metrics.json", metrics)
    stats = feed.stats()
    write_json(folder / "feed_stats.json", stats.as_dict())
    result = RunResult(
        folder=folder,
        metrics=metrics,
        epochs=epochs,
        best_epoch=best.best_epoch + 1,
        stopped=_why_stopped(settings, stoppers, epochs=epochs),
        seconds=time.perf_counter() - started,
        feed_verdict=stats.verdict,
    )
    write_json(
        folder / "run.json",
        {
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "monitor": settings.train.monitor,
            "stopped": result.stopped,
            "seconds": round(result.seconds, 1),
            "feed_verdict": result.feed_verdict,
            "parameters": model.count_params(),
            "fingerprint": rows.fingerprint,
        },
    )
    return result


def _say_nothing(text: str) -> None:
    pass


def _check_monitor(settings: Settings, feed: Feed) -> None:
    known = ["loss", "val_loss", *(f"val_{name}" for name in metric_names(feed.spec))]
    if settings.train.monitor not in known:
        raise SettingError(
            f"[train] monitor = {settings.train.monitor!r} is not measured for a {feed.spec.task} task; "
            f"{did_you_mean(settings.train.monitor, known)}"
        )


def _stoppers(settings: Settings) -> list[keras.callbacks.Callback]:
    """Return the callbacks that end training early or slow it down, in the order in which they are asked."""
    train = settings.train
    monitored = {"monitor": train.monitor, "mode": mode_of(train.monitor)}
    found: list[keras.callbacks.Callback] = [StopAtNaN()]
    if train.f1_zero_patience:
        found.append(StopWhenF1StaysZero(patience=train.f1_zero_patience))
    if train.patience:
        found.append(keras.callbacks.EarlyStopping(patience=train.patience, **monitored))
    if train.reduce_lr_patience and train.schedule == "constant":  # a schedule owns the rate, Keras lets none set it
        found.append(
            keras.callbacks.ReduceLROnPlateau(
                patience=train.reduce_lr_patience, factor=train.reduce_lr_factor, **monitored
            )
        )
    return found


def _why_stopped(settings: Settings, stoppers: list[keras.callbacks.Callback], *, epochs: int) -> str:
    for each in stoppers:
        if getattr(each, "reason", ""):
            return str(each.reason)
        if isinstance(each, keras.callbacks.EarlyStopping) and each.stopped_epoch:
            return f"{settings.train.monitor} did not improve for {settings.train.patience} epochs"
    return f"all {epochs} epochs are done"
