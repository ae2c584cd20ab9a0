"""A first settings file, from the facts of a manifest: every value with its reason, nothing guessed in silence."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.clips import window_of
from cinefeed.config.group_candidates import group_candidates
from cinefeed.config.lines import Setting, comment, toml_key
from cinefeed.config.toml import parse
from cinefeed.errors import CinefeedError, LabelError, SettingError, SplitError, TableError
from cinefeed.label_types import class_names
from cinefeed.manifest.encoded import encoded_from, feature_frame, made_by_a_run
from cinefeed.manifest.table import Manifest, Parts
from cinefeed.manifest.values import described_values, rows_without_window, window_for
from cinefeed.text import format_count

Group = str | Literal[False] | None

_CLIP_FRAMES, _SIDE, _HALVINGS = 16, 112, 4  # of cnn_rnn: four convolutions, of stride 2 each
_STEPS = 1500  # the demo and the small real sets were learnt by then
_LOOKED_AT = 8  # videos, whose pixels are read
_UNEVEN = 1.5  # the most frequent class by the rarest, from where balancing is worth a word


def starter(manifest: Manifest, *, path: str | Path, target: str, group: Group, out: str | Path = "runs/first") -> str:
    """Return TOML that `cinefeed train --config` takes as it is: each value chosen from what the manifest says.

    `path` is where the manifest is. `group` is the column whose values must not be in two parts; False says that each
    row stands for itself. With None, and no parts in a column `split`, SettingError names the columns that it could be.
    Raises TableError where the manifest was not scanned, LabelError and SplitError for labels that do not serve.
    """
    if "num_frames" not in manifest.table.column_names or manifest.rows.views:
        raise TableError("init needs the manifest of a scan, one video a row, for its facts; run 'cinefeed scan'")
    rows = manifest.take(pc.indices_nonzero(pc.greater(manifest.column("num_frames").fill_null(0), 0)))
    if len(rows) == 0:
        raise TableError(f"none of {len(manifest)} rows has a frame that can be read; see 'cinefeed scan'")
    data_rows = []
    if names := _parts_of_the_run(rows):
        rows = rows.where("split", names)
        data_rows.append(
            Setting(name="where.split", value=names, why="the run that made the features has no other rows")
        )
    labels = rows.column(target)
    labelled = rows.take(pc.indices_nonzero(pc.invert(pc.is_null(labels, nan_is_null=True))))
    if len(labelled) == 0:
        raise LabelError(f"no row has a {target!r} label; look at the table of labels")
    if rare := _rare_classes(labelled, group=group, target=target):
        common = sorted({*pc.unique(class_names(labelled.column(target))).to_pylist()} - {*rare})
        rows = labelled = labelled.where(target, common)
        few = f"left out: {', '.join(rare)}, in fewer than 3 {'groups' if group else 'rows'}, and 3 parts need one each"
        data_rows.append(Setting(name=f"where.{toml_key(target)}", value=common, why=few))
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
    head = comment(f"For {Path(path).name}, by 'cinefeed init'. Each value is a first guess; behind it is why.")
    text = "\n".join([head, *map(str, lines), ""])
    parse(tomllib.loads(text))
    return text


def _parts_of_the_run(rows: Manifest) -> list[str]:
    """Return the parts of the run that made the features, where some rows are in none; [] where all or none are."""
    if not made_by_a_run(rows) or "split" not in rows.table.column_names:
        return []
    split = rows.column("split")
    return sorted(pc.unique(split.drop_null()).to_pylist()) if split.null_count else []


def _rare_classes(labelled: Manifest, *, group: Group, target: str) -> list[str]:
    """Return the classes of which the three parts that are drawn here cannot have one group each.

    [] where the parts are there already, and where fewer than two classes would be left.
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
    """Return what is learnt of which rows, and the classes, in the order of their numbers; [] for a regression."""
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
                f"{target!r} has infinite values; mend them, or leave their rows out of the table of labels"
            )
        if low == high:
            raise LabelError(f"{target!r} is {low:g} in all rows; there is nothing to learn")
        often = ", each at least twice" if kind.grades else ""
        why = f"numbers, {low:g} to {high:g}{often}; of classes that are numbers write 'multiclass'"
        return [*lines, Setting(name="task", value="regression", why=why)], []
    if len(values) < 2:
        raise LabelError(f"{target!r} is {values[0]!r} in all rows; there is nothing to learn")
    counts = ", ".join(f"{each} {rows_of[each]}" for each in values[:8]) + " ..." * (len(values) > 8)
    if len(values) == 2:
        why = f"two values: {counts}"
        order = Setting(
            name="classes", value=values, why=f"the second is the positive one, {values[1]!r}: turn them if not"
        )
        return [*lines, Setting(name="task", value="binary", why=why), order], values
    why = f"{len(values)} classes: {counts}"
    return [*lines, Setting(name="task", value="multiclass", why=why)], values


