"""Frames, once through a network that is no longer trained: features beside a manifest, to train what follows it.

Written are one `.npy` a video, (frames, 1, dimension), and features.parquet, with all columns of the videos' manifest.
Any feed reads them as it reads arrays: a frame is one line of numbers.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.clips import Frame
from cinefeed.errors import CinefeedError, SettingError, TableError, TrainingError
from cinefeed.feed.targets import FeedSpec
from cinefeed.files import DISK_FULL, PARTIAL, full_disk_explained, remove_partials, with_path, write_atomically
from cinefeed.locks import FOLDER_LOCK, with_write_lock
from cinefeed.manifest.columns import FACTS, facts_to_row
from cinefeed.manifest.encoded import ENCODED, encoded_from
from cinefeed.manifest.identity import content_hash, state_of
from cinefeed.manifest.table import Manifest
from cinefeed.models.backbones import frame_backbone
from cinefeed.models.parts import FEATURES, FRAMES, Seeded
from cinefeed.sources.base import Facts, Source
from cinefeed.sources.regions import chosen_region, cropped
from cinefeed.training.evaluate import load_model
from cinefeed.training.run import WEIGHTS, read_run
from cinefeed.transforms.base import ClipInfo, Transform, is_random
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fuse import compact_repr, kind_of

FEATURES_TABLE = "features.parquet"
_JOURNAL = "encoded.jsonl"  # a line for each file of features that is whole: of which network, of which video
_FRAMES_AT_ONCE = 64
_OF_A_FILE = ("part", "frame_files")

Numbers = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class FrameEncoder:
    """A network from frames to features, what is done to a frame before, and how both are named."""

    model: keras.Model
    compose: Compose
    name: str
    parts: Manifest | None = None  # of the run that trained it

    def __call__(self, source: Source) -> Iterator[NDArray[np.float32]]:
        """Yield the features of all frames of a video, some frames at a time, (n, dimension)."""
        frame, spacing = self.compose.frame, source.facts.spacing_mm
        region = None if frame.region is None else chosen_region(source.facts.regions, frame.region)
        shape = (frame.height, frame.width, frame.channels)
        info = ClipInfo(_FRAMES_AT_ONCE, *shape, spacing_mm=None)
        drawn = [each.sample(np.random.default_rng(0), info) for each in self.compose.transforms]
        for first in range(0, len(source), _FRAMES_AT_ONCE):
            planes = source.planes(np.arange(first, min(first + _FRAMES_AT_ONCE, len(source))))
            planes = planes if region is None else cropped(planes, region)
            count = len(planes.frames)
            # To a power of two: JAX compiles once a shape, and videos end where they will.
            frames = np.zeros((1 << (count - 1).bit_length(), *shape), self.compose.dtype)
            self.compose.render(planes, frames[:count], drawn, spacing_mm=spacing)
            yield np.asarray(self.model.predict_on_batch(frames), np.float32)[:count]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What was written: the manifest of features, how many videos were encoded and kept, and those that failed."""

    path: Path
    dimension: int
    computed: int
    kept: int
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

    Its rows have all columns of the videos' own: ids, labels, groups, windows, frame rates and parts, so that a Clip
    chooses the same frames as before. Where the videos have no column `split`, it is the run's whose network reads
    them: what that has learnt from must not be tested on. A video that cannot be read keeps its row, with the error.
    Where the run was private the features are too.

    Features that are there already are kept, where network, frame and the video's size and time are what they were.
    While new ones are written there is no features.parquet: it would name those of two networks as one's. Raises
    InUseError while another process writes the folder.
    """
    videos = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    if videos.rows.views:
        raise SettingError("a row holds several views; encode the manifest of single videos, then pivot the features")
    if encoded_from(videos) is not None:
        raise SettingError(f"the rows are features already, of {encoded_from(videos)}; give the videos' manifest")
    if encoder.parts is not None and encoder.parts.private:
        videos = videos.as_private()
    folder = Path(out)
    _make(folder)
    done = _journal(folder)
    dimension = int(encoder.model.output_shape[-1])
    files: dict[str, int] = {}  # features -> the first row of their video
    for row in range(len(videos)):
        files.setdefault(_file_of(videos, row), row)
    known: dict[str, Facts | str] = {}  # features -> what is known of them, or why there are none
    computed = 0
    with full_disk_explained(folder):
        for number, (file, row) in enumerate(files.items()):
            try:
                key = _key(videos, row, encoder=encoder, dtype=dtype)
                known[file] = videos.facts(row) or _facts(videos, row)
                if done.get(file) != key or not (folder / file).exists():
                    with videos.open(row, channels=encoder.compose.frame.channels) as source:
                        known[file] = source.facts
                        (folder / FEATURES_TABLE).unlink(missing_ok=True)
                        if file in done:
                            _note(folder, file, "")  # else a crash after the write leaves it under the old key
                        _write(folder / file, encoder(source), len(source), dimension, dtype)
                    _note(folder, file, key)
                    computed += 1
            except (CinefeedError, OSError) as error:
                if isinstance(error, OSError) and error.errno in DISK_FULL:
                    raise
                known[file] = videos.rows.nameless(str(error), row)
            if tick is not None:
                tick(number + 1, len(files))
    if all(isinstance(each, str) for each in known.values()):
        first = next(iter(known.items()))
        raise TableError(f"none of {len(files)} videos can be encoded; {videos.rows.shown(0)}: {first[1]}")
    table = _features(videos, folder, known, dimension=dimension, dtype=dtype, name=encoder.name)
    table, warning = _with_parts(table, encoder.parts)
    history = [*videos.history, (f"encoded by {encoder.name}", len(videos))]
    carried = ("private", "label_types", "hashed")
    notes: dict[str, Any] = {name: videos.notes[name] for name in carried if name in videos.notes}
    notes["verify"] = "decode"  # every frame was decoded
    written = Manifest(table, root=folder, history=history, notes=notes)
    _compact(folder)
    written.write(folder / FEATURES_TABLE)
    failures = tuple(
        {"id": str(videos.column("id")[row]), "path": videos.rows.shown(row), "error": known[file]}
        for file, row in files.items()
        if isinstance(known[file], str)
    )
    return Encoded(
        path=folder / FEATURES_TABLE,
        dimension=dimension,
        computed=computed,
        kept=len(files) - computed - len(failures),
        failures=failures,  # type: ignore[arg-type]  # texts, as was just asked
        warning=warning,
    )


def encoder_of_run(run: str | Path) -> FrameEncoder:
    """Return the network that a run's model reads single frames with, its best weights, and its frame.

    Transforms that are random are left out, as in validation. Raises SettingError for a model that reads frames
    together only, and for transforms that look at several frames at once.
    """
    settings, spec, parts = read_run(run)
    if encoded_from(parts) is not None:
        raise SettingError(f"{run} was trained on features already, and has no network that reads frames")
    model = load_model(settings, spec, Path(run) / WEIGHTS)
    ends = [f"{end}_{name}" for name in spec.clip_names for end in (FRAMES, FEATURES)]
    names = [each.name for each in model.layers]
    if len(spec.clip_names) > 1 or not set(ends) <= set(names):
        raise SettingError(
            f"{run} is a {settings.model.name} of {' and '.join(spec.clip_names)}, which has no network that reads the "
            f"frames of one video by themselves; take a run of cnn_rnn with one view, or --backbone"
        )
    frame = settings.frame
    if spec.clip_shape[3] != frame.channels:
        raise SettingError(f"{run} reads views stacked as channels; take a run of single videos, or --backbone")
    info = ClipInfo(spec.clip_shape[0], frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    transforms = [each for each in settings.transforms if not is_random(each, info=info)]
    for each in transforms:
        if not frame_by_frame(each, frame):
            raise SettingError(
                f"{compact_repr(each)} looks at the frames of a clip together, so a frame's features depend on "
                f"the clip; encode with a run whose transforms treat each frame by itself"
            )
    return FrameEncoder(
        model=keras.Model(model.get_layer(ends[0]).output, model.get_layer(ends[1]).output, name=FRAMES),
        compose=Compose(transforms, frame=frame),
        name=f"{settings.model.name} of a run, {_said(Path(run) / WEIGHTS, frame)}",  # its folder may be renamed
        parts=parts,
    )


def encoder_of_backbone(backbone: str, *, weights: str | Path | None, frame: Frame) -> FrameEncoder:
    """Return a network of `keras.applications` with the weights of a local file; see `frame_backbone`."""
    if weights is None:
        raise SettingError(
            f"{backbone} without weights knows nothing; give a local file of its weights without the top (--weights)"
        )
    shape = (1, frame.height, frame.width, frame.channels)
    spec = FeedSpec(clip_shape=shape, dtype=np.dtype(frame.dtype), batch_size=1, target="", task="regression")
    of_frame = frame_backbone(backbone, spec=spec, weights=str(weights), frozen=True, seeded=Seeded(0), name="backbone")
    frames = keras.Input(shape[1:], dtype=frame.dtype)
    return FrameEncoder(
        model=keras.Model(frames, of_frame(frames), name=FRAMES),
        compose=Compose([], frame=frame),
        name=f"{backbone}, {_said(Path(weights), frame)}",
    )


def frame_by_frame(transform: Transform, frame: Frame) -> bool:
    """Return whether each of three unlike frames comes out as it would alone."""
    if kind_of(transform) == "time":
        return False
    rng = np.random.default_rng(0)
    shape = (frame.height, frame.width, frame.channels)
    frames = np.stack([rng.integers(0, level, shape) for level in (9, 90, 250)]).astype(frame.dtype)

    def applied(some: NDArray[Any]) -> NDArray[Any]:
        info = ClipInfo(len(some), *shape, spacing_mm=(1.0, 1.0))
        return np.array(transform.apply(some.copy(), transform.sample(np.random.default_rng(0), info)))

    return bool(np.array_equal(applied(frames), np.concatenate([applied(frames[i : i + 1]) for i in range(3)])))


def _said(weights: Path, frame: Frame) -> str:
    """Return what tells an encoder from others: a hash of its weights, and what it reads."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return f"weights {digest}, frames {frame.height}x{frame.width}x{frame.channels}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(each.name for each in folder.iterdir() if each.name != FOLDER_LOCK)
    except OSError as error:
        raise SettingError(f"{folder} cannot be written: {error.strerror}; name another folder") from error
    if others and not {_JOURNAL, FEATURES_TABLE} & {*others}:
        raise SettingError(f"{folder} holds other files ({', '.join(others[:3])}); name a new folder")
    for each in {path.parent for path in folder.rglob(f"{PARTIAL}*")}:
        remove_partials(each)  # those of the folder itself went with its lock
    try:
        (folder / _JOURNAL).touch()  # by which the folder is known for its own after a break in the first video
    except OSError as error:
        raise SettingError(f"{folder} cannot be written: {error.strerror}; name another folder") from error


