"""Training, from settings to a run folder; it reads from top to bottom."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import keras

from cinefeed.config import Settings
from cinefeed.errors import SettingError, TrainingError, did_you_mean
from cinefeed.feed.feed import Feed
from cinefeed.feed.targets import FeedSpec
from cinefeed.files import full_disk_explained
from cinefeed.locks import write_lock
from cinefeed.manifest.encoded import encoded_from
from cinefeed.manifest.table import Manifest
from cinefeed.metrics.predictions import read_predictions
from cinefeed.models.parts import targets_of
from cinefeed.text import terminal_text
from cinefeed.training.batches import TrainingSet
from cinefeed.training.callbacks import BestWeights, StopAtNaN, StopWhenF1StaysZero, WarmUp, WholeSetMetrics, mode_of
from cinefeed.training.checkpoint import Checkpoint, Paused, how_to_go_on, leave_on_signals
from cinefeed.training.distributed import (
    FollowRankZero,
    MeanLogs,
    alone,
    any_rank,
    join,
    launched,
    rank_and_size,
    together,
    wait_for_all,
)
from cinefeed.training.doubts import doubts_in_words, keep_findings
from cinefeed.training.finish import PREDICTIONS, finish_run
from cinefeed.training.flow import build_feed, check_labels, choose_rows, keep_flow, make_parts, usable_rows
from cinefeed.training.logging import History, JsonLines, Progress, TensorBoard
from cinefeed.training.losses import class_weights
from cinefeed.training.network import build_model, compile_model, frozen_backbones, loss_for, stages
from cinefeed.training.pictures import keep_pictures
from cinefeed.training.run import (
    CHECKPOINT,
    FINDINGS,
    TENSORBOARD,
    WEIGHTS,
    RunResult,
    check_out,
    check_same,
    check_same_rows,
    clear,
    versions,
    write_json,
    write_settings,
    write_spec,
)
from cinefeed.training.scores import metric_names
from cinefeed.training.threads import VERSIONS, choose_threads, kept_threads, own_threads, use_threads
from cinefeed.training.weights import check_weights, load_weights

_log = logging.getLogger(__name__)
# Of a task's metrics, the ones that an epoch's line has room for; of several targets the first of each.
_SHOWN = {
    "regression": ("r2", "rmse", "mae"),
    "binary": ("auroc", "average_precision", "f1", "balanced_accuracy"),
    "multiclass": ("accuracy", "f1", "balanced_accuracy"),
    "clip": ("mse",),
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
    A run that was broken off goes on where it stopped, with the same losses as if it had not (see Checkpoint). After
    SIGTERM or SIGUSR1 the place is kept at the next batch's end, and a result that is not `complete` returned.
    Processes that torchrun started train one network together (see training/distributed.py).

    `progress` shows a table and a bar on a terminal and a line an epoch elsewhere, on stderr. `callbacks` join
    cinefeed's own; one that names attributes in `resumes` goes on with them too.
    Raises SettingError, TableError, ColumnError, SplitError or LabelError for what was asked wrongly, InUseError while
    another process writes the run folder, and
    TrainingError where the loss stops being a number: the weights of the best epoch until then are kept.
    """
    out = Path(settings.train.out)
    lock = write_lock(out, folder=True) if launched()[0] == 0 else nullcontext()  # the other ranks write nothing
    with full_disk_explained(out, partial(how_to_go_on, out / CHECKPOINT)), together(), lock, own_threads():
        return _train(settings, overwrite=overwrite, progress=progress, callbacks=callbacks)


