import dataclasses

import keras
import numpy as np
import pytest
from model_specs import SPEC, TASKS

from cinefeed.core.errors import SettingError
from cinefeed.models import cnn_rnn, feature_rnn

SIZE = 6


def of_features(spec, **changes):
    return dataclasses.replace(spec, clip_shape=(5, 1, SIZE, 1), dtype=np.dtype("float32"), **changes)


def clips(number=4, seed=0):
    return np.random.default_rng(seed).random((number, 5, 1, SIZE, 1), np.float32)


@pytest.mark.parametrize("task", TASKS)
def test_the_head_follows_the_task(task):
    spec = of_features(TASKS[task])
    assert feature_rnn(spec).output_shape == (None, max(len(spec.classes), 1) if task == "multiclass" else 1)


@pytest.mark.parametrize(
    "options", [{}, {"rnn": "lstm", "bidirectional": True, "pooling": "attention", "dropout": 0.5}]
)
def test_its_weights_are_those_that_follow_the_cnn(options):
    whole, half = cnn_rnn(SPEC, filters=(4, SIZE), **options), feature_rnn(of_features(SPEC), **options)
    after = whole.weights[4:]  # two convolutions, with a kernel and a bias each
    assert [each.shape for each in after] == [each.shape for each in half.weights]


def test_the_order_of_frames_matters_and_what_padding_holds_does_not():
    model = feature_rnn(of_features(TASKS["binary"], padded=True), units=4, dense=0)
    valid = np.arange(5)[np.newaxis] < np.array([[5], [3], [3], [0]])
    black, noise = clips(), clips()
    noise[~valid] = clips(seed=1)[~valid]
    scores = model.predict({"clips": black, "valid": valid}, verbose=0)
    assert np.array_equal(model.predict({"clips": noise, "valid": valid}, verbose=0), scores)
    assert np.isfinite(scores).all()
    backwards = model.predict({"clips": black[:, ::-1], "valid": np.ones_like(valid)}, verbose=0)
    assert np.abs(backwards - model.predict({"clips": black, "valid": np.ones_like(valid)}, verbose=0)).max() > 1e-4


def test_several_views_are_read_by_one_network_or_by_their_own():
    spec = of_features(SPEC, views=("2ch", "4ch"))
    shared, own = feature_rnn(spec), feature_rnn(spec, encoders="own")
    assert {each.name for each in shared.inputs} == {"clips_2ch", "clips_4ch"}
    assert own.count_params() > shared.count_params()


def test_the_seed_fixes_the_first_weights():
    first, again, other = (feature_rnn(of_features(SPEC), seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_it_loads_with_keras_alone(tmp_path):
    model = feature_rnn(of_features(TASKS["binary"]))
    model.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras", compile=False)
    inputs = {"clips": clips()}
    assert np.array_equal(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_images_and_integers_are_rejected():
    with pytest.raises(SettingError, match="frames of 32 x 24, uint8"):
        feature_rnn(SPEC)
    with pytest.raises(SettingError, match="dtype='float32'"):
        feature_rnn(dataclasses.replace(SPEC, clip_shape=(5, 1, SIZE, 1)))
    with pytest.raises(SettingError, match="did you mean 'lstm'"):
        feature_rnn(of_features(SPEC), rnn="lsmt")