def _file_of(videos: Manifest, row: int) -> str:
    """Return where the features of a row's video are: under its own path, or, of a private manifest, its id."""
    names = videos.table.column_names
    path = str(videos.column("id")[row]) if videos.private else videos.relative_path(row)
    of_file = () if videos.private else _OF_A_FILE
    rest = [videos.column(name)[row].as_py() if name in names else None for name in of_file]
    safe = path not in ("", ".") and not Path(path).is_absolute() and ".." not in Path(path).parts
    ending = f".{hashlib.sha256(repr((path, *rest)).encode()).hexdigest()[:8]}" if any(rest) or not safe else ""
    return f"{path if safe else 'video'}{ending}.npy"


def _key(videos: Manifest, row: int, *, encoder: FrameEncoder, dtype: str) -> str:
    """Return what features depend on: network, frame, transforms, and the size and time of the video's files."""
    state = tuple(state_of(videos.rows.files(row)))
    depends = repr((encoder.name, encoder.compose.frame, encoder.compose.transforms, dtype, state))
    return hashlib.sha256(depends.encode()).hexdigest()[:32]


def _journal(folder: Path) -> dict[str, str]:
    """Return the key of each file of features that was written; a line that a crash has torn is none."""
    found: dict[str, str] = {}
    if (folder / _JOURNAL).exists():
        for line in (folder / _JOURNAL).read_text(encoding="utf-8").splitlines():
            try:
                found.update(json.loads(line))
            except ValueError:
                continue
    return found


