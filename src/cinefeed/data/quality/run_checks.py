"""Runs all checks of a manifest, and builds the report. Private manifests are reported without paths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from cinefeed.core.cores import usable_cores
from cinefeed.core.errors import SettingError, TableError
from cinefeed.core.progress import Progress, shown_progress
from cinefeed.core.text import format_count
from cinefeed.data.manifest.encoded import encoded_from
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.summary import num_files
from cinefeed.data.quality.duplicates import duplicate_findings
from cinefeed.data.quality.files import file_findings
from cinefeed.data.quality.findings import CheckReport, Finding, Shortcut, sort_by_severity, with_names
from cinefeed.data.quality.frame_summaries import summarize_frames
from cinefeed.data.quality.groups import group_findings, groups_of, joined_groups
from cinefeed.data.quality.heterogeneity import mixed_findings
from cinefeed.data.quality.labels import label_findings, spelling_findings, telling_findings
from cinefeed.data.quality.shortcuts import shortcut_findings
from cinefeed.data.quality.values import value_findings
from cinefeed.video.clips import Clip, Frame

# Reading the frames of a video took 3 ms for `lips` and 120 ms for `pocus` on two busy cores: 10 minutes for 5000.
_MOST_ROWS = 5000


def check_manifest(
    manifest: Manifest,
    *,
    target: str | None = None,
    task: str | None = None,
    group: str | None = None,
    nuisance: Sequence[str] = (),
    clip: Clip | None = None,
    frame: Frame | None = None,
    private: bool = False,
    workers: int | None = None,
    progress: Progress | Literal[False] | None = None,
) -> CheckReport:
    """Check a data set, and return the findings, the worst first, with advice.

    Each video is opened once, and five of its frames are read. Files of the same size are compared by their bytes. The
    report does not depend on the number of workers.

    Args:
        manifest: a scanned manifest.
        target: column of the label.
        task: task for the label, as in Feed.
        group: column of the patient, or of another unit that must stay in one part of the split. By default the columns
            patient, study and series, if the manifest has them.
        nuisance: columns that must not predict the label, such as the site, besides those that every manifest has.
        clip: with it, videos that are too short for the clip are reported.
        frame: target frame of the feed, by default uint8 without a window; its effect on the values is checked.
        private: name rows by their ids only; this is always done for a private manifest.
        workers: number of threads, by default one per core.
        progress: called with the number of checked rows and of all rows; False for no progress bar.

    Raises TableError if the manifest was not scanned, ColumnError if it lacks a column.
    """
    if workers is not None and workers < 1:
        raise SettingError(f"workers={workers} must be at least 1; leave it out to use all cores")
    if "num_frames" not in manifest.table.schema.names or manifest.column("num_frames").null_count == len(manifest):
        raise TableError(
            "the manifest was not scanned, so its files cannot be checked; "
            "run 'cinefeed scan FOLDER --out manifest.parquet' (Manifest.scan) and check that manifest"
        )
    requested_columns = [name for name in (target, group, *nuisance) if name is not None]
    for name in requested_columns:
        if pa.types.is_nested(kind := manifest.column(name).type):
            raise TableError(f"column {name!r} is {kind}; a label, group or nuisance has one number or text per row")
    if target is not None:
        manifest = manifest.with_task(target, task)
    manifest = manifest.as_private() if private else manifest
    private = manifest.private
    workers = workers or usable_cores()
    with shown_progress(progress, what="check") as report_progress:
        summaries = summarize_frames(manifest, clip=clip, frame=frame, workers=workers, progress=report_progress)
    findings: list[Finding] = group_findings(manifest, group=group)
    copies, pairs, sets = duplicate_findings(manifest, summaries, target=target, group=group, workers=workers)
    findings += copies + file_findings(manifest, summaries) + value_findings(manifest, summaries, frame=frame)
    classes: dict[str, dict[str, int]] = {}
    shortcuts: list[Shortcut] = []
    skipped_shortcuts = ""
    if target is not None:
        labels, classes = label_findings(manifest, target=target, group=group)
        label_shortcuts, shortcuts, skipped_shortcuts = shortcut_findings(
            manifest, summaries, target=target, group=group, nuisance=nuisance
        )
        telling = telling_findings(manifest, target=target, group=group, nuisance=nuisance)
        findings += label_shortcuts + labels + telling
    findings += [*spelling_findings(manifest, requested_columns), *mixed_findings(manifest, summaries, clip=clip)]
    groups = groups_of(manifest, group)

    def names(rows: Sequence[int]) -> list[Mapping[str, str]]:
        return [identify_row(manifest, row, private=private) for row in rows]

    return CheckReport(
        findings=_with_names(manifest, findings),
        rows=len(manifest),
        files=num_files(manifest.table),
        rows_read=int(summaries.rows_read.sum()),
        target=target,
        label=_label(manifest, target, classes=len(classes)),
        group=None if groups is None else groups.name,
        private=private,
        classes=classes,
        pairs=tuple(replace(each, names=tuple(names([each.first, each.second]))) for each in pairs),
        shortcuts=tuple(shortcuts),
        shortcuts_left_out=skipped_shortcuts,
        groups=joined_groups(manifest, group=group, sets=sets),
    )


def _label(manifest: Manifest, target: str | None, *, classes: int) -> str:
    """Return the kind of the target: "regression" or the number of classes; "" if no row has a label."""
    if target is None or manifest.column(target).null_count == len(manifest):
        return ""
    return format_count(classes, "class") if manifest.label_type(target).is_classes else "regression"


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """Findings that make scores unreliable (errors) or may do so (warnings); and the checks that did not run, or ""."""

    findings: tuple[Finding, ...]
    not_checked: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return {"findings": [each.as_dict() for each in self.findings], "not_checked": self.not_checked}


def check_parts(
    manifest: Manifest,
    *,
    targets: Sequence[str] = (),
    group: str | None = None,
    workers: int | None = None,
    progress: Progress | Literal[False] | None = None,
) -> Doubts:
    """Return findings that make scores of the parts (column `split`) of a manifest unreliable; see `check_manifest`.

    Groups in two parts are found in the columns. The search for copies, near-duplicates and labels that are predicted
    by the files reads every video. It is skipped, with the reason in `not_checked`, for more than 5,000 rows, for
    features, and for rows with several views.
    """
    findings = group_findings(manifest, group=group)
    reason = _no_look(manifest)
    if not reason:
        workers = workers or usable_cores()
        with shown_progress(progress, what="check") as report_progress:
            summaries = summarize_frames(manifest, clip=None, workers=workers, progress=report_progress)
        first = targets[0] if targets else None
        findings += duplicate_findings(manifest, summaries, target=first, group=group, workers=workers)[0]
        for target in targets:
            findings += shortcut_findings(manifest, summaries, target=target, group=group, nuisance=())[0]
        unread = len(manifest) - int(summaries.rows_read.sum())
        reason = f"{unread} of {len(manifest)} videos without a readable frame" if unread else ""
    return Doubts(findings=_with_names(manifest, [each for each in findings if each.is_doubt]), not_checked=reason)


def _no_look(manifest: Manifest) -> str:
    """Return the checks that are skipped, and why; "" if the videos are read."""
    checks = "copies and near-duplicates in two parts, and labels predicted by files: "
    if manifest.rows.views:
        return checks + "the rows have several views; run 'cinefeed check' on the manifest of single videos"
    if encoded_from(manifest) is not None:
        return checks + "the rows are features; run 'cinefeed check' on the manifest of the videos"
    if "num_frames" not in manifest.table.schema.names:
        return checks + "the videos were not scanned; 'cinefeed scan' writes a manifest that can be checked"
    if len(manifest) > _MOST_ROWS:
        return checks + f"{len(manifest):,} videos would take long; run 'cinefeed check' on the run's manifest.parquet"
    return ""


def _with_names(manifest: Manifest, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings sorted by severity, with the names of their rows."""
    names = [[identify_row(manifest, row, private=manifest.private) for row in each.rows] for each in findings]
    return sort_by_severity(with_names(each, rows) for each, rows in zip(findings, names, strict=True))


def identify_row(manifest: Manifest, row: int, *, private: bool) -> dict[str, str]:
    """Return the name of a row for reports: its id, and its path unless that is private."""
    name = {"id": str(manifest.table.column("id")[row])}
    return name if private else name | {"path": manifest.relative_path(row)}
