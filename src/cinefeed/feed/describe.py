"""Descriptions of a feed for its summary, and checks of the rows of its manifest."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cinefeed.core.errors import SourceError, TableError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.sampling import BalancedClasses, Plan, Sampler
from cinefeed.feed.covariates import Covariate
from cinefeed.feed.labels import FeedSpec, Targets
from cinefeed.feed.workers.autotune import BackendChoice
from cinefeed.video.clips import Clip

_NAMED_CLASSES = 6  # maximum number of classes that are listed


def describe_task(spec: FeedSpec, targets: Targets) -> str:
    """Return a short description of the task and its labels."""
    if spec.task == "clip":
        return "the clips as targets"
    if spec.task == "mask":
        return "the masks as targets" if spec.masks else "no target"
    if not spec.target:
        return "no target"
    also = f" and {', '.join(each.name for each in spec.targets[1:])}" if spec.targets else ""
    if spec.task == "regression":
        return f"regression of {spec.target}{also} from {targets.present.min():g} to {targets.present.max():g}"
    counts = np.bincount(targets.present, minlength=len(spec.classes))
    named = [f"{name} {count}" for name, count in zip(spec.classes, counts, strict=True)]
    more = [f"... {len(named)} classes in all"] if len(named) > _NAMED_CLASSES else []
    return f"{spec.task} {spec.target}{also} ({', '.join(named[:_NAMED_CLASSES] + more)})"


def describe_plan(plan: Plan, *, clips: int = 1) -> str:
    """Return a short description of the draws of an epoch.

    >>> rows = np.array([0, 1, 0])
    >>> describe_plan(Plan(rows=rows, occurrence=np.array([0, 0, 1]), strata=rows))
    '3 draws an epoch, of one sample at most 2'
    """
    each = f", {clips} clips each" if clips > 1 else ""
    return f"{len(plan.rows)} draws an epoch, of one sample at most {int(plan.occurrence.max(initial=-1)) + 1}{each}"


def describe_batch(spec: FeedSpec) -> str:
    """Return a short description of a batch."""
    views = f" of {', '.join(spec.views)}{' as channels' * spec.stacked}" if spec.views else ""
    return f"{spec.batch_size} x {spec.clip_shape} {spec.dtype}{views}{' with masks' * spec.masks}"


def describe_workers(workers: int, choice: BackendChoice | None) -> str:
    """Return a short description of the workers.

    >>> describe_workers(2, BackendChoice("thread", "as it was asked for"))
    '2 threads'
    """
    kinds = {"thread": "threads", "process": "processes"}
    return f"{workers} {kinds[choice.backend] if choice else 'threads or processes, by a trial'}"


def notices(manifest: Manifest, clip: Clip, covariates: Sequence[Covariate]) -> list[str]:
    """Return warnings of values that a feed fills in: frames of short videos, and missing covariates."""
    return [each for each in (_short(manifest, clip), *_missing(manifest, covariates)) if each]


def _short(manifest: Manifest, clip: Clip) -> str:
    columns = manifest.table.column_names
    if clip.short not in ("repeat_last", "loop") or not {"num_frames", "rate_hz"} <= {*columns}:
        return ""
    counts = manifest.table["num_frames"].to_numpy()
    needed: Any = clip.frames if clip.position == "spread" else (clip.frames - 1) * clip.stride + 1
    if clip.rate_hz is not None:
        needed = (clip.frames - 1) * manifest.table["rate_hz"].to_numpy() / clip.rate_hz
    short = int((counts < needed).sum())
    if 2 * short <= len(counts):
        return ""
    how = "their last frame is repeated" if clip.short == "repeat_last" else "their frames come again from the first"
    how = "some of their frames come twice" if clip.position == "spread" else how
    return (
        f"a clip is longer than {short} of {len(counts)} videos: {how}, and all frames count as valid; use fewer "
        "frames (--frames), or short='pad', which marks the missing frames"
    )


def _missing(manifest: Manifest, covariates: Sequence[Covariate]) -> Iterator[str]:
    for each in covariates:
        if each.name in manifest.table.column_names and (count := manifest.column(each.name).null_count):
            instead = "no category" if each.categories else f"the mean, {each.mean:.4g}"
            yield (
                f"covariate {each.name!r} is missing in {count} of {len(manifest)} rows, which get {instead}; leave "
                f"them out with manifest.drop_missing({each.name!r}) if that is not intended"
            )


def check_rows(manifest: Manifest) -> None:
    """Raise TableError if there are no rows or no start times, SourceError if files hold no frame."""
    if len(manifest) == 0:
        raise TableError("the manifest has no rows, so there is nothing to feed; check the filters")
    for view in manifest.rows.views or ("",):
        column = f"num_frames:{view}" if view else "num_frames"
        if column not in manifest.table.column_names:
            continue
        empty = np.flatnonzero(manifest.table[column].to_numpy() == 0)
        if len(empty):
            first = ", ".join(f"row {row}, {manifest.rows.display_name(row, view=view)}" for row in empty[:3])
            name = f"error:{view}" if view else "error"
            error = manifest.table[name][int(empty[0])].as_py() if name in manifest.table.column_names else None
            reason = "; " + manifest.rows.nameless(error, int(empty[0]), view=view) if error else ""
            leave_out = "manifest.readable().pivot(..., missing='drop')" if view else "manifest.readable()"
            raise SourceError(
                f"{len(empty)} of {len(manifest)} files hold no frame that decodes "
                f"({first}{' ...' * (len(empty) > 3)}){reason}; repair them, or leave them out with {leave_out}"
            )
        _check_start_times(manifest, view=view)


def _check_start_times(manifest: Manifest, *, view: str) -> None:
    """Raise TableError if rows are parts of videos by seconds, and the start times of the videos are missing."""
    names = (f"{name}:{view}" if view else name for name in ("start_seconds", "end_seconds", "tick_den"))
    is_known = [
        manifest.table[name].is_valid().to_numpy()
        if name in manifest.table.column_names
        else np.zeros(len(manifest), np.bool_)
        for name in (*names, f"start_time_seconds:{view}" if view else "start_time_seconds")
    ]
    rows = np.flatnonzero((is_known[0] | is_known[1]) & is_known[2] & ~is_known[3])
    if len(rows):
        raise TableError(
            f"{len(rows)} of {len(manifest)} rows are time ranges of videos without start_time_seconds in the manifest "
            f"(first: row {rows[0]}, {manifest.rows.display_name(int(rows[0]), view=view)}): seconds are relative to "
            "that time, so other frames could be fed; scan again, with the same --out"
        )


def positive_is_second(sampler: Sampler, classes: tuple[str, ...]) -> Sampler:
    """Return the sampler with a single proportion assigned to class number 1 of the feed, not to the last by name."""
    if isinstance(sampler, BalancedClasses) and isinstance(sampler.proportion, float) and len(classes) == 2:
        return replace(
            sampler, proportion=dict(zip(classes, (1 - sampler.proportion, sampler.proportion), strict=True))
        )
    return sampler
