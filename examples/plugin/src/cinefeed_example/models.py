"""A model: a function of the feed's spec that returns a Keras network with the inputs and the output of the task."""

import keras
import numpy as np
from keras import layers

from cinefeed.core.errors import SettingError
from cinefeed.feed.labels import FeedSpec


def mean_frame(spec: FeedSpec, *, filters: int = 8, seed: int = 0) -> keras.Model:
    """Return a small CNN of the mean frame of a clip. Raises SettingError for a feed that it does not support."""
    inputs = (spec.covariates, spec.padded, spec.views)
    if spec.task not in ("regression", "binary", "multiclass") or spec.targets or any(inputs):
        raise SettingError("mean_frame needs one label column, and no covariates, padding or views")
    clips = keras.Input(spec.clip_shape, dtype=np.dtype(spec.dtype).name, name="clips")
    scale = 1.0 if np.dtype(spec.dtype).kind == "f" else 1 / np.iinfo(spec.dtype).max
    x = keras.ops.mean(layers.Rescaling(scale)(clips), axis=1)
    x = layers.Conv2D(filters, 3, activation="relu", kernel_initializer=keras.initializers.GlorotUniform(seed=seed))(x)
    x = layers.GlobalAveragePooling2D()(x)
    if spec.task == "regression":
        x = layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 1))(x)
        x = layers.Rescaling(spec.target_scale, spec.target_mean)(x)
    else:
        units, activation = (1, "sigmoid") if spec.task == "binary" else (len(spec.classes), "softmax")
        initializer = keras.initializers.GlorotUniform(seed=seed + 1)
        x = layers.Dense(units, activation=activation, kernel_initializer=initializer)(x)
    return keras.Model([clips], x, name="mean_frame")
