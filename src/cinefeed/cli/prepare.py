"""Commands around training: `init` writes settings, `encode` computes features, `export` writes the network."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.cli.options import Group, Json, NoGroup, Run, Where, Window, frame_table, where_table, window_of
from cinefeed.cli.parts import Shard, emit_part
from cinefeed.cli.show import choose_backend, emit, list_failures, note
from cinefeed.config import parse
from cinefeed.core.errors import CinefeedError, SettingError
from cinefeed.core.progress import shown_progress
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.jobs.parts import parse_part
from cinefeed.training.run import check_run
from cinefeed.video.clips import Frame


def init(
    manifest: Annotated[Path, typer.Argument(help="Manifest (Parquet) that 'cinefeed scan' wrote.")],
    target: Annotated[str, typer.Option(help="Label column to learn.")],
    out: Annotated[Path, typer.Option(help="Settings to write (TOML).")] = Path("run.toml"),
    group: Group = None,
    no_group: NoGroup = False,
    where: Where = None,
    run: Annotated[Path, typer.Option(help="Run folder that the settings name.")] = Path("runs/first"),
    no_timing: Annotated[
        bool, typer.Option("--no-timing", help="Do not time steps to estimate how long the training takes here.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing settings file.")] = False,
    as_json: Json = False,
) -> None:
    """Write settings for 'cinefeed train --config', chosen from the manifest, with the reason for each as a comment.

    The settings depend on the manifest alone. A comment at the top states how long the training takes on this machine.
    """
    from cinefeed.config.group_candidates import group_candidates
    from cinefeed.config.starter import starter, with_pace
    from cinefeed.core.files import write_atomically, write_errors
    from cinefeed.core.locks import write_lock

    if group is not None and no_group:
        raise SettingError("--group and --no-group exclude each other; give one")
    if out.exists() and not overwrite:
        raise SettingError(f"{out} exists already; name another file, or add --overwrite")
    if out.suffix != ".toml":
        raise SettingError(f"{out} cannot be written: settings are TOML; name it {out.stem}.toml")
    rows = Manifest.read(manifest)
    settings = starter(
        rows,
        path=manifest,
        target=target,
        group=False if no_group else group,
        out=run,
        where=where_table(where or []),
    )
    pace = None if no_timing else _pace(settings.text)
    text = settings.text if pace is None else with_pace(settings.text, str(pace))
    with write_errors(out, advice="name another file"), write_lock(out):
        write_atomically(out, lambda partial: partial.write_text(text, encoding="utf-8"))
    for candidate in group_candidates(rows, target=target) if no_group else []:
        note(f"--no-group treats all rows as independent, but this column may be a group: {candidate}")
    for message in settings.notes:
        note(message)
    result = {"settings": str(out), "folds": settings.folds, "notes": settings.notes}
    result["total_seconds"] = None if pace is None else pace.total_seconds
    emit(result, as_json=as_json, text=f"{text}\n-> {out}: cinefeed train --config {out}")


def _pace(text: str) -> Any:
    """Return the duration of the training that settings describe; None, and a note, if it cannot be measured."""
    try:
        choose_backend()
        from cinefeed.training.pace import measure_pace

        note("timing a few steps (--no-timing skips this)")
        return measure_pace(parse(tomllib.loads(text)))
    except CinefeedError as error:
        note(f"the duration of the training could not be measured: {error}")
        return None


def encode(
    sources: Annotated[
        list[Path], typer.Argument(help="Run folder and manifest (Parquet); with --backbone the manifest alone.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the features and their manifest, features.parquet.")],
    backbone: Annotated[str | None, typer.Option(help="Network of keras.applications, in place of a run.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local file with the weights of the backbone, without its top.")
    ] = None,
    frame: Annotated[
        str | None, typer.Option(help="Frame of the backbone: HEIGHTxWIDTHxCHANNELS, such as 96x96x1.")
    ] = None,
    window: Window = None,
    dtype: Annotated[
        str, typer.Option(help="Number format of the features: float32, or float16 for half the size.")
    ] = "float32",
    shard: Shard = None,
    as_json: Json = False,
) -> None:
    """Compute the features of all frames once with the CNN of a run or a backbone, to train the other layers faster."""
    if len(sources) != (1 if backbone is not None else 2):
        raise SettingError(
            "encode needs a run folder and a manifest, or with --backbone a manifest alone; found "
            f"{' '.join(map(str, sources))}"
        )
    if backbone is None and any(each is not None for each in (weights, frame, window)):
        raise SettingError("--weights, --frame and --window need --backbone; a run has its own, so leave them out")
    if backbone is not None and frame is None:
        raise SettingError("--backbone needs --frame HEIGHTxWIDTHxCHANNELS, such as 96x96x1")
    if dtype not in ("float32", "float16"):
        raise SettingError(f"--dtype {dtype!r} is not a choice; use float16 or float32")
    choose_backend()
    from cinefeed.training.encode import encode as encode_videos
    from cinefeed.training.frame_encoder import encoder_of_backbone, encoder_of_run

    encoder = (
        encoder_of_run(sources[0])
        if backbone is None
        else encoder_of_backbone(backbone, weights=weights, frame=_frame(frame, window))
    )
    if shard is not None:
        from cinefeed.jobs.encode import encode_part

        part = parse_part(shard)
        with shown_progress(None, what="encoding") as tick:
            done = encode_part(sources[-1], part=part, out=out, encoder=encoder, dtype=dtype, tick=tick)  # type: ignore[arg-type]
        emit_part(done, as_json=as_json)
        if done.job.whole["warning"]:
            note(f"warning: {done.job.whole['warning']}")
        return
    with shown_progress(None, what="encoding") as tick:
        features = encode_videos(sources[-1], out=out, encoder=encoder, dtype=dtype, tick=tick)  # type: ignore[arg-type]
    emit(
        {
            "manifest": str(features.path),
            "encoded_from": encoder.name,
            "dimension": features.dimension,
            "computed": features.num_encoded,
            "kept": features.num_reused,
            "failures": features.failures,
        },
        as_json=as_json,
        text=f"{features.num_encoded} videos encoded by {encoder.name}, {features.num_reused} unchanged: "
        f"{features.dimension} features per frame -> {features.path}",
    )
    if features.warning:
        note(f"warning: {features.warning}")
    list_failures(features.failures)


def _frame(size: str | None, window: str | None) -> Frame:
    table: dict[str, Any] = dict(frame_table(size))  # Frame checks its values
    return Frame(**table, window=None if window is None else window_of(window))


def export(
    run: Run,
    format: Annotated[str, typer.Option(help="Format of the file: onnx or keras.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File to write; by default model.onnx in the run folder.")] = None,
    as_json: Json = False,
) -> None:
    """Write the network of a run as a file for use without cinefeed, and verify that it gives the same scores."""
    check_run(run)
    choose_backend()
    from cinefeed.training.export import export as export_run

    result = export_run(run, format=format, out=out)  # type: ignore[arg-type]  # checked there
    emit(
        {
            "out": str(result.path),
            "clips": result.clips,
            "difference": result.difference,
            "any_batch": result.any_batch,
        },
        as_json=as_json,
        text=f"on {result.clips} clips of the run its scores differ by at most {result.difference:.2g}"
        + ("" if result.any_batch else "; its batch size is 1")
        + f" -> {result.path}",
    )
