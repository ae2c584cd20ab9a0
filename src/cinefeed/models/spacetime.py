"""Convolutions over frames or over time, with batch norm, that padding frames do not reach."""

import keras
from keras import layers

from cinefeed.models.norm import BatchNormalization
from cinefeed.models.parts import Seeded

Masked = tuple[keras.KerasTensor, keras.KerasTensor | None]  # maps, and which of their frames are valid


class Convolution:
    """A convolution of `size` (time, height, width), then batch norm; it may be called on several views.

    Padding frames are zero before a convolution over time reads them, as what lies outside of a clip is, and batch norm
    leaves them out of its mean: so what they hold changes nothing. `strides` over time keep every second valid frame.
    The momentum of batch norm is PyTorch's: with Keras' 0.99 a small data set's first epochs are over before the
    statistics for prediction have come near the truth.
    """

    def __init__(
        self, filters: int, *, size: tuple[int, int, int], strides: tuple[int, int, int] = (1, 1, 1), seeded: Seeded
    ) -> None:
        self._times, self._stride = size[0], strides[0]
        self._convolution = layers.Conv3D(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer=seeded.initializer("HeNormal"),
        )
        self._norm = BatchNormalization(momentum=0.9, epsilon=1e-5)

    def __call__(self, maps: Masked, *, relu: bool = True) -> Masked:
        """Return the next maps, after a ReLU unless one is to come later."""
        x, valid = maps
        if valid is not None and self._times > 1:
            x = keras.ops.where(keras.ops.reshape(valid, (-1, valid.shape[1], 1, 1, 1)), x, 0.0)
        x = self._convolution(x)
        if valid is not None and self._stride > 1:
            valid = valid[:, :: self._stride]
        of_frame = None if valid is None else keras.ops.reshape(valid, (-1, valid.shape[1], 1, 1))
        x = self._norm(x, mask=of_frame)
        # Not a layer, which would hand the mask on to a convolution, and Keras warns that it is lost there.
        return (keras.ops.relu(x) if relu else x), valid


def twice(
    filters: int,
    *,
    between: int | None = None,
    side: int = 3,
    stride: int = 1,
    time_stride: int = 1,
    seeded: Seeded,
) -> tuple[Convolution, Convolution]:
    """Return a (2+1)-D convolution: one over each frame, `between` maps, then one over three frames at each place."""
    over_frame = Convolution(between or filters, size=(1, side, side), strides=(1, stride, stride), seeded=seeded)
    return over_frame, Convolution(filters, size=(3, 1, 1), strides=(time_stride, 1, 1), seeded=seeded)
