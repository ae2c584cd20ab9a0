"""Commands that prepare data for training: `scan`, `split`, `inspect`."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import pyarrow.compute as pc
import typer

from cinefeed.cli.options import Flow, Group, Json, NoGroup, Private, Stratify, Where, where_table, with_flow
from cinefeed.cli.parts import Address, Division, Engine, Parts, Shard, emit_part
from cinefeed.cli.show import emit, note
from cinefeed.core.errors import SettingError
from cinefeed.core.locks import with_write_lock
from cinefeed.core.text import format_count
from cinefeed.data.label_types import why_no_label
from cinefeed.data.manifest.group_candidates import group_candidates
from cinefeed.data.manifest.grouping import GROUP
from cinefeed.data.manifest.labels import Unmatched
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.write_table import table_suffix
from cinefeed.data.split_summary import unseen_classes
from cinefeed.video.limits import DEFAULT_LIMITS, ReadLimits
from cinefeed.video.read_options import ReadOptions

_MAX_CLASSES = 20


def scan(
    folder: Annotated[Path, typer.Argument(help="Folder of videos, searched with all its subfolders.")],
    out: Annotated[
        Path,
        typer.Option(help="Manifest to write (.parquet, .csv, .json); unchanged files of an existing one are reused."),
    ],
    labels: Annotated[Path | None, typer.Option(help="Table of labels: CSV, Parquet or JSON.")] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="Column to join the labels on, by default path or stem. TABLE=VIDEOS if names differ; a,b for two."
        ),
    ] = None,
    path_columns: Annotated[
        str | None, typer.Option(help="Make columns of folder names, such as '{patient}/{study}/{view}'.")
    ] = None,
    unmatched: Annotated[
        str, typer.Option(help="Labels without a file, and files without a label: error, or ignore to leave them out.")
    ] = "error",
    verify: Annotated[
        str,
        typer.Option(
            help="Decode every frame (decode), which detects damage, or count packets where each is a frame (packets)."
        ),
    ] = "decode",
    workers: Annotated[int | None, typer.Option(help="Number of threads; by default one per core.")] = None,
    axes: Annotated[str | None, typer.Option(help="Order of the axes of arrays, such as HWT or NTHW.")] = None,
    slice: Annotated[str, typer.Option(help="Slice of a 4-D volume: middle, each, or its number.")] = "middle",
    window: Annotated[
        str, typer.Option(help="Values that become black and white: file (DICOM, NIfTI headers), none, or percentiles.")
    ] = "file",
    stream: Annotated[
        int | None, typer.Option(help="Number of the video stream to read; by default the first.")
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="Pattern of the images in a folder that are frames, such as '*.jpg'.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="DICOM attributes to keep as columns, such as SeriesDescription,ProtocolName.")
    ] = None,
    salt: Annotated[
        str | None, typer.Option(help="Salt of the hashes of patient, study and series; '' keeps the ids themselves.")
    ] = None,
    share_labels: Annotated[
        bool, typer.Option("--share-labels", help="Use a row of labels that names a file for all samples in the file.")
    ] = False,
    max_frame_bytes: Annotated[
        int, typer.Option(help="Maximum bytes of a decoded frame; files with larger frames are refused.")
    ] = DEFAULT_LIMITS.max_frame_bytes,
    max_unpacked_bytes: Annotated[
        int, typer.Option(help="Maximum bytes that are decompressed into memory at once.")
    ] = DEFAULT_LIMITS.max_unpacked_bytes,
    max_frames: Annotated[int, typer.Option(help="Maximum number of frames of a video.")] = DEFAULT_LIMITS.max_frames,
    max_samples_per_file: Annotated[
        int, typer.Option(help="Maximum number of samples in a file.")
    ] = DEFAULT_LIMITS.max_samples_per_file,
    max_file_seconds: Annotated[
        float, typer.Option(help="Maximum seconds to read a whole video.")
    ] = DEFAULT_LIMITS.max_file_seconds,
    on_damage: Annotated[
        str, typer.Option(help="Damaged frames of encoded video: raise an error, or conceal them as FFmpeg does.")
    ] = "raise",
    private: Private = False,
    shard: Shard = None,
    engine: Engine = None,
    address: Address = None,
    parts: Parts = None,
    as_json: Json = False,
) -> None:
    """Index a folder of videos: probe each file once, join labels, write a manifest."""
    division = Division(shard=shard, engine=engine, address=address, parts=parts)
    if unmatched not in get_args(Unmatched):
        raise SettingError(f"--unmatched {unmatched} is not a choice; there are: {', '.join(get_args(Unmatched))}")
    options: dict[str, Any] = {
        "labels": labels,
        "on": on if on is None or "," not in on else on.split(","),
        "path_columns": path_columns,
        "unmatched": unmatched,
        "verify": verify,
        "reading": ReadOptions(
            axes=axes,
            slice=int(slice) if slice.isdigit() else slice,  # type: ignore[arg-type]  # checked there
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
        "private": private,
        "share_labels": share_labels,
    }
    if division.part is not None:
        from cinefeed.jobs.scan import scan_part

        emit_part(scan_part(folder, part=division.part, out=out, workers=workers, **options), as_json=as_json)
        return
    if division.engine is not None:
        from cinefeed.jobs.scan import count_files, scan_part, with_salt_of

        table_suffix(out)
        threads = workers or 1
        division.run_all(
            partial(scan_part, folder, workers=threads, **options),
            out=out,
            units=lambda: count_files(folder, reading=options["reading"], private=private),
            workers=threads,
            before=partial(with_salt_of, out),
            as_json=as_json,
        )
        return
    manifest = Manifest.scan(folder, out=out, workers=workers, **options)
    result = {"out": str(out), "rows": len(manifest), "fingerprint": manifest.fingerprint}
    result["not_read"] = manifest.not_read
    emit(result, as_json=as_json, text=f"{manifest}\n-> {out}")


@with_write_lock("out")
def split(
    manifest: Annotated[Path, typer.Argument(help="Manifest to split (Parquet).")],
    out: Annotated[
        Path, typer.Option(help="Manifest to write, with the part in its column 'split' (.parquet, .csv, .json).")
    ],
    val: Annotated[float, typer.Option(help="Fraction of rows for validation.")] = 0.15,
    test: Annotated[float, typer.Option(help="Fraction of rows for the test.")] = 0.15,
    group: Group = None,
    group_table: Annotated[
        Path | None, typer.Option(help="Table of groups from 'cinefeed check --groups', in place of --group.")
    ] = None,
    no_group: NoGroup = False,
    stratify: Stratify = None,
    task: Annotated[
        str | None,
        typer.Option(help="Task of --stratify: regression or multiclass. Default: from the labels."),
    ] = None,
    where: Where = None,
    keep: Annotated[
        str | None, typer.Option(help="Column of an earlier split, which is kept: only new groups are assigned.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 0,
    as_json: Json = False,
) -> None:
    """Assign rows to train, val and test, with no group in two parts; the seed determines the result."""
    groupings = {"--group": group, "--group-table": group_table, "--no-group": no_group or None}
    options = [option for option, value in groupings.items() if value is not None]
    if len(options) > 1:
        raise SettingError(
            f"{' and '.join(options)} exclude each other; give one of them. A table of 'cinefeed check --group COLUMN "
            "--groups TABLE' already keeps the samples of one COLUMN together"
        )
    rows = Manifest.read(manifest)
    if not options:
        candidates = ", ".join(group_candidates(rows, target=stratify or "")[:4]) or "none with repeated values"
        raise SettingError(
            f"no group was given; add --group COLUMN (the patient; candidates: {candidates}), --group-table TABLE "
            "('cinefeed check --groups' writes it), or --no-group if all rows are independent"
        )
    table_suffix(out)
    if stratify is not None:
        rows = rows.with_task(stratify, task)
        if notice := rows.label_type(stratify).notice(stratify, use="stratified as numbers"):
            note(notice)
    for column, values in where_table(where or []).items():
        rows = rows.where(column, values)
    if group_table is not None:
        rows, group = rows.with_groups(group_table), GROUP
    for flag, share in (("--val", val), ("--test", test)):
        if not 0 <= share < 1:
            raise SettingError(f"{flag} {share:g} must be a fraction of the rows, from 0 to less than 1, such as 0.15")
    if val + test >= 1:
        raise SettingError(
            f"--val {val:g} and --test {test:g} leave no rows for training; their sum must be less than 1"
        )
    parts = rows.split(val=val, test=test, group=group, stratify=stratify, seed=seed, keep=keep)
    for name in parts.all.labels:
        if name != stratify and name != group:
            _note_missing_classes(parts.all, name, group=group or "id")
    parts.all.write(out)
    counts = {name: len(getattr(parts, name)) for name in ("train", "val", "test")}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    emit({"out": str(out), **counts}, as_json=as_json, text=f"{parts}\n{text} -> {out}")


def _note_missing_classes(rows: Manifest, name: str, *, group: str) -> None:
    """Print a note about the classes of a column that the training part lacks, if the column may be a target.

    A column whose values each occur in one group only, such as the patient, is not a target.
    """
    column = rows.column(name)
    if why_no_label(column.type) or not rows.label_type(name).is_classes:
        return
    count = pc.count_distinct(column).as_py()
    pairs = rows.table.filter(column.is_valid()).group_by([name, group]).aggregate([]).num_rows
    if count > _MAX_CLASSES or pairs == count:  # probably an id or a group
        return
    missing_classes = unseen_classes(labels=column, parts=rows.column("split"))
    if missing_classes:
        value, rows_by_part = next(iter(missing_classes.items()))
        parts = " and ".join(
            f"{part} ({format_count(len(part_rows), 'row')})" for part, part_rows in rows_by_part.items()
        )
        count = len(missing_classes) - 1
        more = f" (and {format_count(count, 'class')} more)" if count else ""
        note(
            f"class {value!r} of {name!r} is only in {parts}{more}, not in train: to learn it, split with "
            f"--stratify {name}"
        )


@with_flow
def inspect(
    flow: Flow,
    transforms: Annotated[
        Path | None, typer.Option(help="Settings file (TOML) whose transforms are shown instead, from weak to strong.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Page to write; by default inspect.html, or transforms.html.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the data that would be fed on an HTML page: labels before and after sampling, clips, files that failed.

    Only the manifest is needed: without --target the page has no labels, without a split it shows all rows.

    The page of --transforms shows the effect of each transform on these videos, and of all together.
    """
    from cinefeed.reports import inspect_page  # the other commands here do not need report and training
    from cinefeed.training.setup import build_feed, choose_rows, make_parts, usable_rows

    if transforms is not None:
        if flow.config is not None:
            raise SettingError("--transforms and --config exclude each other; give one")
        flow = replace(flow, config=transforms)
    settings, is_split = flow.preview()
    rows, failures = usable_rows(choose_rows(Manifest.read(settings.data.manifest), settings))
    parts = make_parts(rows, settings) if is_split else None
    if transforms is not None:
        from cinefeed.reports.transforms import transforms_page

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
