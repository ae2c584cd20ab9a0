"""HDF5 files (extra `hdf5`): data sets, or rows of them, as videos. Only the frames asked for are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from cinefeed.errors import DecodeError, LimitError, MissingExtraError, SourceError, did_you_mean
from cinefeed.sources.axes import axes_of, channels_last, has_readings, index_of, row_of, rows_of, split_part
from cinefeed.sources.base import DEFAULT_READING, Facts, Reading
from cinefeed.sources.index import Verify
from cinefeed.sources.limits import Deadline
from cinefeed.sources.plain import PlainFrames, broken_after, known_axes, plain_facts, plane_type, windowed
from cinefeed.sources.values import decode_through

_BROKEN = (OSError, RuntimeError, ValueError, KeyError, TypeError)  # what h5py makes of damage, and of unknown types
# HDF5 opens a file once in a process: a second opening must have the same choice of locking and of writing. To a driver
# that nobody else uses it is another file. This is the one that keeps a log, without a log: it reads by position, as
# the default does, where `stdio` moves a place that forked processes share.
_DRIVER = "cinefeed"
# How a file is opened that only shares what the process has open already, such as one whose end is not written yet.
_SHARED: tuple[dict[str, Any], ...] = tuple({"locking": each} for each in (None, False, True, "best-effort"))
_CACHE_BYTES = 2**26  # at most, to keep what is unpacked of the chunks in a frame until the next frame is read


class Hdf5Source(PlainFrames):
    """A video in an HDF5 data set, named by the part: "/group/name", or "/group/name[5]" for a row of a set.

    Shapes and types are those of a `.npy` file; see ArraySource. A file with one data set that can be a video needs no
    part. The file is opened read-only, without a lock, and apart from what the process has open: it can open the file
    with h5py at the same time, to read or to write, with any locking, before or after.

    Frames that lie in one chunk are unpacked once where the chunks of a frame fit into 64 MB.

    h5py lets one thread at a time into the HDF5 library, whatever the file: threads that read HDF5 wait for each other
    where processes do not.

    A data set that lies in other files (linked, virtual or external) is refused: a manifest knows one file a row, and
    a file from elsewhere must not name what is read here. A virtual data set is read where each of its sources is an
    ordinary data set of the same file.
    """

    def __init__(
        self, path: str | Path, *, channels: int | None = None, part: str | None = None, facts: Facts | None = None
    ) -> None:
        path = Path(path)
        super().__init__(path, facts=facts if facts is not None else probe_hdf5(path, part=part), channels=channels)
        name, row = split_part(part)
        self._file = _opened(path)
        try:
            stored = _data_set(self._file, path, name)
            self._where = f"{path}::{stored.name}"
            self._axes = known_axes(self.facts, stored.shape, stored.dtype, where=self._where)
            self._fixed = row_of(row, self._axes, stored.shape, where=self._where)
            count = stored.shape[self._axes.index("T")]
            if len(self) > count:
                raise SourceError(f"{self._where}: {len(self)} frames are known of it, it holds {count}; scan it again")
            name, access = stored.name, _access(stored, self._axes)
            del stored  # HDF5 keeps the cache of a data set as long as anyone has it open
            self._set = self._file[name] if access is None else _reopened(self._file, name, access)
        except BaseException:
            self.close()
            raise

    def _numbers(self, number: int) -> NDArray[Any]:
        try:
            frame = self._set[index_of(self._axes, self._fixed, number)]
        except _BROKEN as error:
            raise DecodeError(f"{self._where}: frame {number} cannot be read ({error})") from error
        return channels_last(frame, self._axes)

    def close(self) -> None:
        """Let go of the file; planes already handed over stay valid."""
        super().close()
        self._file.close()


def probe_hdf5(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: Reading = DEFAULT_READING,
) -> Facts:
    """Return the facts of a video in an HDF5 file.

    With verify="decode" the frames of a compressed or checksummed data set are all read, to see where it breaks, and
    those after the last that was ever written are left out: HDF5 would make them up.
    Raises SourceError where there is no video, and where the file is cut off: HDF5 opens no part of such a file.
    """
    path = Path(path)
    name, row = split_part(part)
    with _opened(path) as file:
        stored = _data_set(file, path, name)
        where = f"{path}::{stored.name}"
        axes = axes_of(stored.shape, declared=reading.axes, where=where)
        fixed = row_of(row, axes, stored.shape, where=where)
        codec = stored.compression or "raw"
        limits = reading.limits
        facts = plain_facts(stored.shape, axes, stored.dtype, container="hdf5", codec=codec, where=where, limits=limits)
        for each in _layers(stored):
            if each.chunks is not None and each.id.get_create_plist().get_nfilters() > 0:
                size = prod(each.chunks) * each.dtype.itemsize
                limits.check_unpacked(size, what="a chunk", where=where)
        read_through = verify == "decode" and stored.id.get_create_plist().get_nfilters() > 0
        if read_through:
            facts = broken_after(facts, _written(stored, axes, fixed), "the rest was never written", where=where)
    if not read_through and reading.window != "percentiles":
        return facts
    with Hdf5Source(path, part=part, facts=facts) as source:
        if read_through:
            source.facts = _read_through(source, reading.limits.deadline(where))
        return windowed(source, reading)


def hdf5_parts(path: str | Path, reading: Reading = DEFAULT_READING) -> list[str]:
    """Return the parts of an HDF5 file that are samples, by name: "/group/x", or "/group/x[0]", "/group/x[1]" ...

    These are all numeric data sets of 3 to 5 axes, or as many as are declared. Raises SourceError where there is none.
    """
    path = Path(path)
    parts, faults = [], []
    with _opened(path) as file:
        for stored in _data_sets(file, path):
            where = f"{path}::{stored.name}"
            try:
                _require_own_numbers(stored, file, path, where)
                if has_readings(stored.shape, reading.axes):
                    parts.append(stored.name)  # a row of the manifest, whose error names the readings
                    continue
                axes = axes_of(stored.shape, declared=reading.axes, where=where)
                ends = rows_of(stored.shape, axes, limits=reading.limits, where=where)
                parts += [stored.name + end for end in ends]
                reading.limits.check_samples(len(parts), where=path)
            except LimitError:
                raise
            except SourceError as error:
                faults.append(str(error))
    if not parts:
        raise SourceError(f"{path}: holds no data set that is a video{'; ' + faults[0] if faults else ''}")
    return parts


def _layers(stored: Any) -> Iterator[Any]:
    """Yield a data set, and those that it is built from if it is virtual."""
    yield stored
    if stored.is_virtual:
        for name in sorted({source.dset_name for source in stored.virtual_sources()}):
            yield stored.file[name]


def _read_through(source: Hdf5Source, deadline: Deadline) -> Facts:
    whole, error, values = decode_through(source, deadline=deadline)
    facts = replace(source.facts, values=values)
    return facts if error is None else broken_after(facts, whole, str(error.__cause__), where=deadline.where)


def _written(stored: Any, axes: str, fixed: Mapping[str, int]) -> int:
    """Return the number of frames up to the last chunk that was ever written."""
    chunks, time = stored.chunks, axes.index("T")
    count = int(stored.shape[time])
    at = {**fixed, "T": count - 1}
    corner = [at.get(axis, 0) // chunk * chunk for axis, chunk in zip(axes, chunks, strict=True)]
    last = 0

    def look(chunk: Any) -> None:
        nonlocal last
        place = dict(zip(axes, zip(chunk.chunk_offset, chunks, strict=True), strict=True))
        if all(place[axis][0] <= index < sum(place[axis]) for axis, index in fixed.items()):
            last = max(last, sum(place["T"]))

    try:
        if stored.id.get_chunk_info_by_coord(tuple(corner)).byte_offset is not None:
            return count
        stored.id.chunk_iter(look)
    except _BROKEN:  # the list of chunks is damaged: reading will tell where
        return count
    return min(last, count)


def _opened(path: Path) -> Any:
    try:
        import h5py  # type: ignore[import-untyped]  # it has no stubs
    except ImportError as error:
        raise MissingExtraError("h5py", extra="hdf5") from error
    if _DRIVER not in h5py.registered_drivers():
        h5py.register_driver(_DRIVER, lambda settings: settings.set_fapl_log(b"", 0, 0))
    faults = []
    for options in ({"driver": _DRIVER, "locking": False}, *_SHARED):
        try:
            return h5py.File(path, "r", **options)
        except _BROKEN as error:
            faults.append(error)
    reason = "the file is cut off" if "truncated" in str(faults[0]) else str(faults[0])
    raise SourceError(f"{path}: cannot be opened as HDF5 ({reason})") from faults[0]


def _data_set(file: Any, path: Path, name: str) -> Any:
    """Return a data set by its name, or the only one that can be a video."""
    if not name:
        able = [each.name for each in _data_sets(file, path)]
        if len(able) != 1:
            raise SourceError(
                f"{path}: holds {len(able)} data sets that could be a video; name one by its part, as in "
                f"{path.name}::{(able or ['/name'])[0]}; {did_you_mean('', able)}"
            )
        name = able[0]
    name = f"/{name.strip('/')}"
    try:
        found = file.get(name) if _is_plain(file, path, name) else None
        if found is None or not hasattr(found, "is_virtual"):
            names = [each.name for each in _data_sets(file, path)]
            raise SourceError(f"{path}: has no data set {name!r}; {did_you_mean(name, names)}")
        _require_own_numbers(found, file, path, f"{path}::{name}")
        if found.shape is None:
            raise SourceError(f"{path}::{name}: is empty")
        plane_type(found.dtype, where=f"{path}::{name}")
    except _BROKEN as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}::{name}: cannot be read ({error})") from error
    return found


def _is_plain(file: Any, path: Path, name: str) -> bool:
    """Return whether something has this name; a link on the way, to wherever it leads, raises SourceError."""
    import h5py

    parents = [parent for parent in PurePosixPath(name).parents if parent != PurePosixPath("/")]
    for step in (*reversed(parents), name):
        link = file.get(str(step), getlink=True)
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
            raise SourceError(
                f"{path}::{name}: {str(step)!r} is a link, and links are not followed; name what it leads to, in the "
                f"file that holds it"
            )
        if link is None:
            return False
    return True


def _data_sets(file: Any, path: Path) -> Iterator[Any]:
    """Yield the data sets of 3 to 5 axes of integers or floats, by name; no link is followed.

    A set that lies in other files is among them, whatever its shape, which only those files may tell.
    """
    names = []

    def look(name: str, each: Any) -> None:
        try:
            if each.is_virtual or _may_be_video(each):
                names.append(name)
        except (AttributeError, TypeError):  # a group; a type that NumPy lacks
            pass

    try:
        file.visititems(look)
    except _BROKEN as error:
        raise SourceError(f"{path}: its list of data sets cannot be read ({error})") from error
    for name in names:  # opened in turn: a file may hold a hundred thousand
        stored = file[name]
        try:
            _require_own_numbers(stored, file, path, name)
        except SourceError:
            yield stored
        else:
            if _may_be_video(stored):
                yield stored


def _may_be_video(stored: Any) -> bool:
    """Return whether a data set has 3 to 5 axes of integers or floats."""
    return len(stored.shape or ()) in (3, 4, 5) and stored.dtype.kind in "buif"


def _require_own_numbers(stored: Any, file: Any, path: Path, where: str) -> None:
    """Raise SourceError unless all numbers of a data set lie in this file.

    The sources of a virtual data set must be ordinary data sets: HDF5 follows virtual ones without end (one that is its
    own source ends the process), and names with a pattern (%b) to whatever matches.
    """
    if stored.external:
        raise SourceError(f"{where}: its numbers lie in other files; scan those, or copy them into this one")
    if not stored.is_virtual:
        return
    sources = {(source.file_name, source.dset_name) for source in stored.virtual_sources()}
    for file_name, name in sorted(sources):
        if file_name != ".":
            raise SourceError(f"{where}: its numbers lie in other files; scan those, or copy them into this one")
        if "%" in name:
            raise SourceError(f"{where}: its source {name!r} is a pattern of names; build it from named data sets")
        name = f"/{name.strip('/')}"
        source = file.get(name) if _is_plain(file, path, name) else None
        if source is None or not hasattr(source, "is_virtual"):
            raise SourceError(f"{where}: it is built from {name!r}, and there is no such data set; write it again")
        if source.is_virtual:
            raise SourceError(f"{where}: it is built from {name!r}, which is virtual itself; copy its numbers")
        if source.external:
            raise SourceError(
                f"{where}: the numbers of its source {name!r} lie in other files; copy them into this one"
            )


def _access(stored: Any, axes: str) -> Any:
    """Return how to open a data set so that its cache holds all chunks of a frame, and its neighbours find them.

    Read in turn, 32 frames of 1024 x 1024 in gzipped chunks of 32 frames took 0.13 s with it, 0.78 s without.
    """
    import h5py

    chunks = dict(zip(axes, stored.chunks or (), strict=False))
    if chunks.get("T", 1) == 1:
        return None
    sizes = dict(zip(axes, stored.shape, strict=True))
    number = prod(-(-sizes[axis] // chunks[axis]) for axis in "HWC" if axis in axes)
    size = number * prod(chunks.values()) * stored.dtype.itemsize
    if size > _CACHE_BYTES:
        return None
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    # HDF5 advises 100 places a chunk; 0.75 is its default, by which a chunk that was read to its end goes first
    access.set_chunk_cache(max(521, 100 * number + 1), max(size, 2**20), 0.75)
    return access


def _reopened(file: Any, name: str, access: Any) -> Any:
    import h5py

    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))
