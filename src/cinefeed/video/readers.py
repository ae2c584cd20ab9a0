"""User-defined readers: functions of the user, or of a plug-in, that open formats which cinefeed does not support."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.arguments import check_arguments, expect
from cinefeed.core.errors import ArgumentError, CinefeedError, SettingError, SourceError
from cinefeed.core.plugins import invalid_plugin, load_plugin, plugins
from cinefeed.video.arrays.array_frames import ArrayFrames, known_axes, sample_metadata, windowed
from cinefeed.video.arrays.axes import axes_of
from cinefeed.video.kinds import EXTENSIONS, READER, register_kind, unregister_kind
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.source import FrameSource, Source

Opener = Callable[[Path], Any]


class Reader(NamedTuple):
    """A registered reader, as sent to worker processes."""

    name: str
    suffixes: tuple[str, ...]
    opener: Opener
    magic: bytes = b""


_readers: dict[str, Reader] = {}  # by container


@check_arguments()
def register_reader(
    suffixes: str | Iterable[str], opener: Opener, *, magic: bytes = b"", name: str | None = None, replace: bool = False
) -> None:
    """Register a function that opens files of a suffix, in scans, feeds, `open_video` and worker processes.

    suffixes:  ".cine", or several; a built-in one, such as ".dcm", only with `replace=True`
    opener:    function of a path that returns the video: an array, (frames, height, width) or with 1 or 3 channels as
               last axis; or an object with `shape`, `dtype` and `video[n]`, from which single frames are read; or an
               open Source (see `cinefeed.video.source`), for times of frames, or pixels of other kinds
    magic:     first bytes of such files, by which a scan finds them under any name
    name:      name of the format in manifests; by default its first suffix

    Register in each program that scans or feeds such files, before it does. Worker processes import the opener, so it
    must be a module-level function; with any other, clips are made by threads. `cinefeed.testing.check_source` checks
    whether a reader behaves like the built-in ones. Raises SettingError for an invalid suffix, and for one that is
    already registered.

    >>> import cinefeed, tempfile
    >>> cinefeed.register_reader(".cinearray", np.load)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "one.cinearray")
    ...     with path.open("wb") as file:
    ...         np.save(file, np.arange(48, dtype=np.uint8).reshape(3, 4, 4))
    ...     with cinefeed.open_video(path) as source:
    ...         print(len(source), source.read([2])[0, 0, 0])
    3 [32]
    """
    if callable(suffixes) and isinstance(opener, str | list | tuple):
        raise ArgumentError(
            f"register_reader(suffixes, opener): the arguments are swapped; did you mean register_reader({opener!r}, "
            f"{getattr(suffixes, '__name__', 'opener')})?"
        )
    expect(suffixes, (str, Iterable), name="register_reader(suffixes)", remedy="give one such as '.cine', or several")
    suffix_list = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    if not suffix_list or not all(isinstance(each, str) and each[:1] == "." and each[1:] for each in suffix_list):
        raise SettingError(
            f"register_reader(suffixes={suffixes!r}) must be a suffix with its dot, such as '.cine', or several"
        )
    if not callable(opener):
        raise SettingError(f"register_reader(opener={opener!r}) must be a function that takes a path")
    if not isinstance(magic, bytes):
        raise SettingError(f"register_reader(magic={magic!r}) must be bytes, such as b'CINE'")
    suffix_list = tuple(each.lower() for each in suffix_list)
    reader = Reader(name or suffix_list[0].lstrip("."), suffix_list, opener, magic)
    for suffix in () if replace else suffix_list:
        owner = _owner(suffix)
        if suffix in EXTENSIONS or (owner is not None and not _same(owner.opener, opener)):
            conflict = "is already supported" if owner is None else f"is already read by {owner.name!r}"
            raise SettingError(f"register_reader: {suffix} {conflict}; pass replace=True to use this reader")
    for old in [old for old in _readers.values() if {*old.suffixes} & {*suffix_list} or old.name == reader.name]:
        unregister_kind(READER + old.name)
        del _readers[READER + old.name]
    _readers[READER + reader.name] = reader
    register_kind(READER + reader.name, suffixes=suffix_list, magic=magic)


def is_of_a_reader(container: str) -> bool:
    """Return whether a kind or container belongs to a user-defined reader, registered or not."""
    return container.startswith(READER)


def readers_of(containers: Iterable[str | None]) -> list[Reader]:
    """Return the readers of some containers; None in `containers` selects all that are registered or imported."""
    requested = {*containers}
    for container in requested:
        _reader_of(container or "")
    return [each for container, each in _readers.items() if None in requested or container in requested]


def _owner(suffix: str) -> Reader | None:
    """Return the reader that is registered for a suffix, or that of a plug-in; None if there is none."""
    for reader in _readers.values():
        if suffix in reader.suffixes:
            return reader
    return _reader_of(READER + suffix[1:]) if suffix in plugins("readers", builtin=EXTENSIONS) else None


def _reader_of(container: str) -> Reader | None:
    """Return a registered reader, or that of a plug-in, which is imported; None if there is none.

    Raises PluginError.
    """
    if is_of_a_reader(container) and container not in _readers:
        name = container.removeprefix(READER)
        if (plugin := plugins("readers", builtin=EXTENSIONS).get(f".{name}")) is not None:
            opener = load_plugin(plugin)
            if not callable(opener):
                raise invalid_plugin(plugin, "a function that takes a path")
            _readers[container] = Reader(name, (plugin.name,), opener)
    return _readers.get(container)


def open_with_reader(
    path: Path, container: str, *, channels: int | None, part: str | None, metadata: VideoMetadata | None
) -> Source:
    """Open a file with the reader of its container. Raises SourceError."""
    reader = _reader_of(container)
    if reader is None:
        raise SourceError(
            f"{path}: needs the reader {container.removeprefix(READER)!r}, which is not registered in this program; "
            "call cinefeed.register_reader(...) before opening it, or install the plug-in that has it"
        )
    if part is not None:
        raise SourceError(f"{path}: part {part!r} was asked for, but a user-defined reader returns one video per file")
    try:
        video = reader.opener(path)
        if hasattr(video, "planes") and hasattr(video, "metadata"):
            if channels is not None and hasattr(video, "channels"):
                video.channels = channels
            source: Source = video
            return source
        return _ReaderFrames(path, video, container=container, channels=channels, metadata=metadata)
    except CinefeedError:
        raise
    except Exception as error:
        raise SourceError(
            f"{path}: the reader {reader.name!r} cannot open it: {type(error).__name__}: {error}"
        ) from error


def probe_with_reader(
    path: Path, container: str, *, part: str | None, reading: ReadOptions = DEFAULT_READ_OPTIONS
) -> VideoMetadata:
    """Return the metadata of a file opened by its reader."""
    with open_with_reader(path, container, channels=None, part=part, metadata=None) as source:
        metadata = windowed(source, reading) if isinstance(source, FrameSource) else source.metadata
    return replace(metadata, container=container)


class _ReaderFrames(ArrayFrames):
    """An array, or an object indexed like one, that an opener returned."""

    def __init__(
        self, path: Path, video: Any, *, container: str, channels: int | None, metadata: VideoMetadata | None
    ) -> None:
        if not all(hasattr(video, name) for name in ("shape", "dtype", "__getitem__")):
            video = np.asarray(video)
        shape: Sequence[int] = tuple(video.shape)
        if metadata is None:
            axes = axes_of(shape, declared=None, where=path)
            if axes[0] != "T":
                raise SourceError(f"{path}: its reader returned {shape}; (frames, height, width[, channels]) is needed")
            metadata = sample_metadata(shape, axes, np.dtype(video.dtype), container=container, where=path)
        else:
            known_axes(metadata, shape, np.dtype(video.dtype), where=path)
        super().__init__(path, metadata=metadata, channels=channels)
        self._video = video

    def _numbers(self, number: int) -> NDArray[Any]:
        return np.asarray(self._video[number])

    def close(self) -> None:
        """Release the video; planes that were returned remain valid."""
        super().close()
        video, self._video = self._video, None
        if hasattr(video, "close"):
            video.close()


def _same(one: Opener, other: Opener) -> bool:
    """Return whether two functions are identical, or one defined twice, as by a notebook cell that runs again."""

    def place(opener: Opener) -> tuple[str | None, str | None]:
        return getattr(opener, "__module__", None), getattr(opener, "__qualname__", None)

    return one is other or (place(one) == place(other) and None not in place(one))
