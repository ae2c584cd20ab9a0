"""Heads on the features of a pretrained network: a linear one, and attention pooling with a learned query."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.parts import (
    Encoder,
    Encoders,
    Inputs,
    Seeded,
    check_sizes,
    check_targets,
    encode,
    finish,
    inputs_of,
    mean_over_time,
)

SequenceEncoder = Callable[[Inputs, Seeded], Encoder]  # of (batch, frames, features) to (batch, features)


def check_features(spec: FeedSpec, *, name: str) -> None:
    """Raise SettingError unless a spec is of features, float32 of 1 x dimension."""
    _, height, width, _ = spec.clip_shape
    if height != 1 or np.dtype(spec.dtype).kind != "f":
        raise SettingError(
            f"{name} needs features, float32 of 1 x dimension; found frames of {height} x {width}, "
            f"{np.dtype(spec.dtype).name}; feed the output of 'cinefeed encode' with fit='none' and dtype='float32', "
            f"or use cnn_rnn for images"
        )


def head_on_features(
    spec: FeedSpec,
    make: SequenceEncoder,
    *,
    encoders: Encoders,
    dense: int = 0,
    dropout: float,
    seed: int,
    name: str,
) -> keras.Model:
    """Return a network for sequences of features: `make`'s encoder of the features of each view, then `finish`."""
    check_targets(spec)
    check_features(spec, name=name)
    inputs, seeded = inputs_of(spec), Seeded(seed)
    frames, _, width, channels = spec.clip_shape

    def make_encoder(suffix: str) -> Encoder:
        sequence_encoder = make(inputs, seeded)
        return lambda clips: sequence_encoder(keras.ops.reshape(clips, (-1, frames, width * channels)))

    features = encode(inputs, make_encoder, encoders=encoders)
    return finish(features, inputs, spec, dense=dense, dropout=dropout, seeded=seeded, name=name)


