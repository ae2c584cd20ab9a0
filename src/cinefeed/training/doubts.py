"""Checks of the data before a training for leaks and copies between parts: findings.json of the run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.config import Settings
from cinefeed.core.errors import CinefeedError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.findings import LOOK_ALIKES, Finding, finding
from cinefeed.data.quality.run_checks import check_parts
from cinefeed.training.run import FINDINGS, write_json
from cinefeed.training.setup import check_folds, make_parts, usable_rows


def plan_parts(rows: Manifest, settings: Settings) -> tuple[Manifest, list[Finding]]:
    """Return the rows with the part that a training gives them in the column `split`, and what would stop it.

    With `[train] folds` the parts are the folds. Rows without frames have no part. Where the parts cannot be made, the
    finding says why, and the rows are returned as they are, or with the parts of `[data.split] column`.
    """
    split = settings.data.split
    try:
        usable, _ = usable_rows(rows)
        if settings.train.folds:
            check_folds(usable, settings)
            options: dict[str, Any] = {"group": split.group or None, "stratify": split.stratify, "seed": split.seed}
            folds = usable.folds(settings.train.folds, **options)[0].all
            parts = pc.binary_join_element_wise("fold", pc.add(folds.column("fold"), 1).cast(pa.string()), " ")
        else:
            parts = make_parts(usable, settings).all.column("split")
    except CinefeedError as error:
        if split.column is not None and split.column in rows.table.column_names:
            rows = rows.with_column("split", rows.column(split.column))
        return rows, [
            finding(
                "error",
                "no_parts",
                "the parts of the settings cannot be made",
                detail=str(error),
                advice="change [data.split], or the rows; 'cinefeed train' would stop with this error",
                count=len(rows),
            )
        ]
    positions = pc.index_in(rows.column("id"), value_set=usable.column("id"))
    return rows.with_column("split", parts.take(positions)), []


_EFFECTS = {"error": "the scores are not trustworthy", "warning": "read the scores with care"}


def _effect(entry: Mapping[str, Any]) -> str:
    """Return what a finding means for the scores; look-alike videos, unlike copies, may be different ones."""
    look_alike = entry.get("code") == LOOK_ALIKES
    return "the scores may not be trustworthy" if look_alike else _EFFECTS[entry["severity"]]


def keep_findings(folder: Path, *, rows: Manifest, settings: Settings, progress: bool) -> None:
    """Check the parts of a run and write the findings to its folder. `rows` have their part in the column `split`.

    A check that fails does not stop a training: the file then holds the reason in `not_checked`.
    """
    data, workers = settings.data, settings.feed.workers.count
    try:
        content = check_parts(
            rows,
            targets=[each for each in data.targets if each in rows.table.column_names],
            group=data.split.group or None,
            workers=workers if isinstance(workers, int) and workers > 0 else None,
            progress=None if progress else False,
        ).as_dict()
    except (CinefeedError, OSError) as error:
        reason = "the reason is not shown for private data" if rows.private else str(error)
        content = {"findings": [], "not_checked": f"leaks and copies between the parts: the check failed ({reason})"}
    write_json(folder / FINDINGS, content)


def describe_findings(folder: Path) -> list[str]:
    """Return a line for each finding in findings.json that bears on the scores, and for failed checks."""
    content: dict[str, Any] = json.loads((folder / FINDINGS).read_text(encoding="utf-8"))
    lines = [
        f"{_effect(each)}: {each['title']}. {each['detail']} To do: {each['advice']}" for each in content["findings"]
    ]
    return lines + ([f"not checked: {content['not_checked']}"] if content["not_checked"] else [])


def doubt_lines(folder: Path) -> list[str]:
    """Return a short line for each finding of a run, or of the runs of a cross-validation; [] without findings.json."""
    lines: dict[str, None] = {}
    for path in sorted([*folder.glob(FINDINGS), *folder.glob(f"fold*/{FINDINGS}")]):
        for each in json.loads(path.read_text(encoding="utf-8"))["findings"]:
            lines[f"{_effect(each)}: {each['title']}"] = None
    return list(lines)
