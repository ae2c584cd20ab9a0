"""Discovery of the samples in a folder, before any is decoded; their labels and hashed columns."""

import hashlib
import logging
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.errors import SettingError, TableError
from cinefeed.core.files import write_atomically, write_errors
from cinefeed.core.remote.address import Root
from cinefeed.core.remote.files import RemoteFiles
from cinefeed.core.text import format_count
from cinefeed.data.manifest.columns import METADATA_COLUMNS
from cinefeed.data.manifest.identity import FileState, combined_state, files_of
from cinefeed.data.manifest.label_keys import first_names
from cinefeed.data.manifest.labels import Unmatched, columns_of_paths, join_labels
from cinefeed.data.manifest.output_folders import MAX_NAMES, is_within, output_folders, output_kind
from cinefeed.data.manifest.read_table import read_table
from cinefeed.data.manifest.remote import RemoteFolder, announce, list_files, listed_member, remote_state
from cinefeed.data.manifest.summary import not_read_in_words
from cinefeed.video.kinds import (
    START_BYTES,
    extensions,
    is_beside,
    is_readable,
    is_unfinished,
    kind_by_content,
    kind_by_suffix,
    kind_in_words,
    known_suffix,
    read_start,
)
from cinefeed.video.read_options import DEFAULT_READ_OPTIONS, ReadOptions
from cinefeed.video.registry import OPENED_KINDS, Samples, find_samples
from cinefeed.video.source import DiscoveredSample

_log = logging.getLogger(__name__)
_EXAMPLES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".dcm", ".nii.gz", ".h5", ".npy", ".tif", ".png")

History = list[tuple[str, int]]
NotRead = dict[str, dict[str, Any]]


class Videos(NamedTuple):
    """The samples in a folder as a table, and the files that are not read: count and first names, by kind."""

    table: Any
    not_read: NotRead


def find_videos(folder: Path, *, reading: ReadOptions = DEFAULT_READ_OPTIONS, private: bool = False) -> Videos:
    """Return path (relative, with `/`), size_bytes and mtime_ns of every sample in a folder, sorted by path.

    If files hold several samples, or folders the frames of one, the table also has the columns `part` and
    `frame_files`, and those that the format defines for a series. Hidden files and folders are skipped. Links are
    followed, each folder once. The format of a file without a known suffix is detected from its first bytes, unless
    its suffix is that of a table or text.

    Raises TableError if there is no sample, or if a folder holds images that may be frames or masks.
    """
    files: dict[str, FileState] = {}
    kinds: dict[str, str] = {}
    unread: list[tuple[str, str]] = []
    beside: Counter[str] = Counter()
    visited: set[tuple[int, int]] = set()  # device and inode of each folder

    def classify(entry: os.DirEntry[str], name: str, stat: os.stat_result) -> None:
        if not S_ISREG(stat.st_mode):
            unread.append(("pipe, device or socket", name))
            return
        kind = kind_by_suffix(entry.name)
        if kind is None and is_beside(entry.name):
            beside[Path(entry.name).suffix.lower()] += 1
            return
        if kind is None and is_unfinished(entry.name):
            unread.append(("unfinished download", name))
            return
        if kind is None:
            try:
                content = kind_by_content(read_start(entry.path))
            except OSError:
                unread.append(("file that cannot be read", name))
                return
            if content is None or not is_readable(content):
                unread.extend([(kind_in_words(name, content), name)] if content != "dicomdir" else [])
                return
            kind = content
        kinds[name], files[name] = kind, FileState(stat.st_size, stat.st_mtime_ns)

    def walk(directory: Path, prefix: str) -> None:
        try:
            with os.scandir(directory) as iterator:
                entries = [entry for entry in iterator if not entry.name.startswith(".")]
        except OSError:
            unread.append(("folder that cannot be read", prefix))
            return
        names = {entry.name for entry in entries}
        if kind := output_kind(names):
            unread.append((kind, prefix.rstrip("/") or directory.name))
            return
        for entry in entries:
            name = prefix + entry.name
            try:
                stat = entry.stat()
            except OSError as error:
                if known_suffix(entry.name) and not entry.is_symlink():
                    raise TableError(f"{directory / entry.name} cannot be read: {error.strerror}") from error
                unread.append(("link to nowhere" if entry.is_symlink() else "file that cannot be read", name))
                continue
            if not entry.is_dir():
                classify(entry, name, stat)
            elif (stat.st_dev, stat.st_ino) not in visited:
                visited.add((stat.st_dev, stat.st_ino))
                walk(Path(entry.path), f"{name}/")

    if not folder.is_dir():
        raise TableError(f"{folder} is not a folder; give the folder that contains the videos")
    top = folder.stat()
    visited.add((top.st_dev, top.st_ino))
    walk(folder, "")
    try:
        samples = find_samples(folder, kinds, reading=reading)
        state_of = partial(_local_state, files)
        return _checked(samples, unread, beside, name=str(folder), state_of=state_of, private=private)
    except UnicodeEncodeError as error:
        raise TableError(f"a file name under {folder} is not UTF-8: {error.object!r}; rename the file") from error


