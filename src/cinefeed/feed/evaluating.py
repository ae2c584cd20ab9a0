"""What a feed for validation, test or prediction has in common with the feed that a model is trained on."""

from dataclasses import replace
from typing import Any

from cinefeed.balance import Natural
from cinefeed.transforms.base import ClipInfo, is_random


def evaluation_settings(feed: Any, *, labelled: bool) -> dict[str, Any]:
    """Return the settings of a Feed's evaluation: all that decides what a clip is, and nothing that is drawn."""
    names = (
        "frame batch_size seed workers backend prefetch timeout_seconds rank world_size on_error max_bad memory "
        "geometry return_parameters"
    ).split()
    spec, clip, frame = feed.spec, feed.clip, feed.frame
    info = ClipInfo(clip.frames, frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    return {
        **{name: getattr(feed, name) for name in names},
        **spec.asked(labelled=labelled),
        "clip": replace(clip, position="center" if clip.position == "random" else clip.position),
        "transforms": [each for each in feed.transforms if not is_random(each, info=info)],
        "sampler": Natural(shuffle=False),
        "covariates": spec.covariates,
        "weight": feed.weight if labelled else None,
        "views": spec.views or None,
        "stack": spec.stacked,
        "mask": feed.mask if labelled or spec.task != "mask" else None,
    }
