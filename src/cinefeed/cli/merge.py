"""`cinefeed merge`: make one result of the parts that commands with --shard wrote."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import Json
from cinefeed.cli.show import emit, list_failures
from cinefeed.core.text import format_count


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Folder of parts: the --out of commands with --shard.")],
    out: Annotated[Path, typer.Option(help="File or folder to write: what --out is without --shard.")],
    as_json: Json = False,
) -> None:
    """Check that all parts of a scan, pack, encode or predict are there, and write what one process would have."""
    from cinefeed.jobs.merge import merge as merge_parts

    result = merge_parts(parts, out=out)
    rows = format_count(result["rows"], "row")
    emit(result, as_json=as_json, text=f"{format_count(result['parts'], 'part')} merged: {rows} -> {result['out']}")
    list_failures(result.get("failures", []))
