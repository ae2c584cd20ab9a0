"""Commands before any training: `scan`, `split`, `inspect`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import pyarrow.compute as pc
import typer

from cinefeed.cli.options import Flow, Group, Json, NoGroup, Private, Stratify, Where, where_table, with_flow
from cinefeed.cli.show import emit, note
from cinefeed.config import overlay, parse
from cinefeed.errors import SettingError
from cinefeed.label_types import why_no_label
from cinefeed.locks import with_write_lock
from cinefeed.manifest.grouping import GROUP
from cinefeed.manifest.table import Manifest
from cinefeed.manifest.writing import table_suffix
from cinefeed.sources.base import Reading
from cinefeed.sources.limits import DEFAULT_LIMITS, ReadLimits
from cinefeed.split import unseen_classes
from cinefeed.text import format_count

_MOST_CLASSES = 20


def scan(
    folder: Annotated[Path, typer.Argument(help="Folder of videos, searched with all its folders.")],
    out: Annotated[
        Path,
        typer.Option(help="Manifest to write (.parquet); an older one there spares unchanged files. Or .csv, .json."),
    ],
    labels: Annotated[Path | None, typer.Option(help="Label table: CSV, Parquet or JSON.")] = None,
    on: Annotated[
        str | None,
        typer.Option(help="Column to join on, by default path or stem; TABLE=VIDEOS where they differ; a,b for two."),
    ] = None,
    path_columns: Annotated[str | None, typer.Option(help="Folders as columns: '{patient}/{study}/{view}'.")] = None,
    unmatched: Annotated[
        str, typer.Option(help="Labels without file, files without label: error or ignore.")
    ] = "error",
    verify: Annotated[str, typer.Option(help="decode (shows where a file breaks) or packets (faster).")] = "decode",
    workers: Annotated[int | None, typer.Option(help="Threads that probe; by default one a core.")] = None,
    axes: Annotated[str | None, typer.Option(help="Order of an array's axes, such as HWT or NTHW.")] = None,
    slice: Annotated[str, typer.Option(help="Of a 4-D volume: middle, each, or a number.")] = "middle",
    window: Annotated[str, typer.Option(help="Black and white: file (as DICOM says), none, or percentiles.")] = "file",
    stream: Annotated[int | None, typer.Option(help="Which video stream of a file; by default the first.")] = None,
    frames: Annotated[
        str | None, typer.Option(help="Which images of a folder are its frames, as in '*.jpg' beside masks.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="DICOM attributes as columns: SeriesDescription,ProtocolName")
    ] = None,
    salt: Annotated[str | None, typer.Option(help="Hashes patient, study, series; '' keeps them as they are.")] = None,
    share_labels: Annotated[
        bool, typer.Option("--share-labels", help="A label row that names a file may serve all samples in it.")
    ] = False,
    max_frame_bytes: Annotated[
        int, typer.Option(help="Bytes of a decoded frame, beyond which a file is refused.")
    ] = DEFAULT_LIMITS.max_frame_bytes,
    max_unpacked_bytes: Annotated[
        int, typer.Option(help="Bytes unpacked into memory at once, likewise.")
    ] = DEFAULT_LIMITS.max_unpacked_bytes,
    max_frames: Annotated[int, typer.Option(help="Frames of a video, likewise.")] = DEFAULT_LIMITS.max_frames,
    max_samples_per_file: Annotated[
        int, typer.Option(help="Samples in one file, likewise.")
    ] = DEFAULT_LIMITS.max_samples_per_file,
    max_file_seconds: Annotated[
        float, typer.Option(help="Seconds for a pass over a video, likewise.")
    ] = DEFAULT_LIMITS.max_file_seconds,
    on_damage: Annotated[
        str, typer.Option(help="A damaged frame of an encoded video: raise, or conceal (shown as FFmpeg hides it).")
    ] = "raise",
    private: Private = False,
    as_json: Json = False,
) -> None:
    """Index a folder of videos: probe each file once, join labels, write a manifest."""
    manifest = Manifest.scan(
        folder,
        labels=labels,
        on=on if on is None or "," not in on else on.split(","),
        path_columns=path_columns,
        unmatched=unmatched,  # type: ignore[arg-type]  # refused there if unknown
        verify=verify,  # type: ignore[arg-type]  # likewise
        workers=workers,
        out=out,
        reading=Reading(
            axes=axes,
            slice=int(slice) if slice.isdigit() else slice,  # type: ignore[arg-type]  # refused there if unknown
            window=window,  # type: ignore[arg-type]  # likewise
            stream=stream,
            frames=frames,
            keep=tuple(keep.split(",")) if keep else (),
            salt=salt,
            on_damage=on_damage,  # type: ignore[arg-type]  # likewise
            limits=ReadLimits(
                max_frame_bytes=max_frame_bytes,
                max_unpacked_bytes=max_unpacked_bytes,
                max_frames=max_frames,
                max_samples_per_file=max_samples_per_file,
                max_file_seconds=max_file_seconds,
            ),
        ),
        private=private,
        share_labels=share_labels,
    )
    result = {"out": str(out), "rows": len(manifest), "fingerprint": manifest.fingerprint}
    result["not_read"] = manifest.not_read
    emit(result, as_json=as_json, text=f"{manifest}\n-> {out}")


@with_write_lock("out")
def split(
    manifest: Annotated[Path, typer.Argument(help="Manifest to split (Parquet).")],
    out: Annotated[
        Path, typer.Option(help="Manifest to write, with the part in its column 'split' (.parquet, .csv, .json).")
    ],
    val: Annotated[float, typer.Option(help="Share of rows for validation.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of rows for the test.")] = 0.15,
    group: Group = None,
    group_table: Annotated[
        Path | None, typer.Option(help="Table of groups, as 'cinefeed check --groups' writes it; in place of --group.")
    ] = None,
    no_group: NoGroup = False,
    stratify: Stratify = None,
    task: Annotated[
        str | None, typer.Option(help="What --stratify is: regression or multiclass; by default as the labels are.")
    ] = None,
    where: Where = None,
    keep: Annotated[str | None, typer.Option(help="Column of an older split: only new groups are assigned.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Assign rows to train, val and test: no group in two parts, stratified, the same for the same seed."""
    groupings = {"--group": group, "--group-table": group_table, "--no-group": no_group or None}
    named = [option for option, value in groupings.items() if value is not None]
    if len(named) > 1:
        raise SettingError(
            f"{' and '.join(named)} each say what a group is; give one of them. A table of 'cinefeed check --group "
            "COLUMN --groups TABLE' keeps the samples of one COLUMN together already"
        )
    if not named:
        raise SettingError(
            "give --group COLUMN (the patient), or --group-table TABLE ('cinefeed check --groups' writes it), or "
            "--no-group where every row stands for itself"
        )
    table_suffix(out)
    rows = Manifest.read(manifest)
    if stratify is not None:
        rows = rows.with_task(stratify, task)
        if notice := rows.label_type(stratify).notice(stratify):
            note(notice)
    for column, values in where_table(where or []).items():
        rows = rows.where(column, values)
    if group_table is not None:
        rows, group = rows.with_groups(group_table), GROUP
    parts = rows.split(val=val, test=test, group=group, stratify=stratify, seed=seed, keep=keep)
    for name in parts.all.labels:
        if name != stratify and name != group:
            _note_unseen(parts.all, name, group=group or "id")
    parts.all.write(out)
    counts = {name: len(getattr(parts, name)) for name in ("train", "val", "test")}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    emit({"out": str(out), **counts}, as_json=as_json, text=f"{parts}\n{text} -> {out}")


