"""The command `cinefeed report`."""

from pathlib import Path
from typing import Annotated

import typer

from cinefeed.cli.evaluate import RunOrTable, Unit, is_table
from cinefeed.cli.options import Json, Threshold, by_target, classes_of, listed
from cinefeed.cli.show import emit
from cinefeed.core.errors import SettingError


def report(
    run: RunOrTable,
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write; by default report.html in the run folder, or TABLE.html beside a table."),
    ] = None,
    unit: Unit = None,
    group: Annotated[
        str | None, typer.Option(help="Column of the patients, which are resampled for intervals.")
    ] = None,
    subgroups: Annotated[
        list[str] | None, typer.Option(help="Columns of subgroups with metrics of their own: a,b.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Task: regression, binary or multiclass. Several targets: TARGET=TASK."),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(help="Classes in order: a,b; the second of two is positive. Several targets: TARGET=a,b."),
    ] = None,
    threshold: Threshold = None,
    as_json: Json = False,
) -> None:
    """Write a report of a run, or of the predictions of any program, as one HTML page without external files."""
    from cinefeed.reports import run_page, table_page

    if is_table(run):
        page = table_page(
            run,
            out=out,
            task=by_target("--task", task),  # type: ignore[arg-type]  # read_predictions checks it
            classes=classes_of(classes),
            unit=unit,
            cluster=group,
            subgroups=listed(subgroups or []),
            rule=threshold or "f1",  # type: ignore[arg-type]  # checked there
        )
    elif unit or group or subgroups or task or classes or threshold:
        raise SettingError(
            "--unit, --group, --subgroups, --task, --classes and --threshold are for a table of predictions, and "
            f"{run} is a run folder, whose page shows the results of its section [evaluate]; leave them out"
        )
    else:
        page = run_page(run, out=out)
    emit({"page": str(page)}, as_json=as_json, text=f"-> {page}")
