"""The 2020 system's network is the one whose size is known."""

import keras
import numpy as np
import pytest

from cinefeed.core.errors import SettingError
from cinefeed.models import norm, reference, reference_cnn_lstm

SMALLEST = 67


def size(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def test_parameters_are_those_of_the_2020_system():
    model = reference_cnn_lstm((25, 150, 150, 1))
    assert model.count_params() == 6_244_577
    assert size(model.trainable_weights) == 6_240_609
    assert model.output_shape == (None, 1)


def test_layers_are_those_of_the_2020_system():
    model = reference_cnn_lstm((25, 150, 150, 1))
    convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert [layer.filters for layer in convolutions] == [32, 32, 64, 64, 128, 128, 256, 256, 512, 512]
    assert [layer.strides[0] for layer in convolutions] == [2] + 9 * [1]
    assert [layer.padding for layer in convolutions] == ["same", "valid"] + 8 * ["same"]
    assert all(float(layer.kernel_regularizer.l2) == pytest.approx(0.001) for layer in convolutions)
    names = [type(layer).__name__ for layer in model.layers]
    counts = {name: names.count(name) for name in ("BatchNormalization", "MaxPooling2D", "SpatialDropout2D", "LSTM")}
    assert counts == {"BatchNormalization": 10, "MaxPooling2D": 5, "SpatialDropout2D": 3, "LSTM": 1}


def test_a_training_step_changes_the_weights():
    model = reference_cnn_lstm((4, SMALLEST, SMALLEST, 1))
    model.compile(optimizer="adam", loss="mse")
    before = [np.array(weight) for weight in model.get_weights()]
    rng = np.random.default_rng(0)
    loss = model.train_on_batch(
        {"clips": rng.random((2, 4, SMALLEST, SMALLEST, 1), np.float32)}, np.array([50.0, 60.0])
    )
    assert np.isfinite(loss)
    changed = [not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)]
    assert np.mean(changed) > 0.9


def test_frames_are_folded_and_unfolded_in_order():
    model = reference_cnn_lstm((3, SMALLEST, SMALLEST, 1))
    clips = np.random.default_rng(0).random((3, 3, SMALLEST, SMALLEST, 1), np.float32)
    together = model.predict({"clips": clips}, verbose=0)
    alone = np.concatenate([model.predict({"clips": clips[row : row + 1]}, verbose=0) for row in range(3)])
    assert together == pytest.approx(alone, abs=1e-4)
    assert np.ptp(together) > 1e-3


@pytest.mark.parametrize("shape", [(25, 66, 150, 1), (25, 150, 66, 1)])
def test_a_frame_too_small_is_refused_with_its_size(shape):
    with pytest.raises(SettingError, match=f"{shape[1]} x {shape[2]}.*67 x 67"):
        reference_cnn_lstm(shape)


def test_the_seed_fixes_the_first_weights():
    first, again, other = (
        reference_cnn_lstm((2, SMALLEST, SMALLEST, 1), seed=seed).get_weights() for seed in (1, 1, 2)
    )
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_a_step_is_that_of_keras_own_batch_norm(monkeypatch):
    """On torch its own kernel takes the place of Keras' steps, and the numbers are the same."""
    clips = np.random.default_rng(0).random((2, 3, SMALLEST, SMALLEST, 1), np.float32)
    losses, predictions = [], []
    for make in (reference.BatchNormalization, keras.layers.BatchNormalization):
        monkeypatch.setattr(reference, "BatchNormalization", make)
        model = reference_cnn_lstm((3, SMALLEST, SMALLEST, 1))
        model.compile(optimizer=keras.optimizers.SGD(1e-4), loss="mse")
        losses.append([float(model.train_on_batch({"clips": clips}, np.array([0.5, 0.6]))) for _ in range(3)])
        predictions.append(model.predict({"clips": clips}, verbose=0))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and losses[0][0] != losses[0][2]
    assert predictions[0] == pytest.approx(predictions[1], rel=1e-2, abs=1e-3)


def test_a_saved_model_needs_keras_alone(tmp_path):
    model = reference_cnn_lstm((2, SMALLEST, SMALLEST, 1))
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert {type(layer).__module__.partition(".")[0] for layer in loaded.layers} == {"keras"}
    assert not any(isinstance(layer, norm.BatchNormalization) for layer in loaded.layers)
    clips = np.random.default_rng(0).random((1, 2, SMALLEST, SMALLEST, 1), np.float32)
    assert np.array_equal(loaded.predict({"clips": clips}, verbose=0), model.predict({"clips": clips}, verbose=0))


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}])
def test_batch_norm_takes_the_options_of_keras(options):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Flatten()(norm.BatchNormalization(**options)(inputs)))
    model.compile(optimizer="sgd", loss="mse")
    assert np.isfinite(
        model.train_on_batch(np.random.default_rng(0).random((2, 4, 4, 3), np.float32), np.zeros((2, 48)))
    )
