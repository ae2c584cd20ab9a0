"""A digest of the rows, paths, frame index and labels of a manifest."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.data.manifest.columns import METADATA_COLUMNS, RESERVED, SAMPLE

# Other columns of METADATA_COLUMNS follow from the file (such as `damaged`; `conceals_damage` is a choice), depend on
# this machine, or change when a data set is copied.
_FRAME_INDEX = "size_bytes num_frames first_tick step_ticks tick_num tick_den ticks step_seconds seconds key_frames"


_READING = "video_stream array_axes window_black window_white frame_files conceals_damage member_sha256"


_FINGERPRINTED = {*SAMPLE, *_FRAME_INDEX.split(), *_READING.split()}


def fingerprint(table: Any) -> str:
    """Return 32 hexadecimal digits that change with rows, paths, sizes, frame index or labels.

    Pixels, root, modification times and the order of columns are ignored, so a copied data set has the same digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(table.schema.names):
        kind = name.partition(":")[0]  # "mtime_ns:4ch" is that of a view
        if kind in METADATA_COLUMNS and kind not in _FINGERPRINTED:
            continue
        column = table.column(name)
        if name in RESERVED and column.null_count == len(column):  # equal to a missing column
            continue
        kind_of_values = str(column.type).replace("list<item:", "list<element:")  # as Parquet returns lists
        digest.update(f"{name}:{kind_of_values}:{len(column)};".encode())
        digest_values(digest, column.chunks)
    return digest.hexdigest()


def digest_values(digest: Any, chunks: list[Any]) -> None:
    """Update a digest with a column: all masks, then all lengths, then all values, independent of its chunks."""
    if any(chunk.null_count for chunk in chunks):
        for chunk in chunks:
            digest.update(chunk.is_valid().to_numpy(zero_copy_only=False).tobytes())
    if not chunks:
        return
    kind = chunks[0].type
    if pa.types.is_list(kind):
        for chunk in chunks:
            digest.update(pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False).tobytes())
        digest_values(digest, [chunk.flatten() for chunk in chunks])
    elif pa.types.is_string(kind):
        filled = [pc.fill_null(chunk, "") for chunk in chunks]
        for chunk in filled:
            digest.update(pc.binary_length(chunk).to_numpy(zero_copy_only=False).tobytes())
        for chunk in filled:
            _, offsets, values = chunk.buffers()
            bounds = np.frombuffer(offsets, np.int32, count=len(chunk) + 1, offset=4 * chunk.offset)
            if values is not None:
                digest.update(memoryview(values)[bounds[0] : bounds[-1]])
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        for chunk in chunks:
            digest.update(pc.fill_null(chunk, pa.scalar(0).cast(kind)).to_numpy(zero_copy_only=False).tobytes())
    else:
        digest_values(
            digest,
            [pa.array([None if v is None else str(v) for v in chunk.to_pylist()], pa.string()) for chunk in chunks],
        )
