"""Encode frames once by a frozen network: features and a manifest of them, to train the layers after the network.

The output is one `.npy` per video, (frames, 1, dimension), and features.parquet with all columns of the videos'
manifest. A feed reads features as it reads arrays: each frame is one row of numbers.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.errors import CinefeedError, DiskFullError, SettingError, TableError
from cinefeed.core.files import (
    PARTIAL,
    full_disk_explained,
    remove_partials,
    write_atomically,
    write_error,
    write_errors,
)
from cinefeed.core.locks import FOLDER_LOCK, with_write_lock
from cinefeed.data.manifest.columns import METADATA_COLUMNS, metadata_to_row
from cinefeed.data.manifest.encoded import ENCODED, encoded_from
from cinefeed.data.manifest.identity import content_hash, state_of
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training.frame_encoder import FrameEncoder
from cinefeed.video.metadata import VideoMetadata

FEATURES_TABLE = "features.parquet"
JOURNAL = "encoded.jsonl"  # a line per complete file of features: a hash of network and video
_OF_A_FILE = ("part", "frame_files")

Numbers = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Result of `encode`: path of the manifest, numbers of encoded and of reused videos, and failures."""

    path: Path
    dimension: int
    num_encoded: int
    num_reused: int
    failures: tuple[dict[str, str], ...]
    warning: str = ""


@with_write_lock("out", folder=True)
def encode(
    manifest: str | Path | Manifest,
    *,
    out: str | Path,
    encoder: FrameEncoder,
    dtype: Numbers = "float32",
    tick: Callable[[int, int], object] | None = None,
) -> Encoded:
    """Write the features of every frame of every video under `out`, and a manifest of them, features.parquet.

    The manifest has all columns of the videos' manifest: ids, labels, groups, windows, frame rates and parts, so that a
    Clip selects the same frames as before. If the videos have no column `split`, the parts of the run that trained the
    network are used, because its training videos must not be tested on. A video that cannot be read keeps its row, with
    the error. Features of a private run are private.

    Existing features are reused if network, frame and the video's size and modification time are unchanged. While new
    ones are written there is no features.parquet, which would mix features of two networks.

    Args:
        manifest: The videos.
        out: The folder of the features.
        encoder: The network; see `encoder_of_run` and `encoder_of_backbone`.
        dtype: Type of the stored features.
        tick: Called with the number of videos done and the number of all videos.

    Raises InUseError while another process writes the folder.
    """
    videos, folder = videos_of(manifest, encoder), Path(out)
    result = encode_videos(videos, folder, encoder=encoder, dtype=dtype, tick=tick)
    check_any_encoded(len(result.files), result.failures)
    table = features_table(videos, folder, result.metadata, encoder=encoder, dtype=dtype)
    splits, warning = splits_of(videos, encoder)
    path = write_features(with_splits(table, splits), notes_of(videos, encoder), folder=folder)
    return Encoded(
        path=path,
        dimension=dimension_of(encoder),
        num_encoded=result.num_encoded,
        num_reused=len(result.files) - result.num_encoded - len(result.failures),
        failures=result.failures,
        warning=warning,
    )


def videos_of(manifest: str | Path | Manifest, encoder: FrameEncoder) -> Manifest:
    """Return the videos to encode. Raises SettingError for rows of several views, or of features."""
    videos = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    if videos.rows.views:
        raise SettingError("a row holds several views; encode the manifest of single videos, then pivot the features")
    if encoded_from(videos) is not None:
        raise SettingError(f"the rows are already features of {encoded_from(videos)}; pass the manifest of the videos")
    return videos.as_private() if encoder.parts is not None and encoder.parts.private else videos


def dimension_of(encoder: FrameEncoder) -> int:
    """Return the number of features per frame."""
    return int(encoder.model.output_shape[-1])


class EncodedVideos(NamedTuple):
    """Files of features with the first row of each video; metadata, or errors, and keys by file; what was done."""

    files: dict[str, int]
    metadata: dict[str, VideoMetadata | str]
    keys: dict[str, str]
    num_encoded: int
    failures: tuple[dict[str, str], ...]