@check_arguments()
def linear(
    spec: FeedSpec,
    *,
    encoders: Encoders = "shared",
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a linear classifier or regression of the mean feature of a clip, for features of `cinefeed encode`.

    Features are averaged over the valid frames, and standardised by batch norm without scale and offset. The order of
    the frames has no effect. Covariates, several views, targets and padding are those of `cnn_rnn`.

    Args:
        spec: The spec of the feed.
        encoders: "shared" or "own" statistics of several views.
        dropout: Dropout rate of the standardised features.
        seed: Seed of the initial weights and dropout.

    Raises SettingError for frames that are images, and for an unsupported spec or setting.

    >>> spec = FeedSpec(clip_shape=(16, 1, 64, 1), dtype=np.dtype("float32"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> linear(spec).output_shape, linear(spec).count_params()
    ((None, 1), 193)
    """
    check_sizes(filters=(1,), dense=0, dropout=dropout)

    def make(inputs: Inputs, seeded: Seeded) -> Encoder:
        return linear_encoder(inputs.valid)

    return head_on_features(spec, make, encoders=encoders, dropout=dropout, seed=seed, name="linear")


@check_arguments()
def attentive(
    spec: FeedSpec,
    *,
    units: int = 128,
    heads: int = 4,
    depth: int = 0,
    positions: bool = True,
    encoders: Encoders = "shared",
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a head that pools features by attention with a learned query, for features of `cinefeed encode`.

    It is the attentive probe of V-JEPA (Bardes et al. 2024, "Revisiting Feature Prediction for Learning Visual
    Representations from Video"): cross-attention of a learned query to the features of all frames or windows, then a
    residual MLP and a linear layer. Features are first normalised and projected to `units`, since data sets with few
    videos do not support attention of a thousand units. Covariates, views, targets and padding are those of `cnn_rnn`.

    Args:
        spec: The spec of the feed.
        units: Dimension of the attention, divisible by `heads`.
        heads: Number of attention heads.
        depth: Number of transformer blocks (self-attention over time) before the pooling.
        positions: Add a learned embedding of the position in the clip; without it the order of frames has no effect.
        encoders: "shared" or "own" weights for several views.
        dropout: Dropout rate of the projected features and before the last layer.
        seed: Seed of the initial weights and dropout.

    Raises SettingError for frames that are images, and for an unsupported spec or setting.

    >>> spec = FeedSpec(clip_shape=(16, 1, 64, 1), dtype=np.dtype("float32"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> attentive(spec).output_shape
    (None, 1)
    """
    check_sizes(filters=(1,), dense=0, dropout=dropout, units=units, heads=heads)
    if units % heads or depth < 0:
        raise SettingError(f"units={units} must be divisible by heads={heads}, and depth={depth} at least 0")

    def make(inputs: Inputs, seeded: Seeded) -> Encoder:
        return attentive_encoder(
            inputs.valid,
            frames=spec.clip_shape[0],
            units=units,
            heads=heads,
            depth=depth,
            positions=positions,
            dropout=dropout,
            seeded=seeded,
        )

    return head_on_features(spec, make, encoders=encoders, dropout=dropout, seed=seed, name="attentive")


@check_arguments()
def ordered(
    spec: FeedSpec,
    *,
    units: int = 64,
    encoders: Encoders = "shared",
    dense: int = 128,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Return a head that concatenates the change of features in the order of frames, for features of `cinefeed encode`.

    The mean of the clip is subtracted from the features of each frame, so that what does not move, such as a face or a
    machine, is left out. They are standardised by batch norm and projected to `units`, and the projections of all
    frames are concatenated. It is for clips whose frames correspond, such as the phases of a cycle or a word in the
    middle. Covariates, several views, targets and padding are those of `cnn_rnn`.

    Args:
        spec: The spec of the feed.
        units: Units of the projection of each frame, with ReLU.
        encoders: "shared" or "own" weights for several views.
        dense: Units of the dense layer before the output; 0 for none.
        dropout: Dropout rate of the projections and before the dense layer.
        seed: Seed of the initial weights and dropout.

    Raises SettingError for frames that are images, and for an unsupported spec or setting.

    >>> spec = FeedSpec(clip_shape=(16, 1, 64, 1), dtype=np.dtype("float32"), batch_size=16, target="age",
    ...                 task="regression", target_mean=56.0, target_scale=11.0)
    >>> ordered(spec).output_shape
    (None, 1)
    """
    check_sizes(filters=(1,), dense=dense, dropout=dropout, units=units)

    def make(inputs: Inputs, seeded: Seeded) -> Encoder:
        standardise = layers.BatchNormalization(momentum=0.9, center=False, scale=False)
        project = _dense(units, seeded, activation="relu")
        drop = layers.Dropout(dropout, seed=seeded.number()) if dropout else None

        def encoder(x: keras.KerasTensor) -> keras.KerasTensor:
            x = project(standardise(x - mean_over_time(x, inputs.valid)))
            x = x if drop is None else drop(x)
            if inputs.valid is not None:
                x = keras.ops.where(keras.ops.expand_dims(inputs.valid, -1), x, 0.0)
            return keras.ops.reshape(x, (-1, spec.clip_shape[0] * units))

        return encoder

    return head_on_features(spec, make, encoders=encoders, dense=dense, dropout=dropout, seed=seed, name="ordered")


def linear_encoder(valid: keras.KerasTensor | None) -> Encoder:
    """Return an encoder from (batch, frames, features) to the standardised mean over the valid frames."""
    standardise = layers.BatchNormalization(momentum=0.9, center=False, scale=False)
    return lambda x: standardise(keras.ops.squeeze(mean_over_time(x, valid), axis=1))


def attentive_encoder(
    valid: keras.KerasTensor | None,
    *,
    frames: int,
    units: int = 128,
    heads: int = 4,
    depth: int = 0,
    positions: bool = True,
    dropout: float = 0.0,
    seeded: Seeded,
) -> Encoder:
    """Return an encoder from (batch, frames, features) to (batch, units); see `attentive`."""
    normalise, project = layers.LayerNormalization(), _dense(units, seeded)
    drop = layers.Dropout(dropout, seed=seeded.number()) if dropout else None
    place = _embedding(frames, units, seeded) if positions else None
    blocks = [_Block(units, heads, seeded) for _ in range(depth)]
    query, pool = _embedding(1, units, seeded), _Block(units, heads, seeded)

    def encoder(x: keras.KerasTensor) -> keras.KerasTensor:
        ones = keras.ops.ones_like(x[..., 0])  # (batch, frames)
        x = project(normalise(x))
        x = x if place is None else x + place(keras.ops.cumsum(ones, axis=1) - 1.0)
        x = x if drop is None else drop(x)
        if valid is not None:  # a row of padding only attends to all of it
            x = keras.ops.where(keras.ops.expand_dims(valid, -1), x, 0.0)
        for block in blocks:
            x = block(x, x, valid)
        return keras.ops.squeeze(pool(query(ones[:, :1] - 1.0), x, valid), axis=1)

    return encoder


class _Block:
    """Attention of queries to keys with a residual connection, then a residual MLP; both after layer normalisation."""

    def __init__(self, units: int, heads: int, seeded: Seeded) -> None:
        self._units, self._heads = units, heads
        self._normalise = layers.LayerNormalization(), layers.LayerNormalization(), layers.LayerNormalization()
        # Not keras.layers.MultiHeadAttention: with a seed its query and key weights are equal at the start.
        self._query, self._key, self._value, self._out = (_dense(units, seeded) for _ in range(4))
        self._hidden, self._mlp = _dense(2 * units, seeded, activation="gelu"), _dense(units, seeded)

    def __call__(
        self, queries: keras.KerasTensor, keys: keras.KerasTensor, valid: keras.KerasTensor | None
    ) -> keras.KerasTensor:
        """Return the queries after attention to the valid keys, (batch, queries, units)."""
        of_queries, of_keys, of_mlp = self._normalise
        normalised = of_keys(keys)
        query, key, value = (
            self._by_head(layer(x))
            for layer, x in (
                (self._query, of_queries(queries)),
                (self._key, normalised),
                (self._value, normalised),
            )
        )
        scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 1, 3, 2))) * (self._units // self._heads) ** -0.5
        scores = keras.ops.cast(scores, "float32")
        if valid is not None:  # -1e9, not -inf: softmax would be NaN for a row of padding only
            scores = keras.ops.where(keras.ops.expand_dims(valid, (1, 2)), scores, -1e9)
        attended = keras.ops.matmul(keras.ops.cast(keras.ops.softmax(scores), value.dtype), value)
        attended = keras.ops.reshape(keras.ops.transpose(attended, (0, 2, 1, 3)), (-1, queries.shape[1], self._units))
        x = queries + self._out(attended)
        return x + self._mlp(self._hidden(of_mlp(x)))

    def _by_head(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """Return (batch, heads, positions, units of a head)."""
        x = keras.ops.reshape(x, (-1, x.shape[1], self._heads, self._units // self._heads))
        return keras.ops.transpose(x, (0, 2, 1, 3))


def _dense(units: int, seeded: Seeded, *, activation: str | None = None) -> layers.Dense:
    return layers.Dense(units, activation=activation, kernel_initializer=seeded.initializer("GlorotUniform"))


def _embedding(count: int, units: int, seeded: Seeded) -> layers.Embedding:
    initializer = keras.initializers.RandomNormal(stddev=0.02, seed=seeded.number())
    return layers.Embedding(count, units, embeddings_initializer=initializer)
