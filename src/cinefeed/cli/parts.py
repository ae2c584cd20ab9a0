"""The option --shard, and what a command prints about one part of its work."""

from typing import Annotated

import typer

from cinefeed.cli.show import emit, list_failures
from cinefeed.core.text import format_count
from cinefeed.jobs.records import DonePart

Shard = Annotated[
    str | None,
    typer.Option(
        help="Do one part of the work: NUMBER/COUNT from 0, such as 0/3, 1/3 and 2/3, or slurm in a SLURM array job. "
        "--out is a folder for all parts, which 'cinefeed merge' reads."
    ),
]


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
