"""`cinefeed check`: what is wrong with a data set, before it costs a training run."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from cinefeed.check import check_manifest
from cinefeed.cli.options import Group, Json, Where, Window, where_table, window_of
from cinefeed.cli.show import emit, note
from cinefeed.clips import Clip, Frame
from cinefeed.config import read_settings
from cinefeed.errors import SettingError
from cinefeed.locks import write_lock
from cinefeed.manifest.grouping import GROUP
from cinefeed.manifest.table import Manifest
from cinefeed.manifest.writing import table_suffix, write_table


def check(
    manifest: Annotated[Path, typer.Argument(help="Manifest to check (Parquet), as 'cinefeed scan' writes it.")],
    target: Annotated[str | None, typer.Option(help="Label column to check, and to be told from nuisances.")] = None,
    task: Annotated[
        str | None, typer.Option(help="regression, binary or multiclass; by default as the labels are.")
    ] = None,
    group: Group = None,
    nuisance: Annotated[
        list[str] | None, typer.Option(help="Column that must not tell the label: site, scanner. May be repeated.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames a clip: shorter videos are listed.")] = None,
    stride: Annotated[int | None, typer.Option(help="Take every n-th frame.")] = None,
    rate: Annotated[float | None, typer.Option(help="Frames a second, in place of --stride.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings (TOML), for the clip and the frame that videos will be fed as.")
    ] = None,
    window: Window = None,
    where: Where = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings too.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Name rows by id, never by path; no pictures.")] = False,
    workers: Annotated[int | None, typer.Option(help="Threads that read; by default one a core.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Page to write, with the pairs that look alike as pictures.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="Table to write (.csv ...): groups that keep look-alikes in one part."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for broken, copied and leaking videos, odd labels, and columns that give the label away.

    Exits with 1 where something is wrong. Ends with what to do, worst first.
    """
    if frames is None and (stride is not None or rate is not None):
        raise SettingError("--stride and --rate say how a clip is cut; give its length too, with --frames")
    if groups is not None:
        table_suffix(groups)
    clip = None if frames is None else Clip(frames=frames, stride=1 if stride is None else stride, rate_hz=rate)
    frame = None
    if config is not None:
        settings = read_settings(config)
        clip, frame = clip or settings.clip, settings.frame
    if window is not None:
        window_ends = window_of(window)
        frame = Frame(height=1, width=1, window=window_ends) if frame is None else replace(frame, window=window_ends)
    rows = Manifest.read(manifest)
    for column, values in where_table(where or []).items():
        rows = rows.where(column, values)
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
    found = report.as_dict() | ({} if page is None else {"page": str(page)})
    if groups is not None:
        with write_lock(groups):
            write_table(groups, [pa.table({"id": rows.column("id"), GROUP: list(report.groups)})])
        found["groups"] = str(groups)
        sizes = Counter(report.groups)
        note(f"{len(rows):,} rows in {len(sizes):,} groups, the largest of {max(sizes.values()):,} -> {groups}")
    emit(found, as_json=as_json, text=str(report))
    if page is not None:
        from cinefeed.report.check import check_page  # matplotlib and jinja2 are needed for the page alone

        note(f"-> {check_page(report, rows, out=page)}")
    if not report.ok or (strict and report.number("warning")):
        raise typer.Exit(1)
