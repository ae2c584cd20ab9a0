"""The samples under a folder, before any is opened in full: found, told apart, and given their labels."""

import hashlib
import os
import secrets
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.errors import SettingError, TableError
from cinefeed.manifest.columns import FACTS
from cinefeed.manifest.identity import FileState, combined_state, files_of
from cinefeed.manifest.labels import Unmatched, columns_of_paths, first_names, join_labels
from cinefeed.manifest.reading import read_table
from cinefeed.sources.base import DEFAULT_READING, Reading
from cinefeed.sources.open import EXTENSIONS, find_samples, known_suffix

History = list[tuple[str, int]]


def find_videos(folder: Path, *, reading: Reading = DEFAULT_READING) -> Any:
    """Return path (relative, with `/`), size_bytes and mtime_ns of every sample under a folder, sorted by path.

    Where files hold several samples, or folders the frames of one, `part` and `frame_files` are columns as well, and
    so is what the format says of a series. Hidden files and folders are left out; links are followed, each folder
    once. Raises TableError where there is none.
    """
    found: dict[str, FileState] = {}
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()

    def walk(place: Path, prefix: str) -> None:
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    stat = entry.stat()
                except OSError as error:
                    if known_suffix(entry.name):
                        raise TableError(f"{place / entry.name} cannot be read: {error.strerror}") from error
                    continue
                if entry.is_dir():
                    if (stat.st_dev, stat.st_ino) not in seen:
                        seen.add((stat.st_dev, stat.st_ino))
                        walk(Path(entry.path), f"{prefix}{entry.name}/")
                elif known_suffix(entry.name):
                    found[prefix + entry.name] = FileState(stat.st_size, stat.st_mtime_ns)
                else:
                    others[Path(entry.name).suffix.lower() or "no suffix"] += 1

    if not folder.is_dir():
        raise TableError(f"{folder} is no folder; give the folder that holds the videos")
    top = folder.stat()
    seen.add((top.st_dev, top.st_ino))
    walk(folder, "")
    if not found:
        there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "no file at all"
        raise TableError(
            f"no videos in {folder}: there is {there}; give another folder, or files of a known kind "
            f"({', '.join(sorted(EXTENSIONS))})"
        )
    try:
        return _samples(folder, found, reading=reading)
    except UnicodeEncodeError as error:
        raise TableError(f"a file name under {folder} is not UTF-8: {error.object!r}; rename that file") from error


def _samples(folder: Path, files: dict[str, FileState], *, reading: Reading) -> Any:
    """Return the table of the samples in some files, by their paths relative to the folder."""
    samples = find_samples(folder, list(files), reading=reading)
    if not samples:
        kinds = ", ".join(sorted({known_suffix(name) or "" for name in files}))
        raise TableError(
            f"no videos in {folder}: {len(files)} files ({kinds}) hold none; a folder of frames needs two images of "
            "one kind at least, and no video beside them"
        )
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
    private: bool = False,
    share_labels: bool = False,
) -> tuple[Any, History]:
    """Return the videos with columns from their folders and their label rows, and how many were left at each step."""
    history = [("videos found", videos.num_rows)]
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
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(salt + "\n")
    except FileExistsError:
        salt = path.read_text().strip()
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