def _split(labelled: Manifest, *, group: Group, target: str, classes: Sequence[str]) -> tuple[list[Setting], Parts]:
    """Return how the parts are made, tried out here, and the parts."""
    if group:
        labelled.column(group)
    if "split" in labelled.table.column_names and labelled.column("split").null_count == 0:
        why = "the manifest has its parts already"
        why += ": those of the run whose network made the features" if encoded_from(labelled) else ""
        lines = [Setting(name="column", value="split", why=why)]
        if group:
            lines.append(Setting(name="group", value=group, why="no value of it may be in two parts; checked"))
        return lines, labelled.parts(group=group or None)
    if group is None:
        candidates = ", ".join(group_candidates(labelled, target=target)[:4]) or "none whose values repeat"
        raise SettingError(
            f"group is missing: name the column whose values must not be in two parts, the patient (--group); columns "
            f"that it could be: {candidates}. Where every row stands for itself, say so (--no-group)"
        )
    return _tried(labelled, group=group, target=target, classes=classes)


def _tried(labelled: Manifest, *, group: Group, target: str, classes: Sequence[str]) -> tuple[list[Setting], Parts]:
    units = pc.count_distinct(labelled.column(group or "id")).as_py()
    share = 0.15 if units >= 40 else 0.2 if units >= 10 else 0.25
    failed: CinefeedError | None = None
    for stratify in (target, None):
        try:
            parts = labelled.split(val=share, test=share, group=group or None, stratify=stratify)
            break
        except SplitError as error:
            failed = error
    else:
        assert failed is not None
        raise failed
    each = "groups" if group else "rows"
    counts = ", ".join(f"{name} {len(getattr(parts, name))}" for name in ("train", "val", "test"))
    why = f"{units} of them; none is in two parts" if group else "you said that every row stands for itself"
    lines = [
        Setting(name="group", value=group, why=why),
        Setting(name="val", value=share, why=f"of {units} {each}; rows: {counts}"),
        Setting(name="test", value=share, why="looked at once, at the end"),
    ]
    if stratify is not None:
        kind = "classes" if classes else "range"
        lines.append(Setting(name="stratify", value=target, why=f"every part has its share of each of the {kind}"))
    else:
        lines.append(Setting(name="#", why=f"not stratified: {failed}"))
    return [*lines, Setting(name="seed", value=0, why="of the split alone")], parts


