"""Encoding in parts: each part encodes the frames of some videos, and the merge puts all features into one folder."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cinefeed.core.locks import with_write_lock
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.parquet import table_digest
from cinefeed.encoders.video_encoder import VideoEncoder
from cinefeed.jobs.files import link_files
from cinefeed.jobs.parts import Part, part_rows
from cinefeed.jobs.records import DonePart, Job, PartWork, make_part, merged_rows
from cinefeed.jobs.versions import versions_of_network
from cinefeed.training.encode import (
    FEATURES_TABLE,
    Numbers,
    check_any_encoded,
    check_augmented,
    dimension_of,
    encode_videos,
    features_table,
    file_of,
    make_folder,
    notes_of,
    splits_of,
    videos_of,
    with_splits,
    write_features,
)
from cinefeed.training.features_journal import add_to_journal

_FEATURES = "features"  # folder in a part


def encode_part(
    manifest: str | Path | Manifest,
    *,
    part: Part,
    out: str | Path,
    encoder: VideoEncoder,
    dtype: Numbers = "float32",
    augmented: int = 0,
    seed: int = 0,
    tick: Callable[[int, int], object] | None = None,
) -> DonePart:
    """Encode one part of a manifest into the folder `out`, to be merged by `merge`.

    Parts are balanced by the bytes of the videos' files. The other arguments and errors are those of `encode`.
    """
    check_augmented(augmented, encoder)
    videos = videos_of(manifest, encoder)
    splits, warning = splits_of(videos, encoder)
    job = Job(
        command="encode",
        settings={
            "encoder": encoder.name,
            "transforms": repr(encoder.compose.transforms),
            "dtype": dtype,
            "augmented": augmented,
            "augmentation": repr((encoder.augment.transforms, seed)) if augmented and encoder.augment else "",
        },
        inputs={
            "manifest": table_digest(videos.table, b"").decode(),
            "splits": table_digest(pa.table({"split": splits}), b"").decode() if splits is not None else "",
            "rows": len(videos),
        },
        versions=versions_of_network(),
        whole=notes_of(videos, encoder, path=None if isinstance(manifest, Manifest) else manifest)
        | {"warning": warning},
    )

    def work(part_folder: Path) -> PartWork:
        folder = part_folder / _FEATURES
        numbers = part_rows(part, *_units(videos))
        if len(numbers) == 0:
            return PartWork(numbers=numbers)
        rows = videos.take(numbers)
        result = encode_videos(rows, folder, encoder=encoder, dtype=dtype, augmented=augmented, seed=seed, tick=tick)
        table = features_table(rows, folder, result.metadata, encoder=encoder, dtype=dtype)
        names = [name for name in result.files if not isinstance(result.metadata[name], str)]
        return PartWork(
            numbers=numbers,
            table=with_splits(table, None if splits is None else splits.take(pa.array(numbers))),
            files=[f"{_FEATURES}/{name}" for name in names],
            details={
                "videos": len(result.files),
                "failures": result.failures,
                "keys": result.keys,
                "dimension": dimension_of(folder, result),
            },
        )

    return make_part(Path(out), part, job, work)


class MergedFeatures(NamedTuple):
    """Result of a merge: path of the manifest, numbers of rows and of features per frame, failures, a warning."""

    path: Path
    rows: int
    dimension: int
    failures: tuple[dict[str, str], ...]
    warning: str


@with_write_lock("out", folder=True)
def merge_encode(parts: Sequence[DonePart], *, out: Path) -> MergedFeatures:
    """Write the features of all parts into the folder `out`, and their manifest."""
    job, details = parts[0].job, [each.record["details"] for each in parts if each.record["rows"]]
    table = merged_rows(parts, total=job.inputs["rows"])
    failures = tuple(failure for each in details for failure in each["failures"])
    check_any_encoded(sum(each["videos"] for each in details), failures)
    make_folder(out)
    (out / FEATURES_TABLE).unlink(missing_ok=True)  # until all files are there: it would mix two networks
    link_files(
        (each.folder / name, out / Path(name).relative_to(_FEATURES)) for each in parts for name in each.record["files"]
    )
    add_to_journal(out, {file: key for each in details for file, key in each["keys"].items()})
    path = write_features(table, job.whole, folder=out)
    dimension = max(each["dimension"] for each in details)
    return MergedFeatures(path, len(table), dimension, failures, job.whole["warning"])


def _units(videos: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the file of each row, and the bytes of each file."""
    files = pa.array([file_of(videos, row) for row in range(len(videos))]).dictionary_encode()
    units = np.asarray(files.indices).astype(np.int64)
    _, first_rows = np.unique(units, return_index=True)
    if "size_bytes" not in videos.table.schema.names:
        return units, np.ones(len(first_rows), np.int64)
    return units, np.asarray(videos.column("size_bytes").fill_null(0))[first_rows]
