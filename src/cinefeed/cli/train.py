"""The command `cinefeed train`, which writes a run folder, or one per fold with `--folds`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import AddedMetrics, Flow, Json, Threshold, listed, with_flow
from cinefeed.cli.show import choose_backend, emit, note
from cinefeed.config import Settings
from cinefeed.core.errors import CinefeedError, MissingExtraError, SettingError
from cinefeed.core.locks import write_lock
from cinefeed.metrics.display import assessment_lines, baseline_lines
from cinefeed.metrics.names import folds_note
from cinefeed.training.doubts import doubt_lines
from cinefeed.training.run import (
    CHECKPOINT,
    RunResult,
    check_out,
    check_same,
    device,
    read_assessment,
    read_baselines,
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")]


@with_flow
def train(
    flow: Flow,
    out: Annotated[Path | None, typer.Option(help="Run folder to write. An interrupted run in it is resumed.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of the network in cinefeed.models, such as cnn_rnn or cnn3d.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Maximum number of epochs.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of Adam.")] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Schedule of the learning rate: plateau (reduced without improvement), cosine or constant."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Loss of numbers: mse, rmse, mae, huber; of classes: cross_entropy, focal. Default: by task."
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Number format of the network: float32, mixed_float16 or mixed_bfloat16.")
    ] = None,
    threads: Annotated[str | None, typer.Option(help="Number of CPU threads of the network, or auto.")] = None,
    patience: Annotated[
        str | None, typer.Option(help="Stop after this number of epochs without improvement; 0: never; or auto.")
    ] = None,
    min_improvement: Annotated[
        float | None, typer.Option(help="Least improvement that counts for --patience, in the unit of the monitor.")
    ] = None,
    warmup_epochs: Annotated[int | None, typer.Option(help="Epochs over which the learning rate rises from 0.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay: AdamW in place of Adam.")] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(help="Share of each class label that is moved to all classes, such as 0.1.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Number of folds of a cross-validation by group, in place of a single run.")
    ] = None,
    threshold: Threshold = None,
    metrics: AddedMetrics = None,
    no_baselines: Annotated[
        bool,
        typer.Option("--no-baselines", help="Do not compare with a constant, nuisance columns and thumbnails."),
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curves for TensorBoard too.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a network on a manifest, and write weights, predictions, metrics and a report to the run folder.

    The same command resumes an interrupted run. Several GPUs: torchrun --nproc-per-node 2 -m cinefeed train
    """
    options = {
        "out": None if out is None else str(out),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "loss": loss,
        "precision": precision,
        "threads": _number(threads),
        "patience": _number(patience),
        "min_improvement": min_improvement,
        "warmup_epochs": warmup_epochs,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "tensorboard": tensorboard or None,
        "folds": folds,
    }
    evaluate = {
        "threshold": threshold,
        "baselines": False if no_baselines else None,
        "metrics": None if metrics is None else listed(metrics),
    }
    settings = flow.settings(model={"name": model}, train=options, evaluate=evaluate)
    backend = choose_backend()
    from cinefeed.training.distributed import torchrun_rank  # Keras reads the backend when it is imported
    from cinefeed.training.fit import read_result
    from cinefeed.training.fit import train as run_training

    rank, ranks = torchrun_rank()
    if rank == 0:
        note(f"Keras on {backend}: {device()}")
    if settings.train.folds:
        if ranks > 1:
            raise SettingError(
                "--folds trains one run after another and cannot use several processes; start it without torchrun"
            )
        _finish_folds(settings, folds=settings.train.folds, overwrite=overwrite, as_json=as_json)
        return
    if rank == 0 and not overwrite and lacks_page(settings):
        note(f"{settings.train.out} is trained already; writing its report")
        with write_lock(settings.train.out, folder=True):
            result = read_result(check_out(settings.train.out, overwrite=True))  # removes a checkpoint that was left
    else:
        try:
            result = run_training(settings, overwrite=overwrite, progress=True)
        except KeyboardInterrupt:
            if rank == 0 and (Path(settings.train.out) / CHECKPOINT).is_file():
                note(f"interrupted; run the same command again to resume from the checkpoint in {settings.train.out}")
            raise
    if rank == 0:
        finish(result, as_json=as_json)


