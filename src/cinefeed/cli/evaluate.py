"""Commands that use the weights or predictions of a run: `evaluate`, `compare` and `predict`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import typer

from cinefeed.cli.options import AddedMetrics, Json, Run, Threshold, Where, by_target, classes_of, listed, where_table
from cinefeed.cli.parts import Address, Division, Engine, Parts, Shard, emit_part
from cinefeed.cli.show import choose_backend, emit, list_failures, note
from cinefeed.config import Settings
from cinefeed.core.errors import SettingError
from cinefeed.core.files import write_errors
from cinefeed.core.locks import write_lock
from cinefeed.core.progress import shown_progress
from cinefeed.core.text import format_count, format_number
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.write_table import table_suffix, write_table
from cinefeed.feed.labels import TargetSpec
from cinefeed.metrics.assess import assess, flat_metrics
from cinefeed.metrics.compare import compare as compare_predictions
from cinefeed.metrics.display import assessment_lines, baseline_lines, reason_lines
from cinefeed.metrics.names import positive_class_note
from cinefeed.metrics.predictions import Predictions, read_predictions, target_columns
from cinefeed.metrics.thresholds import check_rule
from cinefeed.metrics.units import cluster_of
from cinefeed.training.doubts import doubt_lines
from cinefeed.training.run import check_run, read_baselines, read_run, read_thresholds, settings_of_run, write_json

RunOrTable = Annotated[Path, typer.Argument(help="Run folder, or table of predictions (Parquet, CSV) of any program.")]
Unit = Annotated[
    str | None,
    typer.Option(help="Column of the units to evaluate, such as the study. Default: that of the run, or each video."),
]
Clips = Annotated[
    int | None,
    typer.Option(help="Number of clips per video, evenly spaced; their scores are averaged. Default: that of the run."),
]
Resamples = Annotated[int, typer.Option(help="Number of bootstrap samples for intervals.")]
_MAX_CLASSES = 8  # on a line of the terminal
_TABLES = (".parquet", ".csv", ".tsv", ".txt")


def evaluate(
    run: RunOrTable,
    part: Annotated[str, typer.Option(help="Part of the run's manifest: train, val or test.")] = "test",
    manifest: Annotated[
        Path | None, typer.Option(help="Another manifest, for external validation with the thresholds of the run.")
    ] = None,
    where: Where = None,
    unit: Unit = None,
    clips: Clips = None,
    subgroups: Annotated[
        list[str] | None,
        typer.Option(help="Columns of subgroups with metrics of their own: a,b. Default: those of the run."),
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Targets to evaluate; by default all.")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task: regression, binary or multiclass. Several targets: TARGET=TASK."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(help="Classes in order: a,b; the second of two is positive. Several targets: TARGET=a,b."),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of the patients, which are resampled for intervals.")
    ] = None,
    threshold: Threshold = None,
    metrics: AddedMetrics = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the predictions, one row per clip (.parquet, .csv, .json).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate the best weights of a run, or a table of predictions: metrics with bootstrap intervals over patients."""
    columns = None if subgroups is None else listed(subgroups)
    added = None if metrics is None else listed(metrics)
    if is_table(run):
        if manifest is not None or clips is not None or out is not None or where:
            raise SettingError(
                f"--manifest, --where, --clips and --out are for a run folder, and {run} is a table; leave them out"
            )
        # typer does not support literals: the task is a text here, and read_predictions checks it
        predictions = read_predictions(run, task=by_target("--task", task), classes=classes_of(classes))  # type: ignore[arg-type]
        predictions = _select_targets(predictions, None if target is None else listed(target))
        for warning in predictions.warnings:
            note(f"warning: {warning}")
        check_rule(threshold or "f1", name="--threshold")
        rule: Any = threshold or "f1"
        assessment = assess(
            predictions, unit=unit, cluster=group, subgroups=columns or (), rule=rule, metrics=added or ()
        )
        videos = {name: _count_videos(predictions.part(name).table) for name in predictions.parts}
        emit(
            {"videos": videos, "metrics": flat_metrics(assessment), "assessment": assessment},
            as_json=as_json,
            text="\n".join(assessment_lines(assessment)),
        )
        return
    if target or task or classes or group or threshold:
        raise SettingError(
            f"--target, --task, --classes, --group and --threshold are for a table of predictions; {run} is not one"
        )
    check_run(run)
    choose_backend()
    from cinefeed.training.evaluate import evaluate as measure_run

    with shown_progress(None, what="evaluating") as tick:
        result = measure_run(
            run,
            part=part,
            manifest=manifest,
            where=where_table(where or []),
            unit=unit,
            clips=clips,
            subgroups=columns,
            metrics=added,
            out=out,
            tick=tick,
        )
    for warning in result.assessment.get("warnings", []):
        note(f"warning: {warning}")
    if out is not None and result.assessment.get("warnings") and out.suffix.lower() != ".parquet":
        note(f"{out.name} does not store this warning, so its report will not show it: write a .parquet file instead")
    as_trained = part == "test" and manifest is None and unit is None and clips is None and not where
    baselines = read_baselines(run) if as_trained else {}  # else they are of other scores than these
    emit(
        {
            "part": result.part,
            "videos": _count_videos(result.predictions),
            "clips": len(result.predictions),
            "metrics": result.metrics,
            "assessment": result.assessment,
            "baselines": baselines,
            "failures": result.failures,
        },
        as_json=as_json,
        text="\n".join(
            [
                *assessment_lines(result.assessment, baselines=baselines),
                *baseline_lines(baselines, duration=False),
                *(doubt_lines(run) if manifest is None else []),
            ]
        ),
    )
    list_failures(result.failures)


