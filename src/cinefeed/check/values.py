"""Numbers that a feed would spoil: without black and white, squeezed into few levels, clipped, or no numbers at all."""

import numpy as np
from numpy.typing import NDArray

from cinefeed.check.findings import Finding, video_findings
from cinefeed.check.look import Looks
from cinefeed.clips import Frame
from cinefeed.manifest.table import Manifest
from cinefeed.manifest.values import described_values, rows_not_finite, rows_within, rows_without_window, window_for


def value_findings(manifest: Manifest, looks: Looks, *, frame: Frame | None) -> list[Finding]:
    """Return what is wrong with the numbers in the videos, fed as `frame` says; by default as 8 bits, by no window."""
    lacking = rows_without_window(manifest, dtype="uint8" if frame is None else frame.dtype)
    lacking = lacking if frame is None or frame.window is None else lacking[:0]
    return [
        *_not_finite(manifest, looks),
        *_window_missing(manifest, lacking, frame),
        *_levels(looks),
        *_clipped(manifest, looks, frame),
    ]


def _not_finite(manifest: Manifest, looks: Looks) -> list[Finding]:
    scanned = rows_not_finite(manifest)
    remarks = looks.not_finite | dict(zip(scanned.rows.tolist(), scanned.remarks(), strict=True))
    return video_findings(
        dict(sorted(remarks.items())),
        "error",
        "pixels_not_finite",
        "with pixels that are NaN or infinite",
        detail="A feed raises at such a clip: one of them makes every weight of a network NaN. Counted in a few frames "
        "of each video.",
        advice="write numbers there and scan again, or leave them out (--where nan_count=0, --where inf_count=0)",
    )


def _window_missing(manifest: Manifest, rows: NDArray[np.int64], frame: Frame | None) -> list[Finding]:
    window = window_for(manifest, rows)
    text = "LOW, HIGH" if window is None else f"{window[0]:.10g}, {window[1]:.10g}"
    return video_findings(
        {row: described_values(manifest, row) for row in rows.tolist()},
        "warning" if frame is None else "error",
        "window_missing",
        "whose files do not say what is black and what is white",
        detail="Their numbers are floats, signed, or of more than 8 bits. As 8-bit frames they would lose most of "
        "their levels, so a feed refuses them until a window is given.",
        advice=f"[frame] window = [{text}] (--window), as 'cinefeed init' writes it, or dtype = 'float32'",
    )


def _levels(looks: Looks) -> list[Finding]:
    return [
        *video_findings(
            looks.few_levels,
            "warning",
            "few_levels",
            "fed with less than a tenth of the levels",
            detail="The window, or the scale of the type, is far wider than their numbers, and contrast is lost.",
            advice="give a narrower window (--window), or leave them out if their scale is not that of the rest",
        ),
        *video_findings(
            looks.few_stored,
            "note",
            "few_levels_stored",
            "of 8 bits with less than a tenth of the levels",
            detail="They are blank, drawn in a few greys, or of another scale, such as 0 and 1.",
            advice="look at them with 'cinefeed inspect'",
        ),
    ]


def _clipped(manifest: Manifest, looks: Looks, frame: Frame | None) -> list[Finding]:
    # The scan saw more frames: where its percentiles lie within the window, no more than a hundredth is clipped.
    within = set() if frame is None or frame.window is None else rows_within(manifest, frame.window)
    return [
        *video_findings(
            {row: remark for row, remark in looks.clipped.items() if row not in within},
            "warning",
            "clipped",
            "of which the window clips more than 1 % of the pixels",
            detail="What lies outside the window is all black, or all white.",
            advice="give a wider window (--window), unless only the middle matters",
        ),
        *video_findings(
            looks.clipped_by_file,
            "note",
            "clipped_by_file",
            "of which the file's own window clips more than 1 %",
            detail="The window is that of the file, or the one that the scan chose (--window percentiles).",
            advice="nothing if it is meant; [frame] window overrules it",
        ),
    ]
