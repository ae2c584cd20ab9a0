"""`cinefeed merge`: make one result of the parts that commands with --shard wrote."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import Json
from cinefeed.cli.parts import emit_merged


def merge(
    parts: Annotated[list[Path], typer.Argument(help="Folder of parts: the --out of commands with --shard.")],
    out: Annotated[Path, typer.Option(help="File or folder to write: what --out is without --shard.")],
    as_json: Json = False,
) -> None:
    """Check that all parts of a scan, pack, encode or predict are there, and write what one process would have."""
    from cinefeed.jobs.merge import merge as merge_parts

    emit_merged(merge_parts(parts, out=out), as_json=as_json)
