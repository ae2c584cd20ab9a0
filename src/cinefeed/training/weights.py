"""Model weights in a file with a digest that detects damage: without it a flipped bit gave other scores, no error."""

from pathlib import Path
from typing import Any

from cinefeed.core.digests import append_digest, is_whole
from cinefeed.core.errors import TrainingError


def save_weights(model: Any, path: Path) -> None:
    """Write the weights of a Keras model (x.weights.h5) and a digest, which Keras ignores when it loads them."""
    model.save_weights(path)
    append_digest(path)


def load_weights(model: Any, path: Path) -> None:
    """Load the weights that `save_weights` wrote into a Keras model. Raises TrainingError if they are damaged."""
    check_weights(path)
    model.load_weights(path)


def check_weights(path: Path) -> None:
    """Raise TrainingError if a file differs from what `save_weights` wrote."""
    if not is_whole(path):
        raise TrainingError(
            f"{path} is damaged: its digest differs from the one that training wrote; copy the run again from its "
            "original folder, or train again with --overwrite (overwrite=True)"
        )
