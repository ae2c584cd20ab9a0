"""The settings that are "auto", chosen from the training rows and the spec of the feed, so that a run keeps them."""

from dataclasses import replace
from typing import Any

from cinefeed.config import ModelSettings, Settings
from cinefeed.config.recipe import AUTO, Recipe, learning_rate_of, num_epochs, recipe
from cinefeed.feed.labels import FeedSpec


def with_choices(settings: Settings, spec: FeedSpec, *, videos: int, batches: int) -> Settings:
    """Return settings with values in place of "auto" for the network, the number of epochs and the learning rate.

    Args:
        settings: The settings of a run.
        spec: The spec of its feed.
        videos: The number of training rows.
        batches: The number of batches of an epoch.
    """
    model, train = settings.model, settings.train
    values: dict[str, Any] = {}
    if model.name == AUTO:
        choice = _choice(spec, videos=videos, position=settings.clip.position)
        model = ModelSettings(name=choice.model, options=choice.options)
    if train.learning_rate == AUTO:
        values["learning_rate"] = learning_rate_of(model.name, model.options)
    if train.epochs == AUTO:
        values["epochs"] = max(num_epochs(batches), train.unfreeze_epoch + 1)
    return replace(settings, model=model, train=replace(train, **values))


def _choice(spec: FeedSpec, *, videos: int, position: str) -> Recipe:
    frames, height, width, _ = spec.clip_shape
    if spec.task == "clip":
        return Recipe(model="autoencoder", options={}, why="clips are reconstructed")
    return recipe(
        videos=videos,
        frames=frames,
        side=min(height, width),
        features=height == 1,
        classes=bool(spec.classes) or any(target.classes for target in spec.targets),
        corresponding=position == "spread",
    )
