"""The journal of a folder of features: which files are complete, and what they were made from."""

import json
from collections.abc import Mapping
from pathlib import Path

from cinefeed.core.files import write_atomically, write_error

JOURNAL = "encoded.jsonl"  # a line per complete file of features: a hash of network and video


def add_to_journal(folder: Path, keys: Mapping[str, str]) -> None:
    """Add the keys of complete files of features to the journal of a folder."""
    write_journal(folder, {**read_journal(folder), **keys})


def read_journal(folder: Path) -> dict[str, str]:
    """Return the key of each complete file of features; an incomplete line, left by a crash, is ignored."""
    keys: dict[str, str] = {}
    journal = folder / JOURNAL
    if journal.exists():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                keys.update(json.loads(line))
            except ValueError:
                continue
    return keys


def append_to_journal(folder: Path, file: str, key: str) -> None:
    """Add the key of a complete file, or "" for one that is being written. Raises OSError with the path."""
    try:
        with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(f"\n{json.dumps({file: key})}")  # a line break first: the line before may be incomplete
    except OSError as error:
        raise write_error(error, folder / JOURNAL) from error


def write_journal(folder: Path, keys: Mapping[str, str]) -> None:
    """Write the journal with one line per file, so that it equals that of a run without interruptions."""
    lines = [f"\n{json.dumps({file: key})}" for file, key in sorted(keys.items()) if key]
    write_atomically(folder / JOURNAL, lambda path: path.write_text("".join(lines), encoding="utf-8"))
