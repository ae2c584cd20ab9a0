"""The command `cinefeed`: each subcommand is a thin layer over a public function.

The exit code is 0 on success, 1 if the command failed, 2 for invalid arguments or settings, also if a file or a column
that they name does not exist, and 130 after Ctrl-C. Results go to stdout, as JSON with --json; progress and errors go
to stderr. typer and rich are imported only when the command runs.
"""

import sys
from collections.abc import Sequence
from typing import Any

from cinefeed.core.errors import CinefeedError, ColumnError, SettingError
from cinefeed.core.text import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default with the arguments of the process, and return its exit code."""
    from typer.main import get_command

    from cinefeed.cli.app import make_app

    words = sys.argv[1:] if arguments is None else list(arguments)
    command = get_command(make_app())
    try:
        command(args=words, prog_name="cinefeed")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except (CinefeedError, OSError) as error:
        print(f"cinefeed: {_text(error, command, words)}", file=sys.stderr)
        return 2 if isinstance(error, SettingError | ColumnError) else 1
    return 0


def _text(error: Exception, command: Any, words: Sequence[str]) -> str:
    """Return the text of an error with the options of the command in place of arguments of Python."""
    from cinefeed.cli.help import option_flags
    from cinefeed.cli.messages import in_command_line

    subcommand = command.commands.get(words[0]) if words else None
    options = {} if subcommand is None else option_flags(subcommand)
    return in_command_line(error, _one_line(error), options=options, arguments=words)


def _one_line(error: Exception) -> str:
    # A LookupError shows its message as a string literal; an OSError's own text names file and reason.
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    return one_line(" ".join(text.split())) or type(error).__name__