def find_remote_videos(
    files: RemoteFiles, *, reading: ReadOptions = DEFAULT_READ_OPTIONS, private: bool = False
) -> Videos:
    """Return the samples below a remote root; see `find_videos`. `mtime_ns` holds a negative hash of each file's tag.

    Files that must be opened to know their samples (DICOM, arrays, multi-page TIFF) are fetched.
    """
    listing = {file.path: file for file in list_files(files)}
    outputs = output_folders(listing)
    unread: list[tuple[str, str]] = [(kind, folder) for folder, kind in outputs.items()]
    listing = {name: file for name, file in listing.items() if not is_within(name, outputs)}
    beside: Counter[str] = Counter()
    kinds, unnamed = {}, []
    for name in listing:
        kind = kind_by_suffix(name)
        if kind is not None:
            kinds[name] = kind
        elif is_beside(name):
            beside[Path(name).suffix.lower()] += 1
        elif is_unfinished(name):
            unread.append(("unfinished download", name))
        elif listing[name].size:
            unnamed.append(name)
    for name, start in zip(unnamed, files.read_starts(unnamed, START_BYTES), strict=True):
        content = kind_by_content(start)
        if content is not None and is_readable(content):
            kinds[name] = content
        elif content != "dicomdir":
            unread.append((kind_in_words(name, content), name))
    opened = sorted((name for name in kinds if kinds[name] in OPENED_KINDS), key=lambda name: kinds[name] != "dicom")
    announce(files, (listed_member(listing[name]) for name in opened))
    folder = RemoteFolder(files, listing, ahead=opened)
    try:
        samples = find_samples(folder, kinds, reading=reading)
    finally:
        folder.close()

    def state_of(names: Sequence[str]) -> FileState:
        return remote_state([listing[name] for name in names])

    return _checked(samples, unread, beside, name=str(files.root), state_of=state_of, private=private)


def _local_state(files: Mapping[str, FileState], names: Sequence[str]) -> FileState:
    return combined_state([files[name] for name in names])


def _checked(
    samples: Samples,
    unread: Sequence[tuple[str, str]],
    beside: Counter[str],
    *,
    name: str,
    state_of: Callable[[Sequence[str]], FileState],
    private: bool,
) -> Videos:
    """Return the table of samples, and what is not read. Raises TableError for no sample, or a choice to make."""
    not_read = count_unread([*unread, *samples.unread], private=private)
    if samples.ambiguous:
        raise TableError(_undecided(samples.ambiguous, name, private=private))
    if not samples.samples:
        contents = [f"{count} {suffix}" for suffix, count in beside.most_common(5)]
        contents += [not_read_in_words(not_read)] if not_read else []
        raise TableError(
            f"no videos in {name}: it contains {', '.join(contents) or 'no files'}; give another folder, or "
            f"files of a supported format, such as {', '.join(_EXAMPLES)} ({len(extensions())} suffixes are known, see "
            f"docs/formats.md); a folder of frames needs at least two images of one format, and no video in it"
        )
    return Videos(_as_table(samples.samples, state_of), not_read)


