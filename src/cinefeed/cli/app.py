"""The command-line application with all commands, in the order of use."""

from typing import Annotated

import typer

import cinefeed
from cinefeed.cli.bench import bench
from cinefeed.cli.cache import with_cache
from cinefeed.cli.check import check
from cinefeed.cli.data import inspect, scan, split
from cinefeed.cli.demo import demo
from cinefeed.cli.doctor import doctor
from cinefeed.cli.encode import encode
from cinefeed.cli.evaluate import compare, evaluate, predict
from cinefeed.cli.help import Command, Group
from cinefeed.cli.merge import merge
from cinefeed.cli.pack import pack
from cinefeed.cli.prepare import export, init
from cinefeed.cli.report import report
from cinefeed.cli.train import train

_READING = (
    scan,
    check,
    init,
    pack,
    encode,
    evaluate,
    predict,
    export,
)  # the others have the options of a feed, or no videos


def make_app() -> typer.Typer:
    """Return the command-line application; it does not catch errors, which `main` prints in one line."""
    app = typer.Typer(
        name="cinefeed",
        help="Feed video to deep learning: index, split, balance, train, evaluate, report.",
        no_args_is_help=True,
        cls=Group,
        pretty_exceptions_enable=False,
        callback=_root,
    )
    for command in (
        scan,
        check,
        split,
        init,
        inspect,
        bench,
        pack,
        encode,
        train,
        evaluate,
        compare,
        predict,
        merge,
        report,
        export,
        demo,
        doctor,
    ):
        app.command(cls=Command)(with_cache(command) if command in _READING else command)
    return app


def _version(is_set: bool) -> None:
    if is_set:
        print(cinefeed.__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Feed video to deep learning: index, split, balance, train, evaluate, report."""
