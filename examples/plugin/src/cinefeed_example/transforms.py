"""A transform: its settings are fields, its parameters are sampled once per clip, and applying them is pure."""

from dataclasses import dataclass

import numpy as np

from cinefeed.core.errors import SettingError
from cinefeed.transforms import ClipInfo
from cinefeed.transforms.base import Frames, Parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Vignette:
    """Darken the corners of all frames of a clip by a random share of up to `strength`.

    >>> Vignette(strength=0.5)
    Vignette(strength=0.5)
    """

    strength: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise SettingError(f"Vignette(strength={self.strength!r}) must be from 0 (unchanged) to 1 (black corners)")

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Return the parameters of one clip."""
        return {"share": float(rng.uniform(0, self.strength))}

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the transformed frames, (frames, height, width, channels), in the same dtype."""
        y, x = (np.linspace(-1, 1, size, dtype=np.float32) for size in frames.shape[1:3])
        factor = 1 - np.float32(parameters["share"]) * (y[:, None] ** 2 + x**2) / 2
        darker = frames * factor[..., None]
        return (np.rint(darker) if frames.dtype.kind == "u" else darker).astype(frames.dtype)
