"""What a worker needs of a manifest: where each row's video lies, what is known of it, and how it is opened."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from cinefeed.manifest.columns import FACTS, VALUES, fact_columns, row_to_facts
from cinefeed.sources.base import Facts, Source
from cinefeed.sources.memory import MemorySource
from cinefeed.sources.open import open_source

_NEEDED = ("id", "path", "part", "start_seconds", "end_seconds", *(name for name in FACTS if name not in VALUES))
_KEPT = 1024  # files whose facts are kept as Python objects, about 3 kB each
_MOST_TIMES = 1000  # of a file whose facts are kept: each listed time is 8 bytes more


class _File(NamedTuple):
    """What the columns say of the file of a row."""

    path: Path
    part: str | None
    facts: Facts | None
    window: tuple[float | None, float | None]


def view_names(columns: Iterable[str]) -> tuple[str, ...]:
    """Return the views that stand side by side in a table, by its columns; none where a row is one video.

    >>> view_names(["id", "path", "path:2ch", "path:4ch", "age"])
    ('2ch', '4ch')
    """
    return tuple(name.removeprefix("path:") for name in columns if name.startswith("path:"))


class Rows:
    """The rows of a manifest, without labels: columns alone, so that a million cost no more than their bytes.

    Where a row holds several views (see `Manifest.pivot`), each method takes the name of one, by default the first.
    `arrays` are videos in memory, in place of files.
    """

    def __init__(
        self, table: Any, *, root: str, private: bool = False, arrays: Sequence[NDArray[Any]] | None = None
    ) -> None:
        names = table.schema.names
        self.views = view_names(names)
        needed = {f"{name}:{view}" for name in _NEEDED for view in self.views}.union(_NEEDED)
        self.table = table.select([name for name in names if name in needed]).combine_chunks()
        self.root = root
        self.private = private
        self.arrays = arrays
        self._files: dict[tuple[int, str], _File] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def relative_path(self, row: int, *, view: str = "") -> str:
        """Return the path of a row's file, relative to the root."""
        return str(self._columns[self._name("path", view)][row].as_py())

    def path_of(self, row: int, *, view: str = "") -> Path:
        """Return where the file of a row is."""
        return Path(self.root, self.relative_path(row, view=view))

    def shown(self, row: int, *, view: str = "") -> str:
        """Return what names a row, or one view of it, to a reader: its path, or its id where paths are private."""
        named = str(self._columns["id"][row]) if self.private else self.relative_path(row, view=view)
        return f"{named} (view {view})" if view else named

    def window(self, row: int, *, view: str = "") -> tuple[float | None, float | None]:
        """Return the start and end in seconds that a row's clip stays within, None where it is free."""
        return self._file(row, view).window

    def facts(self, row: int, *, view: str = "") -> Facts | None:
        """Return what the scan found of a row's file, or None where it was not probed or no frame can be read."""
        return self._file(row, view).facts

    def open(self, row: int, *, channels: int | None = None, view: str = "") -> Source:
        """Open the video of a row; see `cinefeed.open_source`."""
        path, part, facts, _ = self._file(row, view)
        if self.arrays is not None:
            assert facts is not None
            number = int(self.relative_path(row, view=view))
            return MemorySource(self.arrays[number], facts=facts, channels=channels)
        return open_source(path, channels=channels, part=part, facts=facts)

    def nameless(self, text: str, row: int, *, view: str = "") -> str:
        """Return a message about a row without its path, where paths are private."""
        return text.replace(str(self.path_of(row, view=view)), "the file") if self.private else text

    def _file(self, row: int, view: str) -> _File:
        """Return what is known of a row's file, kept for the next epoch: to put it together takes 0.03 ms."""
        found = self._files.get((row, view))
        if found is None:
            columns = self._fact_columns[view or next(iter(self._fact_columns))]
            facts = None if columns is None else row_to_facts(columns, row)
            part, start, end = (self._value(name, row, view) for name in ("part", "start_seconds", "end_seconds"))
            found = _File(self.path_of(row, view=view), part, facts, (start, end))
            if facts is not None and facts.times.listed is not None and len(facts.times.listed) > _MOST_TIMES:
                return found
            if len(self._files) >= _KEPT:
                self._files.clear()
            self._files[row, view] = found
        return found

    @cached_property
    def _fact_columns(self) -> dict[str, dict[str, Any] | None]:
        """The facts of each view, by its name; of the only video under ""."""
        if not self.views:
            return {"": fact_columns(self.table)}
        names, found = set(self.table.schema.names), {}
        for view in self.views:
            there = [name for name in FACTS if f"{name}:{view}" in names]
            found[view] = fact_columns(self.table.select([f"{name}:{view}" for name in there]).rename_columns(there))
        return found

    def _name(self, column: str, view: str) -> str:
        """Return the name that a column of a view has in the table."""
        view = view or next(iter(self.views), "")
        return f"{column}:{view}" if view else column

    def _value(self, name: str, row: int, view: str) -> Any:
        column = self._columns.get(self._name(name, view))
        return None if column is None else column[row].as_py()

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """The columns by their names: to ask the table for one takes 4 us."""
        return {name: self.table.column(name) for name in self.table.schema.names}