def _undecided(folders: Mapping[str, tuple[str, ...]], root: str, *, private: bool) -> str:
    first, patterns = next(iter(folders.items()))
    count = f"{len(folders)} folders hold" if len(folders) > 1 else "a folder holds"
    place = root if first == "." else f"{root}/{first}"
    example = "" if private else f" (first: {place}, with {' and '.join(patterns)})"
    choice = "*.jpg" if private else patterns[0]
    return (
        f"{count} images of several kinds{example}, which may be frames and masks; select the frames with "
        f"--frames '{choice}' or ReadOptions(frames='{choice}')"
    )


def count_unread(files: Iterable[tuple[str, str]], *, private: bool) -> NotRead:
    """Return the number of files that are not read and their first names by kind, the most frequent kind first.

    >>> count_unread([(".avs", "b.avs"), ("link to nowhere", "x.mp4"), (".avs", "a.avs")], private=False)
    {'.avs': {'files': 2, 'first': ['a.avs', 'b.avs']}, 'link to nowhere': {'files': 1, 'first': ['x.mp4']}}
    """
    names: dict[str, list[str]] = defaultdict(list)
    for kind, name in files:
        names[kind].append(os.fsencode(name).decode(errors="backslashreplace"))  # printable, whatever its bytes
    kinds = sorted(names, key=lambda kind: (-len(names[kind]), kind))
    return {
        kind: {"files": len(names[kind]), "first": [] if private else sorted(names[kind])[:MAX_NAMES]} for kind in kinds
    }


def _as_table(samples: Sequence[DiscoveredSample], state_of: Callable[[Sequence[str]], FileState]) -> Any:
    """Return the table of samples; `state_of` returns the state of files by their paths relative to the folder."""
    states = []
    for sample in samples:
        within = files_of(sample.path, sample.files)
        states.append(state_of([file.removeprefix("./") for file in within]))
    columns = {
        "path": pa.array([sample.path for sample in samples], pa.string()),
        "size_bytes": pa.array([state.size_bytes for state in states], pa.int64()),
        "mtime_ns": pa.array([state.mtime_ns for state in states], pa.int64()),
    }
    if any(sample.part for sample in samples):
        columns["part"] = pa.array([sample.part for sample in samples], pa.string())
    if any(sample.files for sample in samples):
        columns["frame_files"] = pa.array([sample.files or None for sample in samples], METADATA_COLUMNS["frame_files"])
    for name in dict.fromkeys(name for sample in samples for name in sample.tags):
        columns[name] = pa.array([sample.tags.get(name) for sample in samples])
    return pa.table(columns)


def _warn_of_file_names(paths: Any, *, pattern: str, private: bool) -> None:
    """Log a warning if the last step of `path_columns` is a folder for some videos and the file name of others."""
    is_file = pc.less_equal(pc.count_substring(paths, "/"), pattern.strip("/").count("/"))
    files = paths.filter(is_file)
    if 0 < len(files) < len(paths):
        _log.warning(
            "path_columns=%r: its last part is the name of a folder for %d of %d videos, and the file name for the "
            "others (first: %s); if they are stray files, move them out of the scanned folder",
            pattern,
            len(paths) - len(files),
            len(paths),
            first_names(files, private=private),
        )


