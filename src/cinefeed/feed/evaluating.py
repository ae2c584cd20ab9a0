"""What a feed for validation, test or prediction has in common with the feed that a model is trained on."""

from dataclasses import replace
from typing import cast

from cinefeed.balance import Natural
from cinefeed.clips import Position
from cinefeed.errors import SettingError
from cinefeed.feed.settings import ClipsPerVideo, FeedSettings
from cinefeed.feed.targets import FeedSpec
from cinefeed.transforms.base import ClipInfo, Transform, is_random

_ONE_PLACE = ("spread", "start")  # positions of which a video has one


def evaluation_settings(settings: FeedSettings, *, spec: FeedSpec, labelled: bool, clips: int | None) -> FeedSettings:
    """Return the settings of an evaluation: all that decides what a clip is, and nothing that is random.

    A batch holds whole videos, so with several clips it is made smaller, or as large as they are.
    """
    if clips is None:
        clips = 1 if settings.clip.position in _ONE_PLACE else settings.clips_per_video.count
    check_clips(clips, position=settings.clip.position)
    clip, frame, inputs = settings.clip, settings.frame, settings.inputs
    info = ClipInfo(clip.frames, frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    if not labelled:
        is_target = settings.target is not None and settings.target == inputs.mask
        inputs = replace(inputs, weight=None, mask=None if is_target else inputs.mask)
        settings = replace(
            settings, **spec.target_settings(labelled=False)
        )  # the task remains: it says what a score is
    return replace(
        settings,
        clip=replace(clip, position="center" if clip.position == "random" else clip.position),
        transforms=tuple(each for each in settings.transforms if not is_random(cast(Transform, each), info=info)),
        mixing=None,
        sampler=Natural(shuffle=False),
        batch_size=max(settings.batch_size - settings.batch_size % clips, clips),
        drop_last=False,
        inputs=inputs,
        clips_per_video=ClipsPerVideo(count=clips),
    )


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
