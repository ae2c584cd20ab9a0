"""Command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.options import Json, Run
from cinefeed.cli.show import emit


def report(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="Page to write; by default report.html in the run folder.")] = None,
    as_json: Json = False,
) -> None:
    """Show a run as one HTML page that opens offline."""
    from cinefeed.report import run_page

    page = run_page(run, out=out)
    emit({"page": str(page)}, as_json=as_json, text=f"-> {page}")
