"""Commands that use a run's weights, or its predictions: `evaluate`, `compare` and `predict`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer

from cinefeed.cli.options import Json, Run, Where, by_target, classes_of, listed, where_table
from cinefeed.cli.show import choose_backend, emit, figures, note, ticking
from cinefeed.config import Settings
from cinefeed.errors import SettingError
from cinefeed.manifest.writing import table_suffix, write_table
from cinefeed.metrics.assess import assess, flat_metrics
from cinefeed.metrics.compare import compare as compare_predictions
from cinefeed.metrics.predictions import Predictions, read_predictions
from cinefeed.metrics.units import cluster_of
from cinefeed.text import format_count, one_line
from cinefeed.training.run import check_run, read_thresholds, settings_of_run, write_json

Measured = Annotated[Path, typer.Argument(help="Run folder, or a table of predictions (Parquet, CSV) of any program.")]
Unit = Annotated[str | None, typer.Option(help="Column whose values are measured, such as the study; else videos.")]
Clips = Annotated[int | None, typer.Option(help="Clips of each video, spread evenly over it, their scores averaged.")]
Resamples = Annotated[int, typer.Option(help="Bootstrap samples that intervals are made of.")]
_TABLES = (".parquet", ".csv", ".tsv", ".txt")


def evaluate(
    run: Measured,
    part: Annotated[str, typer.Option(help="Part of the run's own manifest: train, val or test.")] = "test",
    manifest: Annotated[
        Path | None, typer.Option(help="Another manifest with the label: external validation, thresholds as chosen.")
    ] = None,
    where: Where = None,
    unit: Unit = None,
    clips: Clips = None,
    subgroups: Annotated[
        list[str] | None, typer.Option(help="Columns by whose values the metrics are told once more: a,b or one each.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Of a table: the targets to measure, by default all.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Of a table: regression, binary, multiclass. Of several: TARGET=TASK.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="Of a table: class names in order, a,b. Of several: TARGET=a,b.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Of a table: column of patients, which intervals resample.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Keep the predictions, a row a clip (.parquet, .csv, .json).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a run's best weights, or a table of predictions: metrics with intervals that resample patients."""
    columns = None if subgroups is None else listed(subgroups)
    if is_table(run):
        if manifest is not None or clips is not None or out is not None or where:
            raise SettingError("--manifest, --where, --clips and --out are for a run folder; a table is as it is")
        # typer has no literals: the task is a text here, and read_predictions says which there are
        predictions = read_predictions(run, task=by_target("--task", task), classes=classes_of(classes))  # type: ignore[arg-type]
        predictions = _chosen(predictions, None if target is None else listed(target))
        for warning in predictions.warnings:
            note(f"warning: {warning}")
        found = assess(predictions, unit=unit, cluster=group, subgroups=columns or ())
        rows = {name: predictions.part(name).table.num_rows for name in predictions.parts}
        metrics = flat_metrics(found)
        emit(
            {"parts": rows, "metrics": metrics, "assessment": found},
            as_json=as_json,
            text="\n".join(
                f"{name}, {_counted(predictions.part(name).table)}: {figures(metrics[name])}" for name in rows
            ),
        )
        return
    if target or task or classes or group:
        raise SettingError(f"--target, --task, --classes and --group are for a table of predictions; {run} is none")
    check_run(run)
    choose_backend()
    from cinefeed.training.evaluate import evaluate as measure_run

    with ticking("evaluating") as tick:
        result = measure_run(
            run,
            part=part,
            manifest=manifest,
            where=where_table(where or []),
            unit=unit,
            clips=clips,
            subgroups=columns,
            out=out,
            tick=tick,
        )
    for warning in result.assessment.get("warnings", []):
        note(f"warning: {warning}")
    if out is not None and result.assessment.get("warnings") and out.suffix.lower() != ".parquet":
        note(f"{out.name} cannot keep this warning; a page made of it shows none: write a .parquet file for a page")
    emit(
        {
            "part": result.part,
            "rows": len(result.predictions),
            "metrics": result.metrics,
            "assessment": result.assessment,
            "failures": result.failures,
        },
        as_json=as_json,
        text=f"{result.part}, {_counted(result.predictions)}: {figures(result.metrics)}",
    )
    _list_failures(result.failures)


