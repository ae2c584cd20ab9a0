"""Commands around training: `init` before it, `encode` between its two halves, `export` after it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.cli.options import Group, Json, NoGroup, Run, Window, frame_table, window_of
from cinefeed.cli.show import choose_backend, emit, note, ticking
from cinefeed.clips import Frame
from cinefeed.errors import SettingError
from cinefeed.manifest.table import Manifest
from cinefeed.text import one_line
from cinefeed.training.run import check_run


def init(
    manifest: Annotated[Path, typer.Argument(help="Manifest of a scan (Parquet).")],
    target: Annotated[str, typer.Option(help="Label column to learn.")],
    out: Annotated[Path, typer.Option(help="Settings to write (TOML).")] = Path("run.toml"),
    group: Group = None,
    no_group: NoGroup = False,
    run: Annotated[Path, typer.Option(help="Run folder that the settings name.")] = Path("runs/first"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace settings that are there already.")] = False,
    as_json: Json = False,
) -> None:
    """Write settings for `train --config`, each value chosen from the manifest's facts, with the reason behind it."""
    from cinefeed.config.group_candidates import group_candidates
    from cinefeed.config.starter import starter
    from cinefeed.files import write_atomically

    if group is not None and no_group:
        raise SettingError("--group and --no-group exclude each other; give one")
    if out.exists() and not overwrite:
        raise SettingError(f"{out} is there already; name another file, or pass --overwrite")
    if out.suffix != ".toml":
        raise SettingError(f"{out} cannot be written: settings are TOML; name it {out.stem}.toml")
    rows = Manifest.read(manifest)
    text = starter(rows, path=manifest, target=target, group=False if no_group else group, out=run)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda partial: partial.write_text(text, encoding="utf-8"))
    for each in group_candidates(rows, target=target) if no_group else []:
        note(f"you said that every row stands for itself; there is a column {each}")
    emit({"settings": str(out)}, as_json=as_json, text=f"{text}\n-> {out}: cinefeed train --config {out}")


def encode(
    sources: Annotated[
        list[Path], typer.Argument(help="Run folder and manifest (Parquet); with --backbone the manifest alone.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the features and their manifest, features.parquet.")],
    backbone: Annotated[str | None, typer.Option(help="Network of keras.applications, in place of a run.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Its weights without the top: a local file.")] = None,
    frame: Annotated[str | None, typer.Option(help="What it reads: HEIGHTxWIDTHxCHANNELS, such as 96x96x1.")] = None,
    window: Window = None,
    dtype: Annotated[str, typer.Option(help="float32 or float16, half as large.")] = "float32",
    as_json: Json = False,
) -> None:
    """Run every frame of every video through a run's CNN once, and write its features, to train the rest alone."""
    wanted = 1 if backbone is not None else 2
    if len(sources) != wanted:
        raise SettingError(
            f"encode was given {len(sources)} paths; give a run folder and a manifest, or with --backbone a manifest"
        )
    if backbone is None and any(each is not None for each in (weights, frame, window)):
        raise SettingError("--weights, --frame and --window belong to --backbone; a run has its own")
    if backbone is not None and frame is None:
        raise SettingError("--backbone needs --frame HEIGHTxWIDTHxCHANNELS, such as 96x96x1")
    if dtype not in ("float32", "float16"):
        raise SettingError(f"--dtype {dtype!r} is not a choice; there are: float16, float32")
    choose_backend()
    from cinefeed.training.encode import encode as encode_videos
    from cinefeed.training.encode import encoder_of_backbone, encoder_of_run

    encoder = (
        encoder_of_run(sources[0])
        if backbone is None
        else encoder_of_backbone(backbone, weights=weights, frame=_frame(frame, window))
    )
    with ticking("encoding") as tick:
        found = encode_videos(sources[-1], out=out, encoder=encoder, dtype=dtype, tick=tick)  # type: ignore[arg-type]
    emit(
        {
            "manifest": str(found.path),
            "encoded_from": encoder.name,
            "dimension": found.dimension,
            "computed": found.num_encoded,
            "kept": found.num_reused,
            "failures": found.failures,
        },
        as_json=as_json,
        text=f"{found.num_encoded} videos encoded by {encoder.name}, {found.num_reused} kept as they were: "
        f"{found.dimension} numbers a frame -> {found.path}",
    )
    if found.warning:
        note(f"warning: {found.warning}")
    for each in found.failures:
        note(one_line(f"{each['path']}: {each['error']}"))


def _frame(size: str | None, window: str | None) -> Frame:
    table: dict[str, Any] = dict(frame_table(size))  # its values are checked by Frame itself
    return Frame(**table, window=None if window is None else window_of(window))


def export(
    run: Run,
    format: Annotated[str, typer.Option(help="onnx or keras.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File to write; by default model.onnx in the run folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's network as a file that needs no cinefeed; it is kept only where it gives the same scores."""
    check_run(run)
    choose_backend()
    from cinefeed.training.export import export as export_run

    found = export_run(run, format=format, out=out)  # type: ignore[arg-type]  # refused there if unknown
    emit(
        {
            "out": str(found.path),
            "clips": found.clips,
            "difference": found.difference,
            "any_batch": found.any_batch,
        },
        as_json=as_json,
        text=f"on {found.clips} clips of the run its scores are at most {found.difference:.2g} off"
        + ("" if found.any_batch else "; it takes one clip at a time")
        + f" -> {found.path}",
    )
