"""Evaluation of a finished run, on one of its parts or on another manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cinefeed.config import Settings
from cinefeed.core.errors import ColumnError, SettingError, SplitError, did_you_mean
from cinefeed.core.locks import with_write_lock
from cinefeed.data.manifest.encoded import check_encoded
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.write_table import table_suffix, write_table
from cinefeed.metrics.assess import flat_metrics
from cinefeed.metrics.predictions import with_warnings
from cinefeed.training.finish import (
    assess_table,
    needed_columns,
    priors_of,
    shared_patients,
    with_evaluation,
)
from cinefeed.training.predictions import predictions_table, score
from cinefeed.training.run import read_rule_thresholds
from cinefeed.training.setup import check_evaluation, choose_rows, usable_rows
from cinefeed.training.threads import with_threads_of_run
from cinefeed.training.trained import Evaluation, Tick, clip_counter, load

PARTS = ("train", "val", "test")


@with_threads_of_run
@with_write_lock("out")
def evaluate(
    run: str | Path,
    *,
    part: str = "test",
    manifest: str | Path | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
    unit: str | None = None,
    clips: int | None = None,
    subgroups: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    out: str | Path | None = None,
    tick: Tick | None = None,
) -> Evaluation:
    """Measure a run's best weights on one of its parts, or on another manifest that has the label.

    Another manifest is external validation: it is filtered as the run's own was (`[data.where]`), and the thresholds
    are those that the run selected on its validation part. Patients (the `group` of the run's split) of the run's
    training or validation are an error. Without a group this is not checked; if the manifests have hashed patients with
    different salts, a warning of the assessment reports that it cannot be checked.

    Args:
        run: The run folder.
        part: The part to measure: "train", "val" or "test".
        manifest: Another manifest to measure, in place of a part.
        where: Values by column; only rows with these values are measured.
        unit: Override `[evaluate] unit`.
        clips: Override `[evaluate] clips`.
        subgroups: Override `[evaluate] subgroups`.
        metrics: Override `[evaluate] metrics`, which are those of plug-ins.
        out: File for the predictions, a row per clip: Parquet, CSV or JSON, by suffix.
        tick: Called with the number of clips done and of all clips.

    Raises SettingError if `run` is not a run folder, SplitError for patients of the run, ColumnError if the column of
    patients is absent, InUseError while another process writes `out`, and the errors of a feed for unsuitable rows or
    labels.
    """
    if part not in PARTS:
        raise SettingError(f"part={part!r} is not a part; choose one of {', '.join(PARTS)}")
    if out is not None:
        table_suffix(Path(out))
    settings, model, trained, own, thresholds = load(run)
    settings = with_evaluation(
        settings,
        unit=unit,
        clips=clips,
        subgroups=None if subgroups is None else tuple(subgroups),
        metrics=None if metrics is None else tuple(metrics),
    )
    rows = own.where("split", [part]) if manifest is None else choose_rows(Manifest.read(manifest), settings)
    for column, values in (where or {}).items():
        rows = rows.where(column, list(values))
    warnings: tuple[str, ...] = ()
    if manifest is not None:
        part = "external"
        warnings = _refuse_shared_patients(rows, own=own, settings=settings, name=str(manifest))
    check_encoded(rows, like=own)
    usable, failures = usable_rows(rows)
    check_evaluation(usable, settings)
    feed = trained.evaluation(usable, clips=settings.evaluate.clips)
    scores = score(model, feed, tick=clip_counter(tick, len(usable) * settings.evaluate.clips))
    columns = needed_columns(settings)
    table = predictions_table(trained.spec, scores, manifest=usable, part=part, columns=columns)
    assessment = assess_table(
        table,
        settings=settings,
        spec=trained.spec,
        priors=priors_of(settings, trained),
        thresholds=thresholds,
        rule_thresholds=read_rule_thresholds(run),
    )
    if warnings:
        table = with_warnings(table, warnings)
        assessment["warnings"] = list(warnings)
    if out is not None:
        write_table(Path(out), [table])
    return Evaluation(
        part=part,
        metrics=flat_metrics(assessment)[part],
        predictions=table,
        assessment=assessment,
        failures=tuple(failures),
    )


def _refuse_shared_patients(rows: Manifest, *, own: Manifest, settings: Settings, name: str) -> tuple[str, ...]:
    """Raise SplitError if another manifest has patients that the run was trained or validated on.

    Returns a warning if this cannot be checked.
    """
    group = settings.data.split.group
    if not group:
        return ()
    columns = rows.table.column_names
    if group not in columns:
        raise ColumnError(
            f"{name} has no column {group!r}, which is needed to exclude patients of the run's training; "
            f"{did_you_mean(group, columns)}"
        )
    shared = shared_patients(rows, own=own, group=group)
    if shared:
        values = rows.column(group).drop_null().unique()
        examples = "private data: none is named" if rows.private else f"first: {', '.join(shared[:3])}"
        raise SplitError(
            f"{len(shared)} of {len(values)} values of {group!r} in {name} are in the run's training or validation "
            f"({examples}), so this is not external validation; leave their rows out (--where), or pass another "
            f"manifest"
        )
    salts = own.salt_fingerprint(group), rows.salt_fingerprint(group)
    if salts[0] == salts[1] is not None:
        return ()
    return (
        f"overlap of patients cannot be checked: the run's manifest and {name} hold {group!r} hashed with different or "
        "unknown salts, so one patient has two names; scan both with the same --salt, or join both with a shared "
        f"table of hashes of each {group}",
    )
