"""Work in parts: the options --shard, --engine and those of engines, and what commands print about parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cinefeed.cli.show import emit, list_failures, note
from cinefeed.core.errors import CinefeedError, SettingError, did_you_mean
from cinefeed.core.text import format_count
from cinefeed.jobs.parts import Part, parse_part
from cinefeed.jobs.records import DonePart

ENGINES = ("ray",)
Shard = Annotated[
    str | None,
    typer.Option(
        help="Do one part of the work: NUMBER/COUNT from 0, such as 0/3, 1/3 and 2/3, or slurm in a SLURM array job. "
        "--out is a folder for all parts, which 'cinefeed merge' reads."
    ),
]
Engine = Annotated[
    str | None, typer.Option(help="Do the work in parts on Ray (ray), and merge them: the result of one process.")
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster, HOST:PORT. Default: RAY_ADDRESS, or a Ray that is started on this machine."),
]
Parts = Annotated[
    int | None,
    typer.Option(help="Number of parts with --engine, which changes no byte. Default: by the amount of data."),
]


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a command divides its work: not at all, one part of it (`shard`), or all parts on an engine."""

    shard: str | None
    engine: str | None
    address: str | None
    parts: int | None

    def __post_init__(self) -> None:
        if self.engine is not None and self.engine not in ENGINES:
            raise SettingError(f"--engine {self.engine!r} is not a choice; {did_you_mean(self.engine, ENGINES)}")
        if self.engine is not None and self.shard is not None:
            raise SettingError("--engine does all parts and --shard one of them; give one of the two")
        if self.engine is None and (self.address is not None or self.parts is not None):
            name = "--address" if self.address is not None else "--parts"
            raise SettingError(f"{name} is for --engine ray; add that, or leave it out")

    @property
    def part(self) -> Part | None:
        """The part that --shard names."""
        return None if self.shard is None else parse_part(self.shard)

    @property
    def flag(self) -> str | None:
        """The option that divides the work, for messages."""
        return "--shard" if self.shard is not None else None if self.engine is None else "--engine"

    def run_all(
        self,
        work: Callable[..., DonePart],
        *,
        out: Path,
        units: Callable[[], int],
        as_json: bool,
        **options: Any,
    ) -> None:
        """Do all parts on the engine, and print the result; see `run_on_ray`."""
        from cinefeed.jobs.on_ray import run_on_ray

        try:
            result = run_on_ray(work, out=out, units=units, parts=self.parts, address=self.address, **options)
        except (CinefeedError, OSError) as error:
            for each in getattr(error, "__notes__", ()):
                note(each)
            raise
        emit_merged(result, as_json=as_json)


def emit_part(done: DonePart, *, as_json: bool) -> None:
    """Print the result of a part."""
    failures = done.record["details"].get("failures", [])
    result = {"part": str(done.part), "folder": str(done.folder), "rows": done.record["rows"], "new": done.is_new}
    rows = format_count(done.record["rows"], "row")
    emit(
        result | {"failures": failures},
        as_json=as_json,
        text=f"part {done.part}: {rows}{'' if done.is_new else ', complete already'} -> {done.folder}",
    )
    list_failures(failures)


def emit_merged(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the result of a merge."""
    rows = format_count(result["rows"], "row")
    emit(result, as_json=as_json, text=f"{format_count(result['parts'], 'part')} merged: {rows} -> {result['out']}")
    if warning := result.get("warning"):
        note(f"warning: {warning}")
    list_failures(result.get("failures", []))
