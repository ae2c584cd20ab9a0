"""The samples under a folder, before any is opened in full: found, told apart, and given their labels."""

import hashlib
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.errors import SettingError, TableError
from cinefeed.files import write_atomically
from cinefeed.manifest.columns import FACTS
from cinefeed.manifest.identity import FileState, combined_state, files_of
from cinefeed.manifest.label_keys import first_names
from cinefeed.manifest.labels import Unmatched, columns_of_paths, join_labels
from cinefeed.manifest.reading import read_table
from cinefeed.manifest.summary import not_read_in_words
from cinefeed.sources.base import DEFAULT_READING, Found, Reading
from cinefeed.sources.kinds import (
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
from cinefeed.sources.open import find_samples

History = list[tuple[str, int]]
NotRead = dict[str, dict[str, Any]]
_NAMED = 3  # files of a kind that is not read


class Videos(NamedTuple):
    """The samples under a folder as a table, and the other files by what they are: how many, and the first names."""

    table: Any
    not_read: NotRead


def find_videos(folder: Path, *, reading: Reading = DEFAULT_READING, private: bool = False) -> Videos:
    """Return path (relative, with `/`), size_bytes and mtime_ns of every sample under a folder, sorted by path.

    Where files hold several samples, or folders the frames of one, `part` and `frame_files` are columns as well, and
    so is what the format says of a series. Hidden files and folders are left out; links are followed, each folder
    once. A file without a known suffix is taken by how it begins, unless its suffix is that of a table or text.

    Raises TableError where there is no sample, and where a folder holds images that may be frames or masks.
    """
    files: dict[str, FileState] = {}
    kinds: dict[str, str] = {}
    unread: list[tuple[str, str]] = []
    beside: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()

    def look(entry: os.DirEntry[str], name: str, stat: os.stat_result) -> None:
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

    def walk(place: Path, prefix: str) -> None:
        try:
            entries = os.scandir(place)
        except OSError:
            unread.append(("folder that cannot be read", prefix))
            return
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = prefix + entry.name
                try:
                    stat = entry.stat()
                except OSError as error:
                    if known_suffix(entry.name) and not entry.is_symlink():
                        raise TableError(f"{place / entry.name} cannot be read: {error.strerror}") from error
                    unread.append(("link to nowhere" if entry.is_symlink() else "file that cannot be read", name))
                    continue
                if not entry.is_dir():
                    look(entry, name, stat)
                elif (stat.st_dev, stat.st_ino) not in seen:
                    seen.add((stat.st_dev, stat.st_ino))
                    walk(Path(entry.path), f"{name}/")

    if not folder.is_dir():
        raise TableError(f"{folder} is no folder; give the folder that holds the videos")
    top = folder.stat()
    seen.add((top.st_dev, top.st_ino))
    walk(folder, "")
    try:
        samples = find_samples(folder, kinds, reading=reading)
        not_read = count_unread([*unread, *samples.unread], private=private)
        if samples.undecided:
            raise TableError(_undecided(samples.undecided, folder, private=private))
        if not samples.found:
            there = [f"{count} {suffix}" for suffix, count in beside.most_common(5)]
            there += [not_read_in_words(not_read)] if not_read else []
            raise TableError(
                f"no videos in {folder}: there is {', '.join(there) or 'no file at all'}; give another folder, or "
                f"files of a known kind ({', '.join(sorted(extensions()))}); a folder of frames needs two images of "
                f"one kind at least, and no video beside them"
            )
        return Videos(_as_table(samples.found, files), not_read)
    except UnicodeEncodeError as error:
        raise TableError(f"a file name under {folder} is not UTF-8: {error.object!r}; rename that file") from error


def _undecided(folders: Mapping[str, tuple[str, ...]], root: Path, *, private: bool) -> str:
    first, patterns = next(iter(folders.items()))
    count = f"{len(folders)} folders hold" if len(folders) > 1 else "a folder holds"
    named = "" if private else f" (first: {root / first}, with {' and '.join(patterns)})"
    choice = "*.jpg" if private else patterns[0]
    return (
        f"{count} images of several kinds{named}, which may be frames and masks; choose the frames, with "
        f"--frames '{choice}' or Reading(frames='{choice}')"
    )


def count_unread(files: Iterable[tuple[str, str]], *, private: bool) -> NotRead:
    """Return how many files of each kind are not read, the most frequent first, and the first names of each.

    >>> count_unread([(".avs", "b.avs"), ("link to nowhere", "x.mp4"), (".avs", "a.avs")], private=False)
    {'.avs': {'files': 2, 'first': ['a.avs', 'b.avs']}, 'link to nowhere': {'files': 1, 'first': ['x.mp4']}}
    """
    names: dict[str, list[str]] = defaultdict(list)
    for kind, name in files:
        names[kind].append(os.fsencode(name).decode(errors="backslashreplace"))  # printed, whatever bytes it has
    kinds = sorted(names, key=lambda kind: (-len(names[kind]), kind))
    return {
        kind: {"files": len(names[kind]), "first": [] if private else sorted(names[kind])[:_NAMED]} for kind in kinds
    }


def _as_table(samples: Sequence[Found], files: Mapping[str, FileState]) -> Any:
    """Return the table of samples in some files, by their paths relative to the folder."""
    states = []
    for sample in samples:
        within = files_of(sample.path, sample.files)
        states.append(combined_state([files[file.removeprefix("./")] for file in within]))
    columns = {
        "path": pa.array([sample.path for sample in samples], pa.string()),
        "size_bytes": pa.array([state.size_bytes for state in states], pa.int64()),
        "mtime_ns": pa.array([state.mtime_ns for state in states], pa.int64()),
    }
    if any(sample.part for sample in samples):
        columns["part"] = pa.array([sample.part for sample in samples], pa.string())
    if any(sample.files for sample in samples):
        columns["frame_files"] = pa.array([sample.files or None for sample in samples], FACTS["frame_files"])
    for name in dict.fromkeys(name for sample in samples for name in sample.tags):
        columns[name] = pa.array([sample.tags.get(name) for sample in samples])
    return pa.table(columns)


def describe_videos(
    videos: Any,
    *,
    root: Path,
    labels: object | None,
    on: str | Sequence[str] | None,
    path_columns: str | None,
    unmatched: Unmatched,
    not_read: int = 0,
    private: bool = False,
    share_labels: bool = False,
) -> tuple[Any, History]:
    """Return the videos with columns from their folders and their label rows, and how many were left at each step."""
    history = [(f"videos found ({not_read} files not read)" if not_read else "videos found", videos.num_rows)]
    if path_columns is not None:
        columns, follows = columns_of_paths(videos.column("path").combine_chunks(), pattern=path_columns)
        for name in columns.schema.names:
            videos = videos.append_column(name, columns.column(name))
        strangers = videos.column("path").filter(pc.invert(follows))
        first = first_names(strangers, private=private)
        if len(strangers) == videos.num_rows or (len(strangers) and unmatched == "error"):
            raise TableError(
                f"path_columns={path_columns!r}: {len(strangers)} of {videos.num_rows} videos do not follow it "
                f"(first: {first}); mend it, or leave them out with unmatched='ignore'"
            )
        videos = videos.filter(follows)
        if len(strangers):
            history.append((f"path follows {path_columns}", videos.num_rows))
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
        )
        history.append((f"with a row of labels (joined on {joined_on})", videos.num_rows))
    elif on is not None:
        raise SettingError(f"on={on!r} joins a table of labels, but none was given; give labels= too, or leave out on=")
    return videos, history