def _train(
    settings: Settings, *, overwrite: bool, progress: bool, callbacks: Sequence[keras.callbacks.Callback]
) -> RunResult:
    started = time.perf_counter()
    asked, (rank, ranks) = settings.train, rank_and_size()
    first = rank == 0  # the rank that says, measures and writes
    say = _say if progress and first else _say_nothing
    folder = check_out(asked.out, overwrite=overwrite) if first else Path(asked.out)
    goes_on = (folder / CHECKPOINT).is_file() and not overwrite
    if first and goes_on:
        check_same(folder, settings)

    rows, failures = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    parts = make_parts(rows, settings)
    if first and goes_on:
        check_same_rows(folder, parts)
    feed = build_feed(settings, parts.train)
    check_labels(feed)
    val, test = alone(feed).evaluation(parts.val, clips=1), alone(feed).evaluation(parts.test, clips=1)
    _check_monitor(settings, feed)
    dataset = TrainingSet(feed, class_weights=class_weights(feed) if asked.class_weights == "balanced" else None)
    keras.utils.set_random_seed(settings.feed.seed)
    model = build_model(settings, feed.spec)
    threads = kept_threads(folder) if goes_on else choose_threads(model, feed.spec, wanted=asked.threads)
    use_threads(threads)
    loss_for(settings, feed.spec)
    backbones = frozen_backbones(model) if asked.unfreeze_epoch else []
    together_now = f"; {ranks} processes, {ranks * feed.batch_size} clips a step" if ranks > 1 else ""
    on_threads = "" if threads is None else f" on {threads} {'thread' if threads == 1 else 'threads'}"
    say(f"{parts}\n{feed.summary()}\n{model.name}: {model.count_params():,} parameters{on_threads}{together_now}")

    best = BestWeights(folder / WEIGHTS, monitor=asked.monitor)
    history = History(folder / "history.csv")
    stoppers = _stoppers(settings)
    shown = Progress(shown=_shown(feed.spec), feed=feed, epochs=asked.epochs) if progress and first else None
    board = TensorBoard(folder / TENSORBOARD) if asked.tensorboard and first else None
    log = JsonLines(folder / "log.jsonl")
    watching = [WholeSetMetrics(val), best, *stoppers, history, log, board, shown]
    watching = [each for each in watching if each is not None] if first else stoppers[:1]
    checkpoint = Checkpoint(
        folder / CHECKPOINT,
        dataset,
        callbacks=[best, *stoppers, history, *callbacks],
        minutes=asked.save_minutes,
        writes=first,
        agree=any_rank,
    )
    checkpoint.began = started

    if first and not goes_on:
        clear(folder)
        write_spec(folder, feed.spec)  # first: check_out knows a run by it
        write_settings(folder, settings)
        write_json(folder / VERSIONS, versions() | ({} if threads is None else {"threads": str(threads)}))
        parts.all.write(folder / "manifest.parquet")
        counts = [*rows.history, *((name, len(getattr(parts, name))) for name in ("train", "val", "test"))]
        keep_flow(folder, feed=feed, counts=counts, failures=failures)
        keep_findings(folder, rows=parts.all, settings=settings, progress=progress)
    if first and (folder / FINDINGS).is_file():
        for doubt in doubts_in_words(folder):
            log.write("doubt", text=doubt)
            (say if progress else _log.warning)(doubt)
    wait_for_all()
    if checkpoint.load():
        if first and best.best is not None:
            check_weights(folder / WEIGHTS)  # now, not after the epochs that are left
        say(f"goes on at epoch {checkpoint.epoch + 1}, batch {checkpoint.batch + 1}")

    try:
        with leave_on_signals(checkpoint):
            for stage in stages(settings):
                if checkpoint.epoch >= stage.end:
                    continue
                for backbone in backbones:
                    backbone.trainable = stage.unfreeze
                compile_model(model, settings, feed.spec, steps=asked.epochs * len(feed), stage=stage)
                join(model)
                checkpoint.compiled_at = stage.first
                warm = not stage.unfreeze and asked.schedule != "cosine" and asked.warmup_epochs
                rising = [WarmUp(stage.learning_rate, steps=asked.warmup_epochs * len(feed))] if warm else []
                for begin, end in checkpoint.parts(stage.first, stage.end):
                    model.fit(
                        dataset,
                        initial_epoch=begin,
                        epochs=end,
                        verbose=0,
                        callbacks=[
                            dataset.callback,
                            *rising,
                            MeanLogs(),
                            *watching,
                            *callbacks,
                            FollowRankZero(),
                            checkpoint,
                        ],
                    )
    except Paused as paused:
        return RunResult(
            folder=folder,
            metrics={},
            epochs=len(history.rows),
            best_epoch=best.best_epoch + 1,
            stopped=str(paused),
            seconds=checkpoint.seconds,
            feed_verdict=feed.stats().verdict,
            complete=False,
        )
    finally:
        for each in (shown, board):
            if each is not None:
                each.close()
    if not first:
        wait_for_all()
        return _read_result(folder)

    epochs = len(history.rows)
    nan = next((each.reason for each in stoppers if isinstance(each, StopAtNaN)), "")
    if nan:
        (folder / CHECKPOINT).unlink(missing_ok=True)  # from there the same NaN would come
        kept = (
            f"weights of epoch {best.best_epoch + 1} are kept in {best.path}"
            if best.best is not None
            else ("no epoch was complete, so no weights are kept")
        )
        raise TrainingError(f"{nan}; {kept}. Lower --learning-rate, or look for odd labels with 'cinefeed inspect'")
    if best.best is None:
        raise TrainingError(f"{asked.monitor} was never a number in {epochs} epochs; no weights are kept")

    model = build_model(settings, feed.spec, trained=True)  # anew: the file may have an optimiser of another stage
    load_weights(model, folder / WEIGHTS)
    metrics = finish_run(folder, settings=settings, model=model, feed=alone(feed), val=val, test=test)
    predictions = None if feed.spec.task == "clip" else read_predictions(folder / PREDICTIONS)
    keep_pictures(folder, settings=settings, model=model, feed=alone(feed), test=test, predictions=predictions)
    stats = feed.stats()
    write_json(folder / "feed_stats.json", stats.as_dict())
    result = RunResult(
        folder=folder,
        metrics=metrics,
        epochs=epochs,
        best_epoch=best.best_epoch + 1,
        stopped=_why_stopped(settings, stoppers, epochs=epochs),
        seconds=checkpoint.seconds,
        feed_verdict=stats.verdict,
    )
    write_json(
        folder / "run.json",
        {
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "monitor": asked.monitor,
            "stopped": result.stopped,
            "seconds": round(result.seconds, 1),
            "feed_verdict": result.feed_verdict,
            "parameters": model.count_params(),
            "fingerprint": rows.fingerprint,
            "encoded_from": encoded_from(rows),
        },
    )
    (folder / CHECKPOINT).unlink(missing_ok=True)
    wait_for_all()
    return result


def _say(text: str) -> None:
    print(terminal_text(text), file=sys.stderr, flush=True)


def _say_nothing(text: str) -> None:
    pass


def _shown(spec: FeedSpec) -> tuple[str, ...]:
    if not spec.targets:
        return tuple(f"val_{name}" for name in _SHOWN[spec.task])
    return tuple(f"val_{each.name}_{_SHOWN[each.task][0]}" for each in targets_of(spec))


def _check_monitor(settings: Settings, feed: Feed) -> None:
    measured = [name for name in metric_names(feed.spec) if not name.endswith("bias")]  # its best is 0, from both sides
    known = ["loss", "val_loss", *(f"val_{name}" for name in measured)]
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
    if train.reduce_lr_patience and train.schedule == "plateau":
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


def _read_result(folder: Path) -> RunResult:
    """Return what rank 0 has written; a metric that is not defined is null there, and NaN here."""
    run, metrics = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("run.json", "metrics.json"))
    return RunResult(
        folder=folder,
        metrics={
            part: {name: float("nan") if value is None else value for name, value in found.items()}
            for part, found in metrics.items()
        },
        **{name: run[name] for name in ("epochs", "best_epoch", "stopped", "seconds", "feed_verdict")},
    )
