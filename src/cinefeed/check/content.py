"""Videos that are the same to the byte, found without reading files that cannot be."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cinefeed.check.look import Looks
from cinefeed.manifest.identity import content_hash
from cinefeed.manifest.table import Manifest

_BLOCK = 1 << 20


def copies(manifest: Manifest, looks: Looks, *, workers: int) -> list[list[int]]:
    """Return sets of rows that hold the same bytes: other files with the same content, or one file listed twice.

    Parts and stretches of one file are different samples; those of two files are copies where they are the same part.
    Only files of one size are compared, by their ends first (64 KiB each), then whole.
    """
    names = manifest.table.schema.names
    which = [manifest.column(name).to_pylist() for name in ("part", "start_seconds", "end_seconds") if name in names]
    by_size: dict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for row in range(len(manifest)):
        if looks.read[row] and looks.sizes[row] > 0:
            by_size[(int(looks.sizes[row]), *(column[row] for column in which))].append(row)
    sets = [rows for rows in by_size.values() if len(rows) > 1]
    files = {row: manifest.rows.files(row) for rows in sets for row in rows}
    with ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-check") as pool:
        for digest in (content_hash, _whole):
            sets = _told_apart(sets, partial(_of_all, files, digest), pool)
    return sorted(sets)


def _told_apart(sets: Iterable[list[int]], key: Callable[[int], Hashable], pool: ThreadPoolExecutor) -> list[list[int]]:
    found = []
    for rows in sets:
        alike = defaultdict(list)
        for row, each in zip(rows, pool.map(key, rows), strict=True):
            alike[each].append(row)
        found += [members for each, members in alike.items() if each is not None and len(members) > 1]
    return found


def _of_all(files: Mapping[int, list[str]], digest: Callable[[list[str]], Hashable], row: int) -> Hashable:
    try:
        return digest(files[row])
    except OSError:
        return None  # it was read a moment ago; what cannot be compared is no copy


def _whole(files: list[str]) -> tuple[bytes, ...]:
    return tuple(_digest(Path(file)) for file in files)


def _digest(file: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.digest()
