import dataclasses

import keras
import numpy as np
import pytest
from model_specs import SPEC, TASKS

from cinefeed.core.errors import SettingError
from cinefeed.models import attentive, linear, ordered

SIZE = 6
SMALL = {"units": 8, "heads": 2}
HEADS = {
    "linear": linear,
    "attentive": lambda spec, **options: attentive(spec, **SMALL, **options),
    "ordered": lambda spec, **options: ordered(spec, units=4, dense=8, **options),
    "deep": lambda spec, **options: attentive(spec, **SMALL, depth=1, **options),
}


def of_features(spec, **changes):
    return dataclasses.replace(spec, clip_shape=(5, 1, SIZE, 1), dtype=np.dtype("float32"), **changes)


def clips(number=4, seed=0):
    return np.random.default_rng(seed).random((number, 5, 1, SIZE, 1), np.float32)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("task", TASKS)
def test_the_output_follows_the_task(task, name):
    spec = of_features(TASKS[task])
    assert HEADS[name](spec).output_shape == (None, max(len(spec.classes), 1) if task == "multiclass" else 1)


@pytest.mark.parametrize("name", HEADS)
def test_what_padding_holds_does_not_matter(name):
    model = HEADS[name](of_features(TASKS["binary"], padded=True))
    valid = np.arange(5)[np.newaxis] < np.array([[5], [3], [3], [0]])
    black, noise = clips(), clips()
    noise[~valid] = clips(seed=1)[~valid]
    scores = model.predict({"clips": black, "valid": valid}, verbose=0)
    assert np.array_equal(model.predict({"clips": noise, "valid": valid}, verbose=0), scores)
    assert np.isfinite(scores).all() and np.ptp(scores[:3]) > 0


@pytest.mark.parametrize(
    ("name", "matters"), [("linear", False), ("attentive", True), ("ordered", True), ("deep", True)]
)
def test_the_order_of_frames_matters_to_attention_alone(name, matters):
    model = HEADS[name](of_features(TASKS["binary"]))
    differences = model.predict(clips()[:, ::-1], verbose=0) - model.predict(clips(), verbose=0)
    assert (np.abs(differences).max() > 1e-5) == matters
    if matters and name != "ordered":
        unordered = HEADS[name](of_features(TASKS["binary"]), positions=False)
        same = unordered.predict(clips()[:, ::-1], verbose=0) - unordered.predict(clips(), verbose=0)
        assert np.abs(same).max() < 1e-6


@pytest.mark.parametrize("name", HEADS)
def test_views_have_one_encoder_or_their_own(name):
    spec = of_features(SPEC, views=("2ch", "4ch"))
    shared, own = HEADS[name](spec), HEADS[name](spec, encoders="own")
    assert {each.name for each in shared.inputs} == {"clips_2ch", "clips_4ch"}
    assert own.count_params() > shared.count_params()


def test_the_seed_fixes_the_first_weights_and_none_are_equal():
    spec = of_features(TASKS["binary"])
    first, again, other = (attentive(spec, **SMALL, seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))
    kernels = [each for each in first if each.shape == (8, 8)]
    assert len(kernels) >= 4
    assert len({each.tobytes() for each in kernels}) == len(kernels)


@pytest.mark.parametrize("name", HEADS)
def test_they_load_with_keras_alone(tmp_path, name):
    model = HEADS[name](of_features(TASKS["binary"]))
    model.save(tmp_path / "head.keras")
    loaded = keras.saving.load_model(tmp_path / "head.keras", compile=False)
    assert np.array_equal(loaded.predict(clips(), verbose=0), model.predict(clips(), verbose=0))


@pytest.mark.parametrize("name", ["attentive", "ordered", "linear"])
def test_they_learn_when_the_label_is_in_one_frame_or_in_the_mean(name):
    """Attention finds the frame that has the label; the mean of all frames has it too, diluted five times."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 5, 1, SIZE, 1)).astype(np.float32)
    labels = (x[:, 3, 0, 2, 0] > 0).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = HEADS[name](of_features(TASKS["binary"]))
    model.compile(keras.optimizers.Adam(1e-2), loss="binary_crossentropy", metrics=["accuracy"])
    model.fit(x, labels, epochs=30, batch_size=32, verbose=0)
    accuracy = model.evaluate(x, labels, verbose=0)[1]
    assert accuracy > 0.9 if name != "linear" else 0.55 < accuracy < 0.9


@pytest.mark.parametrize("name", HEADS)
def test_images_are_rejected(name):
    with pytest.raises(SettingError, match="frames of 32 x 24, uint8"):
        HEADS[name](SPEC)


def test_impossible_sizes_raise():
    with pytest.raises(SettingError, match="divisible by heads=3"):
        attentive(of_features(SPEC), units=8, heads=3)
    with pytest.raises(SettingError, match="dropout=1"):
        linear(of_features(SPEC), dropout=1.0)
