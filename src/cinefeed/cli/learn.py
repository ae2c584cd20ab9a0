"""Commands around a run: `train`, `evaluate`, `predict`, `report`."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import Flow, Json, with_flow
from cinefeed.cli.show import choose_backend, emit, figures, note, ticking
from cinefeed.config import parse
from cinefeed.errors import MissingExtraError
from cinefeed.training.run import RunResult, device

Run = Annotated[Path, typer.Argument(help="Run folder, the --out of 'cinefeed train'.")]
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


def evaluate(
    run: Run,
    part: Annotated[str, typer.Option(help="Part of the run's own manifest: train, val or test.")] = "test",
    manifest: Annotated[Path | None, typer.Option(help="Another manifest with the label, in place of a part.")] = None,
    out: Annotated[Path | None, typer.Option(help="Keep the predictions (Parquet).")] = None,
    as_json: Json = False,
) -> None:
    """Measure a run's best weights."""
    choose_backend()
    from cinefeed.training.evaluate import evaluate as measure_run

    with ticking("evaluating") as tick:
        result = measure_run(run, part=part, manifest=manifest, out=out, tick=tick)
    emit(
        {"part": result.part, "rows": len(result.predictions), "metrics": result.metrics, "failures": result.failures},
        as_json=as_json,
        text=f"{result.part}, {len(result.predictions)} rows: {figures(result.metrics)}",
    )
    _list_failures(result.failures)


def predict(
    run: Run,
    out: Annotated[Path, typer.Option(help="Predictions to write (Parquet).")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of them.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest of the videos, in place of paths.")] = None,
    as_json: Json = False,
) -> None:
    """Score any videos with a run's best weights; no label is needed."""
    choose_backend()
    from cinefeed.training.evaluate import predict as score_videos

    with ticking("predicting") as tick:
        result = score_videos(run, paths=paths or [], manifest=manifest, out=out, tick=tick)
    emit(
        {"out": str(out), "rows": len(result.predictions), "failures": result.failures},
        as_json=as_json,
        text=f"{len(result.predictions)} videos -> {out}",
    )
    _list_failures(result.failures)


def _list_failures(failures: tuple[dict[str, str], ...]) -> None:
    for each in failures:
        note(f"{each['path']}: {each['error']}")


def report(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="Page to write; by default report.html in the run folder.")] = None,
    as_json: Json = False,
) -> None:
    """Show a run as one HTML page that opens offline."""
    from cinefeed.report import run_page

    page = run_page(run, out=out)
    emit({"page": str(page)}, as_json=as_json, text=f"-> {page}")


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
