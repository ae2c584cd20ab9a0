"""What a feed for validation, test or prediction has in common with the feed that a model is trained on."""

from dataclasses import replace
from typing import Any

from cinefeed.balance import Natural
from cinefeed.clips import Position
from cinefeed.errors import SettingError
from cinefeed.transforms.base import ClipInfo, is_random

_ONE_PLACE = ("spread", "start")  # positions of which a video has one


def evaluation_settings(feed: Any, *, labelled: bool, clips: int | None) -> dict[str, Any]:
    """Return the settings of a Feed's evaluation: all that decides what a clip is, and nothing that is drawn.

    A batch holds whole videos, so of several clips it is made smaller, or as large as they are.
    """
    names = (
        "frame seed workers backend prefetch timeout_seconds rank world_size on_error max_bad memory geometry "
        "return_parameters"
    ).split()
    spec, clip, frame = feed.spec, feed.clip, feed.frame
    if clips is None:
        clips = 1 if clip.position in _ONE_PLACE else feed.clips_per_video
    check_clips(clips, position=clip.position)
    info = ClipInfo(clip.frames, frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    return {
        **{name: getattr(feed, name) for name in names},
        **spec.asked(labelled=labelled),
        "batch_size": max(feed.batch_size - feed.batch_size % clips, clips),
        "clips_per_video": clips,
        "clip": replace(clip, position="center" if clip.position == "random" else clip.position),
        "transforms": [each for each in feed.transforms if not is_random(each, info=info)],
        "sampler": Natural(shuffle=False),
        "covariates": spec.covariates,
        "weight": feed.weight if labelled else None,
        "views": spec.views or None,
        "stack": spec.stacked,
        "mask": feed.mask if labelled or spec.task != "mask" else None,
    }


def check_clips(clips: int, *, position: Position) -> None:
    """Raise SettingError where a number of clips is none, or where a video has one place for a clip alone."""
    if isinstance(clips, bool) or not isinstance(clips, int) or clips < 1:
        raise SettingError(f"clips={clips!r} must be a whole number of at least 1")
    if clips > 1 and position in _ONE_PLACE:
        why = "covers the whole video" if position == "spread" else "begins with the first frame"
        raise SettingError(
            f"clips={clips}: with position={position!r} a clip {why}, so {clips} of a video would be the same; take 1, "
            "or position='random' or 'center'"
        )
