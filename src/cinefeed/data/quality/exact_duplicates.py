"""Exact duplicates: videos with the same bytes. Files of different sizes are not read."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cinefeed.data.manifest.identity import content_hash
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.rows import Rows
from cinefeed.data.quality.frame_summaries import FrameSummaries

_BLOCK = 1 << 20


def copies(manifest: Manifest, summaries: FrameSummaries, *, workers: int) -> list[list[int]]:
    """Return sets of rows with the same bytes: different files with the same content, or one file listed twice.

    Parts and stretches of one file are different samples; those of two files are copies if they are the same part.
    Only files of the same size are compared: first their ends (64 KiB each), then all their bytes.
    """
    names = manifest.table.schema.names
    part_columns = [
        manifest.column(name).to_pylist() for name in ("part", "start_seconds", "end_seconds") if name in names
    ]
    by_size: dict[tuple[Hashable, ...], list[int]] = defaultdict(list)
    for row in range(len(manifest)):
        if summaries.rows_read[row] and summaries.sizes[row] > 0:
            by_size[(int(summaries.sizes[row]), *(column[row] for column in part_columns))].append(row)
    sets = [rows for rows in by_size.values() if len(rows) > 1]
    with ThreadPoolExecutor(workers, thread_name_prefix="cinefeed-check") as pool:
        for digest in (content_hash, _full_digest):
            sets = _split_by_key(sets, partial(_digest_row, manifest.rows, digest), pool)
    return sorted(sets)


def _split_by_key(
    sets: Iterable[list[int]], key: Callable[[int], Hashable], pool: ThreadPoolExecutor
) -> list[list[int]]:
    matching_sets = []
    for rows in sets:
        rows_by_key = defaultdict(list)
        for row, each in zip(rows, pool.map(key, rows), strict=True):
            rows_by_key[each].append(row)
        matching_sets += [members for each, members in rows_by_key.items() if each is not None and len(members) > 1]
    return matching_sets


def _digest_row(rows: Rows, digest: Callable[[list[str]], Hashable], row: int) -> Hashable:
    try:
        with rows.local_files(row) as files:
            return digest(files)
    except OSError:
        return None  # readable before; a file that cannot be compared is not reported as a copy


def _full_digest(files: list[str]) -> tuple[bytes, ...]:
    return tuple(_digest(Path(file)) for file in files)


def _digest(file: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.digest()
