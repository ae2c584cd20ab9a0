"""A finished run, loaded for evaluation and prediction, and the result of both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from cinefeed.config import Settings
from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import FeedSpec
from cinefeed.training.keras_module import keras
from cinefeed.training.network import build_model
from cinefeed.training.run import WEIGHTS, read_run, read_thresholds
from cinefeed.training.setup import build_feed
from cinefeed.training.weights import load_weights

Tick = Callable[[int, int], object]  # called with the number of clips done and of all clips


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Result of `evaluate` or `predict`: predictions, failed files, and of `evaluate` metrics and assessment."""

    part: str
    metrics: dict[str, Any]
    predictions: pa.Table
    assessment: dict[str, Any] = field(default_factory=dict)
    failures: tuple[dict[str, str], ...] = ()
    repeated: int = 0  # number of paths that name a video already in the list
    run_parts: Mapping[str, int] = field(default_factory=dict)  # predicted videos that are in each part of the run


class Loaded(NamedTuple):
    """A run's settings, its model with the best weights, its training feed, manifest and thresholds."""

    settings: Settings
    model: keras.Model
    trained: Feed
    own: Manifest
    thresholds: Mapping[str, float]


def load(run: str | Path) -> Loaded:
    """Return what evaluation needs of a run."""
    if (Path(run) / "folds.json").is_file():
        raise SettingError(f"{run} holds the runs of several folds; pass one of them, such as {Path(run) / 'fold1'}")
    settings, spec, own = read_run(run)
    model = load_model(settings, spec, Path(run) / WEIGHTS)
    inputs = replace(settings.feed.inputs, weight=None)  # weights are for the training loss alone
    unweighted = replace(settings, feed=replace(settings.feed, inputs=inputs))
    return Loaded(settings, model, build_feed(unweighted, own.where("split", ["train"])), own, read_thresholds(run))


def load_model(settings: Settings, spec: FeedSpec, weights: Path) -> keras.Model:
    """Return the network of a run with weights from a file.

    Raises TrainingError if the file is damaged, SettingError if weights and network do not fit.
    """
    model = build_model(settings, spec, trained=True)
    try:
        load_weights(model, weights)
    except (ValueError, OSError) as error:
        raise SettingError(f"{weights} does not fit the model that settings.toml describes: {error}") from error
    return model


def clip_counter(tick: Tick | None, total: int) -> Callable[[int], object] | None:
    """Return a function that counts clips and calls `tick`; None without it."""
    if tick is None:
        return None
    clips_done = 0

    def count(clips: int) -> None:
        nonlocal clips_done
        clips_done += clips
        tick(clips_done, total)

    return count
