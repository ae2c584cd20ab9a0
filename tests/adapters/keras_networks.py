"""Networks and training loops as users of Keras write them, on the backend that KERAS_BACKEND names.

    python keras_networks.py manifest.parquet

Keras' warning that inputs have another structure than the network's is an error, and so is a loss that is not finite.
"""

import sys
import warnings

import keras
import numpy as np
from keras import layers

import cinefeed as cf
from cinefeed.adapters.keras import FeedDataset

SHAPE = (4, 16, 16, 1)


def conv_lstm():
    return keras.Sequential(
        [
            layers.Input(SHAPE),
            layers.ConvLSTM2D(4, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def unbuilt():
    """A Sequential without an input: the first batch builds it."""
    return keras.Sequential([layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(1, activation="sigmoid")])


def cnn_rnn():
    frame = keras.Sequential([layers.Conv2D(4, 3, strides=2, activation="relu"), layers.GlobalMaxPooling2D()])
    video = keras.Input(shape=SHAPE)
    x = layers.TimeDistributed(frame)(video)
    x = layers.GRU(8)(x)
    return keras.Model(inputs=video, outputs=layers.Dense(1, activation="sigmoid")(x))


def listed():
    video = keras.Input(shape=SHAPE)
    x = layers.Conv3D(4, 3, activation="relu")(video)
    x = layers.GlobalAveragePooling3D()(x)
    return keras.Model(inputs=[video], outputs=[layers.Dense(1, activation="sigmoid")(x)])


class Positions(layers.Layer):
    def build(self, shape):
        self.embedding = self.add_weight(shape=(1, *shape[1:]), initializer="random_normal")

    def call(self, tokens):
        return tokens + self.embedding


def vivit():
    video = layers.Input(shape=SHAPE)
    x = layers.Conv3D(16, (2, 8, 8), strides=(2, 8, 8), padding="valid")(video)
    tokens = Positions()(layers.Reshape((-1, 16))(x))
    normed = layers.LayerNormalization(epsilon=1e-6)(tokens)
    attended = layers.MultiHeadAttention(num_heads=2, key_dim=8, dropout=0.1)(normed, normed)
    tokens = layers.Add()([attended, tokens])
    dense = layers.Dense(32, activation=keras.activations.gelu)(layers.LayerNormalization(epsilon=1e-6)(tokens))
    tokens = layers.Add()([layers.Dense(16)(dense), tokens])
    pooled = layers.GlobalAvgPool1D()(layers.LayerNormalization(epsilon=1e-6)(tokens))
    return keras.Model(inputs=video, outputs=layers.Dense(units=1, activation="sigmoid")(pooled))


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.Sequential([layers.Flatten(), layers.Dense(1, activation="sigmoid")])

    def call(self, videos, training=False):
        return self.head(keras.ops.cast(videos, "float32") / 255)


def trains(model, feed, *, loss="binary_crossentropy", **options):
    """Fit and predict; return the scores."""
    model.compile(optimizer="adam", loss=loss, metrics=["mae"])
    train, val = FeedDataset(feed), FeedDataset(feed.evaluation(feed.manifest))
    losses = model.fit(train, epochs=2, verbose=0, **options).history["loss"]
    assert np.isfinite(losses).all() and len(losses) == 2, losses
    return model.predict(val, verbose=0)


def ten_lines(manifest):
    """All that a user writes."""
    clip, frame = cf.Clip(frames=4), cf.Frame(height=16, width=16, channels=1)
    feed = cf.Feed(manifest, target="sick", clip=clip, frame=frame, batch_size=4, workers=0)
    model = keras.Sequential([keras.Input((4, 16, 16, 1)), layers.Rescaling(1 / 255)])
    model.add(layers.ConvLSTM2D(4, 3))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    val = FeedDataset(feed.evaluation(manifest))
    model.fit(FeedDataset(feed), validation_data=val, class_weight={0: 1.0, 1: 3.0}, epochs=2, verbose=0)
    return model.predict(val, verbose=0)


def main(path):
    warnings.filterwarnings("error", message="The structure of")
    manifest = cf.Manifest.read(path).take(range(8, 0, -1))  # two batches of one size: JAX compiles once

    def make(target="sick", **changes):
        frame = cf.Frame(height=16, width=16, channels=1)
        settings = {"clip": cf.Clip(frames=4), "frame": frame, "batch_size": 4, "workers": 0} | changes
        return cf.Feed(manifest, target=target, **settings)

    assert ten_lines(manifest).shape == (8, 1)
    for network in (conv_lstm, unbuilt, cnn_rnn, listed, vivit, Subclass):
        assert trains(network(), make()).shape == (8, 1), network
    assert trains(conv_lstm(), make(), class_weight={0: 1.0, 1: 3.0}).shape == (8, 1)
    assert trains(cf.models.cnn_rnn(make().spec, filters=(4,)), make()).shape == (8, 1)

    def decoder():
        return keras.Sequential(
            [layers.Input(SHAPE), layers.Conv3D(2, 3, padding="same"), layers.Conv3D(1, 3, padding="same")]
        )

    for changes in ({}, {"inputs": cf.Inputs(weight="age")}):  # a row counts once, whatever the width of a frame
        assert trains(decoder(), make("clip", **changes), loss="mse").shape == (8, *SHAPE)
    feed = make("clip", inputs=cf.Inputs(weight="age"), batch_size=8)
    still = keras.Sequential([layers.Input(SHAPE), layers.Rescaling(0.0, offset=1.0)])
    still.compile(loss="mse")
    batch = feed.evaluation(manifest)[0]
    errors = ((1.0 - batch.clips.astype(np.float64)) ** 2).mean(axis=(1, 2, 3, 4))
    result = still.evaluate(FeedDataset(feed.evaluation(manifest)), verbose=0)
    assert np.isclose(result, (errors * batch.weights).mean(), rtol=1e-4), result

    video, age = keras.Input(SHAPE, name="clips"), keras.Input((1,), name="age")
    x = layers.Concatenate()([layers.GlobalAveragePooling3D()(video), age])
    two = keras.Model([video, age], layers.Dense(1, activation="sigmoid")(x))
    assert trains(two, make(inputs=cf.Inputs(covariates=["age"]))).shape == (8, 1)


if __name__ == "__main__":
    main(sys.argv[1])
