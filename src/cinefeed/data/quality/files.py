"""Findings about files: missing, changed, broken or damaged ones, and headers with wrong frame counts."""

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.manifest.summary import frames_in_words
from cinefeed.data.quality.findings import Finding, finding, video_findings
from cinefeed.data.quality.frame_summaries import FrameSummaries, without_path

_CHECKED_BY_COLUMN = {
    "error": "where files break",
    "damaged": "which frames are damaged",
    "size_bytes": "whether files changed after the scan, and which are copies",
    "mtime_ns": "whether files were rewritten after the scan",
    "header_frames": "whether the frame counts of headers are right",
    "header_tags": "whether headers declare burned-in text, and notes on how series were assembled",
    "rate_hz": "whether rates differ",
    "height": "whether sizes differ",
    "bits": "whether bit depths differ",
    "channels": "whether numbers of channels differ",
    "pixel_format": "whether pixel formats differ",
    "rotation": "whether rotations differ",
    "spacing_down_mm": "whether the size of a pixel is known",
}
_OFF = 0.02  # a header count that is off by more than this share of the frames, and by more than one, is a warning


def file_findings(manifest: Manifest, summaries: FrameSummaries) -> list[Finding]:
    """Return findings about the files."""
    return [
        *_missing_findings(summaries),
        *_broken_findings(manifest),
        *_damage_findings(manifest),
        *_unread_findings(summaries),
        *_unchecked_findings(manifest),
        *_header_findings(manifest),
    ]


def _unchecked_findings(manifest: Manifest) -> list[Finding]:
    """Return a finding about checks that were not possible: a column is absent, or the scan did not decode frames."""
    names = manifest.table.schema.names
    skipped_checks = [check for column, check in _CHECKED_BY_COLUMN.items() if column not in names]
    if "error" in names and manifest.verified == "packets":
        skipped_checks.insert(
            0, "where files break and which frames are damaged (their packets were counted, their frames not decoded)"
        )
    elif "error" in names and manifest.verified is None:
        skipped_checks.insert(
            0, "where files break and which frames are damaged (it is not recorded that the scan decoded their frames)"
        )
    if not skipped_checks:
        return []
    return [
        finding(
            "note" if manifest.verified else "warning",
            "not_checked",
            f"not checked: {skipped_checks[0].partition(' (')[0]}"
            + (f", and {len(skipped_checks) - 1} more" * (len(skipped_checks) > 1)),
            detail=f"From this manifest it is not known {'; '.join(skipped_checks)}.",
            advice="scan again with the same --out and --verify decode, then check again",
            count=len(manifest),
        )
    ]


def _missing_findings(summaries: FrameSummaries) -> list[Finding]:
    return [
        *video_findings(
            summaries.missing_files,
            "error",
            "missing_files",
            "cannot be found",
            detail="Files of the manifest are not at their path, or there is no permission to read them.",
            advice="mount or move the files to their path, or scan again",
        ),
        *video_findings(
            summaries.changed_files,
            "error",
            "changed_files",
            "changed after the scan",
            detail="Their size or content differs, so the manifest is wrong for them; a feed raises an error.",
            advice="run 'cinefeed scan' again with the same --out: it opens only changed files",
        ),
    ]


def _broken_findings(manifest: Manifest) -> list[Finding]:
    """Return findings about rows without a readable frame, and about those that break later."""
    if "error" not in manifest.table.schema.names:
        return []
    frames = manifest.column("num_frames").fill_null(0).to_numpy(zero_copy_only=False)
    breaks = manifest.column("error").is_valid().to_numpy(zero_copy_only=False)

    def remarks(rows: NDArray[np.int64]) -> dict[int, str]:
        texts = manifest.column("error").take(rows).to_pylist()
        pairs = zip(rows.tolist(), texts, strict=True)
        return {row: without_path(text or "no frames were found", manifest.rows.location(row)) for row, text in pairs}

    return [
        *video_findings(
            remarks(np.flatnonzero(frames == 0)),
            "error",
            "unreadable_files",
            "without a readable frame",
            detail="They are empty, cut off before the first frame, encrypted, or not videos.",
            advice="get them again from their source, or accept that training leaves them out",
        ),
        *video_findings(
            remarks(np.flatnonzero(breaks & (frames > 0))),
            "error",
            "broken_files",
            "broken before the end",
            detail="Frames before the break are used, those after it are lost: the videos are shorter than they seem.",
            advice="get them again from their source, or decide that the part before the break is enough",
        ),
    ]


def _damage_findings(manifest: Manifest) -> list[Finding]:
    """Return a finding about frames that FFmpeg could not decode completely and concealed."""
    if "damaged" not in manifest.table.schema.names:
        return []
    ranges = manifest.column("damaged").to_pylist()
    return video_findings(
        {row: f"frames {frames_in_words(each)}" for row, each in enumerate(ranges) if each},
        "error",
        "damaged_frames",
        "with damaged frames",
        detail="Parts of these frames cannot be decoded, and FFmpeg fills them with estimates. A feed that reads one "
        "raises an error, unless the scan was set to conceal them.",
        advice="get them again from their source, or leave them out",
    )


def _unread_findings(summaries: FrameSummaries) -> list[Finding]:
    return video_findings(
        summaries.unreadable_frames,
        "error",
        "unread_frames",
        "with frames in the manifest that cannot be read",
        detail="The scan found these frames, but reading them failed now.",
        advice="scan again; if the error remains, get the files again",
    )


def _header_findings(manifest: Manifest) -> list[Finding]:
    """Return a finding about headers with a wrong number of frames, of files that do not break."""
    if "header_frames" not in manifest.table.schema.names:
        return []
    frame_counts = manifest.column("num_frames").fill_null(0).to_numpy(zero_copy_only=False)
    header_counts = manifest.column("header_frames").fill_null(0).to_numpy(zero_copy_only=False)
    is_complete = np.ones(len(manifest), np.bool_)
    if "error" in manifest.table.schema.names:
        is_complete = pc.is_null(manifest.column("error")).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(is_complete & (frame_counts > 0) & (header_counts > 0) & (header_counts != frame_counts))
    if len(rows) == 0:
        return []
    deviations = np.abs(header_counts[rows].astype(np.int64) - frame_counts[rows])
    is_large = (deviations > 1) & (deviations > _OFF * frame_counts[rows])
    order = np.argsort(-deviations, kind="stable")
    return [
        finding(
            "warning" if is_large.any() else "note",
            "header_counts",
            f"{format_count(len(rows), 'header')} with a wrong number of frames",
            detail=f"They are off by at most {format_count(int(deviations.max()), 'frame')}. cinefeed uses the number "
            f"of decoded frames; tools that trust the header read past the end, or miss frames.",
            advice="nothing for cinefeed; if the numbers differ by many, check whether the files were cut",
            rows=rows[order],
            remarks=[f"header: {header_counts[row]} frames, file: {frame_counts[row]}" for row in rows[order]],
        )
    ]
