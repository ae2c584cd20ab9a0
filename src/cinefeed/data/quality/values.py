"""Findings about pixel values: no window, few levels, clipped, NaN or infinite."""

import numpy as np
from numpy.typing import NDArray

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.values import (
    described_values,
    rows_not_finite,
    rows_within,
    rows_without_window,
    window_for,
)
from cinefeed.data.quality.findings import Finding, video_findings
from cinefeed.data.quality.frame_summaries import FrameSummaries
from cinefeed.video.clips import Frame


def value_findings(manifest: Manifest, summaries: FrameSummaries, *, frame: Frame | None) -> list[Finding]:
    """Return findings about pixel values in a feed with `frame`, by default uint8 without a window."""
    rows_to_window = rows_without_window(manifest, dtype="uint8" if frame is None else frame.dtype)
    rows_to_window = rows_to_window if frame is None or frame.window is None else rows_to_window[:0]
    return [
        *_not_finite_findings(manifest, summaries),
        *_window_findings(manifest, rows_to_window, frame),
        *_level_findings(summaries),
        *_clipping_findings(manifest, summaries, frame),
    ]


def _not_finite_findings(manifest: Manifest, summaries: FrameSummaries) -> list[Finding]:
    scan_remarks = rows_not_finite(manifest)
    remarks = summaries.not_finite | dict(zip(scan_remarks.rows.tolist(), scan_remarks.remarks(), strict=True))
    return video_findings(
        dict(sorted(remarks.items())),
        "error",
        "pixels_not_finite",
        "with pixels that are NaN or infinite",
        detail="A feed raises an error for such a clip: one of these pixels makes all weights of a network NaN. They "
        "were counted in a few frames of each video.",
        advice="replace them and scan again, or leave the videos out (--where nan_count=0, --where inf_count=0)",
    )


def _window_findings(manifest: Manifest, rows: NDArray[np.int64], frame: Frame | None) -> list[Finding]:
    window = window_for(manifest, rows)
    text = "LOW, HIGH" if window is None else f"{window[0]:.10g}, {window[1]:.10g}"
    return video_findings(
        {row: described_values(manifest, row) for row in rows.tolist()},
        "warning" if frame is None else "error",
        "window_missing",
        "without values of black and white in their files",
        detail="Their numbers are floats, signed, or of more than 8 bits. As 8-bit frames they would lose most of "
        "their levels, so a feed needs a window.",
        advice=f"set [frame] window = [{text}] (--window), as 'cinefeed init' does, or dtype = 'float32'",
    )


def _level_findings(summaries: FrameSummaries) -> list[Finding]:
    return [
        *video_findings(
            summaries.few_levels,
            "warning",
            "few_levels",
            "fed with less than a tenth of the levels",
            detail="The window, or the range of the dtype, is far wider than their values, so contrast is lost.",
            advice="set a narrower window (--window), or leave them out if their scale differs from the others",
        ),
        *video_findings(
            summaries.few_stored_levels,
            "note",
            "few_levels_stored",
            "of 8 bits with less than a tenth of the levels",
            detail="They are blank, have few grey levels, or another scale, such as 0 and 1.",
            advice="look at them with 'cinefeed inspect'",
        ),
    ]


def _clipping_findings(manifest: Manifest, summaries: FrameSummaries, frame: Frame | None) -> list[Finding]:
    # The scan read more frames: if its percentiles lie within the window, at most 1 % of the pixels are clipped.
    rows_in_window = set() if frame is None or frame.window is None else rows_within(manifest, frame.window)
    return [
        *video_findings(
            {row: remark for row, remark in summaries.clipped_by_window.items() if row not in rows_in_window},
            "warning",
            "clipped",
            "with more than 1 % of the pixels clipped by the window",
            detail="Values outside the window become black or white.",
            advice="set a wider window (--window), unless only the values inside matter",
        ),
        *video_findings(
            summaries.clipped_by_file,
            "note",
            "clipped_by_file",
            "with more than 1 % of the pixels clipped by the window of the file",
            detail="The window is that of the file, or the one set by the scan (--window percentiles).",
            advice="nothing if this is intended; [frame] window overrides it",
        ),
    ]
