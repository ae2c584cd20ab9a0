"""`cinefeed pack`: write a data set once into shards that are fed faster, and verify such shards."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.cli.options import Json, Where, where_table, window_of
from cinefeed.cli.show import emit, list_failures, ticking
from cinefeed.core.errors import PackError, SettingError
from cinefeed.core.text import format_bytes, format_count
from cinefeed.data.manifest.manifest import Manifest


def pack(
    manifest: Annotated[
        Path, typer.Argument(help="Manifest; with --verify the folder of a packed data set.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the shards and their manifest.")] = None,
    codec: Annotated[str, typer.Option(help="copy, raw, ffv1, jpeg, h264, or auto: measured on a sample.")] = "auto",
    short_side: Annotated[int | None, typer.Option(help="Pixels of the shorter side of packed frames.")] = None,
    size: Annotated[str | None, typer.Option(help="Exact size in place of --short-side, HEIGHTxWIDTH.")] = None,
    fit: Annotated[str, typer.Option(help="How frames are fitted into --size: crop, pad, stretch, none.")] = "crop",
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (RGB); by default as stored.")] = None,
    rate: Annotated[float | None, typer.Option(help="Frames per second to keep; by default all.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Pack only the start and end seconds of each row, and so many seconds around."),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(help="jpeg: 2 (best) to 31, default 3; h264: 1 (best) to 51, default 18.")
    ] = None,
    gop: Annotated[int, typer.Option(help="Distance of key frames in h264.")] = 12,
    window: Annotated[
        str | None, typer.Option(help="Black and white, LOW,HIGH, for jpeg and h264 of more than 8 bits.")
    ] = None,
    max_bytes: Annotated[str | None, typer.Option(help="With --codec auto, largest size of all shards: 20GB.")] = None,
    rows_per_shard: Annotated[int | None, typer.Option(help="By default as many as take about 1 GB.")] = None,
    where: Where = None,
    private: Annotated[bool, typer.Option("--private", help="Hash ids that contain paths.")] = False,
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="Keep ids that contain paths of DICOM, NIfTI or HDF5 files.")
    ] = False,
    allow_burned_in: Annotated[
        bool, typer.Option("--allow-burned-in", help="Pack DICOM files with identities burned into the pixels.")
    ] = False,
    on_error: Annotated[
        str, typer.Option(help="A row that cannot be packed: raise an error, or record it without a video.")
    ] = "raise",
    max_bad: Annotated[float, typer.Option(help="Share of rows that may be recorded without a video.")] = 0.01,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per core, 0: none.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read all bytes of packed shards and check them.")] = False,
    as_json: Json = False,
) -> None:
    """Pack videos once into shards, at the size and in the codec that training reads fastest."""
    if verify:
        _verify(manifest, as_json=as_json)
        return
    from cinefeed.packing.pack import pack as pack_videos
    from cinefeed.packing.settings import PackSettings

    if out is None:
        raise SettingError("pack needs --out, the folder for the shards")
    rows = Manifest.read(manifest)
    for column, values in where_table(where or []).items():
        rows = rows.where(column, values)
    if private:
        rows = rows.as_private()
    options: dict[str, Any] = {
        "short_side": short_side,
        "size": None if size is None else _size(size),
        "fit": fit,
        "channels": channels,
        "rate_hz": rate,
        "margin_seconds": margin,
        "gop": gop,
        "window": None if window is None else window_of(window),
        "rows_per_shard": rows_per_shard,
        "allow_burned_in": allow_burned_in,
        "keep_ids": keep_ids,
        "on_error": on_error,
        "max_bad": max_bad,
    }
    settings = PackSettings(codec=codec, quality=quality, **options)  # type: ignore[arg-type]  # checked there
    with ticking("packing") as tick:
        result = pack_videos(rows, out=out, settings=settings, workers=workers, progress=tick or False)
    emit(
        {
            "manifest": str(result.path),
            "codec": settings.codec,
            "rows": result.rows,
            "shards": result.shards,
            "new_shards": result.new_shards,
            "bytes": result.bytes,
            "failures": result.failures,
        },
        as_json=as_json,
        text=f"{format_count(result.rows, 'row')} packed as {settings.codec} in "
        f"{format_count(result.shards, 'shard')}, {format_bytes(result.bytes)} -> {result.path}",
    )
    list_failures(result.failures)


def _verify(folder: Path, *, as_json: bool) -> None:
    from cinefeed.packing.verify import verify_packed

    with ticking("verifying") as tick:
        faults = verify_packed(folder, tick=tick)
    lines = [f"{each.shard}{'' if each.row is None else f', row {each.row}'}: {each.error}" for each in faults]
    emit(
        {"faults": [each._asdict() for each in faults]},
        as_json=as_json,
        text="\n".join(lines) or f"{folder}: all bytes are as they were written",
    )
    if faults:
        raise PackError(
            f"{folder}: {format_count(len(faults), 'fault')}; copy these shards again, or delete them and run the same "
            "'cinefeed pack' again"
        )


def _size(text: str) -> tuple[int, int]:
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit()):
        raise SettingError(f"--size {text!r} must be HEIGHTxWIDTH, such as 128x170")
    return int(height), int(width)
