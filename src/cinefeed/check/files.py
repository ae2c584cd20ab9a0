"""Files that are broken, gone or changed, and headers that count wrong."""

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from cinefeed.check.findings import Finding, finding, video_findings
from cinefeed.check.look import Looks, without_path
from cinefeed.manifest.summary import frames_in_words
from cinefeed.manifest.table import Manifest
from cinefeed.text import format_count

_KNOWN_BY = {
    "error": "where files break",
    "damaged": "which frames are damaged",
    "size_bytes": "whether files changed after the scan, and which are copies",
    "mtime_ns": "whether files were written again after the scan",
    "header_frames": "whether headers count the frames rightly",
    "header_tags": "what headers say of burned-in text and of how a series was put together",
    "rate_hz": "whether rates differ",
    "height": "whether sizes differ",
    "bits": "whether bit depths differ",
    "channels": "whether numbers of channels differ",
    "pixel_format": "whether pixel formats differ",
    "rotation": "whether rotations differ",
    "spacing_down_mm": "whether the size of a pixel is known",
}
_OFF = 0.02  # a header that is wrong by more than this share of the frames, and by more than one, is worth a warning


def file_findings(manifest: Manifest, looks: Looks) -> list[Finding]:
    """Return what is wrong with the files themselves."""
    return [
        *_gone(looks),
        *_broken(manifest),
        *_damaged(manifest),
        *_unread(looks),
        *_not_looked_at(manifest),
        *_headers(manifest),
    ]


def _not_looked_at(manifest: Manifest) -> list[Finding]:
    """Return what cannot be known from this manifest: it lacks a column, or its scan did not decode the files."""
    names = manifest.table.schema.names
    unknown = [what for column, what in _KNOWN_BY.items() if column not in names]
    if "error" in names and manifest.verified == "packets":
        unknown.insert(
            0, "where files break and which frames are damaged (their packets were counted, their frames not decoded)"
        )
    elif "error" in names and manifest.verified is None:
        unknown.insert(
            0, "where files break and which frames are damaged (nothing says that the scan decoded their frames)"
        )
    if not unknown:
        return []
    return [
        finding(
            "note" if manifest.verified else "warning",
            "not_looked_at",
            f"not looked at: {unknown[0].partition(' (')[0]}" + (f", and {len(unknown) - 1} more" * (len(unknown) > 1)),
            detail=f"This manifest does not tell {'; '.join(unknown)}.",
            advice="scan again with the same --out and --verify decode, and check what it writes",
            count=len(manifest),
        )
    ]


def _gone(looks: Looks) -> list[Finding]:
    return [
        *video_findings(
            looks.missing,
            "error",
            "missing_files",
            "cannot be found",
            detail="The manifest lists files that are not where it says, or that may not be read.",
            advice="mount or move the files to where they were, or scan again",
        ),
        *video_findings(
            looks.changed,
            "error",
            "changed_files",
            "changed after the scan",
            detail="Their size or content differs, so the manifest does not describe them; a feed refuses them.",
            advice="run 'cinefeed scan' again with the same --out: it opens only what changed",
        ),
    ]


def _broken(manifest: Manifest) -> list[Finding]:
    """Return rows of which the scan could read no frame, and those that break later."""
    if "error" not in manifest.table.schema.names:
        return []
    frames = manifest.column("num_frames").fill_null(0).to_numpy(zero_copy_only=False)
    breaks = manifest.column("error").is_valid().to_numpy(zero_copy_only=False)

    def remarks(rows: NDArray[np.int64]) -> dict[int, str]:
        texts = manifest.column("error").take(rows).to_pylist()
        pairs = zip(rows.tolist(), texts, strict=True)
        return {row: without_path(text or "no frame is known", manifest.path_of(row)) for row, text in pairs}

    return [
        *video_findings(
            remarks(np.flatnonzero(frames == 0)),
            "error",
            "unreadable_files",
            "without a frame that can be read",
            detail="They are empty, cut off before the first frame, encrypted, or no video at all.",
            advice="get them again from where they came, or leave them out: training would stop there",
        ),
        *video_findings(
            remarks(np.flatnonzero(breaks & (frames > 0))),
            "error",
            "broken_files",
            "broken before the end",
            detail="Frames before the break are read, those after it are lost: clips are shorter than they seem.",
            advice="get them again from where they came, or decide that the part before the break will do",
        ),
    ]


def _damaged(manifest: Manifest) -> list[Finding]:
    """Return rows with frames that are not what the file held: FFmpeg hides what it cannot decode."""
    if "damaged" not in manifest.table.schema.names:
        return []
    ranges = manifest.column("damaged").to_pylist()
    return video_findings(
        {row: f"frames {frames_in_words(each)}" for row, each in enumerate(ranges) if each},
        "error",
        "damaged_frames",
        "with damaged frames",
        detail="Parts of these frames cannot be decoded, and FFmpeg makes something up for them. A feed that reads one "
        "raises, unless the scan was told to conceal them.",
        advice="get them again from where they came, or leave them out",
    )


def _unread(looks: Looks) -> list[Finding]:
    return video_findings(
        looks.unread,
        "error",
        "unread_frames",
        "of which frames known to the manifest cannot be read",
        detail="The scan saw these frames, and now they do not come.",
        advice="scan again; where that says the same, get the files again",
    )


def _headers(manifest: Manifest) -> list[Finding]:
    """Return headers that count other frames than there are, of files that do not break."""
    if "header_frames" not in manifest.table.schema.names:
        return []
    real = manifest.column("num_frames").fill_null(0).to_numpy(zero_copy_only=False)
    said = manifest.column("header_frames").fill_null(0).to_numpy(zero_copy_only=False)
    whole = np.ones(len(manifest), np.bool_)
    if "error" in manifest.table.schema.names:
        whole = pc.is_null(manifest.column("error")).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(whole & (real > 0) & (said > 0) & (said != real))
    if len(rows) == 0:
        return []
    off = np.abs(said[rows].astype(np.int64) - real[rows])
    far = (off > 1) & (off > _OFF * real[rows])
    order = np.argsort(-off, kind="stable")
    return [
        finding(
            "warning" if far.any() else "note",
            "header_counts",
            f"{format_count(len(rows), 'header')} with another number of frames than there are",
            detail=f"They are off by at most {format_count(int(off.max()), 'frame')}. cinefeed goes by the frames that "
            f"it decoded; tools that trust the header read past the end, or miss frames.",
            advice="nothing within cinefeed; where they differ by many, ask whether the files were cut",
            rows=rows[order],
            remarks=[f"the header says {said[row]}, there are {real[row]}" for row in rows[order]],
        )
    ]
