"""All checks of a manifest, one after the other, and a report that names rows as their owner allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.check.duplicates import duplicate_findings
from cinefeed.check.files import file_findings
from cinefeed.check.findings import CheckReport, Finding, Shortcut, named, ranked
from cinefeed.check.groups import group_findings, groups_of, joined_groups
from cinefeed.check.labels import label_findings, spelling_findings
from cinefeed.check.look import look_at_all
from cinefeed.check.mixed import mixed_findings
from cinefeed.check.shortcuts import shortcut_findings
from cinefeed.check.values import value_findings
from cinefeed.clips import Clip, Frame
from cinefeed.cores import usable_cores
from cinefeed.errors import SettingError, TableError
from cinefeed.manifest.encoded import encoded_from
from cinefeed.manifest.progress import Progress, shown_progress
from cinefeed.manifest.table import Manifest
from cinefeed.text import format_count

# A look took 3 ms a video of `lips` and 120 ms of `pocus` on two busy cores: 10 minutes for so many of the latter.
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
    """Return what is wrong with a data set, worst first, and what to do about it.

    Each video is opened once, and five of its frames are read; files of one size are compared by their bytes. `target`
    is the label (`task` as in Feed), `group` the patient or whatever must stay in one part (by default the columns
    patient, study and series, where there are such); `nuisance` names columns that must not tell the label, such as
    the site, besides those that every manifest has. With `clip`, videos that are too short for it are listed; `frame`
    is what they will be fed as, by default uint8 without a window: what that does to their numbers is looked at. The
    same on any number of `workers`. `private` names rows by their ids alone, as a private manifest does always.

    Raises TableError where the manifest was not scanned, ColumnError for a column that is not there.
    """
    if workers is not None and workers < 1:
        raise SettingError(f"workers={workers} must be at least 1; leave it out to use every core")
    if "num_frames" not in manifest.table.schema.names or manifest.column("num_frames").null_count == len(manifest):
        raise TableError(
            "the manifest knows nothing of its files, so there is nothing to check them against; "
            "run 'cinefeed scan FOLDER --out manifest.parquet' (Manifest.scan) and check what it writes"
        )
    named_columns = [name for name in (target, group, *nuisance) if name is not None]
    for name in named_columns:
        if pa.types.is_nested(kind := manifest.column(name).type):
            raise TableError(f"column {name!r} is {kind}; a label, group or nuisance has one number or text a row")
    if target is not None:
        manifest = manifest.with_task(target, task)
    manifest = manifest.as_private() if private else manifest
    private = manifest.private
    workers = workers or usable_cores()
    with shown_progress(progress, what="check") as tick:
        looks = look_at_all(manifest, clip=clip, frame=frame, workers=workers, progress=tick)
    findings: list[Finding] = group_findings(manifest, group=group)
    copies, pairs, sets = duplicate_findings(manifest, looks, target=target, group=group, workers=workers)
    findings += copies + file_findings(manifest, looks) + value_findings(manifest, looks, frame=frame)
    classes: dict[str, dict[str, int]] = {}
    shortcuts: list[Shortcut] = []
    left_out = ""
    if target is not None:
        labels, classes = label_findings(manifest, target=target, group=group)
        told, shortcuts, left_out = shortcut_findings(manifest, looks, target=target, group=group, nuisance=nuisance)
        findings += told + labels
    findings += [*spelling_findings(manifest, named_columns), *mixed_findings(manifest, looks, clip=clip)]
    groups = groups_of(manifest, group)

    def names(rows: Sequence[int]) -> list[Mapping[str, str]]:
        return [shown(manifest, row, private=private) for row in rows]

    return CheckReport(
        findings=_named(manifest, findings),
        rows=len(manifest),
        files=pc.count_distinct(manifest.column("path")).as_py(),
        read=int(looks.read.sum()),
        target=target,
        label=_label(manifest, target, classes=len(classes)),
        group=None if groups is None else groups.name,
        private=private,
        classes=classes,
        pairs=tuple(replace(each, names=tuple(names([each.first, each.second]))) for each in pairs),
        shortcuts=tuple(shortcuts),
        shortcuts_left_out=left_out,
        groups=joined_groups(manifest, group=group, sets=sets),
    )


def _label(manifest: Manifest, target: str | None, *, classes: int) -> str:
    """Return what the target is taken for; "" where no row has a label."""
    if target is None or manifest.column(target).null_count == len(manifest):
        return ""
    return format_count(classes, "class") if manifest.label_type(target).is_classes else "regression"


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """What makes the scores of some parts untrustworthy, and what was not looked at, "" if all was."""

    findings: tuple[Finding, ...]
    not_looked_at: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return {"findings": [each.as_dict() for each in self.findings], "not_looked_at": self.not_looked_at}


def check_parts(
    manifest: Manifest,
    *,
    targets: Sequence[str] = (),
    group: str | None = None,
    workers: int | None = None,
    progress: Progress | Literal[False] | None = None,
) -> Doubts:
    """Return what makes the scores of a manifest's parts (its column `split`) untrustworthy; see `check_manifest`.

    Groups in two parts are found in the columns. Copies, look-alikes and labels that files give away take a look at
    every video, which is left out, and said, of more than 5,000 rows, of features, and of rows with several views.
    """
    findings = group_findings(manifest, group=group)
    reason = _no_look(manifest)
    if not reason:
        workers = workers or usable_cores()
        with shown_progress(progress, what="check") as tick:
            looks = look_at_all(manifest, clip=None, workers=workers, progress=tick)
        findings += duplicate_findings(manifest, looks, target=None, group=group, workers=workers)[0]
        for target in targets:
            findings += shortcut_findings(manifest, looks, target=target, group=group, nuisance=())[0]
        unread = len(manifest) - int(looks.read.sum())
        reason = f"{unread} of {len(manifest)} videos, of which no frame could be read" if unread else ""
    return Doubts(findings=_named(manifest, [each for each in findings if each.is_doubt]), not_looked_at=reason)


def _no_look(manifest: Manifest) -> str:
    """Return what is not looked at, and why; "" where the videos are."""
    what = "copies and look-alikes in two parts, and labels that files give away: "
    if manifest.rows.views:
        return what + "the rows hold several views; run 'cinefeed check' on the manifest of single videos"
    if encoded_from(manifest) is not None:
        return what + "the rows are features; run 'cinefeed check' on the manifest of the videos"
    if "num_frames" not in manifest.table.schema.names:
        return what + "the videos were not scanned; 'cinefeed scan' writes a manifest that can be checked"
    if len(manifest) > _MOST_ROWS:
        return what + f"{len(manifest):,} videos would take long; run 'cinefeed check' on the run's manifest.parquet"
    return ""


def _named(manifest: Manifest, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings worst first, with what a reader sees of their rows."""
    names = [[shown(manifest, row, private=manifest.private) for row in each.rows] for each in findings]
    return ranked(named(each, rows) for each, rows in zip(findings, names, strict=True))


def shown(manifest: Manifest, row: int, *, private: bool) -> dict[str, str]:
    """Return what a report says of which row it is: its id, and its path unless that is private."""
    name = {"id": str(manifest.table.column("id")[row])}
    return name if private else name | {"path": manifest.relative_path(row)}