def compare(
    a: Measured,
    b: Measured,
    part: Annotated[str, typer.Option(help="Part that is compared, which must be the same in both.")] = "test",
    unit: Unit = None,
    group: Annotated[
        str | None, typer.Option(help="Column of patients, which intervals resample; by default the runs' own.")
    ] = None,
    resamples: Resamples = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Keep the comparison (.json), or its table (.csv, .parquet).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show by how much b differs from a on the same videos, each metric with a paired bootstrap interval."""
    if out is not None:
        table_suffix(out)
    known = next((settings for each in (a, b) if (settings := _settings(each)) is not None), None)
    if known is not None:
        group = group or known.data.split.group or None
        unit = unit or known.evaluate.unit
    first, second = (read_predictions(each if is_table(each) else _predictions_of(each)) for each in (a, b))
    telling = next((each.table for each in (first, second) if group in each.table.schema.names), None)
    found = compare_predictions(
        first,
        second,
        part=part,
        unit=unit,
        cluster=group if telling is None else cluster_of(telling, unit=unit, group=group),
        resamples=resamples,
        thresholds={name: {} if is_table(each) else read_thresholds(each) for name, each in (("a", a), ("b", b))},
    )
    if out is not None:
        if table_suffix(out) == ".json":
            write_json(out, found)
        else:
            write_table(out, [comparison_table(found)])
    emit({"a": str(a), "b": str(b), **found}, as_json=as_json, text=_as_table(found))


def predict(
    run: Run,
    out: Annotated[Path, typer.Option(help="Predictions to write, a row a video (.parquet, .csv, .json).")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of them.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest of the videos, in place of paths.")] = None,
    clips: Clips = None,
    per_clip: Annotated[bool, typer.Option("--per-clip", help="Write a row a clip, not averaged.")] = False,
    as_json: Json = False,
) -> None:
    """Score any videos with a run's best weights; no label is needed."""
    check_run(run)
    choose_backend()
    from cinefeed.training.evaluate import predict as score_videos

    with ticking("predicting") as tick:
        result = score_videos(
            run, paths=paths or [], manifest=manifest, clips=clips, per_clip=per_clip, out=out, tick=tick
        )
    emit(
        {"out": str(out), "rows": len(result.predictions), "failures": result.failures},
        as_json=as_json,
        text=f"{len(result.predictions)} predictions -> {out}",
    )
    if result.repeated:
        note(f"paths that name a file once more: {result.repeated}; each file is scored once")
    _list_failures(result.failures)


def is_table(path: Path) -> bool:
    """Return whether a path is meant as a table of predictions, not as a run folder."""
    return path.is_file() or (not path.is_dir() and path.suffix.lower() in _TABLES)


def _chosen(predictions: Predictions, names: list[str] | None) -> Predictions:
    """Return predictions of some targets; the only one of another program's table may be given a name so."""
    if names is None:
        return predictions
    if len(names) == len(predictions.targets) == 1 and predictions.targets[0].name == "target":
        return replace(predictions, targets=(replace(predictions.targets[0], name=names[0]),))
    return replace(predictions, targets=tuple(predictions.target(name) for name in names))


def _predictions_of(run: Path) -> Path:
    path = run / "predictions.parquet"
    if not path.is_file():
        raise SettingError(f"{run} holds no predictions.parquet; give a finished run, or a table of predictions")
    return path


def _settings(run: Path) -> Settings | None:
    return settings_of_run(run) if (run / "settings.toml").is_file() else None


def _as_table(found: dict[str, Any]) -> str:
    """Return a comparison as lines: metric, a, b, difference and its interval."""
    lines = []
    for name, each in found["targets"].items():
        lines.append(f"{name}, {found['part']}: {each['units']} units, {each['clusters']} resampled")
        lines.append(f"  {'':20} {'a':>10} {'b':>10} {'b - a':>10}   {found['level']:.0%} interval")
        for metric, values in each["metrics"].items():
            cells = [_cell(values[key]) for key in ("a", "b", "difference")]
            interval = f"{_cell(values['low'])} to {_cell(values['high'])}" if values["low"] is not None else None
            lines.append(f"  {metric:20} {cells[0]:>10} {cells[1]:>10} {cells[2]:>10}   {interval or values['reason']}")
    return "\n".join(lines)


def comparison_table(found: Mapping[str, Any]) -> pa.Table:
    """Return a comparison as a table with a row for each metric of each target."""
    return pa.Table.from_pylist(
        [
            {"target": name, "metric": metric, "part": found["part"], **values}
            for name, each in found["targets"].items()
            for metric, values in each["metrics"].items()
        ]
    )


def _counted(table: pa.Table) -> str:
    """Return how many videos predictions are of, and how many clips where these are more.

    >>> _counted(pa.table({"id": ["a", "a", "b", "b"]})), _counted(pa.table({"score": [0.5]}))
    ('2 videos, 4 clips', '1 row')
    """
    if "id" not in table.schema.names:
        return format_count(table.num_rows, "row")
    videos = format_count(pc.count_distinct(table.column("id")).as_py(), "video")
    return (
        videos
        if videos == format_count(table.num_rows, "video")
        else f"{videos}, {format_count(table.num_rows, 'clip')}"
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _list_failures(failures: tuple[dict[str, str], ...]) -> None:
    for each in failures:
        note(one_line(f"{each['path']}: {each['error']}"))
