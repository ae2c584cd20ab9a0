"""The network and its training, chosen from facts of the data, never of the machine: for `init` and for "auto"."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

AUTO = "auto"  # a setting that `train` chooses
MIN_UNITS = 30  # of a validation part that may choose an epoch or stop a training: on fewer a metric is mostly noise
_MIN_UNITS_A_CLASS = 10  # likewise, of a part that may choose an epoch
WEIGHT_DECAY, LABEL_SMOOTHING = 0.05, 0.1
FEW_VIDEOS = 500  # below, dropout is used
_STEPS = 1500  # enough for the demo and the small real data sets
_MIN_FRAMES, _MIN_SIDE = 4, 16  # of a clip for cnn3d, which has a total stride of 4 over time and 16 over space


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network with its options, and the reason."""

    model: str
    options: Mapping[str, Any]
    why: str


def recipe(
    *, videos: int, frames: int, side: int, features: bool, classes: bool, corresponding: bool = False
) -> Recipe:
    """Return the network for a number of training videos, and clips of some frames whose shorter side has some pixels.

    `features` are those of an encoder; `classes` states that the label is one of classes, not a number; `corresponding`
    that frames of the same number show the same moment, such as the phases of a cycle. docs/learning_results.md
    compares the choices.

    >>> recipe(videos=400, frames=16, side=112, features=False, classes=True).model
    'cnn3d'
    >>> recipe(videos=400, frames=2, side=112, features=False, classes=True).model  # too few frames
    'cnn_rnn'
    """
    dropout = {"dropout": 0.2} if videos < FEW_VIDEOS else {}
    if features and corresponding:
        why = "clips cover the whole video, so their frames correspond: features in their order"
        return Recipe(model="ordered", options={"dropout": 0.5}, why=why)
    if features:
        return Recipe(model="attentive", options=dropout, why="attention over the features")
    is_large = frames >= _MIN_FRAMES and side >= _MIN_SIDE
    if classes and is_large:
        pooling = {"pooling": "ordered"} if corresponding else {}
        why = "convolutions over space and time: better with classes on pocus"
        return Recipe(model="cnn3d", options={**pooling, **dropout}, why=why)
    filters = {} if side >= 64 else {"filters": [16, 32, 64] if side >= 8 else [16, 32]}
    why = f"clips of {frames} frames of {side} pixels are too small for cnn3d"
    if is_large:
        why = "a CNN for each frame, then a GRU: numbers are learnt in fewer steps than by cnn3d"
    return Recipe(model="cnn_rnn", options={**filters, "norm": "layer", **dropout}, why=why)


def too_few_to_choose(units: int, *, classes: int) -> bool:
    """Return whether a validation part has too few units to choose an epoch; `classes` is 0 for a number.

    On `lips` (85 videos for 30 classes) the last epoch was better than that of the best validation loss or accuracy.

    >>> too_few_to_choose(40, classes=2), too_few_to_choose(85, classes=30), too_few_to_choose(20, classes=0)
    (False, True, True)
    """
    return units < max(MIN_UNITS, _MIN_UNITS_A_CLASS * classes)


def learning_rate_of(model: str, options: Mapping[str, Any]) -> float:
    """Return the learning rate of a network, for Adam and batches of 8 to 32 clips."""
    is_normalised = model == "cnn3d" or options.get("norm", "none") != "none"
    return 3e-3 if is_normalised else 2e-3 if model == "ordered" else 1e-3


def num_epochs(batches: int) -> int:
    """Return the number of epochs for a number of batches in each: about 1,500 steps, but 10 to 100 epochs.

    >>> num_epochs(25), num_epochs(2), num_epochs(1000)
    (60, 100, 10)
    """
    return int(np.clip(-(-_STEPS // batches), 10, 100))
