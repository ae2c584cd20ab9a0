"""What a worker needs of a manifest: where each row's video lies, what is known of it, and how it is opened."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cinefeed.manifest.columns import FACTS, fact_columns, row_to_facts
from cinefeed.sources.base import Facts, Source
from cinefeed.sources.memory import MemorySource
from cinefeed.sources.open import open_source

_NEEDED = ("id", "path", "part", "start_seconds", "end_seconds", *FACTS)


class Rows:
    """The rows of a manifest, without labels: columns alone, so that a million cost no more than their bytes.

    `arrays` are videos in memory, in place of files.
    """

    def __init__(
        self, table: Any, *, root: str, private: bool = False, arrays: Sequence[NDArray[Any]] | None = None
    ) -> None:
        names = table.schema.names
        self.table = table.select([name for name in _NEEDED if name in names]).combine_chunks()
        self.root = root
        self.private = private
        self.arrays = arrays

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def relative_path(self, row: int) -> str:
        """Return the path of a row's file, relative to the root."""
        return str(self.table.column("path")[row])

    def path_of(self, row: int) -> Path:
        """Return where the file of a row is."""
        return Path(self.root, self.relative_path(row))

    def shown(self, row: int) -> str:
        """Return what names a row to a reader: its path, or its id where paths are private."""
        return str(self.table.column("id" if self.private else "path")[row])

    def window(self, row: int) -> tuple[float | None, float | None]:
        """Return the start and end in seconds that a row's clip stays within, None where it is free."""
        start, end = (self._value(name, row) for name in ("start_seconds", "end_seconds"))
        return start, end

    def facts(self, row: int) -> Facts | None:
        """Return what the scan found of a row's file, or None where it was not probed or no frame can be read."""
        return None if self._fact_columns is None else row_to_facts(self._fact_columns, row)

    def open(self, row: int, *, channels: int | None = None) -> Source:
        """Open the video of a row; see `cinefeed.open_source`."""
        facts = self.facts(row)
        if self.arrays is not None:
            assert facts is not None
            number = int(self.relative_path(row))
            return MemorySource(self.arrays[number], facts=facts, channels=channels)
        return open_source(self.path_of(row), channels=channels, part=self._value("part", row), facts=facts)

    def nameless(self, text: str, row: int) -> str:
        """Return a message about a row without its path, where paths are private."""
        return text.replace(str(self.path_of(row)), "the file") if self.private else text

    @cached_property
    def _fact_columns(self) -> dict[str, Any] | None:
        return fact_columns(self.table)

    def _value(self, name: str, row: int) -> Any:
        return self.table.column(name)[row].as_py() if name in self.table.schema.names else None
