"""A source whose file is in the cache of remote files, and stays there until the source is closed."""

from types import TracebackType
from typing import Any, Self

from cinefeed.core.remote.cache import Hold
from cinefeed.video.source import Source


class HeldSource:
    """A source, and the hold on its file; `fetch_seconds` is the time that opening waited for the file."""

    def __init__(self, source: Source, hold: Hold, *, fetch_seconds: float) -> None:
        self._source, self._hold = source, hold
        self.fetch_seconds = fetch_seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def close(self) -> None:
        """Close the file, and allow the cache to remove it."""
        self._source.close()
        self._hold.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
