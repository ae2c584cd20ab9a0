"""Command `train`."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import Flow, Json, with_flow
from cinefeed.cli.show import choose_backend, emit, figures, note
from cinefeed.config import parse
from cinefeed.errors import MissingExtraError
from cinefeed.training.run import RunResult, device

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there already.")]


@with_flow
def train(
    flow: Flow,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.")] = None,
    model: Annotated[str | None, typer.Option(help="Network, by its name in cinefeed.models.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the learning rate: constant or cosine.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better one; 0: never.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a network on a manifest; everything there is to know of it goes into the run folder."""
    chosen = {
        "out": None if out is None else str(out),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "patience": patience,
    }
    settings = parse(flow.table(model={"name": model}, train=chosen))
    backend = choose_backend()
    from cinefeed.training.fit import train as run_training  # Keras reads the backend when it is imported

    note(f"Keras on {backend}: {device()}")
    finish(run_training(settings, overwrite=overwrite, progress=True), as_json=as_json)


def finish(result: RunResult, *, as_json: bool) -> None:
    """Write the run's page where the extra for it is there, and print what came out."""
    from cinefeed.report import run_page

    try:
        page: Path | None = run_page(result.folder)
    except MissingExtraError as error:
        page = None
        note(f"no report: {error}")
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