def describe_videos(
    videos: Any,
    *,
    root: Root,
    labels: object | None,
    on: str | Sequence[str] | None,
    path_columns: str | None,
    unmatched: Unmatched,
    not_read: int = 0,
    private: bool = False,
    share_labels: bool = False,
) -> tuple[Any, History]:
    """Return the videos with columns from folder names and label rows, and the number of rows after each step."""
    history = [
        ("videos found" + (f" ({format_count(not_read, 'file')} not read)" if not_read else ""), videos.num_rows)
    ]
    path_names: list[str] = []
    if path_columns is not None:
        columns, is_match = columns_of_paths(videos.column("path").combine_chunks(), pattern=path_columns)
        path_names = columns.schema.names
        for name in path_names:
            if name in videos.schema.names:
                raise SettingError(
                    f"path_columns={path_columns!r} and the DICOM headers both have a column {name!r}; give another "
                    f"name, such as {{folder_{name}}}, or use {{_}} for a folder without a column"
                )
            videos = videos.append_column(name, columns.column(name))
        other_paths = videos.column("path").filter(pc.invert(is_match))
        first = first_names(other_paths, private=private)
        if len(other_paths) == videos.num_rows or (len(other_paths) and unmatched == "error"):
            raise TableError(
                f"path_columns={path_columns!r}: {len(other_paths)} of {videos.num_rows} videos do not match it "
                f"(first: {first}); correct it, or leave them out with unmatched='ignore'"
            )
        videos = videos.filter(is_match)
        if len(other_paths):
            history.append((f"path matches {path_columns}", videos.num_rows))
        _warn_of_file_names(videos.column("path"), pattern=path_columns, private=private)
    if labels is not None:
        name = str(labels) if isinstance(labels, str | Path) else "the label table"
        videos, joined_on = join_labels(
            videos,
            read_table(labels),
            on=on,
            unmatched=unmatched,
            root=root,
            name=name,
            private=private,
            share_labels=share_labels,
            path_columns=path_names,
        )
        history.append((f"with a row of labels (joined on {joined_on})", videos.num_rows))
    elif on is not None:
        raise SettingError(f"on={on!r} needs a table of labels, but there is none; give labels= too, or leave out on=")
    return videos, history


def salt_path(out: Path) -> Path:
    """Return the path of the salt of a manifest.

    >>> salt_path(Path("a/m.parquet")).as_posix()
    'a/m.parquet.salt'
    """
    return out.with_name(out.name + ".salt")


def stored_salt(path: Path | None) -> str:
    """Return the salt in a file, which is created if absent; a temporary salt if `path` is None.

    Of several processes that create it at the same time, one does, and all return its salt.
    """
    salt = secrets.token_hex(16)
    if path is None:
        return salt
    with write_errors(path, advice="choose another folder, or give a salt", kind=TableError):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, partial(_write_secret, text=salt + "\n"), keep=True)
        return path.read_text().strip()


def _write_secret(path: Path, *, text: str) -> None:
    """Write a new file that only its owner can read."""
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)


@cache
def salt_fingerprint(salt: str) -> str:
    """Return 32 hexadecimal digits that are equal if the ids of two manifests were hashed with the same salt.

    Slow on purpose (0.1 s, 32 MB): otherwise short salts could be guessed from a manifest.
    """
    return hashlib.scrypt(
        salt.encode(), salt=b"cinefeed: fingerprint of a salt", n=2**15, r=8, p=1, maxmem=2**26, dklen=16
    ).hex()


def with_hashes(samples: Any, columns: Sequence[str], *, salt: str) -> Any:
    """Return the samples with the values of some columns hashed to 16 hexadecimal digits; unchanged if salt is ""."""
    if not salt:
        return samples
    for name in columns:
        values = samples.column(name).cast(pa.string()).to_pylist()
        hashed = pa.array([None if value is None else hashed_id(value, salt=salt) for value in values], pa.string())
        samples = samples.set_column(samples.schema.names.index(name), name, hashed)
    return samples


def hashed_id(text: str, *, salt: str) -> str:
    """Return 16 hexadecimal digits that identify an id, but do not reveal it without the salt.

    >>> hashed_id("patient 7", salt="a"), hashed_id("patient 7", salt="b")
    ('10f08be7c2362a2e', '33950a7601bbc2e7')
    """
    return hashlib.blake2b(text.encode(), key=salt.encode()[:64], digest_size=8).hexdigest()