def compare(
    a: RunOrTable,
    b: RunOrTable,
    part: Annotated[str, typer.Option(help="Part to compare, which must be the same in both.")] = "test",
    unit: Unit = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column of the patients, which are resampled for intervals. Default: that of the runs."),
    ] = None,
    resamples: Resamples = 1000,
    out: Annotated[
        Path | None, typer.Option(help="Write the comparison (.json), or its table (.csv, .parquet).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare b with a on the same videos: the difference of each metric with a paired bootstrap interval."""
    if out is not None:
        table_suffix(out)
    run_settings = next((settings for each in (a, b) if (settings := _settings(each)) is not None), None)
    if run_settings is not None:
        group = group or run_settings.data.split.group or None
        unit = unit or run_settings.evaluate.unit
    first, second = (read_predictions(each if is_table(each) else _predictions_of(each)) for each in (a, b))
    group_table = next((each.table for each in (first, second) if group in each.table.schema.names), None)
    comparison = compare_predictions(
        first,
        second,
        part=part,
        unit=unit,
        cluster=group if group_table is None else cluster_of(group_table, unit=unit, group=group),
        resamples=resamples,
        thresholds={name: {} if is_table(each) else read_thresholds(each) for name, each in (("a", a), ("b", b))},
        rules={
            name: settings.evaluate.threshold
            for name, each in (("a", a), ("b", b))
            if (settings := _settings(each)) is not None
        },
    )
    if out is not None:
        if table_suffix(out) == ".json":
            with write_errors(out, advice="choose another folder"), write_lock(out):
                write_json(out, comparison)
        else:
            write_table(out, [comparison_table(comparison)])
    emit({"a": str(a), "b": str(b), **comparison}, as_json=as_json, text=f"a: {a}, b: {b}\n{_as_table(comparison)}")


def predict(
    run: Run,
    out: Annotated[Path, typer.Option(help="Predictions to write, one row per video (.parquet, .csv, .json).")],
    paths: Annotated[list[Path] | None, typer.Argument(help="Videos, or folders of videos.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest of the videos, in place of paths.")] = None,
    clips: Clips = None,
    per_clip: Annotated[bool, typer.Option("--per-clip", help="Write one row per clip, without averaging.")] = False,
    shard: Shard = None,
    engine: Engine = None,
    address: Address = None,
    parts: Parts = None,
    as_json: Json = False,
) -> None:
    """Predict any videos with the best weights of a run; no labels are needed."""
    division = Division(shard=shard, engine=engine, address=address, parts=parts)
    check_run(run)
    if division.flag is not None and (paths or manifest is None):
        raise SettingError(
            f"{division.flag} needs --manifest, which is equal for all parts; write one with 'cinefeed scan'"
        )
    choose_backend()
    if division.flag is not None and manifest is not None:
        from cinefeed.jobs.predict import predict_part

        work = partial(predict_part, run, manifest=manifest, clips=clips, per_clip=per_clip)
        if division.part is None:
            table_suffix(out)
            batches = -(-len(Manifest.read(manifest)) // settings_of_run(run).feed.batch_size)
            division.run_all(work, out=out, units=lambda: batches, network=True, as_json=as_json)
            return
        with shown_progress(None, what="predicting") as tick:
            done = work(part=division.part, out=out, tick=tick)
        emit_part(done, as_json=as_json)
        list_failures(done.job.whole["failures"] if division.part.number == 0 else [])
        return
    from cinefeed.models.parts import targets_of
    from cinefeed.training.known_videos import known_videos_note
    from cinefeed.training.predict import predict as score_videos

    with shown_progress(None, what="predicting") as tick:
        result = score_videos(
            run, paths=paths or [], manifest=manifest, clips=clips, per_clip=per_clip, out=out, tick=tick
        )
    emit(
        {
            "out": str(out),
            "rows": len(result.predictions),
            "failures": result.failures,
            "run_parts": result.run_parts,
        },
        as_json=as_json,
        text="\n".join(
            [
                *_score_lines(targets_of(read_run(run)[1]), read_thresholds(run)),
                *_class_lines(result.predictions),
                f"{len(result.predictions)} predictions -> {out}",
            ]
        ),
    )
    if warning := known_videos_note(result.run_parts, total=_count_videos(result.predictions)):
        note(f"warning: {warning}")
    if result.repeated:
        note(f"{result.repeated} paths name a file again; each file is predicted once")
    list_failures(result.failures)


def _score_lines(targets: Sequence[TargetSpec], thresholds: Mapping[str, float]) -> list[str]:
    """Return of which of two classes a score is the probability, and the threshold of `predicted`, a line per target.

    >>> _score_lines([TargetSpec(name="state", task="binary", classes=("ill", "well"))], {"state": 0.403})
    ["score is the probability of 'well', which is predicted from 0.403 on"]
    """
    lines = []
    for each in targets:
        if each.task == "binary":
            [score] = target_columns(each.name, task="binary", several=len(targets) > 1).scores
            threshold = format_number(thresholds.get(each.name, 0.5))
            lines.append(f"{score} is the probability of {each.classes[1]!r}, which is predicted from {threshold} on")
    return lines


def _class_lines(predictions: pa.Table) -> list[str]:
    """Return the number of rows of each predicted class, a line per target.

    >>> _class_lines(pa.table({"id": ["a", "b", "c"], "score": [0.1, 0.8, 0.3], "predicted": ["no", "yes", "no"]}))
    ['predicted: no 2, yes 1']
    """
    names = [name for name in predictions.schema.names if name == "predicted" or name.startswith("predicted_")]
    return [f"{name.replace('_', ' ', 1)}: {_frequencies(predictions[name])}" for name in names]


def _frequencies(column: Any) -> str:
    counts = sorted(column.value_counts().to_pylist(), key=lambda each: -each["counts"])
    more = f" and {len(counts) - _MAX_CLASSES} more" if len(counts) > _MAX_CLASSES else ""
    return ", ".join(f"{each['values']} {each['counts']}" for each in counts[:_MAX_CLASSES]) + more


def is_table(path: Path) -> bool:
    """Return whether a path is a table of predictions rather than a run folder."""
    return path.is_file() or (not path.is_dir() and path.suffix.lower() in _TABLES)


def _select_targets(predictions: Predictions, names: list[str] | None) -> Predictions:
    """Return predictions of some targets; a single target without a name is given the single name."""
    if names is None:
        return predictions
    if len(names) == 1:
        predictions = predictions.named(names[0])
    return replace(predictions, targets=tuple(predictions.target(name) for name in names))


def _predictions_of(run: Path) -> Path:
    path = run / "predictions.parquet"
    if not path.is_file():
        raise SettingError(f"{run} has no predictions.parquet; give a finished run, or a table of predictions")
    return path


def _settings(run: Path) -> Settings | None:
    return settings_of_run(run) if (run / "settings.toml").is_file() else None


def _as_table(comparison: dict[str, Any]) -> str:
    """Return a comparison as lines of text: metric, a, b, difference and its interval; each reason for none once."""
    lines = []
    for name, target in comparison["targets"].items():
        resampled = comparison["cluster"] or "video"
        lines.append(
            f"{name}, {comparison['part']}: {format_count(target['units'], comparison['unit'] or 'video')}, "
            f"{format_count(target['clusters'], resampled)} resampled"
        )
        if target["same_scores"]:
            lines.append(f"  a and b are identical: both predict the same values for all {target['videos']:,} videos")
        lines.append(f"  {'':20} {'a':>10} {'b':>10} {'b - a':>10}   {comparison['level']:.0%} interval")
        for metric, values in target["metrics"].items():
            cells = [_cell(values[key]) for key in ("a", "b", "difference")]
            interval = f"{_cell(values['low'])} to {_cell(values['high'])}" if values["low"] is not None else "-"
            lines.append(f"  {metric:20} {cells[0]:>10} {cells[1]:>10} {cells[2]:>10}   {interval}")
        differences = {metric: {**each, "value": each["difference"]} for metric, each in target["metrics"].items()}
        lines += [f"  {line}" for line in reason_lines(differences)]
        if note := positive_class_note(target["classes"], of=name if len(comparison["targets"]) > 1 else ""):
            lines.append(f"  {note}")
    return "\n".join(lines)


def comparison_table(comparison: Mapping[str, Any]) -> pa.Table:
    """Return a comparison as a table with one row per metric of each target."""
    return pa.Table.from_pylist(
        [
            {"target": name, "metric": metric, "part": comparison["part"], **values}
            for name, target in comparison["targets"].items()
            for metric, values in target["metrics"].items()
        ]
    )


def _count_videos(table: pa.Table) -> int:
    """Return the number of videos in predictions, which have a row per clip.

    >>> _count_videos(pa.table({"id": ["a", "a", "b", "b"]}))
    2
    """
    return int(pc.count_distinct(table["id"]).as_py())


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
