"""A model's weights in a file whose damage is found: a flipped bit gave other scores, not an error."""

from pathlib import Path
from typing import Any

from cinefeed.digests import append_digest, is_whole
from cinefeed.errors import TrainingError


def save_weights(model: Any, path: Path) -> None:
    """Write a Keras model's weights (x.weights.h5) and a digest, which Keras passes over when it loads them."""
    model.save_weights(path)
    append_digest(path)


def load_weights(model: Any, path: Path) -> None:
    """Give a Keras model the weights that `save_weights` wrote. Raises TrainingError where they are damaged."""
    check_weights(path)
    model.load_weights(path)


def check_weights(path: Path) -> None:
    """Raise TrainingError where a file is not as `save_weights` wrote it."""
    if not is_whole(path):
        raise TrainingError(
            f"{path} is damaged: its bytes are not those that training wrote (their digest differs); copy the run "
            "again from where it was made, or train again with --overwrite (overwrite=True)"
        )
