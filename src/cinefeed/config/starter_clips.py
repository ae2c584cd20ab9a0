"""The clip and frame settings of a first settings file, chosen from the metadata and some pixels of a manifest."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.config.lines import Setting
from cinefeed.config.recipe import FEW_VIDEOS
from cinefeed.core.text import format_count
from cinefeed.data.manifest.encoded import encoded_from
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.values import described_values, rows_without_window, window_for
from cinefeed.video.clips import Clip, why_too_short, window_of

_MAX_OPENED = 24  # videos whose pixels are read
_COLOURED_PIXELS, _COLOURED_VIDEOS = 0.001, 0.1  # shares above which a video, and the data, are in colour
_MIXED_RATES = 1.1  # ratio of the highest to the lowest rate, from which clips are cut by time
_CLIP_FRAMES, _SIDE, _SMALL_SIDE, _HALVINGS = 16, 112, 64, 4  # the networks have four halvings of a frame
_WHOLE_FRAMES = 32  # at most, of a clip that covers the whole video
_MANY_CLASSES, _FEW_A_CLASS, _TINY_SIDE = 10, 30, 32  # many classes with few training videos each get frames of 32


def clip_settings(labelled: Manifest, *, few: int = 0) -> list[Setting]:
    """Return the settings of clips: the whole video if it may be one cycle, otherwise a range of frames.

    `few` is the number of training videos if they are few and of classes, else 0: whole videos then have fewer frames.
    """
    counts = _counts(labelled)
    low, middle, high = int(counts.min()), int(np.median(counts)), int(counts.max())
    windows = {"start_seconds", "end_seconds"} & {*labelled.table.column_names}
    kind = "windows" if windows else "videos"
    why_length = (
        f"all {kind} have {format_count(low, 'frame')}"
        if low == high
        else f"{kind} have {low} to {high} frames, half of them {middle} or more"
    )
    if high <= 64 and high <= 1.5 * low:
        frames = min(low, _CLIP_FRAMES if few else _WHOLE_FRAMES)
        why_few = f"; {few} training videos are few: with fewer frames they are learnt in fewer steps"
        return [
            Setting(name="frames", value=frames, why=why_length + why_few * (few > 0 and frames < low)),
            Setting(
                name="position",
                value="spread",
                why="lengths are similar, so each video may be one cycle: use all of it",
            ),
        ]
    frames = min(_CLIP_FRAMES, max(middle, 1))
    speed = _speed(labelled, counts, frames=frames)
    lines = [
        Setting(name="frames", value=frames, why=why_length),
        speed,
        Setting(name="position", value="random", why="another range each epoch; validation and test use the middle"),
    ]
    if short := _num_short(labelled, Clip(frames=frames, **{speed.name: speed.value})):
        why = f"{short} of {format_count(len(counts), 'video')} {'is' if short == 1 else 'are'} shorter than a clip: "
        lines.append(Setting(name="short", value="pad", why=f"{why}missing frames are masked"))
    return lines


def _num_short(labelled: Manifest, clip: Clip) -> int:
    """Return the number of videos shorter than a clip, by the rule of `cinefeed check`."""
    metadata = ((labelled.metadata(row), labelled.window(row)) for row in range(len(labelled)))
    return sum(bool(why_too_short(clip, each.times, *window)) for each, window in metadata if each is not None)


def _speed(labelled: Manifest, counts: NDArray[np.int64], *, frames: int) -> Setting:
    """Return the stride, or the rate if videos differ in theirs.

    A clip is at most as long as nine of ten videos, and takes every frame to every fourth one.
    """
    names = labelled.table.column_names
    rates = np.array(labelled.column("rate_hz"), np.float64) if "rate_hz" in names else np.full(len(counts), np.nan)
    is_regular = bool(np.isfinite(rates).all() and (rates > 0).all())
    if is_regular and rates.max() > _MIXED_RATES * rates.min():
        seconds = np.sort((counts - 1) / rates)[len(counts) // 10]
        low = float(np.sort(rates)[len(rates) // 10])
        rate = float(np.clip((frames - 1) / max(seconds, 1e-9), low / 4, low))
        step = 1 if 1 <= rate <= np.ceil(rate) <= low else 100  # rounded up: a clip must not become longer
        rate = float(np.ceil(step * rate) / step)
        length = (frames - 1) / rate
        why = (
            f"files have {rates.min():.4g} to {rates.max():.4g} Hz, so a stride would mix speeds; a clip spans "
            f"{length:.2g} s"
        )
        return Setting(name="rate_hz", value=rate, why=why)
    stride = int(np.clip(int(np.sort(counts)[len(counts) // 10]) // frames, 1, 4))
    span = (frames - 1) * stride + 1
    known_rates = rates[np.isfinite(rates)]
    seconds_text = (
        f", {span / np.median(known_rates):.2g} s at {np.median(known_rates):.4g} Hz" if known_rates.size else ""
    )
    why = f"a clip spans {format_count(span, 'frame')}{seconds_text}"
    return Setting(name="stride", value=stride, why=why)


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


def frame_settings(readable: Manifest, labelled: Manifest, train: Manifest, *, num_classes: int = 0) -> list[Setting]:
    """Return the settings of frames: the median size with at most 112 on the shorter side, 64 for few training videos.

    It is at most 32 for many classes with few training videos each; `num_classes` is 0 for a number.
    Frames are grey if the `readable` videos are, labelled or not, so that the channels do not depend on the target.
    """
    heights, widths = (labelled.column(name).to_numpy() for name in ("height", "width"))
    height, width = float(np.median(heights)), float(np.median(widths))
    is_few = len(train) < FEW_VIDEOS
    is_sparse = num_classes >= _MANY_CLASSES and len(train) < _FEW_A_CLASS * num_classes
    of_classes = f" of {num_classes} classes" if is_sparse else ""
    most = _TINY_SIDE if is_sparse else _SMALL_SIDE if is_few else _SIDE
    scale = min(1.0, most / min(height, width))
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
    channels, why_channels = _channels(readable)
    return [
        Setting(name="height", value=size[0], why=f"frames {text}; a multiple of {factor}, for four halvings"),
        Setting(
            name="width",
            value=size[1],
            why=f"{len(train)} training videos{of_classes} are few: small frames train fast"
            if (is_few or is_sparse) and scale < 1
            else "likewise",
        ),
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


def _channels(readable: Manifest) -> tuple[int, str]:
    """Return 1 if the videos are grey, by the metadata or by the pixels of some of them, else 3; and the reason.

    Few coloured pixels (a mark, a logo), or few coloured videos, do not make the data coloured.
    """
    stored = readable.column("channels").to_numpy()
    if (stored == 1).all():
        return 1, "all files are grey"
    files = readable.take(np.flatnonzero(stored == 3))
    by_id = np.argsort(files.column("id").to_numpy(zero_copy_only=False))
    rows = by_id[np.linspace(0, len(by_id) - 1, min(_MAX_OPENED, len(by_id))).astype(int)]
    coloured = 0
    for row in rows.tolist():
        with files.open(row, channels=3) as source:
            pixels = source.read([len(source) // 2]).astype(np.float32)
        tint = np.ptp(pixels, axis=-1) > 0.1 * max(float(pixels.max()), 1.0)
        coloured += bool(tint.mean() > _COLOURED_PIXELS)
    counts = f"{coloured} of {len(rows)} that were read are in colour"
    text = f"{len(files)} of {len(stored)} files are stored in colour, {counts}"
    return (3, text) if coloured > _COLOURED_VIDEOS * len(rows) else (1, f"{text}: grey keeps nearly all")


def feature_settings(frame: Mapping[str, Any], labelled: Manifest) -> list[Setting]:
    """Return the frame settings of features, which are fed unchanged."""
    whys = {"height": "a frame is one row of features", "width": f"features of {encoded_from(labelled)}"}
    return [Setting(name=name, value=value, why=whys.get(name, "unchanged")) for name, value in frame.items()]
