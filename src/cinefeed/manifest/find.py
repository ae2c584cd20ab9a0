"""The samples under a folder, before any is opened in full: found, told apart, and given their labels."""

import hashlib
import logging
import os
import secrets
import stat as stats
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.errors import SettingError, TableError
from cinefeed.manifest.columns import FACTS
from cinefeed.manifest.labels import Unmatched, columns_of_paths, first_names, join_labels
from cinefeed.manifest.reading import read_table
from cinefeed.sources.base import DEFAULT_READING, Reading
from cinefeed.sources.limits import irregular_kind
from cinefeed.sources.open import EXTENSIONS, find_samples, known_suffix

_log = logging.getLogger(__name__)
_NAMES_SHOWN = 5

History = list[tuple[str, int]]


def find_videos(folder: Path, *, reading: Reading = DEFAULT_READING, private: bool = False) -> Any:
    """Return path (relative, with `/`), size_bytes and mtime_ns of every sample under a folder, sorted by path.

    Where files hold several samples, or folders the frames of one, `part` and `frame_files` are columns as well, and
    so is what the format says of a series. Hidden files and folders are left out; links are followed, each folder
    once. Pipes, devices and sockets are left out, and named in one log line (counted if `private`): to open them may
    wait for ever. Raises TableError where there is no video.
    """
    found: list[tuple[str, int, int]] = []
    others: Counter[str] = Counter()
    irregular: list[str] = []
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
                elif not stats.S_ISREG(stat.st_mode):
                    irregular.append(f"{prefix}{entry.name} ({irregular_kind(entry.path)})")
                elif known_suffix(entry.name):
                    found.append((prefix + entry.name, stat.st_size, stat.st_mtime_ns))
                else:
                    others[Path(entry.name).suffix.lower() or "no suffix"] += 1

    if not folder.is_dir():
        raise TableError(f"{folder} is no folder; give the folder that holds the videos")
    top = folder.stat()
    seen.add((top.st_dev, top.st_ino))
    walk(folder, "")
    if irregular:
        names = irregular[:_NAMES_SHOWN] + ["..."] * (len(irregular) > _NAMES_SHOWN)
        shown = "" if private else f": {', '.join(names)}"
        _log.warning("left out of the scan, for only regular files are opened: %d%s", len(irregular), shown)
    if not found:
        there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "no file at all"
        raise TableError(
            f"no videos in {folder}: there is {there}; give another folder, or files of a known kind "
            f"({', '.join(sorted(EXTENSIONS))})"
        )
    try:
        return _samples(folder, {name: (size, mtime) for name, size, mtime in found}, reading=reading)
    except UnicodeEncodeError as error:
        raise TableError(f"a file name under {folder} is not UTF-8: {error.object!r}; rename that file") from error


def _samples(folder: Path, files: dict[str, tuple[int, int]], *, reading: Reading) -> Any:
    """Return the table of the samples in some files, of which size and modification time are known."""
    samples = find_samples(folder, list(files), reading=reading)
    if not samples:
        kinds = ", ".join(sorted({known_suffix(name) or "" for name in files}))
        raise TableError(
            f"no videos in {folder}: {len(files)} files ({kinds}) hold none; a folder of frames needs two images of "
            "one kind at least, and no video beside them"
        )
    sizes, mtimes = [], []
    for sample in samples:
        within = [files[f"{sample.path}/{name}".removeprefix("./")] for name in sample.files] or [files[sample.path]]
        sizes.append(sum(size for size, _ in within))
        mtimes.append(max(mtime for _, mtime in within))
    columns = {
        "path": pa.array([sample.path for sample in samples], pa.string()),
        "size_bytes": pa.array(sizes, pa.int64()),
        "mtime_ns": pa.array(mtimes, pa.int64()),
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
            videos, read_table(labels), on=on, unmatched=unmatched, root=root, name=name, private=private
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
