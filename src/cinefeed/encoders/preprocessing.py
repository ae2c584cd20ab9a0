"""What an encoder expects of its input: size, scale and order of the channels, and the frames of a window."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cinefeed.core.errors import SettingError, did_you_mean

Layout = Literal["channels_first", "frames_first"]
Order = Literal["rgb", "bgr"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The input of an encoder. Pixels from 0 to 255 become `(pixel * rescale - mean) / std`, by channel.

    Args:
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
        mean: Mean of each channel after `rescale`, in the order of the channels.
        std: Standard deviation of each channel after `rescale`.
        rescale: Factor of the pixels, usually 1 / 255.
        order: Order of the channels, "rgb" or "bgr".
        frames: Number of frames in a window of a clip encoder; None for an encoder of single frames.
        layout: Axes of a window: "channels_first" is (batch, channels, frames, height, width), as in torchvision;
            "frames_first" is (batch, frames, channels, height, width), as in transformers. Frames are always (batch,
            channels, height, width).

    Raises SettingError for values that are not possible.

    >>> Preprocessing(height=224, width=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).scale_and_offset()
    ((0.00784313725490196, 0.00784313725490196, 0.00784313725490196), (-1.0, -1.0, -1.0))
    """

    height: int
    width: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    rescale: float = 1 / 255
    order: Order = "rgb"
    frames: int | None = None
    layout: Layout = "channels_first"

    def __post_init__(self) -> None:
        for name, choices in (("order", Order), ("layout", Layout)):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise SettingError(
                    f"Preprocessing({name}={value!r}) is no choice; {did_you_mean(value, get_args(choices))}"
                )
        if min(self.height, self.width) < 1 or (self.frames is not None and self.frames < 1):
            raise SettingError(
                f"Preprocessing(height={self.height}, width={self.width}, frames={self.frames}) needs sizes above 0"
            )
        numbers = (*self.mean, *self.std, self.rescale)
        if len(self.mean) != 3 or len(self.std) != 3 or not np.isfinite(numbers).all() or min(self.std) <= 0:
            raise SettingError(
                f"Preprocessing(mean={self.mean}, std={self.std}, rescale={self.rescale}) needs three finite numbers "
                "each for mean and std, and standard deviations above 0"
            )

    def scale_and_offset(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return by channel the factor and the summand that map pixels from 0 to 255 to the encoder's input."""
        scale = tuple(self.rescale / each for each in self.std)
        return scale, tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))