def _clip(labelled: Manifest) -> list[Setting]:
    """Return which frames are taken: of one whole cycle all of it, of anything longer a stretch."""
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
                name="position", value="spread", why="lengths are so alike that each may be one whole cycle: all of it"
            ),
        ]
    usual = int(counts[len(counts) // 10])  # nine in ten are as long
    frames = min(_CLIP_FRAMES, max(middle, 1))
    stride = int(np.clip(usual // frames, 1, 4))
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
        Setting(name="position", value="random", why="another stretch each epoch; validation and test take the middle"),
    ]
    short = int((counts < (frames - 1) * stride + 1).sum())
    if short:
        why = f"{short} of {len(counts)} videos are shorter than a clip: what is missing is marked, and not read"
        lines.append(Setting(name="short", value="pad", why=why))
    return lines


def _counts(labelled: Manifest) -> NDArray[np.int64]:
    """Return how many frames a clip of each row can be taken from: of its window alone, where it has one."""
    counts = np.array(labelled.column("num_frames"), np.int64)
    if not {"start_seconds", "end_seconds"} & {*labelled.table.column_names}:
        return counts
    for row in range(len(labelled)):
        facts = labelled.facts(row)
        if facts is not None:
            counts[row] = max(
                window_of(facts.times, *labelled.window(row))[1], 1
            )  # one without a frame: the feed says so
    return counts


def _frame(labelled: Manifest, train: Manifest) -> list[Setting]:
    """Return what a frame becomes: as large as most are, or 112, in the shape that most have, grey where all are."""
    heights, widths = (labelled.column(name).to_numpy() for name in ("height", "width"))
    height, width = float(np.median(heights)), float(np.median(widths))
    scale = min(1.0, _SIDE / min(height, width))
    least = 2**_HALVINGS
    shown = [max(int(each * scale) // least * least, least) for each in (height, width)]
    if max(height, width) <= 1.2 * min(height, width):
        shown = [min(shown)] * 2
    sizes = {(int(one), int(two)) for one, two in zip(heights, widths, strict=True)}
    one = next(iter(sizes))
    said = f"{one[0]} x {one[1]}" if len(sizes) == 1 else f"of {len(sizes)} sizes, mostly {height:g} x {width:g}"
    shapes = widths / heights
    alike = shapes.max() <= 1.1 * shapes.min()
    why_fit = "what stands out is cut off: at most a little" if alike else "nothing is cut off, for shapes differ"
    channels, why_channels = _channels(labelled)
    return [
        Setting(name="height", value=shown[0], why=f"frames are {said}; {least} divides it, for four halvings"),
        Setting(name="width", value=shown[1], why="likewise"),
        Setting(name="channels", value=channels, why=why_channels),
        Setting(name="fit", value="crop" if alike else "pad", why=why_fit),
        *_numbers(labelled, train),
    ]


def _numbers(labelled: Manifest, train: Manifest) -> list[Setting]:
    """Return the type of the frames, and the training rows' window for numbers without a scale of their own."""
    bits = int(labelled.column("bits").fill_null(8).to_numpy().max())
    rows = rows_without_window(labelled, dtype="uint8")
    if len(rows) == 0:
        dtype = "uint8" if bits <= 8 else "float32" if bits == 32 else "uint16"
        return [Setting(name="dtype", value=dtype, why=f"the files hold up to {bits} bits")]
    of_training = rows_without_window(train, dtype="uint8")
    part, some = (train, of_training) if len(of_training) else (labelled, rows)
    window = window_for(part, some)
    kind = described_values(labelled, int(rows[0]))
    why = f"{len(rows)} of {len(labelled)} videos hold {kind} or alike: 256 levels of it"
    lines = [Setting(name="dtype", value="uint8", why=why)]
    if window is None:
        return [*lines, Setting(name="#", why="window = [LOW, HIGH]: their range is not known; scan again")]
    why = f"black and white: all but 0.5 % at either end of {len(some)} {'training ' * (part is train)}videos"
    return [*lines, Setting(name="window", value=[*window], why=why)]


def _channels(labelled: Manifest) -> tuple[int, str]:
    """Return 1 where all frames are grey: the file says so, or the pixels that were looked at."""
    stored = labelled.column("channels").to_numpy()
    if (stored == 1).all():
        return 1, "all files are grey"
    colour = np.flatnonzero(stored == 3)
    rows = colour[np.linspace(0, len(colour) - 1, min(_LOOKED_AT, len(colour))).astype(int)]
    for row in rows.tolist():
        with labelled.open(row, channels=3) as source:
            pixels = source.read([len(source) // 2]).astype(np.float32)
        if np.ptp(pixels, axis=-1).max() > 0.02 * max(float(pixels.max()), 1.0):
            return 3, f"{len(colour)} of {len(stored)} files are in colour"
    return 1, f"{len(colour)} files could hold colour, and the {len(rows)} that were looked at are grey"


def _features(frame: Mapping[str, Any], labelled: Manifest) -> list[Setting]:
    whys = {"height": "a frame is one line of numbers", "width": f"features of {encoded_from(labelled)}"}
    return [Setting(name=name, value=value, why=whys.get(name, "unchanged")) for name, value in frame.items()]


def _transforms(frame: Sequence[Setting]) -> list[Setting]:
    pixels = max(min(frame[0].value, frame[1].value) // 20, 1)
    weak = "what changes the label must go: a flip that swaps left and right, brightness that tells"
    scaled = (
        []
        if not any(each.value == "float32" for each in frame)
        else [
            Setting(name="[[transforms]]"),
            Setting(name="name", value="Normalize", why="numbers of any scale: each frame by its own maximum"),
        ]
    )
    return [
        *scaled,
        Setting(name="[[transforms]]", why=f"weak ones, the same for all frames of a clip; {weak}"),
        Setting(name="name", value="Rotate", why="look at them: cinefeed inspect --transforms THIS_FILE"),
        Setting(name="degrees", value=10.0, why="to either side"),
        Setting(name="[[transforms]]"),
        Setting(name="name", value="Shift", why="so that place is not learnt by heart"),
        Setting(name="pixels", value=float(pixels), why="a twentieth of the frame"),
    ]


def _sampler(train: Manifest, *, target: str, classes: Sequence[str]) -> list[Setting]:
    column = train.column(target)
    if not classes:
        fifths = np.histogram(column.cast(pa.float64(), safe=False).to_numpy(), bins=5)[0]
        why = f"fifths of the labels' range have {', '.join(map(str, fifths))} rows; UniformLabels draws rare ones more"
        return [Setting(name="name", value="Natural", why=why)]
    rows_of = Counter(class_names(column).to_pylist())
    counts = [rows_of[each] for each in classes]
    numbers = ", ".join(f"{each} {count}" for each, count in list(zip(classes, counts, strict=True))[:6])
    if max(counts) > _UNEVEN * min(counts):
        why = f"the training part has {numbers}; validation and test are never balanced"
        return [Setting(name="name", value="BalancedClasses", why=why)]
    return [Setting(name="name", value="Natural", why=f"classes are even enough: {numbers}")]


def _training(parts: Parts, frame: Sequence[Setting], *, features: bool, out: str | Path) -> list[Setting]:
    count = len(parts.train)
    batch = next(size for size in (32 if features else 16, 16, 8, 4, 2, 1) if size == 1 or count >= 4 * size)
    batches = -(-count // batch)
    epochs = int(np.clip(-(-_STEPS // batches), 10, 100))
    why = "reads features in their order" if features else "a CNN for each frame, then a GRU: quick, and sees motion"
    side = min(frame[0].value, frame[1].value)
    name = Setting(name="name", value="feature_rnn" if features else "cnn_rnn", why=why)
    return [
        Setting(name="[feed]"),
        Setting(name="batch_size", value=batch, why=f"{count} training videos make {batches} batches"),
        Setting(name="seed", value=0, why="of clips, transforms, order and first weights"),
        Setting(name="workers", value="auto", why="one a core"),
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
        Setting(name="learning_rate", value=1e-3, why="of Adam, whatever the label's unit"),
        Setting(name="schedule", value="cosine", why="down to 0 at the last epoch"),
        Setting(name="patience", value=0, why="the schedule is for all epochs; the best weights are kept"),
    ]


def _evaluate(clip: Sequence[Setting], group: Group) -> list[Setting]:
    spread = any(each.value == "spread" for each in clip)
    why = "a clip is all of its video" if spread else "of each video, evenly over its time; their scores are averaged"
    unit = f"; write unit = {group!r} where each has one label" if group else ""
    return [Setting(name="[evaluate]"), Setting(name="clips", value=1 if spread else 3, why=why + unit)]