def _note_unseen(rows: Manifest, name: str, *, group: str) -> None:
    """Say which classes of a column the training part lacks, where the column could be learnt.

    One of which each value is of one group alone, such as the patient where groups join patients, cannot.
    """
    column = rows.column(name)
    if why_no_label(column.type) or not rows.label_type(name).is_classes:
        return
    count = pc.count_distinct(column).as_py()
    pairs = rows.table.filter(column.is_valid()).group_by([name, group]).aggregate([]).num_rows
    if count > _MOST_CLASSES or pairs == count:  # rather an id, or a group
        return
    unseen = unseen_classes(labels=column, parts=rows.column("split"))
    if unseen:
        value, places = next(iter(unseen.items()))
        where = " and ".join(
            f"{part} ({format_count(len(rows_of_part), 'row')})" for part, rows_of_part in places.items()
        )
        more = f", {format_count(len(unseen) - 1, 'class')} more likewise" if len(unseen) > 1 else ""
        note(f"class {value!r} of {name!r} is in {where} alone{more}: to learn it, split with --stratify {name}")


@with_flow
def inspect(
    flow: Flow,
    transforms: Annotated[
        Path | None, typer.Option(help="TOML file, as --config: show each of its transforms, weak to strong, instead.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Page to write; by default inspect.html, or transforms.html.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what would be fed: labels raw and as fed, augmented clips, files that failed. One HTML page.

    Nothing needs to be said but the manifest: without --target there are no labels to show, without a split all rows
    are fed. With --transforms the page shows what each transform does to these videos, and all of them together.
    """
    from cinefeed.report import inspect_page  # report and training are rooms that the other commands here do without
    from cinefeed.training.flow import build_feed, choose_rows, make_parts, usable_rows

    if transforms is not None:
        if flow.config is not None:
            raise SettingError("--transforms and --config both name the settings; give one")
        flow = replace(flow, config=transforms)
    table = flow.table()
    is_split = bool(table.get("data", {}).get("split"))
    above = {"data": {} if is_split else {"split": {"group": False}}, "train": {"out": "unused"}}
    table = overlay({"data": {"target": ""}, "frame": {"height": 112, "width": 112}}, overlay(table, above))
    settings = parse(table)
    rows, failures = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    parts = make_parts(rows, settings) if is_split else None
    if transforms is not None:
        from cinefeed.report.transforms import transforms_page

        part = rows if parts is None else parts.train
        page = transforms_page(part, settings=settings, out=Path("transforms.html") if out is None else out)
        names = [type(each).__name__ for each in settings.transforms]
        emit({"page": str(page), "rows": len(part), "transforms": names}, as_json=as_json, text=f"-> {page}")
        return
    feed = build_feed(settings, rows if parts is None else parts.train)
    out = Path("inspect.html") if out is None else out
    page = inspect_page(
        feed, out=out, val=None if parts is None else feed.evaluation(parts.val, clips=1), failures=failures
    )
    emit(
        {"page": str(page), "rows": len(feed.manifest), "summary": feed.summary(), "failures": failures},
        as_json=as_json,
        text=f"{feed.summary()}\n-> {page}",
    )
