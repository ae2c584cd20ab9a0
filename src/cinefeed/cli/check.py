"""The command `cinefeed check`, which looks for faults of a data set before training."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from cinefeed.cli.inputs import check_path
from cinefeed.cli.options import Group, Json, Where, Window, where_table, window_of
from cinefeed.cli.show import emit, note
from cinefeed.config import Settings, read_settings
from cinefeed.core.errors import SettingError
from cinefeed.core.locks import write_lock
from cinefeed.data.manifest.grouping import GROUP
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.write_table import table_suffix, write_table
from cinefeed.data.quality import check_manifest
from cinefeed.data.quality.findings import Finding, sort_by_severity
from cinefeed.video.clips import Clip, Frame


def check(
    manifest: Annotated[
        Path | None,
        typer.Argument(help="Manifest (Parquet) that 'cinefeed scan' wrote; may stand in --config instead."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Label column to check, also against nuisance columns.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Task: regression, binary or multiclass. Default: from the labels.")
    ] = None,
    group: Group = None,
    nuisance: Annotated[
        list[str] | None,
        typer.Option(help="Column that must not predict the label, such as the site. May be repeated."),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Number of frames of a clip; shorter videos are listed.")] = None,
    stride: Annotated[int | None, typer.Option(help="Use every n-th frame of a video.")] = None,
    rate: Annotated[float | None, typer.Option(help="Frames per second of a clip, in place of --stride.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings file (TOML), which can hold all of these: manifest, target, group, rows, clip and frame."
        ),
    ] = None,
    window: Window = None,
    where: Where = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings too.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Show ids in place of paths, and no pictures.")] = False,
    workers: Annotated[int | None, typer.Option(help="Number of threads; by default one per core.")] = None,
    page: Annotated[Path | None, typer.Option(help="HTML page to write, with pictures of similar pairs.")] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="Table to write (.csv, .parquet, .json): groups that keep similar videos in one part of a split."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check videos for damage, copies and leaks, labels for anomalies, and columns that predict the label.

    Exits with 1 if there are errors. The output ends with the actions to take, the most important first.
    """
    if frames is None and (stride is not None or rate is not None):
        raise SettingError("--stride and --rate need the number of frames per clip; add --frames")
    if groups is not None:
        table_suffix(groups)
    clip = None if frames is None else Clip(frames=frames, stride=1 if stride is None else stride, rate_hz=rate)
    frame, selection = None, where_table(where or [])
    if config is None:
        if manifest is None:
            raise SettingError("missing: the manifest; or give --config with settings that name it")
        rows, obstacles = Manifest.read(manifest), list[Finding]()
        for column, values in selection.items():
            rows = rows.where(column, values)
    else:
        settings = read_settings(config)
        data = settings.data
        clip, frame = clip or settings.clip, settings.frame
        if target is None and data.targets and data.targets[0] != "clip":
            target = data.targets[0]
            task = task or (data.task.get(target) if isinstance(data.task, Mapping) else data.task)
        group = group or data.split.group or None
        rows, obstacles = _planned_rows(settings, manifest=manifest, selection=selection, private=private)
    if window is not None:
        window_ends = window_of(window)
        frame = Frame(height=1, width=1, window=window_ends) if frame is None else replace(frame, window=window_ends)
    report = check_manifest(
        rows,
        target=target,
        task=task,
        group=group,
        nuisance=nuisance or [],
        clip=clip,
        frame=frame,
        private=private,
        workers=workers,
    )
    report = replace(report, findings=sort_by_severity([*obstacles, *report.findings]))
    result = report.as_dict() | ({} if page is None else {"page": str(page)})
    if groups is not None:
        with write_lock(groups):
            write_table(groups, [pa.table({"id": rows.column("id"), GROUP: list(report.groups)})])
        result["groups"] = str(groups)
        sizes = Counter(report.groups)
        note(f"{len(rows):,} rows in {len(sizes):,} groups, the largest of {max(sizes.values()):,} -> {groups}")
    emit(result, as_json=as_json, text=str(report))
    if page is not None:
        from cinefeed.reports.check import check_page  # only the page needs matplotlib and jinja2

        note(f"-> {check_page(report, rows, out=page)}")
    if not report.ok or (strict and report.number("warning")):
        raise typer.Exit(1)


def _planned_rows(
    settings: Settings, *, manifest: Path | None, selection: Mapping[str, list[str]], private: bool
) -> tuple[Manifest, list[Finding]]:
    """Return the rows of the settings with the parts that a training would make, and what would stop it."""
    from cinefeed.training.doubts import plan_parts  # only --config needs it
    from cinefeed.training.setup import choose_rows

    if manifest is None:
        manifest = Path(settings.data.manifest)
        check_path(manifest, name="manifest", label="[data] manifest =")
    conditions = {**settings.data.where, **{column: tuple(values) for column, values in selection.items()}}
    data = replace(settings.data, where=conditions, private=settings.data.private or private)
    settings = replace(settings, data=data)
    return plan_parts(choose_rows(Manifest.read(manifest), settings), settings)