def encode_videos(
    videos: Manifest,
    folder: Path,
    *,
    encoder: FrameEncoder,
    dtype: Numbers,
    tick: Callable[[int, int], object] | None = None,
) -> EncodedVideos:
    """Write the features of each video of a manifest under `folder`, unless they are there and unchanged."""
    make_folder(folder)
    journal = _read_journal(folder / JOURNAL)
    files: dict[str, int] = {}
    for row in range(len(videos)):
        files.setdefault(file_of(videos, row), row)
    results: dict[str, VideoMetadata | str] = {}
    keys: dict[str, str] = {}
    num_encoded = 0
    for number, (file, row) in enumerate(files.items()):
        try:
            key = _key(videos, row, encoder=encoder, dtype=dtype)
            results[file] = videos.metadata(row) or _metadata(videos, row)
            if journal.get(file) != key or not (folder / file).exists():
                with videos.open(row, channels=encoder.compose.frame.channels) as source:
                    results[file] = source.metadata
                    (folder / FEATURES_TABLE).unlink(missing_ok=True)
                    if file in journal:
                        _append_to_journal(folder, file, "")  # or a crash after the write would leave the old key
                    _write(folder / file, encoder(source), len(source), dimension_of(encoder), dtype)
                _append_to_journal(folder, file, key)
                num_encoded += 1
            keys[file] = key
        except DiskFullError:
            raise
        except (CinefeedError, OSError) as error:
            results[file] = videos.rows.nameless(str(error), row)
        if tick is not None:
            tick(number + 1, len(files))
    failures = tuple(
        {"id": str(videos.column("id")[row]), "path": videos.rows.display_name(row), "error": reason}
        for file, row in files.items()
        if isinstance(reason := results[file], str)
    )
    return EncodedVideos(files, results, keys, num_encoded, failures)


def check_any_encoded(num_videos: int, failures: Sequence[Mapping[str, str]]) -> None:
    """Raise TableError if all videos failed."""
    if len(failures) == num_videos:
        first = failures[0]
        raise TableError(f"none of {num_videos} videos can be encoded; {first['path']}: {first['error']}")


def notes_of(videos: Manifest, encoder: FrameEncoder) -> dict[str, Any]:
    """Return the notes and the history of the manifest of the features of these videos."""
    note_names = ("private", "label_types", "hashed")
    notes: dict[str, Any] = {name: videos.notes[name] for name in note_names if name in videos.notes}
    notes["verify"] = "decode"  # every frame was decoded
    return {"notes": notes, "history": [*videos.history, (f"encoded by {encoder.name}", len(videos))]}


def write_features(table: pa.Table, notes: Mapping[str, Any], *, folder: Path) -> Path:
    """Write the manifest of features, with what `notes_of` returned, and return its path."""
    features = Manifest(table, root=folder, history=notes["history"], notes=notes["notes"])
    _write_journal(folder, _read_journal(folder / JOURNAL))
    features.write(folder / FEATURES_TABLE)
    return folder / FEATURES_TABLE


def make_folder(folder: Path) -> None:
    """Make the folder of features, or continue one. Raises SettingError if it holds other files."""
    with write_errors(folder, advice="name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(each.name for each in folder.iterdir() if each.name != FOLDER_LOCK)
    if others and not {JOURNAL, FEATURES_TABLE} & {*others}:
        raise SettingError(f"{folder} holds other files ({', '.join(others[:3])}); name a new folder")
    for each in {path.parent for path in folder.rglob(f"{PARTIAL}*")}:
        remove_partials(each)  # those of the folder itself went with its lock
    with write_errors(folder, advice="name another folder"):
        (folder / JOURNAL).touch()  # marks the folder as ours after an interruption in the first video


def file_of(videos: Manifest, row: int) -> str:
    """Return the relative path of the features of a row: the video's path, or the row's id in a private manifest."""
    names = videos.table.column_names
    path = str(videos.column("id")[row]) if videos.private else videos.relative_path(row)
    of_file = () if videos.private else _OF_A_FILE
    rest = [videos.column(name)[row].as_py() if name in names else None for name in of_file]
    safe = path not in ("", ".") and not Path(path).is_absolute() and ".." not in Path(path).parts
    ending = f".{hashlib.sha256(repr((path, *rest)).encode()).hexdigest()[:8]}" if any(rest) or not safe else ""
    return f"{path if safe else 'video'}{ending}.npy"


def _key(videos: Manifest, row: int, *, encoder: FrameEncoder, dtype: str) -> str:
    """Return a hash of network, frame, transforms, dtype, and the size and modification time of the video's files."""
    state = tuple(videos.rows.state(row))
    content = repr((encoder.name, encoder.compose.frame, encoder.compose.transforms, dtype, state))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def add_to_journal(folder: Path, keys: Mapping[str, str]) -> None:
    """Add the keys of complete files of features to the journal of a folder."""
    _write_journal(folder, {**_read_journal(folder / JOURNAL), **keys})


def _read_journal(journal: Path) -> dict[str, str]:
    """Return the key of each complete file of features; an incomplete line, left by a crash, is ignored."""
    keys: dict[str, str] = {}
    if journal.exists():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                keys.update(json.loads(line))
            except ValueError:
                continue
    return keys


def _append_to_journal(folder: Path, file: str, key: str) -> None:
    try:
        with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(f"\n{json.dumps({file: key})}")  # a line break first: the line before may be incomplete
    except OSError as error:
        raise write_error(error, folder / JOURNAL) from error


def _write_journal(folder: Path, keys: Mapping[str, str]) -> None:
    """Write the journal with one line per file, so that it equals that of a run without interruptions."""
    lines = [f"\n{json.dumps({file: key})}" for file, key in sorted(keys.items()) if key]
    write_atomically(folder / JOURNAL, lambda path: path.write_text("".join(lines), encoding="utf-8"))


def _metadata(videos: Manifest, row: int) -> VideoMetadata:
    with videos.open(row) as source:
        return source.metadata


def _write(path: Path, features: Iterator[NDArray[np.float32]], count: int, dimension: int, dtype: str) -> None:
    """Write features chunk by chunk to a file that is complete or absent."""

    def write(partial: Path) -> None:
        descr, first = np.lib.format.dtype_to_descr(np.dtype(dtype)), 0
        header = {"descr": descr, "fortran_order": False, "shape": (count, 1, dimension)}
        with partial.open("wb") as file:  # no memory map: it is sparse, and raises SIGBUS on a full disk
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in features:
                values = chunk.astype(dtype)
                if not np.isfinite(values).all():
                    last = first + len(chunk) - 1
                    raise TableError(f"features of frames {first} to {last} are not finite as {dtype}")
                file.write(values.tobytes())
                first += len(chunk)

    with full_disk_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)


