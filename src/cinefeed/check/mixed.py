"""Videos that differ in what a feed takes for granted: length, size, rate, depth, colour, scale; and notes on them."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.check.findings import Finding, finding
from cinefeed.check.look import Looks
from cinefeed.clips import Clip
from cinefeed.manifest.table import Manifest
from cinefeed.text import format_count

_RATES_APART = 1.5  # times: a clip by count then shows one and a half times as much of a heart beat
_SAID = {"yes", "true", "1"}


def mixed_findings(manifest: Manifest, looks: Looks, *, clip: Clip | None) -> list[Finding]:
    """Return videos shorter than the clip, and what differs between videos."""
    found = [*_short(looks, clip, len(manifest)), *_burned_in(manifest), *_series(manifest), *_spacing(manifest)]
    readable = np.flatnonzero(manifest.column("num_frames").fill_null(0).to_numpy(zero_copy_only=False) > 0)
    if len(readable) == 0:
        return found
    table = manifest.table.take(pa.array(readable))
    return [*found, *_rates(table, clip), *_sizes(table), *_pixels(table)]


def _short(looks: Looks, clip: Clip | None, count: int) -> list[Finding]:
    found = []
    if looks.timeless:
        found.append(
            finding(
                "warning",
                "no_rate",
                f"{format_count(len(looks.timeless), 'video')} of {count:,} without times",
                detail="Their files say no rate, so no clip can be cut from them by time.",
                advice="choose frames by count, with --stride in place of --rate, or leave them out",
                rows=looks.timeless,
            )
        )
    if clip is None or not looks.short:
        return found
    many = len(looks.short) > count // 2
    return [
        *found,
        finding(
            "warning",
            "short_videos",
            f"{format_count(len(looks.short), 'video')} of {count:,} shorter than the clip",
            detail="Their last frame is repeated (Clip(short=...) says otherwise), so a model sees them stand still.",
            advice="take fewer --frames or a smaller --stride" if many else "leave them out, or take fewer frames",
            rows=looks.short,
            remarks=list(looks.short.values()),
        ),
    ]


def _flagged(manifest: Manifest, name: str) -> tuple[list[int], list[str]]:
    """Return the rows for which a column says something, and what."""
    if name not in manifest.table.schema.names:
        return [], []
    texts = manifest.column(name).to_pylist()
    rows = [row for row, text in enumerate(texts) if text not in (None, "", False, 0)]
    return rows, [str(texts[row]) for row in rows]


def _burned_in(manifest: Manifest) -> list[Finding]:
    rows, texts = _flagged(manifest, "burned_in")
    rows = [row for row, text in zip(rows, texts, strict=True) if text.strip().lower() in _SAID]
    if not rows:
        return []
    return [
        finding(
            "warning",
            "burned_in",
            f"{format_count(len(rows), 'video')} with text burned into the picture, by their header",
            detail="It may name the patient, and tell the label to a model.",
            advice="crop to the image region, or blacken the text before the data leave the hospital",
            rows=rows,
        )
    ]


def _series(manifest: Manifest) -> list[Finding]:
    rows, texts = _flagged(manifest, "series_note")
    if not rows:
        return []
    return [
        finding(
            "warning",
            "series_notes",
            f"{format_count(len(rows), 'video')} with a note on their series",
            detail="What was odd when the series was put together: planes taken twice, phases missing, single images.",
            advice="look at them with 'cinefeed inspect', and leave out what is no cine",
            rows=rows,
            remarks=texts,
        )
    ]


def _spacing(manifest: Manifest) -> list[Finding]:
    if "spacing_down_mm" not in manifest.table.schema.names:
        return []
    none = manifest.column("spacing_down_mm").is_null().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(none)
    if none.all() or len(rows) == 0:
        return []
    return [
        finding(
            "note",
            "spacing_missing",
            f"{format_count(len(rows), 'video')} without the size of a pixel, which others have",
            detail="They cannot be brought to one scale in millimetres.",
            advice="nothing, as long as sizes in millimetres do not matter",
            rows=rows,
        )
    ]


def _rates(table: Any, clip: Clip | None) -> list[Finding]:
    if "rate_hz" not in table.schema.names:
        return []
    rates = table.column("rate_hz")
    known = rates.drop_null()
    if len(known) == 0 or len(known.unique()) + (rates.null_count > 0) < 2:
        return []
    low, high = pc.min_max(known).as_py().values()
    by_count = clip is not None and clip.rate_hz is None and clip.position != "spread"
    apart = high > _RATES_APART * low
    unknown = f"; {rates.null_count:,} have no rate" if rates.null_count else ""
    spans = ""
    if clip is not None and by_count:
        span = (clip.frames - 1) * clip.stride
        spans = f" A clip of {clip.frames} frames, stride {clip.stride}, spans {span / high:.2f} to {span / low:.2f} s."
    return [
        finding(
            "warning" if apart and by_count else "note",
            "mixed_rates",
            f"rates from {low:.4g} to {high:.4g} frames a second",
            detail=f"{_frequent(known, lambda each: f'{each:.4g}')}{unknown}.{spans}",
            advice="choose frames by time: --rate in place of --stride",
            count=table.num_rows,
        )
    ]


def _sizes(table: Any) -> list[Finding]:
    if not {"height", "width"} <= {*table.schema.names}:
        return []
    height, width = (table.column(name).to_numpy() for name in ("height", "width"))
    sizes = np.unique(np.stack([width, height]), axis=1)
    found = []
    if sizes.shape[1] > 1:
        area = sizes[0].astype(np.int64) * sizes[1]
        small, large = (f"{sizes[0, i]} x {sizes[1, i]}" for i in (np.argmin(area), np.argmax(area)))
        found.append(
            finding(
                "note",
                "mixed_sizes",
                f"{sizes.shape[1]:,} sizes, from {small} to {large} (width x height)",
                detail="Each frame is brought to the size of the feed; small ones are blurred, large ones lose detail.",
                advice="choose --frame with the smallest in mind, and look at a few with 'cinefeed inspect'",
                count=table.num_rows,
            )
        )
    tall = int((height > width).sum())
    if tall > 0 and (width > height).any():
        found.append(
            finding(
                "note",
                "mixed_orientations",
                f"{format_count(tall, 'video')} upright, {int((width > height).sum()):,} across",
                detail="Frames are shown as their files say they are to be turned; what the file does not say stays.",
                advice="look at a few of both with 'cinefeed inspect'; Frame(fit='pad') keeps all of a frame",
                count=tall,
            )
        )
    return found


def _pixels(table: Any) -> list[Finding]:
    """Return what differs in how pixels are stored."""
    kinds: Sequence[tuple[str, str, str, str]] = (
        ("bits", "mixed_bits", "bit depths", "All are brought to one scale by the feed's dtype."),
        ("channels", "mixed_channels", "numbers of channels", "A grey feed takes luma of colour; --frame says which."),
        (
            "pixel_format",
            "mixed_pixel_formats",
            "pixel formats",
            "Range and matrix come from each file's own tags.",
        ),
        ("rotation", "mixed_rotations", "rotations", "Frames are turned upright as each file says."),
    )
    found = []
    for name, code, words, detail in kinds:
        if name not in table.schema.names:
            continue
        column = table.column(name).drop_null()
        if len(column.unique()) > 1:
            found.append(
                finding(
                    "note",
                    code,
                    f"{len(column.unique())} {words}",
                    detail=f"{_frequent(column, str)}. {detail}",
                    advice="nothing, unless they go along with the label: see what predicts it",
                    count=table.num_rows,
                )
            )
    return found


def _frequent(column: Any, say: Callable[[Any], str], most: int = 6) -> str:
    counts: Counter[str] = Counter()
    for each in column.value_counts().to_pylist():
        counts[say(each["values"])] += each["counts"]
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    shown = ", ".join(f"{value} in {count:,}" for value, count in ordered[:most])
    return shown + (f" and {len(counts) - most} more" if len(counts) > most else "")
