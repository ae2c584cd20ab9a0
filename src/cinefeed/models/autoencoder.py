"""An autoencoder of clips, which reconstructs its input from a small code, so that no labels are needed."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.parts import FULL_SCALE, Seeded, check_frames, check_sizes, check_spec, inputs_of, scaled
from cinefeed.models.spacetime import Masked, twice


@check_arguments()
def autoencoder(spec: FeedSpec, *, filters: Sequence[int] = (16, 32, 64), code: int = 8, seed: int = 0) -> keras.Model:
    """Return an autoencoder of clips, for a feed with `target="clip"`.

    The output is float32 (batch, frames, height, width, channels), in units of the clip (0 to 255 for uint8), and 0 in
    padding frames. Compile the model with `ClipLoss()`, which supports the row weights of a feed. The layer "code" is
    the code of a clip: `keras.Model(model.inputs, model.get_layer("code").output)`.

    Args:
        spec: The spec of the feed.
        filters: Filters of each stage of the encoder, which is a convolution over each frame with stride 2 and one over
            three frames in time. The decoder mirrors the stages, with upsampling.
        code: Channels of the code, (frames, height / 2**stages, width / 2**stages, code); with the defaults, one value
            per 8 x 8 pixels.
        seed: Seed of the initial weights.

    Raises SettingError for another task, and for a height or width that 2**stages does not divide.

    >>> spec = FeedSpec(clip_shape=(16, 64, 64, 1), dtype=np.dtype("uint8"), batch_size=8, target="clip", task="clip")
    >>> model = autoencoder(spec)
    >>> model.output_shape, model.get_layer("code").output.shape
    ((None, 16, 64, 64, 1), (None, 16, 8, 8, 8))
    """
    check_sizes(filters=filters, dense=0, dropout=0, code=code)
    if spec.task != "clip" or spec.targets:
        raise SettingError(f"an autoencoder needs task 'clip'; found task {spec.task!r}; feed it with target='clip'")
    if spec.covariates or len(spec.clip_names) > 1:
        raise SettingError(
            "an autoencoder supports one clip per row and no covariates; leave the covariates out, or stack the views"
        )
    check_spec(spec)
    check_frames(spec, halvings=len(filters), cause=f"{len(filters)} stages with stride 2")
    _, height, width, channels = spec.clip_shape
    divisor = 2 ** len(filters)
    if height % divisor or width % divisor:
        raise SettingError(
            f"frames of {height} x {width} cannot be halved {len(filters)} times; use a height and width that are "
            f"multiples of {divisor}, such as {height // divisor * divisor} x {width // divisor * divisor}, or fewer "
            "filters"
        )
    inputs, seeded = inputs_of(spec), Seeded(seed)
    maps: Masked = (scaled(inputs.clips[0], spec.dtype), inputs.valid)
    for stage, stage_filters in enumerate(filters):
        for convolution in twice(stage_filters, side=3 if stage else 5, stride=2, seeded=seeded):
            maps = convolution(maps)
    x = layers.Conv3D(code, 1, kernel_initializer=seeded.initializer("GlorotUniform"), name="code")(maps[0])
    for stage_filters in reversed(filters[:-1]):
        maps = layers.UpSampling3D((1, 2, 2))(x), inputs.valid
        for convolution in twice(stage_filters, seeded=seeded):
            maps = convolution(maps)
        x = maps[0]
    x = layers.UpSampling3D((1, 2, 2))(x)
    x = layers.Conv3D(channels, (1, 3, 3), padding="same", kernel_initializer=seeded.initializer("GlorotUniform"))(x)
    full = FULL_SCALE.get(np.dtype(spec.dtype).name)
    last_layer = layers.Activation("linear", dtype="float32") if full is None else _unscaling(full)
    x = last_layer(x)
    if inputs.valid is not None:
        x = keras.ops.where(keras.ops.reshape(inputs.valid, (-1, spec.clip_shape[0], 1, 1, 1)), x, 0.0)
    return keras.Model(inputs.structure, x, name="autoencoder")


def _unscaling(full: int) -> layers.Layer:
    """Return the layer that maps -1..3 to 0..`full`, in float32 also with mixed precision."""
    return layers.Rescaling(full / 4, full / 4, dtype="float32")


@keras.saving.register_keras_serializable(package="cinefeed")
class ClipLoss(keras.losses.Loss):  # type: ignore[misc]  # keras is untyped
    """The mean squared error of each clip. Keras' loss has one value per pixel, which row weights cannot multiply.

    >>> loss = ClipLoss()
    >>> clips = np.ones((2, 3, 4, 4, 1), np.float32)
    >>> float(loss(clips, 3 * clips)), float(loss(clips, 3 * clips, np.array([1.0, 0.0])))
    (4.0, 2.0)
    """

    def __init__(self, name: str = "clip_loss", reduction: str = "sum_over_batch_size", dtype: Any = None) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the mean over the clips, each times its weight: (batch,), or (batch, 1, 1, 1) as for Keras' losses."""
        weights = None if sample_weight is None else keras.ops.reshape(sample_weight, (-1,))
        return super().__call__(y_true, y_pred, weights)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the error of each clip, (batch,)."""
        error = keras.ops.square(y_pred - keras.ops.cast(y_true, y_pred.dtype))
        return keras.ops.mean(error, axis=tuple(range(1, len(y_pred.shape))))
