"""Commands around training: `init` writes settings, `export` writes the network."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.cli.options import Group, Json, NoGroup, Run, Where, where_table
from cinefeed.cli.show import choose_backend, emit, note
from cinefeed.config import parse
from cinefeed.core.errors import CinefeedError, MissingExtraError, SettingError
from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.run import check_run


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
    from cinefeed.config.starter import starter, with_pace
    from cinefeed.core.files import write_atomically, write_errors
    from cinefeed.core.locks import write_lock
    from cinefeed.data.manifest.group_candidates import group_candidates

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


def export(
    run: Run,
    format: Annotated[str, typer.Option(help="Format of the file: onnx or keras.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write; by default model.onnx or model.keras in the run folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the network of a run as a file for use without cinefeed, verified, and README.md, its model card."""
    check_run(run)
    choose_backend()
    from cinefeed.training.export import export as export_run

    result = export_run(run, format=format, out=out)  # type: ignore[arg-type]  # checked there
    card = _card(run, result)
    emit(
        {
            "out": str(result.path),
            "card": None if card is None else str(card),
            "clips": result.clips,
            "difference": result.difference,
            "any_batch": result.any_batch,
        },
        as_json=as_json,
        text=f"on {result.clips} clips of the run its scores differ by at most {result.difference:.2g}"
        + ("" if result.any_batch else "; its batch size is 1")
        + f" -> {result.path}"
        + ("" if card is None else f"\nmodel card -> {card}"),
    )


def _card(run: Path, result: Any) -> Path | None:
    """Write the model card of an exported network; return its path, None and a note if there is none."""
    from cinefeed.reports import write_card

    verification = (
        f"On {format_count(result.clips, 'clip')} of the run its scores differ from those of the trained network by at "
        f"most {result.difference:.2g}." + ("" if result.any_batch else " It accepts one clip at a time.")
    )
    try:
        card = write_card(run, model=result.path, verification=verification)
    except MissingExtraError as error:
        note(f"no model card: {error}")
        return None
    if card is None:
        note(f"no model card: {result.path.with_name('README.md')} exists, and somebody else wrote or edited it")
    return card
