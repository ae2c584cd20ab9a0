"""Readers of one's own: formats that this program does not know, opened by a function of the user's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.errors import CinefeedError, SettingError, SourceError
from cinefeed.sources.axes import axes_of
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading, Source, StoredFrames
from cinefeed.sources.kinds import EXTENSIONS, forget_kind, know_kind
from cinefeed.sources.plain import PlainFrames, known_axes, plain_facts, windowed

Opener = Callable[[Path], Any]
_MARK = "reader:"  # before its name, in the column `container` of a manifest


class Reader(NamedTuple):
    """A reader, as `register_reader` keeps it and worker processes are sent it."""

    name: str
    suffixes: tuple[str, ...]
    opener: Opener
    magic: bytes = b""


_readers: dict[str, Reader] = {}  # by their containers


def register_reader(
    suffixes: str | Iterable[str], opener: Opener, *, magic: bytes = b"", name: str | None = None, replace: bool = False
) -> None:
    """Have files of a suffix opened by a function: in scans, feeds, `open_source`, and worker processes.

    suffixes:  ".cine", or several; a built-in one, such as ".dcm", with `replace=True` alone
    opener:    takes a path and returns the video: an array, (frames, height, width) or with 1 or 3 channels at its end,
               or an object with `shape`, `dtype` and `video[n]`, of which single frames are then read; or an open
               Source (see `cinefeed.sources.base`), whose facts tell the times of frames, and pixels of other kinds
    magic:     the bytes that such files begin with, by which a scan finds them under any name
    name:      what manifests call the format; by default its first suffix

    Register in each program that scans or feeds such files, before it does. Worker processes import the opener, so it
    must be a function of a module; with any other, threads make the clips. `cinefeed.testing.check_source` says whether
    a reader keeps the promises of the built-in ones. Raises SettingError for what is no suffix, and for one that is
    taken.

    >>> import cinefeed, tempfile
    >>> cinefeed.register_reader(".cinearray", np.load)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "one.cinearray")
    ...     with path.open("wb") as file:
    ...         np.save(file, np.arange(48, dtype=np.uint8).reshape(3, 4, 4))
    ...     with cinefeed.open_source(path) as source:
    ...         print(len(source), source.read([2])[0, 0, 0])
    3 [32]
    """
    listed = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    if not listed or not all(isinstance(each, str) and each[:1] == "." and each[1:] for each in listed):
        raise SettingError(f"register_reader(suffixes={suffixes!r}) must be a suffix such as '.cine', or several")
    if not callable(opener):
        raise SettingError(f"register_reader(opener={opener!r}) must be a function that takes a path")
    if not isinstance(magic, bytes):
        raise SettingError(f"register_reader(magic={magic!r}) must be bytes, such as b'CINE'")
    listed = tuple(each.lower() for each in listed)
    reader = Reader(name or listed[0].lstrip("."), listed, opener, magic)
    for suffix in () if replace else listed:
        owner = next((each for each in _readers.values() if suffix in each.suffixes), None)
        if suffix in EXTENSIONS or (owner is not None and not _same(owner.opener, opener)):
            taken_by = "is read already" if owner is None else f"is read by {owner.name!r} already"
            raise SettingError(f"register_reader: {suffix} {taken_by}; pass replace=True to have it read by this one")
    for each in [each for each in _readers.values() if {*each.suffixes} & {*listed} or each.name == reader.name]:
        forget_kind(_MARK + each.name)
        del _readers[_MARK + each.name]
    _readers[_MARK + reader.name] = reader
    know_kind(_MARK + reader.name, suffixes=listed, magic=magic)


def is_of_a_reader(container: str) -> bool:
    """Return whether a kind or container is that of a reader of one's own, registered or not."""
    return container.startswith(_MARK)


def readers_of(containers: Iterable[str | None]) -> list[Reader]:
    """Return the readers of some files, by their containers; one that is not known may be of any."""
    wanted = {*containers}
    return [each for container, each in _readers.items() if None in wanted or container in wanted]


def open_with_reader(
    path: Path, container: str, *, channels: int | None, part: str | None, facts: Facts | None
) -> Source:
    """Open a file with the reader of its container. Raises SourceError."""
    reader = _readers.get(container)
    if reader is None:
        raise SourceError(
            f"{path}: is a file for the reader {container.removeprefix(_MARK)!r}, which this program has not "
            "registered; call cinefeed.register_reader(...) before it is opened"
        )
    if part is not None:
        raise SourceError(f"{path}: part {part!r} was asked for, and a reader of one's own gives one video a file")
    try:
        video = reader.opener(path)
        if hasattr(video, "planes") and hasattr(video, "facts"):
            if channels is not None and hasattr(video, "channels"):
                video.channels = channels
            opened: Source = video
            return opened
        return _ReaderFrames(path, video, container=container, channels=channels, facts=facts)
    except CinefeedError:
        raise
    except Exception as error:
        raise SourceError(
            f"{path}: the reader {reader.name!r} cannot open it: {type(error).__name__}: {error}"
        ) from error


def probe_with_reader(path: Path, container: str, *, part: str | None, reading: Reading = DEFAULT_READING) -> Facts:
    """Return the facts of a file as its reader opens it."""
    with open_with_reader(path, container, channels=None, part=part, facts=None) as source:
        facts = windowed(source, reading) if isinstance(source, StoredFrames) else source.facts
    return replace(facts, container=container)


class _ReaderFrames(PlainFrames):
    """An array, or what reads as one, that an opener returned."""

    def __init__(self, path: Path, video: Any, *, container: str, channels: int | None, facts: Facts | None) -> None:
        if not all(hasattr(video, name) for name in ("shape", "dtype", "__getitem__")):
            video = np.asarray(video)
        shape: Sequence[int] = tuple(video.shape)
        if facts is None:
            axes = axes_of(shape, declared=None, where=path)
            if axes[0] != "T":
                raise SourceError(f"{path}: its reader gave {shape}; (frames, height, width[, channels]) is needed")
            facts = plain_facts(shape, axes, np.dtype(video.dtype), container=container, where=path)
        else:
            known_axes(facts, shape, np.dtype(video.dtype), where=path)
        super().__init__(path, facts=facts, channels=channels)
        self._video = video

    def _numbers(self, number: int) -> NDArray[Any]:
        return np.asarray(self._video[number])

    def close(self) -> None:
        """Let go of the video; planes already handed over stay valid."""
        super().close()
        video, self._video = self._video, None
        if hasattr(video, "close"):
            video.close()


def _same(one: Opener, other: Opener) -> bool:
    """Return whether two functions are one, or one defined twice, as by a cell of a notebook that runs again."""

    def place(opener: Opener) -> tuple[str | None, str | None]:
        return getattr(opener, "__module__", None), getattr(opener, "__qualname__", None)

    return one is other or (place(one) == place(other) and None not in place(one))
