"""Command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.evaluate import Measured, Unit, is_table
from cinefeed.cli.options import Json, by_target, classes_of, listed
from cinefeed.cli.show import emit
from cinefeed.errors import SettingError


def report(
    run: Measured,
    out: Annotated[
        Path | None, typer.Option(help="Page to write; by default report.html in the run folder, or beside the table.")
    ] = None,
    unit: Unit = None,
    group: Annotated[str | None, typer.Option(help="Of a table: column of patients, which intervals resample.")] = None,
    subgroups: Annotated[list[str] | None, typer.Option(help="Of a table: columns to measure apart by, a,b.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Of a table: regression, binary, multiclass. Of several: TARGET=TASK.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="Of a table: class names in order, a,b. Of several: TARGET=a,b.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a run, or the predictions of any program, as one HTML page that opens offline."""
    from cinefeed.report import run_page, table_page

    if is_table(run):
        page = table_page(
            run,
            out=out,
            task=by_target("--task", task),  # type: ignore[arg-type]  # read_predictions checks the word
            classes=classes_of(classes),
            unit=unit,
            cluster=group,
            subgroups=listed(subgroups or []),
        )
    elif unit or group or subgroups or task or classes:
        raise SettingError(
            f"--unit, --group, --subgroups, --task and --classes are for a table of predictions; {run} is a run: its "
            "page shows what was measured at its end, by [evaluate] of its settings"
        )
    else:
        page = run_page(run, out=out)
    emit({"page": str(page)}, as_json=as_json, text=f"-> {page}")
