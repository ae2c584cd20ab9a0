"""Videos embedded in other files, in one piece or several, read like separate files."""

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from cinefeed.core.errors import SourceError


class EmbeddedVideo:
    """Position of a video's bytes in a file: `pieces` are offsets and lengths, in order.

    It has one reader at a time, which `close` closes.
    """

    suffix = ""  # the file name does not describe the video

    def __init__(self, path: Path, pieces: Sequence[tuple[int, int]]) -> None:
        self.path = path
        self.pieces = tuple(pieces)
        self._reader: PiecesReader | None = None

    def __str__(self) -> str:
        return str(self.path)

    def reader(self) -> "PiecesReader":
        """Return a file object of the video only, and close the previous one. Raises SourceError."""
        self.close()
        try:
            self._reader = PiecesReader(self.path, self.pieces)
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        return self._reader

    def close(self) -> None:
        """Close the reader, if there is one."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class PackedVideo(EmbeddedVideo):
    """A video in one piece of a file, which FFmpeg reads in place through its protocol `subfile`."""

    def __init__(self, path: Path, offset: int, size: int, *, suffix: str = "") -> None:
        super().__init__(path, [(offset, size)])
        self.suffix = suffix

    @property
    def url(self) -> bytes:
        """The address for FFmpeg. Options end at the first colon, and any path after it is opened as a file.

        >>> PackedVideo(Path("a:b.tar"), 512, 100).url
        b'subfile,,start,512,end,612,,:file:a:b.tar'
        """
        ((offset, size),) = self.pieces
        return b"subfile,,start,%d,end,%d,,:file:" % (offset, offset + size) + os.fsencode(self.path)


class PiecesReader(io.RawIOBase):
    """Pieces of a file, read as one sequence. It ends early if the file does.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"..abc...de"), file.flush()
    ...     with PiecesReader(Path(file.name), [(2, 3), (8, 2)]) as reader:
    ...         reader.read(), reader.seek(-3, io.SEEK_END), reader.read(2)
    (b'abcde', 2, b'cd')
    """

    def __init__(self, path: Path, pieces: Sequence[tuple[int, int]]) -> None:
        self._offsets = [offset for offset, _ in pieces]
        self._ends = list(accumulate(length for _, length in pieces))
        self._at = 0
        self._file = path.open("rb", buffering=0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position, counted from the first piece."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, counted from the first piece, and return it."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1] if self._ends else 0}[whence]
        self._at = max(begin + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from as many pieces as needed, and return the number of bytes read."""
        view = memoryview(buffer).cast("B")
        filled_bytes = 0
        while filled_bytes < len(view):
            piece = bisect_right(self._ends, self._at)
            if piece == len(self._ends):
                break
            remaining = self._ends[piece] - self._at
            begin = self._ends[piece - 1] if piece else 0
            self._file.seek(self._offsets[piece] + self._at - begin)
            count = self._file.readinto(view[filled_bytes : filled_bytes + min(remaining, len(view) - filled_bytes)])
            if not count:
                break
            filled_bytes += count
            self._at += count
        return filled_bytes

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()


VideoPath = Path | EmbeddedVideo
