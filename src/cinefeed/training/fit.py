"""Training from settings to a run folder."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from cinefeed.config import Settings
from cinefeed.core.errors import SettingError, TrainingError, did_you_mean
from cinefeed.core.locks import write_lock
from cinefeed.core.text import format_count, terminal_text
from cinefeed.data.manifest.encoded import encoded_from
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import FeedSpec
from cinefeed.feed.settings import Shard
from cinefeed.metrics.display import baseline_lines
from cinefeed.metrics.predictions import read_predictions
from cinefeed.models.parts import targets_of
from cinefeed.training.auto import with_choices
from cinefeed.training.baselines import keep_baselines
from cinefeed.training.batches import TrainingSet
from cinefeed.training.callbacks import BestWeights, StopAtNaN, WarmUp, WholeSetMetrics
from cinefeed.training.checkpoint import Checkpoint, Paused, stop_on_signals
from cinefeed.training.distributed import (
    FollowRankZero,
    MeanLogs,
    any_rank,
    process_group,
    rank_and_size,
    share_gradients,
    torchrun_rank,
    wait_for_all,
)
from cinefeed.training.doubts import describe_findings, keep_findings
from cinefeed.training.finish import PREDICTIONS, finish_run, score_parts
from cinefeed.training.keras_module import keras
from cinefeed.training.logging import History, JsonLines, Progress, TensorBoard
from cinefeed.training.losses import class_weights
from cinefeed.training.network import (
    build_model,
    compile_model,
    frozen_backbones,
    learning_rate_factors,
    loss_for,
    stages,
    with_encoder_digest,
)
from cinefeed.training.predictions import metric_names
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
    read_baselines,
    versions,
    write_json,
    write_settings,
    write_spec,
)
from cinefeed.training.sample_images import keep_pictures
from cinefeed.training.setup import (
    build_feed,
    check_labels,
    choose_rows,
    keep_flow,
    left_out,
    make_parts,
    unused_split,
    usable_rows,
)
from cinefeed.training.stopping import choose_patience, stop_reason, stoppers_for
from cinefeed.training.threads import VERSIONS, choose_threads, read_threads, restored_threads, use_threads
from cinefeed.training.weights import check_weights, load_weights

_log = logging.getLogger(__name__)
# The metrics of a task in the line of an epoch; with several targets the first one of each.
_LINE_METRICS = {
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
    """Train the network that `settings` describe and write all results to the run folder.

    Nothing is written before manifest, split, feed and model have been built. An interrupted run resumes from its
    checkpoint, with the same losses as without the interruption (see Checkpoint). After SIGTERM or SIGUSR1 a checkpoint
    is saved at the end of the next batch, and a result with `complete=False` is returned. Processes that torchrun
    started train one network together (see training/distributed.py).

    Args:
        settings: All settings of the run.
        overwrite: Delete an existing run in the folder.
        progress: Show a table and a bar on a terminal, or a line per epoch elsewhere, on stderr.
        callbacks: Keras callbacks besides cinefeed's own; attributes named in `resumes` are saved and restored.

    Raises SettingError, TableError, ColumnError, SplitError or LabelError for unsuitable settings or data, InUseError
    while another process writes the run folder, and TrainingError if the loss is not finite: the weights of the best
    epoch before are kept.
    """
    if settings.train.folds:
        raise SettingError(
            f"[train] folds = {settings.train.folds} asks for a cross-validation, and train makes a single run; use "
            "'cinefeed train', or cinefeed.training.folds.train_folds(settings, train=train), or set folds = 0"
        )
    out = Path(settings.train.out)
    lock = write_lock(out, folder=True) if torchrun_rank()[0] == 0 else nullcontext()  # the other ranks write nothing
    with process_group(), lock, restored_threads():
        return _train(settings, overwrite=overwrite, progress=progress, callbacks=callbacks)


def _train(
    settings: Settings, *, overwrite: bool, progress: bool, callbacks: Sequence[keras.callbacks.Callback]
) -> RunResult:
    start_time = time.perf_counter()
    settings = with_encoder_digest(settings)
    train_settings, (rank, ranks) = settings.train, rank_and_size()
    first = rank == 0  # the rank that prints, validates and writes
    say = _print if progress and first else _print_nothing
    folder = check_out(train_settings.out, overwrite=overwrite) if first else Path(train_settings.out)
    resumes = (folder / CHECKPOINT).is_file() and not overwrite
    if first and resumes:
        check_same(folder, settings)

    selected = choose_rows(Manifest.read(settings.data.manifest), settings)
    rows, failures = usable_rows(selected)
    for note in filter(None, (left_out(selected, rows), unused_split(rows, settings))):
        say(note)
    parts = make_parts(rows, settings)
    if first and resumes:
        check_same_rows(folder, parts)
    feed = build_feed(settings, parts.train)
    check_labels(feed)
    settings = with_choices(settings, feed.spec, videos=len(parts.train), batches=len(feed))
    train_settings = settings.train
    if first and resumes:
        check_same(folder, settings)
    whole = Shard(rank=0, world_size=1)  # shared out by score_by_ranks
    val, test = (feed.evaluation(part, clips=1, shard=whole) for part in (parts.val, parts.test))
    _check_monitor(settings, feed)
    dataset = TrainingSet(
        feed, class_weights=class_weights(feed) if train_settings.class_weights == "balanced" else None
    )
    keras.utils.set_random_seed(settings.feed.seed)
    model = build_model(settings, feed.spec)
    threads = read_threads(folder) if resumes else choose_threads(model, feed.spec, setting=train_settings.threads)
    use_threads(threads)
    loss_for(settings, feed.spec)
    backbones = frozen_backbones(model) if train_settings.unfreeze_epoch else []
    ranks_text = f"; {ranks} processes, {feed.global_batch_size} clips a step" if ranks > 1 else ""
    if train_settings.layer_decay < 1:
        learning_rate_factors(model, train_settings.layer_decay)  # raises before anything is written
    num_epochs = int(train_settings.epochs)
    threads_text = "" if threads is None else f" on {format_count(threads, 'thread')}"
    say(f"{parts}\n{feed.summary()}\n{model.name}: {model.count_params():,} parameters{threads_text}{ranks_text}")

    best = BestWeights(folder / WEIGHTS, monitor=train_settings.monitor)
    history = History(folder / "history.csv")
    patience, note = choose_patience(settings, parts.val)
    if note:
        say(note)
    stoppers = stoppers_for(settings, patience=patience)
    display = Progress(metrics=_line_metrics(feed.spec), feed=feed, epochs=num_epochs) if progress and first else None
    board = TensorBoard(folder / TENSORBOARD) if train_settings.tensorboard and first else None
    log = JsonLines(folder / "log.jsonl")
    metrics_of_all = WholeSetMetrics(val)
    own_callbacks = [metrics_of_all, best, *stoppers, history, log, board, display]
    own_callbacks = [each for each in own_callbacks if each is not None] if first else [metrics_of_all, *stoppers[:1]]
    checkpoint = Checkpoint(
        folder / CHECKPOINT,
        dataset,
        callbacks=[best, *stoppers, history, *callbacks],
        minutes=train_settings.save_minutes,
        writes=first,
        agree=any_rank,
    )
    checkpoint.start_time = start_time

    if first and not resumes:
        clear(folder)
        write_spec(folder, feed.spec)  # first: it marks a run folder for check_out
        write_settings(folder, settings)
        write_json(folder / VERSIONS, versions() | ({} if threads is None else {"threads": str(threads)}))
        parts.all.write(folder / "manifest.parquet")
        counts = [*rows.history, *((name, len(getattr(parts, name))) for name in ("train", "val", "test"))]
        keep_flow(folder, feed=feed, counts=counts, failures=failures)
        keep_findings(folder, rows=parts.all, settings=settings, progress=progress)
    if first and (folder / FINDINGS).is_file():
        for doubt in describe_findings(folder):
            log.write("doubt", text=doubt)
            (say if progress else _log.warning)(doubt)
    wait_for_all()
    if checkpoint.load():
        if first and best.best is not None:
            check_weights(folder / WEIGHTS)  # now, not after the remaining epochs
        say(f"resumes at epoch {checkpoint.epoch + 1}, batch {checkpoint.batch + 1}")

    try:
        with stop_on_signals(checkpoint):
            for stage in stages(settings):
                if checkpoint.epoch >= stage.end:
                    continue
                for backbone in backbones:
                    backbone.trainable = stage.unfreeze
                compile_model(model, settings, feed.spec, steps=num_epochs * len(feed), stage=stage)
                share_gradients(model)
                checkpoint.compiled_at = stage.first
                is_warmed_up = (
                    not stage.unfreeze and train_settings.schedule != "cosine" and train_settings.warmup_epochs
                )
                warm_up = (
                    [WarmUp(stage.learning_rate, steps=min(train_settings.warmup_epochs, num_epochs - 1) * len(feed))]
                    if is_warmed_up
                    else []
                )
                for begin, end in checkpoint.fit_ranges(stage.first, stage.end):
                    model.fit(
                        dataset,
                        initial_epoch=begin,
                        epochs=end,
                        verbose=0,
                        callbacks=[
                            dataset.callback,
                            *warm_up,
                            MeanLogs(),
                            *own_callbacks,
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
            monitor=train_settings.monitor,
            stopped=str(paused),
            seconds=checkpoint.seconds,
            feed_verdict=feed.stats().verdict,
            complete=False,
        )
    finally:
        for callback in (display, board):
            if callback is not None:
                callback.close()
    if not first:
        wait_for_all()  # rank 0 has the best weights, or has raised an error
        score_parts(_best_model(settings, feed, folder), settings, val, test)
        wait_for_all()
        return read_result(folder)

    epochs = len(history.rows)
    nan_reason = next((each.reason for each in stoppers if isinstance(each, StopAtNaN)), "")
    if nan_reason:
        (folder / CHECKPOINT).unlink(missing_ok=True)  # resuming would lead to the same NaN
        weights = (
            f"weights of epoch {best.best_epoch + 1}, the best by {train_settings.monitor}, are kept in {best.path}"
            if best.best is not None
            else "no epoch was complete, so no weights are kept"
        )
        raise TrainingError(
            f"{nan_reason}; {weights}. Lower --learning-rate, or look for outliers of labels with 'cinefeed inspect'"
        )
    if best.best is None:
        raise TrainingError(
            f"{train_settings.monitor} was never finite in {epochs} epochs, so no weights are kept; lower "
            "--learning-rate, or choose another [train] monitor"
        )

    wait_for_all()
    model = _best_model(settings, feed, folder)
    metrics = finish_run(folder, settings=settings, model=model, feed=feed, val=val, test=test)
    predictions = None if feed.spec.task == "clip" else read_predictions(folder / PREDICTIONS)
    keep_pictures(folder, settings=settings, model=model, feed=feed, test=test, predictions=predictions)
    keep_baselines(
        folder, settings=settings, spec=feed.spec, rows=parts.all, predictions=predictions, progress=progress
    )
    for line in baseline_lines(read_baselines(folder)):
        log.write("baseline", text=line)
    stats = feed.stats()
    verdict = stats.verdict if stats.clips else "the feed was not measured: an earlier process did all epochs"
    write_json(folder / "feed_stats.json", stats.as_dict() | {"verdict": verdict})
    result = RunResult(
        folder=folder,
        metrics=metrics,
        epochs=epochs,
        best_epoch=best.best_epoch + 1,
        monitor=train_settings.monitor,
        stopped=stop_reason(settings, stoppers, epochs=epochs),
        seconds=checkpoint.seconds,
        feed_verdict=verdict,
    )
    write_json(
        folder / "run.json",
        {
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "monitor": result.monitor,
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


def _best_model(settings: Settings, feed: Feed, folder: Path) -> keras.Model:
    """Return a new model with the best weights: the file may have been written with the optimiser of another stage."""
    model = build_model(settings, feed.spec, trained=True)
    load_weights(model, folder / WEIGHTS)
    return model


def _print(text: str) -> None:
    print(terminal_text(text), file=sys.stderr, flush=True)


def _print_nothing(text: str) -> None:
    pass


def _line_metrics(spec: FeedSpec) -> tuple[str, ...]:
    if not spec.targets:
        return tuple(f"val_{name}" for name in _LINE_METRICS[spec.task])
    return tuple(f"val_{each.name}_{_LINE_METRICS[each.task][0]}" for each in targets_of(spec))


def _check_monitor(settings: Settings, feed: Feed) -> None:
    names = [
        name for name in metric_names(feed.spec) if not name.endswith("bias")
    ]  # best at 0, neither "min" nor "max"
    choices = ["loss", "val_loss", *(f"val_{name}" for name in names)]
    if settings.train.monitor not in choices:
        raise SettingError(
            f"[train] monitor = {settings.train.monitor!r} is not measured for a {feed.spec.task} task; "
            f"{did_you_mean(settings.train.monitor, choices)}"
        )


def read_result(folder: Path) -> RunResult:
    """Return the result of a finished run; an undefined metric is null in the file and NaN here."""
    run, metrics = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("run.json", "metrics.json"))
    return RunResult(
        folder=folder,
        metrics={
            part: {name: float("nan") if value is None else value for name, value in values.items()}
            for part, values in metrics.items()
        },
        **{name: run[name] for name in ("epochs", "best_epoch", "monitor", "stopped", "seconds", "feed_verdict")},
    )
