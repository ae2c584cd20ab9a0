"""The settings of a feed for validation, test or prediction, from those of the training feed."""

from dataclasses import replace
from typing import cast

from cinefeed.core.errors import SettingError
from cinefeed.data.sampling import Natural
from cinefeed.feed.labels import FeedSpec
from cinefeed.feed.settings import ClipsPerVideo, FeedSettings
from cinefeed.transforms.base import ClipInfo, Transform, is_random
from cinefeed.video.clips import Position
from cinefeed.video.regions import VERSION

_ONE_PLACE = ("spread", "start")  # positions that give one clip of a video only


def evaluation_settings(settings: FeedSettings, *, spec: FeedSpec, labelled: bool, clips: int | None) -> FeedSettings:
    """Return the settings of an evaluation: those of the clips, without any randomness or replacement of rows.

    A batch holds whole videos, so with several clips its size is rounded down to a multiple, at least one video.
    """
    if clips is None:
        clips = 1 if settings.clip.position in _ONE_PLACE else settings.clips_per_video.count
    check_clips(clips, position=settings.clip.position)
    clip, frame, inputs = settings.clip, settings.frame, settings.inputs
    info = ClipInfo(clip.frames, frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    if not labelled:
        is_target = settings.target is not None and settings.target == inputs.mask
        inputs = replace(inputs, weight=None, mask=None if is_target else inputs.mask)
        settings = replace(settings, **spec.target_settings(labelled=False))  # the task remains: it defines a score
    return replace(
        settings,
        frame=replace(frame, region=0) if frame.region == VERSION else frame,
        clip=replace(clip, position="center" if clip.position == "random" else clip.position),
        transforms=tuple(each for each in settings.transforms if not is_random(cast(Transform, each), info=info)),
        mixing=None,
        sampler=Natural(shuffle=False),
        batch_size=max(settings.batch_size - settings.batch_size % clips, clips),
        drop_last=False,
        on_error="raise",  # the score of another row would be counted twice
        inputs=inputs,
        clips_per_video=ClipsPerVideo(count=clips),
    )


def check_clips(clips: int, *, position: Position) -> None:
    """Raise SettingError for an invalid number of clips, or for several clips at a position that gives only one."""
    if isinstance(clips, bool) or not isinstance(clips, int) or clips < 1:
        raise SettingError(f"clips={clips!r} must be a whole number of at least 1")
    if clips > 1 and position in _ONE_PLACE:
        why = "covers the whole video" if position == "spread" else "begins with the first frame"
        raise SettingError(
            f"clips={clips}: with position={position!r} a clip {why}, so {clips} of a video would be the same; take 1, "
            "or position='random' or 'center'"
        )
