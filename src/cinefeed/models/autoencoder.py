"""A network that learns to give back the clip that it reads through a narrow code, so that no label is needed."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from cinefeed.errors import SettingError
from cinefeed.feed.targets import FeedSpec
from cinefeed.models.parts import FULL_SCALE, Seeded, check_frames, check_sizes, inputs_of, scaled
from cinefeed.models.spacetime import Masked, twice


def autoencoder(spec: FeedSpec, *, filters: Sequence[int] = (16, 32, 64), code: int = 8, seed: int = 0) -> keras.Model:
    """Return a network from clip to clip, for a feed with `target="clip"`.

    Each number in `filters` stands for a convolution over frames, of stride 2, and one over three frames in time; then
    `code` numbers are left at each place of the smallest maps, one a pixel of 8 x 8 with the defaults, and the way back
    doubles what was halved. The output is float32, in units of the clip (0 to 255 for uint8), and 0 in padding frames,
    as the clip is. Compile it with `ClipLoss()`, which takes a feed's weights of rows. The layer "code" gives what the
    network knows of a clip: `keras.Model(model.inputs, model.get_layer("code").output)`.

    Raises SettingError for another task, and for frames that do not halve evenly.

    >>> spec = FeedSpec(clip_shape=(16, 64, 64, 1), dtype=np.dtype("uint8"), batch_size=8, target="clip", task="clip")
    >>> model = autoencoder(spec)
    >>> model.output_shape, model.get_layer("code").output.shape
    ((None, 16, 64, 64, 1), (None, 16, 8, 8, 8))
    """
    check_sizes(filters=filters, dense=0, dropout=0, code=code)
    if spec.task != "clip" or spec.targets:
        raise SettingError(f"an autoencoder gives clips, and the task is {spec.task!r}; feed it with target='clip'")
    if spec.covariates or len(spec.clip_names) > 1:
        raise SettingError("an autoencoder reads one clip a row and no covariates; leave them out, or stack the views")
    check_frames(spec, halvings=len(filters), why=f"{len(filters)} filter numbers, each of which halves them")
    _, height, width, channels = spec.clip_shape
    least = 2 ** len(filters)
    if height % least or width % least:
        raise SettingError(
            f"frames of {height} x {width} cannot be halved {len(filters)} times; give a height and width that "
            f"{least} divides, such as {height // least * least} x {width // least * least}, or fewer filters"
        )
    inputs, seeded = inputs_of(spec), Seeded(seed)
    maps: Masked = (scaled(inputs.clips[0], spec.dtype), inputs.valid)
    for stage, number in enumerate(filters):
        for convolution in twice(number, side=3 if stage else 5, stride=2, seeded=seeded):
            maps = convolution(maps)
    x = layers.Conv3D(code, 1, kernel_initializer=seeded.initializer("GlorotUniform"), name="code")(maps[0])
    for number in reversed(filters[:-1]):
        maps = layers.UpSampling3D((1, 2, 2))(x), inputs.valid
        for convolution in twice(number, seeded=seeded):
            maps = convolution(maps)
        x = maps[0]
    x = layers.UpSampling3D((1, 2, 2))(x)
    x = layers.Conv3D(channels, (1, 3, 3), padding="same", kernel_initializer=seeded.initializer("GlorotUniform"))(x)
    full = FULL_SCALE.get(np.dtype(spec.dtype).name)
    last = layers.Activation("linear", dtype="float32") if full is None else _unscaling(full)
    x = last(x)
    if inputs.valid is not None:
        x = keras.ops.where(keras.ops.reshape(inputs.valid, (-1, spec.clip_shape[0], 1, 1, 1)), x, 0.0)
    return keras.Model(inputs.structure, x, name="autoencoder")


def _unscaling(full: int) -> layers.Layer:
    """Return the layer that takes -1..3 back to 0..`full`; float32, whatever the precision of the layers below."""
    return layers.Rescaling(full / 4, full / 4, dtype="float32")


@keras.saving.register_keras_serializable(package="cinefeed")
class ClipLoss(keras.losses.Loss):  # type: ignore[misc]  # keras is untyped
    """The mean squared error of each clip. Keras' own is one a pixel, which a weight of each row cannot multiply.

    >>> loss = ClipLoss()
    >>> clips = np.ones((2, 3, 4, 4, 1), np.float32)
    >>> float(loss(clips, 3 * clips)), float(loss(clips, 3 * clips, np.array([1.0, 0.0])))
    (4.0, 2.0)
    """

    def __init__(self, name: str = "clip_loss", reduction: str = "sum_over_batch_size", dtype: Any = None) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the mean over the clips, each times its weight: (batch,), or (batch, 1, 1, 1) as Keras' own need."""
        weights = None if sample_weight is None else keras.ops.reshape(sample_weight, (-1,))
        return super().__call__(y_true, y_pred, weights)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the error of each clip, (batch,)."""
        error = keras.ops.square(y_pred - keras.ops.cast(y_true, y_pred.dtype))
        return keras.ops.mean(error, axis=tuple(range(1, len(y_pred.shape))))