def features_table(
    videos: Manifest,
    folder: Path,
    results: Mapping[str, VideoMetadata | str],
    *,
    encoder: FrameEncoder,
    dtype: str,
) -> pa.Table:
    """Return the videos' table with the metadata of their features; timestamps stay, since a Clip selects by them."""
    rows = []
    for row in range(len(videos)):
        file = file_of(videos, row)
        metadata = results[file]
        if isinstance(metadata, str):
            rows.append({"path": file, "num_frames": 0, "error": metadata})
            continue
        columns = metadata_to_row(_as_features(metadata, dimension=dimension_of(encoder), dtype=dtype))
        state, content = state_of([str(folder / file)]), content_hash([str(folder / file)])
        rows.append({"path": file, **state._asdict(), "content_hash": content, **columns})
    table = videos.table
    for column, kind in {"path": pa.string(), **METADATA_COLUMNS, ENCODED: pa.string()}.items():
        values = [encoder.name] * len(rows) if column == ENCODED else [row.get(column) for row in rows]
        table = table.drop_columns(column) if column in table.column_names else table
        table = table.append_column(column, pa.array(values, kind))
    return table.drop_columns("part") if "part" in table.column_names else table


def _as_features(metadata: VideoMetadata, *, dimension: int, dtype: str) -> VideoMetadata:
    """Return the metadata of the array of features of a video.

    >>> from cinefeed.video.clips import FrameTimes
    >>> times = FrameTimes(0.0, 0.04, 9)
    >>> video = VideoMetadata(height=64, width=48, channels=3, bits=8, times=times, rate_hz=25.0, container="mp4")
    >>> metadata = _as_features(video, dimension=32, dtype="float16")
    >>> metadata.height, metadata.width, metadata.container, metadata.times.count, metadata.rate_hz
    (1, 32, 'npy', 9, 25.0)
    """
    return replace(
        VideoMetadata(height=1, width=dimension, channels=1, bits=32, times=metadata.times),
        rate_hz=metadata.rate_hz,
        container="npy",
        codec="raw",
        pixel_format=dtype,
        header_frames=metadata.times.count,
        ticks=metadata.ticks,
        start_time_seconds=metadata.start_time_seconds,
        error=metadata.error,
        tags=metadata.tags,
    )


def with_splits(table: pa.Table, splits: pa.Array | None) -> pa.Table:
    """Return the table with these parts in its last column, "split"; unchanged if there are none."""
    if splits is None:
        return table
    table = table.drop_columns("split") if "split" in table.column_names else table
    return table.append_column("split", splits)


def splits_of(videos: Manifest, encoder: FrameEncoder) -> tuple[pa.Array | None, str]:
    """Return the parts of the run that trained the network, by row, and a warning if the videos' own parts differ.

    Videos that have parts keep them: None.
    """
    if encoder.parts is None:
        return None, ""
    rows = pc.index_in(videos.column("id"), value_set=encoder.parts.column("id"))
    splits = encoder.parts.column("split").take(rows)
    if "split" not in videos.table.column_names or videos.column("split").null_count == len(videos):
        return splits, ""
    leaks = pc.sum(pc.and_(pc.equal(splits, "train"), pc.not_equal(videos.column("split"), "train"))).as_py() or 0
    if not leaks:
        return None, ""
    return None, (
        f"{leaks} rows that the network was trained on are in another part in the manifest's column 'split': "
        f"scores on them are not test scores"
    )
