"""Videos to predict that are in a part of the run: their scores are not those of new videos."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.text import format_count
from cinefeed.data.manifest.manifest import Manifest

_USES = {"train": "training", "val": "validation", "test": "testing"}  # a video of two parts counts in the first


def count_by_part(videos: Manifest, *, own: Manifest) -> dict[str, int]:
    """Return how many videos are in each part of a run's manifest `own`; parts without any are left out.

    Videos are compared by their content hash, which finds moved and renamed files, and does not mistake a file for
    another one of the same name. Without hashes, and if one of the manifests is packed, they are compared by id.
    """
    manifests = (videos, own)
    has_hash = all("content_hash" in each.table.schema.names for each in manifests)
    column = "content_hash" if has_hash and videos.is_packed == own.is_packed else "id"
    names, parts = videos.table[column], own.table["split"]
    is_new = pa.chunked_array([pa.array([True] * len(videos))])
    counts = {}
    for part in _USES:
        in_part = own.table[column].filter(pc.equal(parts, part)).drop_null()
        is_known = pc.and_(is_new, pc.is_in(names, value_set=in_part.combine_chunks()))
        is_new = pc.and_(is_new, pc.invert(is_known))
        counts[part] = pc.sum(is_known).as_py() or 0
    return {part: count for part, count in counts.items() if count}


def known_videos_note(counts: Mapping[str, int], *, total: int) -> str:
    """Return how many of the videos were in a part of the run, "" if none was.

    >>> known_videos_note({"train": 3, "test": 1}, total=5)
    '3 of these 5 videos were used in training, 1 in testing; the scores of 3 videos are too good for new videos'
    >>> known_videos_note({"test": 1}, total=1)
    'this video was used in testing'
    """
    if not counts:
        return ""
    (first, count), *rest = counts.items()
    subject = (
        f"{count:,} of these {total:,} videos {'was' if count == 1 else 'were'}" if total > 1 else "this video was"
    )
    uses = [f"used in {_USES[first]}", *(f"{number:,} in {_USES[part]}" for part, number in rest)]
    fitted = sum(number for part, number in counts.items() if part != "test")
    effect = ""
    if fitted:
        subjects = "its score is" if total == 1 else f"the scores of {format_count(fitted, 'video')} are"
        effect = f"; {subjects} too good for new videos"
    return f"{subject} {', '.join(uses)}{effect}"
