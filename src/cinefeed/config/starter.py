"""Generation of a first settings file from a manifest: each value with its reason as a comment."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.config.group_candidates import group_candidates
from cinefeed.config.lines import Setting, comment, toml_key
from cinefeed.config.toml import parse
from cinefeed.core.errors import CinefeedError, LabelError, SettingError, SplitError, TableError
from cinefeed.core.text import format_count
from cinefeed.data.label_types import class_names
from cinefeed.data.manifest.encoded import encoded_from, feature_frame, made_by_a_run
from cinefeed.data.manifest.manifest import Manifest, Parts
from cinefeed.data.manifest.values import described_values, rows_without_window, window_for
from cinefeed.video.clips import window_of

Group = str | Literal[False] | None

_CLIP_FRAMES, _SIDE, _HALVINGS = 16, 112, 4  # for cnn_rnn: four convolutions with stride 2
_STEPS = 1500  # enough for the demo and the small real data sets
_MAX_OPENED = 8  # videos whose pixels are read
_IMBALANCE = 1.5  # ratio of the most frequent to the rarest class, from which classes are balanced


def starter(manifest: Manifest, *, path: str | Path, target: str, group: Group, out: str | Path = "runs/first") -> str:
    """Return a TOML text for `cinefeed train --config`, with values chosen from the manifest.

    `path` is the path of the manifest. `group` is the column whose values must not be in two parts; False if rows are
    independent. If it is None and there is no column `split`, raises SettingError with the candidate columns. Raises
    TableError if the manifest was not scanned, LabelError and SplitError for labels that cannot be used.
    """
    if "num_frames" not in manifest.table.column_names or manifest.rows.views:
        raise TableError("init needs the manifest of a scan with one video per row; run 'cinefeed scan'")
    rows = manifest.take(pc.indices_nonzero(pc.greater(manifest.column("num_frames").fill_null(0), 0)))
    if len(rows) == 0:
        raise TableError(f"none of {len(manifest)} rows has a frame that can be read; run 'cinefeed check'")
    data_rows = []
    if names := _parts_of_the_run(rows):
        rows = rows.where("split", names)
        data_rows.append(
            Setting(name="where.split", value=names, why="the run that computed the features used no other rows")
        )
    labels = rows.column(target)
    labelled = rows.take(pc.indices_nonzero(pc.invert(pc.is_null(labels, nan_is_null=True))))
    if len(labelled) == 0:
        raise LabelError(f"no row has a {target!r} label; check the table of labels")
    if rare := _rare_classes(labelled, group=group, target=target):
        common = sorted({*pc.unique(class_names(labelled.column(target))).to_pylist()} - {*rare})
        rows = labelled = labelled.where(target, common)
        unit = "group" if group else "row"
        why = f"left out: {', '.join(rare)}, in fewer than 3 {unit}s; each of the 3 parts needs one {unit}"
        data_rows.append(Setting(name=f"where.{toml_key(target)}", value=common, why=why))
    data, classes = _data(rows, labelled, path=path, target=target)
    split, parts = _split(labelled, group=group, target=target, classes=classes)
    features = feature_frame(labelled)
    frame = _features(features, labelled) if features else _frame(labelled, parts.train)
    clip = _clip(labelled)
    lines = [
        Setting(name="[data]"),
        *data,
        *data_rows,
        Setting(name="[data.split]"),
        *split,
        Setting(name="[clip]"),
        *clip,
        Setting(name="[frame]"),
        *frame,
        *([] if features else _transforms(frame)),
        Setting(name="[sampler]"),
        *_sampler(parts.train, target=target, classes=classes),
        *_training(parts, frame, features=bool(features), out=out),
        *_evaluate(clip, group),
    ]
    head = comment(f"For {Path(path).name}, by 'cinefeed init'. Each value is a first guess, followed by its reason.")
    text = "\n".join([head, *map(str, lines), ""])
    parse(tomllib.loads(text))
    return text


def _parts_of_the_run(rows: Manifest) -> list[str]:
    """Return the parts of the run that computed the features, if only some rows are in a part; otherwise []."""
    if not made_by_a_run(rows) or "split" not in rows.table.column_names:
        return []
    split = rows.column("split")
    return sorted(pc.unique(split.drop_null()).to_pylist()) if split.null_count else []


def _rare_classes(labelled: Manifest, *, group: Group, target: str) -> list[str]:
    """Return the classes in fewer than three groups, which cannot be in all three parts of a new split.

    [] if the manifest has a split, or if fewer than two classes would be left.
    """
    if "split" in labelled.table.column_names and labelled.column("split").null_count == 0:
        return []
    if group is None or not labelled.label_type(target).is_classes:
        return []
    pairs = pa.table({"class": class_names(labelled.column(target)), "group": labelled.column(group or "id")})
    holders = pairs.group_by("class").aggregate([("group", "count_distinct")]).to_pylist()
    rare = sorted(each["class"] for each in holders if each["group_count_distinct"] < 3)
    return rare if len(holders) - len(rare) >= 2 else []


def _data(rows: Manifest, labelled: Manifest, *, path: str | Path, target: str) -> tuple[list[Setting], list[str]]:
    """Return the settings of manifest, target and task, and the classes in order; [] for a regression."""
    lines = [
        Setting(name="manifest", value=str(path), why=f"{len(rows)} rows have frames that can be read"),
        Setting(name="target", value=target, why="the label column to learn"),
    ]
    if len(labelled) < len(rows):
        lines.append(Setting(name="missing", value="drop", why=f"{len(rows) - len(labelled)} rows have no {target}"))
    column, kind = labelled.column(target), labelled.label_type(target)
    rows_of = Counter(class_names(column).to_pylist())
    values = sorted(rows_of)
    if not kind.is_classes:
        low, high = pc.min_max(column).as_py().values()
        if not np.isfinite([low, high]).all():
            raise LabelError(
                f"{target!r} has infinite values; correct them, or leave their rows out of the table of labels"
            )
        if low == high:
            raise LabelError(f"{target!r} is {low:g} in all rows; there is nothing to learn")
        often = ", each at least twice" if kind.grades else ""
        why = f"numbers, {low:g} to {high:g}{often}; if they are classes, write 'multiclass'"
        return [*lines, Setting(name="task", value="regression", why=why)], []
    if len(values) < 2:
        raise LabelError(f"{target!r} is {values[0]!r} in all rows; there is nothing to learn")
    counts = ", ".join(f"{each} {rows_of[each]}" for each in values[:8]) + " ..." * (len(values) > 8)
    if len(values) == 2:
        why = f"two values: {counts}"
        order = Setting(
            name="classes", value=values, why=f"the second class, {values[1]!r}, is the positive one: swap them if not"
        )
        return [*lines, Setting(name="task", value="binary", why=why), order], values
    why = f"{len(values)} classes: {counts}"
    return [*lines, Setting(name="task", value="multiclass", why=why)], values


def _split(labelled: Manifest, *, group: Group, target: str, classes: Sequence[str]) -> tuple[list[Setting], Parts]:
    """Return the settings of the split, and its parts."""
    if group:
        labelled.column(group)
    if "split" in labelled.table.column_names and labelled.column("split").null_count == 0:
        why = "the manifest has a split already"
        why += ": that of the run whose network computed the features" if encoded_from(labelled) else ""
        lines = [Setting(name="column", value="split", why=why)]
        if group:
            lines.append(Setting(name="group", value=group, why="none of its values is in two parts (checked)"))
        return lines, labelled.parts(group=group or None)
    if group is None:
        candidates = ", ".join(group_candidates(labelled, target=target)[:4]) or "none with repeated values"
        raise SettingError(
            f"group is missing; name the column whose values must not be in two parts, such as the patient (--group); "
            f"candidates: {candidates}. If all rows are independent, use --no-group"
        )
    return _new_split(labelled, group=group, target=target, classes=classes)


def _new_split(labelled: Manifest, *, group: Group, target: str, classes: Sequence[str]) -> tuple[list[Setting], Parts]:
    units = pc.count_distinct(labelled.column(group or "id")).as_py()
    share = 0.15 if units >= 40 else 0.2 if units >= 10 else 0.25
    split_error: CinefeedError | None = None
    for stratify in (target, None):
        try:
            parts = labelled.split(val=share, test=share, group=group or None, stratify=stratify)
            break
        except SplitError as error:
            split_error = error
    else:
        assert split_error is not None
        raise split_error
    unit_name = "groups" if group else "rows"
    counts = ", ".join(f"{name} {len(getattr(parts, name))}" for name in ("train", "val", "test"))
    why = f"{units} groups; none is in two parts" if group else "set by --no-group: all rows are independent"
    lines = [
        Setting(name="group", value=group, why=why),
        Setting(name="val", value=share, why=f"of {units} {unit_name}; rows: {counts}"),
        Setting(name="test", value=share, why="evaluated once, at the end"),
    ]
    if stratify is not None:
        kind = "classes" if classes else "range"
        lines.append(Setting(name="stratify", value=target, why=f"every part has its share of each of the {kind}"))
    else:
        lines.append(Setting(name="#", why=f"not stratified: {split_error}"))
    return [*lines, Setting(name="seed", value=0, why="of the split only")], parts


def _clip(labelled: Manifest) -> list[Setting]:
    """Return the settings of clips: the whole video if it may be one cycle, otherwise a range of frames."""
    counts = np.sort(_counts(labelled))
    low, middle, high = int(counts[0]), int(np.median(counts)), int(counts[-1])
    windows = {"start_seconds", "end_seconds"} & {*labelled.table.column_names}
    kind = "windows" if windows else "videos"
    why_length = (
        f"all {kind} have {format_count(low, 'frame')}"
        if low == high
        else f"{kind} have {low} to {high} frames, half of them {middle} or more"
    )
    if high <= 64 and high <= 1.5 * low:
        frames = min(low, 32)
        return [
            Setting(name="frames", value=frames, why=why_length),
            Setting(
                name="position",
                value="spread",
                why="lengths are similar, so each video may be one cycle: use all of it",
            ),
        ]
    tenth_percentile = int(counts[len(counts) // 10])
    frames = min(_CLIP_FRAMES, max(middle, 1))
    stride = int(np.clip(tenth_percentile // frames, 1, 4))
    rate = (
        labelled.column("rate_hz").drop_null().to_numpy() if "rate_hz" in labelled.table.column_names else np.zeros(0)
    )
    seconds = (
        f", {((frames - 1) * stride + 1) / np.median(rate):.2g} s at {np.median(rate):.4g} Hz" if rate.size else ""
    )
    why = f"a clip spans {(frames - 1) * stride + 1} frames{seconds}"
    lines = [
        Setting(name="frames", value=frames, why=why_length),
        Setting(name="stride", value=stride, why=why),
        Setting(name="position", value="random", why="another range each epoch; validation and test use the middle"),
    ]
    short = int((counts < (frames - 1) * stride + 1).sum())
    if short:
        why = f"{short} of {len(counts)} videos are shorter than a clip: missing frames are masked"
        lines.append(Setting(name="short", value="pad", why=why))
    return lines


def _counts(labelled: Manifest) -> NDArray[np.int64]:
    """Return the number of frames of each row, int64 (rows,); only those within its start and end seconds."""
    counts = np.array(labelled.column("num_frames"), np.int64)
    if not {"start_seconds", "end_seconds"} & {*labelled.table.column_names}:
        return counts
    for row in range(len(labelled)):
        metadata = labelled.metadata(row)
        if metadata is not None:
            counts[row] = max(
                window_of(metadata.times, *labelled.window(row))[1], 1
            )  # the feed reports a window without a frame
    return counts


def _frame(labelled: Manifest, train: Manifest) -> list[Setting]:
    """Return the settings of frames: the median size with at most 112 on the shorter side, grey if all videos are."""
    heights, widths = (labelled.column(name).to_numpy() for name in ("height", "width"))
    height, width = float(np.median(heights)), float(np.median(widths))
    scale = min(1.0, _SIDE / min(height, width))
    factor = 2**_HALVINGS
    size = [max(int(each * scale) // factor * factor, factor) for each in (height, width)]
    if max(height, width) <= 1.2 * min(height, width):
        size = [min(size)] * 2
    sizes = {*zip(heights.tolist(), widths.tolist(), strict=True)}
    first = next(iter(sizes))
    text = (
        f"are {first[0]} x {first[1]}" if len(sizes) == 1 else f"have {len(sizes)} sizes, median {height:g} x {width:g}"
    )
    ratios = widths / heights
    is_similar = ratios.max() <= 1.1 * ratios.min()
    why_fit = "cuts off little, since aspect ratios are similar" if is_similar else "cuts off nothing: aspects differ"
    channels, why_channels = _channels(labelled)
    return [
        Setting(name="height", value=size[0], why=f"frames {text}; a multiple of {factor}, for four halvings"),
        Setting(name="width", value=size[1], why="likewise"),
        Setting(name="channels", value=channels, why=why_channels),
        Setting(name="fit", value="crop" if is_similar else "pad", why=why_fit),
        *_numbers(labelled, train),
    ]


def _numbers(labelled: Manifest, train: Manifest) -> list[Setting]:
    """Return the settings of dtype and window; the window is that of the training rows, if the files need one."""
    bits = int(labelled.column("bits").fill_null(8).to_numpy().max())
    rows = rows_without_window(labelled, dtype="uint8")
    if len(rows) == 0:
        dtype = "uint8" if bits <= 8 else "float32" if bits == 32 else "uint16"
        return [Setting(name="dtype", value=dtype, why=f"the files hold up to {bits} bits")]
    train_rows = rows_without_window(train, dtype="uint8")
    part, part_rows = (train, train_rows) if len(train_rows) else (labelled, rows)
    window = window_for(part, part_rows)
    kind = described_values(labelled, int(rows[0]))
    why = f"{len(rows)} of {len(labelled)} videos hold {kind} or similar values, converted to 256 levels"
    lines = [Setting(name="dtype", value="uint8", why=why)]
    if window is None:
        return [*lines, Setting(name="#", why="window = [LOW, HIGH]: the range of values is unknown; scan again")]
    why = f"black and white: all but 0.5 % at each end in {len(part_rows)} {'training ' * (part is train)}videos"
    return [*lines, Setting(name="window", value=[*window], why=why)]


def _channels(labelled: Manifest) -> tuple[int, str]:
    """Return 1 if all frames are grey, by the metadata or by the pixels of some videos, else 3; and the reason."""
    stored = labelled.column("channels").to_numpy()
    if (stored == 1).all():
        return 1, "all files are grey"
    colour = np.flatnonzero(stored == 3)
    rows = colour[np.linspace(0, len(colour) - 1, min(_MAX_OPENED, len(colour))).astype(int)]
    for row in rows.tolist():
        with labelled.open(row, channels=3) as source:
            pixels = source.read([len(source) // 2]).astype(np.float32)
        if np.ptp(pixels, axis=-1).max() > 0.02 * max(float(pixels.max()), 1.0):
            return 3, f"{len(colour)} of {len(stored)} files are in colour"
    return 1, f"{len(colour)} files are stored in colour, and the {len(rows)} that were read are grey"


def _features(frame: Mapping[str, Any], labelled: Manifest) -> list[Setting]:
    whys = {"height": "a frame is one row of features", "width": f"features of {encoded_from(labelled)}"}
    return [Setting(name=name, value=value, why=whys.get(name, "unchanged")) for name, value in frame.items()]


def _transforms(frame: Sequence[Setting]) -> list[Setting]:
    pixels = max(min(frame[0].value, frame[1].value) // 20, 1)
    warning = "remove those that change the label, such as a left-right flip or brightness"
    scaled = (
        []
        if not any(each.value == "float32" for each in frame)
        else [
            Setting(name="[[transforms]]"),
            Setting(name="name", value="Normalize", why="values of any scale: each frame is divided by its maximum"),
        ]
    )
    return [
        *scaled,
        Setting(name="[[transforms]]", why=f"weak ones, the same for all frames of a clip; {warning}"),
        Setting(name="name", value="Rotate", why="preview: cinefeed inspect --transforms THIS_FILE"),
        Setting(name="degrees", value=10.0, why="in both directions"),
        Setting(name="[[transforms]]"),
        Setting(name="name", value="Shift", why="so that the network does not rely on positions"),
        Setting(name="pixels", value=float(pixels), why="a twentieth of the frame"),
    ]


def _sampler(train: Manifest, *, target: str, classes: Sequence[str]) -> list[Setting]:
    column = train.column(target)
    if not classes:
        fifths = np.histogram(column.cast(pa.float64(), safe=False).to_numpy(), bins=5)[0]
        numbers = ", ".join(map(str, fifths))
        why = f"fifths of the label range have {numbers} rows; UniformLabels samples rare labels more often"
        return [Setting(name="name", value="Natural", why=why)]
    rows_of = Counter(class_names(column).to_pylist())
    counts = [rows_of[each] for each in classes]
    numbers = ", ".join(f"{each} {count}" for each, count in list(zip(classes, counts, strict=True))[:6])
    if max(counts) > _IMBALANCE * min(counts):
        why = f"the training part has {numbers}; validation and test are never balanced"
        return [Setting(name="name", value="BalancedClasses", why=why)]
    return [Setting(name="name", value="Natural", why=f"classes are nearly balanced: {numbers}")]


def _training(parts: Parts, frame: Sequence[Setting], *, features: bool, out: str | Path) -> list[Setting]:
    count = len(parts.train)
    batch = next(size for size in (32 if features else 16, 16, 8, 4, 2, 1) if size == 1 or count >= 4 * size)
    batches = -(-count // batch)
    epochs = int(np.clip(-(-_STEPS // batches), 10, 100))
    why = "a GRU over the features" if features else "a CNN for each frame, then a GRU: fast, and sensitive to motion"
    side = min(frame[0].value, frame[1].value)
    name = Setting(name="name", value="feature_rnn" if features else "cnn_rnn", why=why)
    return [
        Setting(name="[feed]"),
        Setting(name="batch_size", value=batch, why=f"{count} training videos make {batches} batches"),
        Setting(name="seed", value=0, why="of clips, transforms, order and first weights"),
        Setting(name="workers", value="auto", why="one per core"),
        Setting(name="[model]"),
        name,
        Setting(name="dropout", value=0.2 if count < 500 else 0.0, why=f"{'few' if count < 500 else 'enough'} videos"),
        *(
            []
            if features or side >= 64
            else [Setting(name="filters", value=[16, 32, 64], why=f"frames of {side} are small")]
        ),
        Setting(name="[train]"),
        Setting(name="out", value=str(out), why="the run folder"),
        Setting(name="epochs", value=epochs, why=f"about {epochs * batches} steps"),
        Setting(name="learning_rate", value=1e-3, why="of Adam, independent of the unit of labels"),
        Setting(name="schedule", value="cosine", why="down to 0 at the last epoch"),
        Setting(name="patience", value=0, why="the schedule needs all epochs; the best weights are kept"),
    ]


def _evaluate(clip: Sequence[Setting], group: Group) -> list[Setting]:
    spread = any(each.value == "spread" for each in clip)
    why = "a clip covers the whole video" if spread else "per video, evenly spaced; their scores are averaged"
    unit = f"; add unit = {group!r} if each {group} has one label" if group else ""
    return [Setting(name="[evaluate]"), Setting(name="clips", value=1 if spread else 3, why=why + unit)]
