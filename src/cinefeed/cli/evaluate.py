"""Commands that use a run's weights: `evaluate` and `predict`."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import Json, Run
from cinefeed.cli.show import choose_backend, emit, figures, note, ticking


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