def salt_of(out: Path | None) -> str:
    """Return the salt kept beside a manifest, made if there is none yet; of a manifest not written, one for the day."""
    salt = secrets.token_hex(16)
    if out is None:
        return salt
    path = out.with_name(out.name + ".salt")

    def write(partial: Path) -> None:
        with open(partial, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(salt + "\n")

    try:
        if path.exists():
            return path.read_text().strip()
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        raise TableError(f"cannot write {path}: {error.strerror}; choose another place, or give a salt") from error
    return salt


@cache
def salt_fingerprint(salt: str) -> str:
    """Return 32 hexadecimal digits by which two manifests tell whether their ids were hashed with one salt.

    Slow by purpose (0.1 s, 32 MB): who has a manifest could try short salts otherwise.
    """
    return hashlib.scrypt(
        salt.encode(), salt=b"cinefeed: fingerprint of a salt", n=2**15, r=8, p=1, maxmem=2**26, dklen=16
    ).hex()


def with_hashes(samples: Any, columns: Sequence[str], *, salt: str) -> Any:
    """Return the samples with the values of some columns hashed, 16 hexadecimal digits; "" as salt leaves them."""
    if not salt:
        return samples
    for name in columns:
        values = samples.column(name).cast(pa.string()).to_pylist()
        hashed = pa.array([None if value is None else hashed_id(value, salt=salt) for value in values], pa.string())
        samples = samples.set_column(samples.schema.names.index(name), name, hashed)
    return samples


def hashed_id(text: str, *, salt: str) -> str:
    """Return 16 hexadecimal digits that tell an id from others, and not what it is to who lacks the salt.

    >>> hashed_id("patient 7", salt="a"), hashed_id("patient 7", salt="b")
    ('10f08be7c2362a2e', '33950a7601bbc2e7')
    """
    return hashlib.blake2b(text.encode(), key=salt.encode()[:64], digest_size=8).hexdigest()