def _number(text: str | None) -> int | str | None:
    return text if text is None or not text.lstrip("-").isdigit() else int(text)


def lacks_page(settings: Settings) -> bool:
    """Return whether a finished run with these settings has no report, because its process was killed before that."""
    folder = Path(settings.train.out)
    if not (folder / "run.json").is_file() or (folder / "report.html").is_file() or find_spec("jinja2") is None:
        return False
    try:
        check_same(folder, settings)
    except CinefeedError:  # another run, or a damaged one
        return False
    return True


def finish(result: RunResult, *, as_json: bool) -> None:
    """Write the report of a run if its extra is installed, and print the result."""
    if not result.complete:
        status = {"run": str(result.folder), "complete": False, "epochs": result.epochs, "stopped": result.stopped}
        emit(status, as_json=as_json, text=f"{result.stopped}\n-> {result.folder}")
        return
    with write_lock(result.folder, folder=True):  # removes temporary files of a killed process
        page = _page(result.folder)
    emit(
        {
            "run": str(result.folder),
            "report": None if page is None else str(page),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "monitor": result.monitor,
            "stopped": result.stopped,
            "metrics": result.metrics,
            "feed": result.feed_verdict,
        },
        as_json=as_json,
        text=f"{result.stopped}; best epoch {result.best_epoch} by {result.monitor}\n"
        + f"{_results(result.folder)}\n{result.feed_verdict}\n-> {page or result.folder}",
    )


def _finish_folds(settings: Settings, *, folds: int, overwrite: bool, as_json: bool) -> None:
    """Run the cross-validation, write its report and that of each fold, and print the results."""
    from cinefeed.training.fit import train as run_training
    from cinefeed.training.folds import train_folds

    def train_fold(fold: Settings, *, overwrite: bool) -> None:
        note(f"{Path(fold.train.out).name} of {folds}")
        run_training(fold, overwrite=overwrite, progress=True)

    result = train_folds(settings, folds=folds, train=train_fold, overwrite=overwrite)
    if not result.finished:
        message = {"run": str(result.folder), "complete": False}
        text = f"stopped on request; run the same command again to resume\n-> {result.folder}"
        emit(message, as_json=as_json, text=text)
        return
    fold_figures = {
        name: f"{each['mean']:.4g} ({each['low']:.4g} to {each['high']:.4g})"
        for name, each in result.folds.items()
        if each["low"] is not None
    }
    with write_lock(result.folder, folder=True):
        page = _page(result.folder)
        for number in range(1, folds + 1) if page is not None else ():
            _page(result.folder / f"fold{number}")
    reason = folds_note(read_assessment(result.folder)["parts"]) if fold_figures else ""
    emit(
        {
            "run": str(result.folder),
            "report": None if page is None else str(page),
            "metrics": result.metrics,
            "folds": result.folds,
        },
        as_json=as_json,
        text=f"out of fold:\n{_results(result.folder)}\n"
        + "".join(f"{name}, mean of {folds} folds: {text}\n" for name, text in fold_figures.items())
        + (f"{reason}\n" if reason else "")
        + f"-> {page or result.folder}",
    )


def _results(folder: Path) -> str:
    """Return the assessment of a run or of folds, its comparison with baselines, and doubts about it, as lines."""
    baselines = read_baselines(folder)
    lines = [*assessment_lines(read_assessment(folder), baselines=baselines), *baseline_lines(baselines)]
    return "\n".join([*lines, *doubt_lines(folder)])


def _page(folder: Path) -> Path | None:
    from cinefeed.reports import run_page

    try:
        return run_page(folder)
    except MissingExtraError as error:
        note(f"no report: {error}")
        return None
