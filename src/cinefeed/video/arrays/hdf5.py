"""HDF5 files (extra `hdf5`): data sets, or rows of them, as videos. Only the requested frames are read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from cinefeed.core.errors import DecodeError, LimitError, MissingExtraError, SourceError, did_you_mean
from cinefeed.video.arrays.array_frames import (
    ArrayFile,
    broken_after,
    known_axes,
    plane_type,
    sample_metadata,
    windowed,
)
from cinefeed.video.arrays.axes import axes_of, channels_last, has_readings, index_of, row_of, rows_of, split_part
from cinefeed.video.arrays.frame_offsets import check_count
from cinefeed.video.ffmpeg.probe import Verify
from cinefeed.video.limits import Deadline
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.value_range import decode_through

_BROKEN = (OSError, RuntimeError, ValueError, KeyError, TypeError)  # raised by h5py for damage and for unknown types
# HDF5 opens a file once per process: opening it again needs the same settings for locking and writing, unless the
# driver differs. So cinefeed registers its own driver: the logging driver, without a log. Like the default driver it
# reads by position; `stdio` would move a file position that forked processes share.
_DRIVER = "cinefeed"
# Options for a file that the process already has open, such as one that is still being written.
_SHARED: tuple[dict[str, Any], ...] = tuple({"locking": each} for each in (None, False, True, "best-effort"))
_CACHE_BYTES = 2**26  # largest cache for the unpacked chunks of a frame, kept until the next frame is read


class Hdf5Source(ArrayFile):
    """A video in an HDF5 data set, given by the part: "/group/name", or "/group/name[5]" for a row of a set.

    Shapes and dtypes are those of a `.npy` file; see ArraySource. A file with only one data set that can be a video
    needs no part. The file is opened read-only, without a lock and independently of other handles: the process can open
    the same file with h5py at the same time, to read or to write, with any locking, before or after.

    Frames that lie in one chunk are unpacked once if the chunks of a frame fit into 64 MB.

    In h5py, only one thread at a time can use the HDF5 library, even for different files: threads that read HDF5 block
    each other, processes do not.

    A data set that lies in other files (linked, virtual or external) is refused: a manifest has one file per row, and a
    file must not decide which other files are read. A virtual data set is read if each of its sources is an ordinary
    data set of the same file.
    """

    @staticmethod
    def _probe(path: Path, part: str | None) -> VideoMetadata:
        return probe_hdf5(path, part=part)

    def _open(self, part: str | None) -> None:
        path = self.path
        name, row = split_part(part)
        self._file = _open_file(path)
        try:
            data_set = _data_set(self._file, path, name)
            self._where = f"{path}::{data_set.name}"
            self._axes = known_axes(self.metadata, data_set.shape, data_set.dtype, where=self._where)
            self._fixed = row_of(row, self._axes, data_set.shape, where=self._where)
            count = data_set.shape[self._axes.index("T")]
            check_count(len(self), count, where=self._where)
            name, access = data_set.name, _access(data_set, self._axes)
            del data_set  # HDF5 keeps the cache of a data set while any handle is open
            self._set = self._file[name] if access is None else _open_with_cache(self._file, name, access)
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
        """Close the file; planes that were returned remain valid."""
        super().close()
        self._file.close()


def probe_hdf5(
    path: str | Path,
    *,
    part: str | None = None,
    files: Sequence[str] = (),
    verify: Verify = "decode",
    reading: ReadOptions = DEFAULT_READ_OPTIONS,
) -> VideoMetadata:
    """Return the metadata of a video in an HDF5 file.

    With verify="decode" all frames of a compressed or checksummed data set are read to find where it breaks, and frames
    after the last one ever written are excluded, since HDF5 would return fill values.
    Raises SourceError if there is no video, or if the file is cut off: HDF5 cannot open such a file.
    """
    path = Path(path)
    name, row = split_part(part)
    with _open_file(path) as file:
        data_set = _data_set(file, path, name)
        where = f"{path}::{data_set.name}"
        axes = axes_of(data_set.shape, declared=reading.axes, where=where)
        fixed = row_of(row, axes, data_set.shape, where=where)
        codec = data_set.compression or "raw"
        limits = reading.limits
        metadata = sample_metadata(
            data_set.shape, axes, data_set.dtype, container="hdf5", codec=codec, where=where, limits=limits
        )
        for layer in _layers(data_set):
            if layer.chunks is not None and layer.id.get_create_plist().get_nfilters() > 0:
                size = prod(layer.chunks) * layer.dtype.itemsize
                limits.check_unpacked(size, name="a chunk", where=where)
        read_through = verify == "decode" and data_set.id.get_create_plist().get_nfilters() > 0
        if read_through:
            metadata = broken_after(
                metadata, _written_frames(data_set, axes, fixed), "the rest was never written", where=where
            )
    if not read_through and reading.window != "percentiles":
        return metadata
    with Hdf5Source(path, part=part, metadata=metadata) as source:
        if read_through:
            source.metadata = _read_through(source, reading.limits.deadline(where))
        return windowed(source, reading)


def hdf5_parts(path: str | Path, reading: ReadOptions = DEFAULT_READ_OPTIONS) -> list[str]:
    """Return the parts of an HDF5 file that are samples, by name: "/group/x", or "/group/x[0]", "/group/x[1]" ...

    These are all numeric data sets of 3 to 5 axes, or of the declared axes. Raises SourceError if there are none.
    """
    path = Path(path)
    parts, faults = [], []
    with _open_file(path) as file:
        for data_set in _data_sets(file, path):
            where = f"{path}::{data_set.name}"
            try:
                _require_own_numbers(data_set, file, path, where)
                if has_readings(data_set.shape, reading.axes):
                    parts.append(data_set.name)  # a row of the manifest, whose error lists the possible axes
                    continue
                axes = axes_of(data_set.shape, declared=reading.axes, where=where)
                ends = rows_of(data_set.shape, axes, limits=reading.limits, where=where)
                parts += [data_set.name + end for end in ends]
                reading.limits.check_samples(len(parts), where=path)
            except LimitError:
                raise
            except SourceError as error:
                faults.append(str(error))
    if not parts:
        raise SourceError(f"{path}: has no data set that is a video{'; ' + faults[0] if faults else ''}")
    return parts


def _layers(data_set: Any) -> Iterator[Any]:
    """Yield a data set, and if it is virtual the data sets that it is built from."""
    yield data_set
    if data_set.is_virtual:
        for name in sorted({source.dset_name for source in data_set.virtual_sources()}):
            yield data_set.file[name]


def _read_through(source: Hdf5Source, deadline: Deadline) -> VideoMetadata:
    whole, error, values = decode_through(source, deadline=deadline)
    metadata = replace(source.metadata, values=values)
    return metadata if error is None else broken_after(metadata, whole, str(error.__cause__), where=deadline.where)


def _written_frames(data_set: Any, axes: str, fixed: Mapping[str, int]) -> int:
    """Return the number of frames up to the last chunk that was ever written."""
    chunks, time = data_set.chunks, axes.index("T")
    count = int(data_set.shape[time])
    at = {**fixed, "T": count - 1}
    corner = [at.get(axis, 0) // chunk * chunk for axis, chunk in zip(axes, chunks, strict=True)]
    last = 0

    def visit(chunk: Any) -> None:
        nonlocal last
        place = dict(zip(axes, zip(chunk.chunk_offset, chunks, strict=True), strict=True))
        if all(place[axis][0] <= index < sum(place[axis]) for axis, index in fixed.items()):
            last = max(last, sum(place["T"]))

    try:
        if data_set.id.get_chunk_info_by_coord(tuple(corner)).byte_offset is not None:
            return count
        data_set.id.chunk_iter(visit)
    except _BROKEN:  # the list of chunks is damaged: reading finds where
        return count
    return min(last, count)


def _open_file(path: Path) -> Any:
    try:
        import h5py  # type: ignore[import-untyped]  # it has no stubs
    except ModuleNotFoundError as error:
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
    """Return a data set by name, or the only one that can be a video."""
    if not name:
        names = [each.name for each in _data_sets(file, path)]
        if len(names) != 1:
            raise SourceError(
                f"{path}: has {len(names)} data sets that could be a video; select one by its part, as in "
                f"{path.name}::{(names or ['/name'])[0]}; {did_you_mean('', names)}"
            )
        name = names[0]
    name = f"/{name.strip('/')}"
    try:
        data_set = file.get(name) if _is_plain(file, path, name) else None
        if data_set is None or not hasattr(data_set, "is_virtual"):
            names = [each.name for each in _data_sets(file, path)]
            raise SourceError(f"{path}: has no data set {name!r}; {did_you_mean(name, names)}")
        _require_own_numbers(data_set, file, path, f"{path}::{name}")
        if data_set.shape is None:
            raise SourceError(f"{path}::{name}: is empty")
        plane_type(data_set.dtype, where=f"{path}::{name}")
    except _BROKEN as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}::{name}: cannot be read ({error})") from error
    return data_set


def _is_plain(file: Any, path: Path, name: str) -> bool:
    """Return whether an object has this name. Raises SourceError if the path contains a link, whatever its target."""
    import h5py

    parents = [parent for parent in PurePosixPath(name).parents if parent != PurePosixPath("/")]
    for step in (*reversed(parents), name):
        link = file.get(str(step), getlink=True)
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
            raise SourceError(
                f"{path}::{name}: {str(step)!r} is a link, and links are not followed; give the target, in the "
                f"file that contains it"
            )
        if link is None:
            return False
    return True


def _data_sets(file: Any, path: Path) -> Iterator[Any]:
    """Yield the data sets of 3 to 5 axes of integers or floats, by name; links are not followed.

    A data set that lies in other files is included whatever its shape, which may be stored only in those files.
    """
    names = []

    def visit(name: str, item: Any) -> None:
        try:
            if item.is_virtual or _may_be_video(item):
                names.append(name)
        except (AttributeError, TypeError):  # a group; a type that NumPy lacks
            pass

    try:
        file.visititems(visit)
    except _BROKEN as error:
        raise SourceError(f"{path}: its list of data sets cannot be read ({error})") from error
    for name in names:  # one at a time: a file may have a hundred thousand
        data_set = file[name]
        try:
            _require_own_numbers(data_set, file, path, name)
        except SourceError:
            yield data_set
        else:
            if _may_be_video(data_set):
                yield data_set


def _may_be_video(data_set: Any) -> bool:
    """Return whether a data set has 3 to 5 axes of integers or floats."""
    return len(data_set.shape or ()) in (3, 4, 5) and data_set.dtype.kind in "buif"


def _require_own_numbers(data_set: Any, file: Any, path: Path, where: str) -> None:
    """Raise SourceError unless all numbers of a data set lie in this file.

    The sources of a virtual data set must be ordinary data sets: HDF5 follows virtual ones without end (one that is its
    own source crashes the process), and expands names with a pattern (%b) to all matches.
    """
    if data_set.external:
        raise SourceError(f"{where}: its numbers are in other files; scan those, or copy them into this one")
    if not data_set.is_virtual:
        return
    sources = {(source.file_name, source.dset_name) for source in data_set.virtual_sources()}
    for file_name, name in sorted(sources):
        if file_name != ".":
            raise SourceError(f"{where}: its numbers are in other files; scan those, or copy them into this one")
        if "%" in name:
            raise SourceError(f"{where}: its source {name!r} is a pattern of names; build it from named data sets")
        name = f"/{name.strip('/')}"
        source = file.get(name) if _is_plain(file, path, name) else None
        if source is None or not hasattr(source, "is_virtual"):
            raise SourceError(f"{where}: it is built from {name!r}, which does not exist; write it again")
        if source.is_virtual:
            raise SourceError(f"{where}: it is built from {name!r}, which is virtual itself; copy its numbers")
        if source.external:
            raise SourceError(
                f"{where}: the numbers of its source {name!r} are in other files; copy them into this one"
            )


def _access(data_set: Any, axes: str) -> Any:
    """Return access settings for a data set whose cache holds all chunks of a frame, for the next frames.

    Read in sequence, 32 frames of 1024 x 1024 in gzipped chunks of 32 frames take 0.13 s with it, 0.78 s without.
    """
    import h5py

    chunks = dict(zip(axes, data_set.chunks or (), strict=False))
    if chunks.get("T", 1) == 1:
        return None
    sizes = dict(zip(axes, data_set.shape, strict=True))
    number = prod(-(-sizes[axis] // chunks[axis]) for axis in "HWC" if axis in axes)
    size = number * prod(chunks.values()) * data_set.dtype.itemsize
    if size > _CACHE_BYTES:
        return None
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    # HDF5 recommends 100 slots per chunk; with 0.75, the default, fully read chunks are evicted first
    access.set_chunk_cache(max(521, 100 * number + 1), max(size, 2**20), 0.75)
    return access


def _open_with_cache(file: Any, name: str, access: Any) -> Any:
    import h5py

    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))
