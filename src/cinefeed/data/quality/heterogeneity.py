"""Findings about heterogeneous videos: length, size, rate, bit depth, colour, pixel size; and notes of the scan."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.quality.findings import Finding, finding
from cinefeed.data.quality.frame_summaries import FrameSummaries
from cinefeed.video.clips import Clip

_RATES_APART = 1.5  # ratio of rates: a clip by frame count then shows one and a half times as much of a heartbeat
_MISSING_FRAMES = {  # by Clip(short=)
    "repeat_last": "Their last frame is repeated, so the end of their clips is still",
    "loop": "They are repeated from their start",
    "pad": "The missing frames are black, and masked",
    "error": "Reading them is an error",
}
_TRUE_VALUES = {"yes", "true", "1"}


def mixed_findings(manifest: Manifest, summaries: FrameSummaries, *, clip: Clip | None) -> list[Finding]:
    """Return findings about videos shorter than the clip, and about differences between videos."""
    findings = [
        *_short_findings(summaries, clip, len(manifest)),
        *_burned_in_findings(manifest),
        *_series_findings(manifest),
        *_spacing_findings(manifest),
    ]
    readable = np.flatnonzero(manifest.column("num_frames").fill_null(0).to_numpy(zero_copy_only=False) > 0)
    if len(readable) == 0:
        return findings
    table = manifest.table.take(pa.array(readable))
    return [*findings, *_rate_findings(table, clip), *_size_findings(table), *_pixel_findings(table)]


def _short_findings(summaries: FrameSummaries, clip: Clip | None, count: int) -> list[Finding]:
    findings = []
    if summaries.videos_without_times:
        findings.append(
            finding(
                "warning",
                "no_rate",
                f"{format_count(len(summaries.videos_without_times), 'video')} of {count:,} without times",
                detail="Their files have no frame rate, so clips cannot be selected by time.",
                advice="select frames by count, with --stride in place of --rate, or leave them out",
                rows=summaries.videos_without_times,
            )
        )
    if clip is None or not summaries.short_videos:
        return findings
    is_majority = len(summaries.short_videos) > count // 2
    return [
        *findings,
        finding(
            "warning",
            "short_videos",
            f"{format_count(len(summaries.short_videos), 'video')} of {count:,} shorter than the clip",
            detail=f"{_MISSING_FRAMES[clip.short]} (the setting short of [clip]).",
            advice="use fewer --frames or a smaller --stride" if is_majority else "leave them out, or use fewer frames",
            rows=summaries.short_videos,
            remarks=list(summaries.short_videos.values()),
        ),
    ]


def _noted_rows(manifest: Manifest, name: str) -> tuple[list[int], list[str]]:
    """Return the rows that have a value in a column, and the values as text."""
    if name not in manifest.table.schema.names:
        return [], []
    texts = manifest.column(name).to_pylist()
    rows = [row for row, text in enumerate(texts) if text not in (None, "", False, 0)]
    return rows, [str(texts[row]) for row in rows]


def _burned_in_findings(manifest: Manifest) -> list[Finding]:
    rows, texts = _noted_rows(manifest, "burned_in")
    rows = [row for row, text in zip(rows, texts, strict=True) if text.strip().lower() in _TRUE_VALUES]
    if not rows:
        return []
    return [
        finding(
            "warning",
            "burned_in",
            f"{format_count(len(rows), 'video')} with burned-in text, according to their header",
            detail="It may identify the patient, or reveal the label to a model.",
            advice="crop to the image region, or blacken the text before the data leave the hospital",
            rows=rows,
        )
    ]


def _series_findings(manifest: Manifest) -> list[Finding]:
    rows, texts = _noted_rows(manifest, "series_note")
    if not rows:
        return []
    return [
        finding(
            "warning",
            "series_notes",
            f"{format_count(len(rows), 'video')} with a note on their series",
            detail="Irregularities of the series: planes acquired twice, missing phases, single images.",
            advice="look at them with 'cinefeed inspect', and leave out those that are not cines",
            rows=rows,
            remarks=texts,
        )
    ]


def _spacing_findings(manifest: Manifest) -> list[Finding]:
    if "spacing_down_mm" not in manifest.table.schema.names:
        return []
    is_missing = manifest.column("spacing_down_mm").is_null().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(is_missing)
    if is_missing.all() or len(rows) == 0:
        return []
    return [
        finding(
            "note",
            "spacing_missing",
            f"{format_count(len(rows), 'video')} without a pixel size, while others have one",
            detail="They cannot be scaled to a pixel size in millimetres.",
            advice="nothing, unless sizes in millimetres matter",
            rows=rows,
        )
    ]


def _rate_findings(table: Any, clip: Clip | None) -> list[Finding]:
    if "rate_hz" not in table.schema.names:
        return []
    rates = table.column("rate_hz")
    known_rates = rates.drop_null()
    if len(known_rates) == 0 or len(known_rates.unique()) + (rates.null_count > 0) < 2:
        return []
    low, high = pc.min_max(known_rates).as_py().values()
    by_count = clip is not None and clip.rate_hz is None and clip.position != "spread"
    differ_much = high > _RATES_APART * low
    unknown = f"; {rates.null_count:,} have no rate" if rates.null_count else ""
    spans = ""
    if clip is not None and by_count:
        span = (clip.frames - 1) * clip.stride
        spans = f" A clip of {clip.frames} frames, stride {clip.stride}, spans {span / high:.2f} to {span / low:.2f} s."
    return [
        finding(
            "warning" if differ_much and by_count else "note",
            "mixed_rates",
            f"rates from {low:.4g} to {high:.4g} frames per second",
            detail=f"{_most_frequent(known_rates, lambda each: f'{each:.4g}')}{unknown}.{spans}",
            advice="select frames by time: --rate in place of --stride",
            count=table.num_rows,
        )
    ]


def _size_findings(table: Any) -> list[Finding]:
    if not {"height", "width"} <= {*table.schema.names}:
        return []
    height, width = (table.column(name).to_numpy() for name in ("height", "width"))
    sizes = np.unique(np.stack([width, height]), axis=1)
    findings = []
    if sizes.shape[1] > 1:
        area = sizes[0].astype(np.int64) * sizes[1]
        small, large = (f"{sizes[0, i]} x {sizes[1, i]}" for i in (np.argmin(area), np.argmax(area)))
        findings.append(
            finding(
                "note",
                "mixed_sizes",
                f"{sizes.shape[1]:,} sizes, from {small} to {large} (width x height)",
                detail="Each frame is resized to that of the feed: small ones become blurred, large ones lose detail.",
                advice="choose --frame for the smallest size, and look at a few with 'cinefeed inspect'",
                count=table.num_rows,
            )
        )
    tall = int((height > width).sum())
    if tall > 0 and (width > height).any():
        findings.append(
            finding(
                "note",
                "mixed_orientations",
                f"{format_count(tall, 'video')} in portrait, {int((width > height).sum()):,} in landscape format",
                detail="Frames are rotated only if the metadata of their file declares a rotation.",
                advice="look at a few of both with 'cinefeed inspect'; Frame(fit='pad') keeps the whole frame",
                count=tall,
            )
        )
    return findings


def _pixel_findings(table: Any) -> list[Finding]:
    """Return findings about differences in the storage of pixels."""
    kinds: Sequence[tuple[str, str, str, str]] = (
        ("bits", "mixed_bits", "bit depths", "The dtype of the feed brings all to one scale."),
        (
            "channels",
            "mixed_channels",
            "numbers of channels",
            "A grey feed uses the luma of colour; set it by --frame.",
        ),
        (
            "pixel_format",
            "mixed_pixel_formats",
            "pixel formats",
            "Range and matrix are read from the tags of each file.",
        ),
        ("rotation", "mixed_rotations", "rotations", "Frames are rotated upright by the metadata of each file."),
    )
    findings = []
    for name, code, words, detail in kinds:
        if name not in table.schema.names:
            continue
        column = table.column(name).drop_null()
        if len(column.unique()) > 1:
            findings.append(
                finding(
                    "note",
                    code,
                    f"{len(column.unique())} {words}",
                    detail=f"{_most_frequent(column, str)}. {detail}",
                    advice="nothing, unless they are correlated with the label: see the shortcuts",
                    count=table.num_rows,
                )
            )
    return findings


def _most_frequent(column: Any, format_value: Callable[[Any], str], max_values: int = 6) -> str:
    counts: Counter[str] = Counter()
    for row in column.value_counts().to_pylist():
        counts[format_value(row["values"])] += row["counts"]
    sorted_counts = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    text = ", ".join(f"{value} in {count:,}" for value, count in sorted_counts[:max_values])
    return text + (f" and {len(counts) - max_values} more" if len(counts) > max_values else "")