def _note(folder: Path, file: str, key: str) -> None:
    try:
        with (folder / _JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(f"\n{json.dumps({file: key})}")  # first: the line before may be torn
    except OSError as error:
        raise with_path(error, folder / _JOURNAL) from error


def _compact(folder: Path) -> None:
    """Write the journal anew without what was broken off and done again, so that it is that of an undisturbed run."""
    lines = [f"\n{json.dumps({file: key})}" for file, key in sorted(_journal(folder).items()) if key]
    try:
        write_atomically(folder / _JOURNAL, lambda path: path.write_text("".join(lines), encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{folder / _JOURNAL} cannot be written: {error.strerror}; make room") from error


def _facts(videos: Manifest, row: int) -> Facts:
    with videos.open(row) as source:
        return source.facts


def _write(path: Path, features: Iterator[NDArray[np.float32]], count: int, dimension: int, dtype: str) -> None:
    """Write features as they come, in a file that is whole or absent."""

    def write(partial: Path) -> None:
        descr, first = np.lib.format.dtype_to_descr(np.dtype(dtype)), 0
        header = {"descr": descr, "fortran_order": False, "shape": (count, 1, dimension)}
        with partial.open("wb") as file:  # a memory map is sparse: on a full disk it ends in SIGBUS, not in an error
            np.lib.format.write_array_header_1_0(file, header)
            for some in features:
                stored = some.astype(dtype)
                if not np.isfinite(stored).all():
                    raise TableError(f"features of frames {first} to {first + len(some) - 1} are not finite as {dtype}")
                file.write(stored.tobytes())
                first += len(some)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def _features(
    videos: Manifest, folder: Path, known: dict[str, Facts | str], *, dimension: int, dtype: str, name: str
) -> pa.Table:
    """Return the videos' table with the facts of their features; times stay, for a clip chooses by them."""
    rows = []
    for row in range(len(videos)):
        file = _file_of(videos, row)
        facts = known[file]
        if isinstance(facts, str):
            rows.append({"path": file, "num_frames": 0, "error": facts})
            continue
        told = facts_to_row(_as_features(facts, dimension=dimension, dtype=dtype))
        state, content = state_of([str(folder / file)]), content_hash([str(folder / file)])
        rows.append({"path": file, **state._asdict(), "content_hash": content, **told})
    table = videos.table
    for column, kind in {"path": pa.string(), **FACTS, ENCODED: pa.string()}.items():
        values = [name] * len(rows) if column == ENCODED else [each.get(column) for each in rows]
        table = table.drop_columns(column) if column in table.column_names else table
        table = table.append_column(column, pa.array(values, kind))
    return table.drop_columns("part") if "part" in table.column_names else table


def _as_features(facts: Facts, *, dimension: int, dtype: str) -> Facts:
    """Return the facts of the array that a video's features are.

    >>> from cinefeed.clips import Times
    >>> video = Facts(height=64, width=48, channels=3, bits=8, times=Times(0.0, 0.04, 9), rate_hz=25.0, container="mp4")
    >>> found = _as_features(video, dimension=32, dtype="float16")
    >>> found.height, found.width, found.container, found.times.count, found.rate_hz
    (1, 32, 'npy', 9, 25.0)
    """
    return replace(
        Facts(height=1, width=dimension, channels=1, bits=32, times=facts.times),
        rate_hz=facts.rate_hz,
        container="npy",
        codec="raw",
        pixel_format=dtype,
        header_frames=facts.times.count,
        ticks=facts.ticks,
        start_time_seconds=facts.start_time_seconds,
        error=facts.error,
        tags=facts.tags,
    )


def _with_parts(table: pa.Table, trained: Manifest | None) -> tuple[pa.Table, str]:
    """Return the table with the parts of the run that trained the network, and what is wrong where it has others."""
    if trained is None:
        return table, ""
    ids = trained.column("id")
    rows = pc.index_in(table.column("id").combine_chunks(), value_set=ids)
    parts = trained.column("split").take(rows)
    if "split" not in table.column_names or table.column("split").null_count == table.num_rows:
        table = table.drop_columns("split") if "split" in table.column_names else table
        return table.append_column("split", parts), ""
    own = table.column("split").combine_chunks()
    leaks = pc.sum(pc.and_(pc.equal(parts, "train"), pc.not_equal(own, "train"))).as_py() or 0
    if not leaks:
        return table, ""
    return table, (
        f"{leaks} rows that the network was trained on are in another part of the manifest's column 'split': "
        f"what is measured on them is no test"
    )
