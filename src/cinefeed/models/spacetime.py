"""Convolutions over frames or over time with batch norm, which ignore padding frames."""

import keras
from keras import layers

from cinefeed.models.norm import BatchNormalization
from cinefeed.models.parts import Seeded

Masked = tuple[keras.KerasTensor, keras.KerasTensor | None]  # maps, and a mask of valid frames


class Convolution:
    """A convolution of `size` (time, height, width), followed by batch norm; it may be called on several views.

    The content of padding frames has no effect: they are set to zero before a convolution over time, like frames
    outside the clip, and excluded from the statistics of batch norm. With a stride over time, every second value of the
    frame mask is kept. The momentum of batch norm is that of PyTorch: with Keras' 0.99, the moving statistics are still
    inaccurate after the first epochs of a small data set.

    With `symmetric` as many zeros are added on both sides, as in PyTorch. Keras' "same" padding adds fewer before than
    after if the stride is 2: for 7 pixels 2 and 3, which is another function of the same weights.
    """

    def __init__(
        self,
        filters: int,
        *,
        size: tuple[int, int, int],
        strides: tuple[int, int, int] = (1, 1, 1),
        symmetric: bool = False,
        seeded: Seeded,
    ) -> None:
        self._time_size, self._time_stride = size[0], strides[0]
        padded = symmetric and max(strides) > 1 and max(size) > 1
        self._padding = layers.ZeroPadding3D(tuple(each // 2 for each in size)) if padded else None
        self.convolution = layers.Conv3D(
            filters,
            size,
            strides=strides,
            padding="valid" if padded else "same",
            use_bias=False,
            kernel_initializer=seeded.initializer("HeNormal"),
        )
        self.norm = BatchNormalization(momentum=0.9, epsilon=1e-5)

    def __call__(self, maps: Masked, *, relu: bool = True) -> Masked:
        """Return the output maps, with a ReLU unless relu=False."""
        x, valid = maps
        if valid is not None and self._time_size > 1:
            x = keras.ops.where(keras.ops.reshape(valid, (-1, valid.shape[1], 1, 1, 1)), x, 0.0)
        x = self.convolution(x if self._padding is None else self._padding(x))
        if valid is not None and self._time_stride > 1:
            valid = valid[:, :: self._time_stride]
        mask = None if valid is None else keras.ops.reshape(valid, (-1, valid.shape[1], 1, 1))
        x = self.norm(x, mask=mask)
        # A ReLU layer would pass the mask to the next convolution, and Keras would warn that it is lost there.
        return (keras.ops.relu(x) if relu else x), valid


def twice(
    filters: int,
    *,
    between: int | None = None,
    side: int = 3,
    stride: int = 1,
    time_stride: int = 1,
    symmetric: bool = False,
    seeded: Seeded,
) -> tuple[Convolution, Convolution]:
    """Return a (2+1)-D convolution: one over each frame with `between` filters, then one over three frames in time."""
    frame_convolution = Convolution(
        between or filters, size=(1, side, side), strides=(1, stride, stride), symmetric=symmetric, seeded=seeded
    )
    time_convolution = Convolution(
        filters, size=(3, 1, 1), strides=(time_stride, 1, 1), symmetric=symmetric, seeded=seeded
    )
    return frame_convolution, time_convolution
