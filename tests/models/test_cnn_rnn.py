"""One network for every task, built from a feed's spec."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from cinefeed.errors import SettingError
from cinefeed.feed.targets import FeedSpec
from cinefeed.models import cnn_rnn

SPEC = FeedSpec(
    clip_shape=(5, 32, 24, 1),
    dtype=np.dtype("uint8"),
    batch_size=4,
    target="age",
    task="regression",
    target_mean=56.0,
    target_scale=11.0,
)
TASKS = {
    "regression": SPEC,
    "binary": dataclasses.replace(SPEC, task="binary", classes=("no", "yes"), target_mean=0.0, target_scale=1.0),
    "multiclass": dataclasses.replace(SPEC, task="multiclass", classes=("a", "b", "c")),
}
LOSSES = {"regression": "mse", "binary": "binary_crossentropy", "multiclass": "sparse_categorical_crossentropy"}


def clips_of(spec, *, number=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, *spec.clip_shape)).astype(spec.dtype)


def trained(spec, *, steps=3, **options):
    """A model after a few steps, so that a regression's last layer is no longer zero."""
    model = cnn_rnn(spec, **options)
    model.compile(optimizer="adam", loss=LOSSES[spec.task])
    targets = np.array([30.0, 50.0, 60.0, 70.0], np.float32) if spec.task == "regression" else np.array([0, 1, 1, 0])
    inputs = {"clips": clips_of(spec)}
    if spec.padded:
        inputs["valid"] = np.ones((4, spec.clip_shape[0]), np.bool_)
    for _ in range(steps):
        assert np.isfinite(model.train_on_batch(inputs, targets))
    return model


@pytest.mark.parametrize("rnn", ["gru", "lstm"])
@pytest.mark.parametrize("task", TASKS)
def test_saved_and_loaded_in_safe_mode_it_says_the_same(task, rnn, tmp_path):
    model = trained(TASKS[task], rnn=rnn, dropout=0.2)
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
    model = trained(TASKS[task])
    clips = clips_of(SPEC, seed=2)
    together = model.predict({"clips": clips}, verbose=0)
    alone = np.concatenate([model.predict({"clips": clips[row : row + 1]}, verbose=0) for row in range(4)])
    assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert np.ptp(together) > 0


def test_a_regression_starts_at_the_mean_of_the_labels():
    assert cnn_rnn(SPEC).predict({"clips": clips_of(SPEC)}, verbose=0) == pytest.approx(56.0)


def test_the_order_of_frames_counts():
    model = trained(SPEC)
    clips = clips_of(SPEC, seed=3)
    forth, back = (model.predict({"clips": each}, verbose=0) for each in (clips, clips[:, ::-1].copy()))
    assert np.abs(forth - back).max() > 1e-3


def test_padding_frames_change_nothing():
    spec = dataclasses.replace(SPEC, padded=True)
    model = trained(spec)
    clips, valid = clips_of(spec, seed=4), np.ones((4, 5), np.bool_)
    valid[:, 3:] = False
    scores = model.predict({"clips": clips, "valid": valid}, verbose=0)
    clips[:, 3:] = 0
    assert np.array_equal(model.predict({"clips": clips, "valid": valid}, verbose=0), scores)
    everything = model.predict({"clips": clips, "valid": np.ones_like(valid)}, verbose=0)
    assert np.abs(everything - scores).max() > 1e-3
    valid[0] = False  # a padding row of a batch
    assert np.isfinite(model.predict({"clips": clips, "valid": valid}, verbose=0)).all()


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
    ("change", "options", "said"),
    [
        ({"clip_shape": (16, 64, 15, 1)}, {}, "64 x 15.*16 x 16"),
        ({"target_scale": 0.0}, {}, "target_scale=0.0"),
        ({"target_mean": float("nan")}, {}, "target_mean=nan"),
        ({"task": "regresion"}, {}, "did you mean 'regression'"),
        ({"task": "binary", "classes": ("a", "b", "c")}, {}, "two classes, found 3"),
        ({"task": "multiclass", "classes": ("a",)}, {}, "at least two classes, found 1"),
        ({"dtype": np.dtype("int16")}, {}, "did you mean 'uint16'"),
        ({}, {"rnn": "gro"}, "did you mean 'gru'"),
        ({}, {"filters": ()}, "at least one filter"),
        ({}, {"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_what_cannot_fit_is_refused(change, options, said):
    with pytest.raises(SettingError, match=said):
        cnn_rnn(dataclasses.replace(SPEC, **change), **options)


JAX_STEP = """
import dataclasses, numpy as np
from test_cnn_rnn import SPEC, trained
trained(dataclasses.replace(SPEC, padded=True), steps=1)
from cinefeed.models import reference_cnn_lstm
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
