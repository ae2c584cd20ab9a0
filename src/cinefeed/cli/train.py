"""`cinefeed train`: from a manifest to a run folder, or with `--folds` to one a fold."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import Flow, Json, with_flow
from cinefeed.cli.show import choose_backend, emit, figures, note
from cinefeed.config import Settings, parse
from cinefeed.errors import MissingExtraError, SettingError
from cinefeed.training.run import RunResult, device

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there already.")]


@with_flow
def train(
    flow: Flow,
    out: Annotated[Path | None, typer.Option(help="Run folder to write; a run broken off there goes on.")] = None,
    model: Annotated[str | None, typer.Option(help="Network, by its name in cinefeed.models.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the learning rate: plateau (lower where nothing improves), cosine, constant.")
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="mse, rmse, mae or huber; cross_entropy or focal; by default as the task is.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32, mixed_float16 or mixed_bfloat16.")] = None,
    threads: Annotated[
        str | None, typer.Option(help="Of the CPU, to compute the network with: auto or a number.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better one; 0: never.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Cross-validate: train so many runs, by group.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curves for TensorBoard too.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a network on a manifest; everything there is to know of it goes into the run folder.

    A run that was broken off goes on with the same command. Several GPUs: torchrun --nproc-per-node 2 -m cinefeed train
    """
    chosen = {
        "out": None if out is None else str(out),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "loss": loss,
        "precision": precision,
        "threads": threads if threads is None or not threads.isdigit() else int(threads),
        "patience": patience,
        "tensorboard": tensorboard or None,
    }
    settings = parse(flow.table(model={"name": model}, train=chosen))
    backend = choose_backend()
    from cinefeed.training.distributed import torchrun_rank  # Keras reads the backend when it is imported
    from cinefeed.training.fit import train as run_training

    rank, ranks = torchrun_rank()
    if rank == 0:
        note(f"Keras on {backend}: {device()}")
    if folds is not None:
        if ranks > 1:
            raise SettingError(
                "--folds trains one run after the other; start it without torchrun, or one fold at a time"
            )
        _finish_folds(settings, folds=folds, overwrite=overwrite, as_json=as_json)
        return
    result = run_training(settings, overwrite=overwrite, progress=True)
    if rank == 0:
        finish(result, as_json=as_json)


def finish(result: RunResult, *, as_json: bool) -> None:
    """Write the run's page where the extra for it is there, and print what came out."""
    if not result.complete:
        told = {"run": str(result.folder), "complete": False, "epochs": result.epochs, "stopped": result.stopped}
        emit(told, as_json=as_json, text=f"{result.stopped}\n-> {result.folder}")
        return
    page = _page(result.folder)
    emit(
        {
            "run": str(result.folder),
            "report": None if page is None else str(page),
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "stopped": result.stopped,
            "metrics": result.metrics,
            "feed": result.feed_verdict,
        },
        as_json=as_json,
        text=f"{result.stopped}; best epoch {result.best_epoch}\n"
        + "".join(f"{name}: {figures(each)}\n" for name, each in result.metrics.items())
        + f"{result.feed_verdict}\n-> {page or result.folder}",
    )


def _finish_folds(settings: Settings, *, folds: int, overwrite: bool, as_json: bool) -> None:
    """Cross-validate, and print what the folds came to."""
    from cinefeed.training.fit import train as run_training
    from cinefeed.training.folds import train_folds

    def train_fold(fold: Settings, *, overwrite: bool) -> None:
        note(f"{Path(fold.train.out).name} of {folds}")
        run_training(fold, overwrite=overwrite, progress=True)

    result = train_folds(settings, folds=folds, train=train_fold, overwrite=overwrite)
    if not result.finished:
        message = {"run": str(result.folder), "complete": False}
        emit(message, as_json=as_json, text=f"asked to leave: the same command goes on\n-> {result.folder}")
        return
    spread = {
        name: f"{each['mean']:.4g} ({each['low']:.4g} to {each['high']:.4g})"
        for name, each in result.folds.items()
        if each["low"] is not None
    }
    emit(
        {"run": str(result.folder), "metrics": result.metrics, "folds": result.folds},
        as_json=as_json,
        text=f"out of fold: {figures(result.metrics)}\n"
        + "".join(f"{name}, mean of {folds} folds: {text}\n" for name, text in spread.items())
        + f"-> {result.folder}",
    )


def _page(folder: Path) -> Path | None:
    from cinefeed.report import run_page

    try:
        return run_page(folder)
    except MissingExtraError as error:
        note(f"no report: {error}")
        return None
