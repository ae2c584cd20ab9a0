"""`cinefeed pack`: write a data set once into shards that are fed faster, and verify such shards."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.cli.options import Json, Where, where_table, window_of
from cinefeed.cli.parts import Address, Division, Engine, Parts, Shard, emit_part
from cinefeed.cli.show import emit, list_failures, note
from cinefeed.core.errors import PackError, SettingError
from cinefeed.core.progress import shown_progress
from cinefeed.core.text import format_bytes, format_count, parse_bytes
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.jobs.parts import Part
from cinefeed.jobs.records import DonePart
from cinefeed.packing import estimate
from cinefeed.packing.pack import free_bytes
from cinefeed.packing.sample import CodecMeasurement
from cinefeed.packing.settings import PackSettings


def pack(
    manifest: Annotated[Path, typer.Argument(help="Manifest; with --verify the folder of a packed data set.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the shards and their manifest.")] = None,
    codec: Annotated[
        str, typer.Option(help="Codec of the shards: copy, raw, ffv1, jpeg, h264, or auto, which measures these.")
    ] = "auto",
    short_side: Annotated[int | None, typer.Option(help="Pixels of the shorter side of packed frames.")] = None,
    size: Annotated[str | None, typer.Option(help="Exact size in place of --short-side, HEIGHTxWIDTH.")] = None,
    fit: Annotated[str, typer.Option(help="How frames are fitted into --size: crop, pad, stretch, none.")] = "crop",
    channels: Annotated[
        int | None, typer.Option(help="Number of channels: 1 (grey) or 3 (RGB); by default as stored.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Frames per second to keep; by default all.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Pack only the time from start to end of each row, and so many seconds around it."),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(help="Quality of jpeg: 2 (best) to 31, default 3; of h264: 1 (best) to 51, default 18."),
    ] = None,
    gop: Annotated[int, typer.Option(help="Distance of key frames in h264.")] = 12,
    window: Annotated[
        str | None,
        typer.Option(help="Values that become black and white: LOW,HIGH. For jpeg and h264 of more than 8 bits."),
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option(help="Largest size of all shards with --codec auto, such as 20GB.")
    ] = None,
    rows_per_shard: Annotated[
        int | None, typer.Option(help="Number of rows of a shard; by default as many as take about 1 GB.")
    ] = None,
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
    workers: Annotated[int | None, typer.Option(help="Number of processes; by default one per core. 0: none.")] = None,
    shard: Shard = None,
    engine: Engine = None,
    address: Address = None,
    parts: Parts = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read all bytes of packed shards and check them.")] = False,
    as_json: Json = False,
) -> None:
    """Pack videos once into shards, at the size and in the codec that training reads fastest."""
    division = Division(shard=shard, engine=engine, address=address, parts=parts)
    if verify:
        _verify(manifest, as_json=as_json)
        return
    from cinefeed.packing.pack import pack as pack_videos

    if out is None:
        raise SettingError("pack needs --out, the folder for the shards")
    rows = _rows(manifest, where=where, private=private)
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
    options["quality"] = quality
    if max_bytes is not None and codec != "auto":
        raise SettingError(f"--max-bytes is for --codec auto, not for --codec {codec}; leave it out")
    if codec == "auto":
        if division.flag is not None:
            raise SettingError(
                f"{division.flag} needs --codec, the same for all parts; 'cinefeed bench' measures what suits"
            )
        codec = _choose(rows, out, options, max_bytes)
    settings = PackSettings(codec=codec, **options)
    work = partial(_pack_part, manifest, where=where, private=private, settings=settings)
    if division.part is not None:
        emit_part(work(part=division.part, out=out, workers=workers), as_json=as_json)
        return
    if division.engine is not None:
        division.run_all(
            partial(work, workers=workers or 0),
            out=out,
            units=lambda: -(-len(rows) // estimate.rows_per_shard(rows, settings)),
            workers=workers or 1,
            as_json=as_json,
        )
        return
    result = pack_videos(rows, out=out, settings=settings, workers=workers)
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


def _rows(manifest: Path, *, where: list[str] | None, private: bool) -> Manifest:
    rows = Manifest.read(manifest)
    for column, values in where_table(where or []).items():
        rows = rows.where(column, values)
    return rows.as_private() if private else rows


def _pack_part(
    manifest: Path,
    *,
    where: list[str] | None,
    private: bool,
    settings: PackSettings,
    workers: int | None,
    part: Part,
    out: Path,
) -> DonePart:
    """Pack one part of a manifest, in any process."""
    from cinefeed.jobs.pack import pack_part

    rows = _rows(manifest, where=where, private=private)
    return pack_part(rows, part=part, out=out, settings=settings, workers=workers)


def _choose(rows: Manifest, out: Path, options: dict[str, Any], max_bytes: str | None) -> str:
    """Return the codec of an interrupted packing in `out`, or the one that suits a sample of the videos best."""
    from cinefeed.packing.advice import default_feed
    from cinefeed.packing.pack import check_source, codec_in
    from cinefeed.packing.sample import choose_codec, measure_codecs, settings_of

    if (started := codec_in(out)) is not None:
        note(f"{out} holds shards of codec {started}, which is continued")
        return started
    check_source(rows, settings_of("raw", options))
    with shown_progress(None, what="measuring codecs") as tick:
        measurements = measure_codecs(rows, options=options, make_feed=default_feed, tick=tick)
    note(format_measurements(measurements))
    limit = free_bytes(out) if max_bytes is None else parse_bytes(max_bytes)
    return str(choose_codec(measurements, max_bytes=limit).codec)


def format_measurements(measurements: Sequence[CodecMeasurement]) -> str:
    """Return a table of measured codecs."""
    lines = [f"{'codec':<7} {'size':>9} {'clips/s':>8} {'PSNR':>8} {'SSIM':>6}   (one core, on a sample)"]
    for each in measurements:
        if each.error:
            lines.append(f"{each.codec:<7} {each.error}")
            continue
        fidelity = "lossless" if each.psnr_db == float("inf") else f"{each.psnr_db:.1f} dB"
        similarity = f"{each.ssim:.4f}"
        if each.codec is None or each.psnr_db != each.psnr_db:
            fidelity = similarity = ""
        line = f"{each.codec or 'source':<7} {format_bytes(each.bytes):>9} {each.clips_per_second:>8.4g}"
        lines.append(f"{line} {fidelity:>8} {similarity:>6}".rstrip())
    return "\n".join(lines)


def _verify(folder: Path, *, as_json: bool) -> None:
    from cinefeed.packing.verify import verify_packed

    with shown_progress(None, what="verifying") as tick:
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
