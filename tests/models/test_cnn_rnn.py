"""One network for every task, built from a feed's spec."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from model_specs import SPEC, TASKS, clips_of, padding_changes_nothing, predict, trained

from cinefeed.core.errors import SettingError
from cinefeed.models import cnn_rnn

# Sums of the default network's first weights, each times the cosines of 0, 1, 2 ..., and what it says of four clips.
FIRST = [
    -4.0029,
    0,
    13.14983,
    0,
    -3.45132,
    0,
    -3.67472,
    0,
    1.14612,
    0,
    -13.16812,
    -12.65135,
    0,
    -1.45317,
    0,
    1.44481,
    0,
]
SCORES = [0.5556941, 0.4420105, 0.5297269, 0.5150301]


def test_the_default_network_is_what_it_was():
    model = cnn_rnn(TASKS["binary"], seed=3)
    assert model.count_params() == 102_081
    sums = [float(np.sum(each.ravel() * np.cos(np.arange(each.size)))) for each in model.get_weights()]
    assert sums == pytest.approx(FIRST, abs=1e-3)
    assert predict(model, clips_of(SPEC))[:, 0] == pytest.approx(SCORES, abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pooling": "attention"},
        {"rnn": "lstm", "bidirectional": True, "pooling": "attention"},
        {"rnn": "none", "norm": "layer"},
    ],
    ids=["default", "attention", "bidirectional", "none"],
)
def test_every_way_over_time_heeds_padding_and_saves(options, tmp_path):
    spec = dataclasses.replace(TASKS["binary"], padded=True)
    padding_changes_nothing(lambda: cnn_rnn(spec, filters=(4, 8), units=6, **options), spec)
    model = cnn_rnn(spec, filters=(4, 8), units=6, **options)
    inputs = {"clips": clips_of(spec), "valid": np.arange(5) < np.array([[5], [4], [1], [0]])}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_reading_padding_fails_the_comparison():
    spec = dataclasses.replace(TASKS["binary"], padded=True)

    def build():
        clips, valid = keras.Input(spec.clip_shape, name="clips"), keras.Input((5,), dtype="bool", name="valid")
        brightness = keras.ops.mean(clips, axis=(2, 3, 4)) * (2 - keras.ops.cast(valid, "float32")) / 255
        score = keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones")(brightness)
        return keras.Model({"clips": clips, "valid": valid}, score)

    with pytest.raises(AssertionError):
        padding_changes_nothing(build, spec)


@pytest.mark.parametrize(
    ("options", "sees_time"),
    [
        ({}, True),
        ({"rnn": "lstm"}, True),
        ({"bidirectional": True, "pooling": "attention"}, True),
        ({"rnn": "none"}, False),
        ({"rnn": "none", "pooling": "attention"}, False),
    ],
)
def test_the_order_of_frames_counts_unless_they_are_averaged(options, sees_time):
    model, clips = cnn_rnn(TASKS["binary"], **options), clips_of(SPEC, seed=3)
    forth, back = predict(model, clips), predict(model, clips[:, ::-1].copy())
    assert (np.abs(forth - back).max() > 1e-3) == sees_time
    assert sees_time or forth == pytest.approx(back, abs=1e-5)


def test_both_ways_have_weights_of_their_own():
    plain, both = (cnn_rnn(SPEC, bidirectional=each) for each in (False, True))
    layer = next(each for each in both.layers if isinstance(each, keras.layers.Bidirectional))
    forth, back = layer.forward_layer, layer.backward_layer
    assert not np.array_equal(forth.get_weights()[0], back.get_weights()[0])
    assert both.count_params() > plain.count_params() + forth.count_params()


@pytest.mark.parametrize("task", TASKS)
def test_saved_and_loaded_in_safe_mode_it_says_the_same(task, tmp_path):
    model = trained(cnn_rnn(TASKS[task], dropout=0.2), TASKS[task])
    inputs = {"clips": clips_of(SPEC, seed=1)}
    scores = model.predict(inputs, verbose=0)
    assert scores.shape == (4, 3 if task == "multiclass" else 1)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(again.predict(inputs, verbose=0), scores)
    if task != "regression":
        assert scores.min() >= 0 and scores.max() <= 1
    if task == "multiclass":
        assert scores.sum(axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_clip_alone_scores_as_in_a_batch(task):
    model = trained(cnn_rnn(TASKS[task]), TASKS[task])
    clips = clips_of(SPEC, seed=2)
    together = model.predict({"clips": clips}, verbose=0)
    alone = np.concatenate([model.predict({"clips": clips[row : row + 1]}, verbose=0) for row in range(4)])
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert np.ptp(together) > 0


def test_a_regression_starts_at_the_mean_of_the_labels():
    assert cnn_rnn(SPEC).predict({"clips": clips_of(SPEC)}, verbose=0) == pytest.approx(56.0)


def test_all_frames_valid_is_the_same_as_no_mask():
    model, masked = cnn_rnn(TASKS["binary"]), cnn_rnn(dataclasses.replace(TASKS["binary"], padded=True))
    clips = clips_of(SPEC)
    assert masked.predict({"clips": clips, "valid": np.ones((4, 5), np.bool_)}, verbose=0) == pytest.approx(
        model.predict({"clips": clips}, verbose=0), abs=1e-6
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_type_of_pixel_goes_in_at_its_scale(dtype):
    level = {"uint8": 255, "uint16": 65535, "float32": 3.0}[dtype]
    model = cnn_rnn(dataclasses.replace(TASKS["binary"], dtype=np.dtype(dtype)))
    bright = np.full((1, *SPEC.clip_shape), level, dtype)
    other = cnn_rnn(TASKS["binary"]).predict({"clips": np.full((1, *SPEC.clip_shape), 255, np.uint8)}, verbose=0)
    assert model.predict({"clips": bright}, verbose=0) == pytest.approx(other, abs=1e-6)


def test_the_seed_fixes_the_first_weights():
    first, again, other = (cnn_rnn(SPEC, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"clip_shape": (16, 64, 15, 1)}, {}, "64 x 15.*16 x 16"),
        ({"target_scale": 0.0}, {}, "target_scale=0.0"),
        ({"target_mean": float("nan")}, {}, "target_mean=nan"),
        ({"task": "regresion"}, {}, "did you mean 'regression'"),
        ({"task": "binary", "classes": ("a", "b", "c")}, {}, "two classes; found 3"),
        ({"task": "multiclass", "classes": ("a",)}, {}, "at least two classes; found 1"),
        ({"dtype": np.dtype("int16")}, {}, "did you mean 'uint16'"),
        ({"dtype": np.dtype("float16"), "masks": True}, {}, "do not support masks"),
        ({"task": "clip"}, {}, "use the autoencoder"),
        ({}, {"rnn": "gro"}, "did you mean 'gru'"),
        ({}, {"pooling": "max"}, "pooling='max'"),
        ({}, {"norm": "lawyer"}, "did you mean 'layer'"),
        ({"padded": True}, {"norm": "batch"}, "use norm='layer', or clips without padding"),
        ({}, {"encoders": "owned"}, "did you mean 'own'"),
        ({}, {"rnn": "none", "bidirectional": True}, "leave it out"),
        ({}, {"weights": "x.h5"}, "give one of keras.applications"),
        ({}, {"units": 0}, "units=0"),
        ({}, {"filters": ()}, "at least one number of filters"),
        ({}, {"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_what_cannot_fit_is_refused(change, options, message):
    with pytest.raises(SettingError, match=message):
        cnn_rnn(dataclasses.replace(SPEC, **change), **options)


def test_batch_norm_gives_frames_the_statistics_of_the_batch():
    model = trained(cnn_rnn(SPEC, filters=(4, 8), norm="batch"), SPEC, steps=1)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 2
    assert all(np.any(keras.ops.convert_to_numpy(each.moving_mean) != 0) for each in norms)


JAX_STEP = """
import dataclasses, numpy as np
from model_specs import SPEC, trained
from cinefeed.models import cnn3d, cnn_rnn, reference_cnn_lstm
for build in (cnn_rnn, cnn3d):
    spec = dataclasses.replace(SPEC, padded=True)
    trained(build(spec), spec, steps=1)
model = reference_cnn_lstm((2, 67, 67, 1))
model.compile(optimizer="adam", loss="mse")
assert np.isfinite(model.train_on_batch({"clips": np.ones((1, 2, 67, 67, 1), np.float32)}, np.ones(1)))
"""


@pytest.mark.slow
def test_a_training_step_on_jax():
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-c", JAX_STEP],
        cwd=Path(__file__).parent,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
