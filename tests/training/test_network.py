import dataclasses

import keras
import numpy as np
import pytest

from cinefeed.config import parse
from cinefeed.core.errors import SettingError
from cinefeed.feed.covariates import Covariate
from cinefeed.feed.labels import FeedSpec, TargetSpec
from cinefeed.models import ClipLoss
from cinefeed.training.network import LayerwiseAdam, build_model, compile_model, loss_for


def settings_for(*, train=None, model=None):
    return parse(
        {
            "data": {"manifest": "m", "target": "y", "split": {"group": False}},
            "frame": {"height": 70, "width": 70, "channels": 1},
            "model": model or {"name": "cnn_rnn"},
            "train": {"out": "unused", "epochs": 20, "learning_rate": 1e-3, **(train or {})},
        }
    )


def spec_for(task="regression", *, dtype="uint8", padded=False, classes=()):
    return FeedSpec(
        clip_shape=(3, 70, 70, 1),
        dtype=np.dtype(dtype),
        batch_size=2,
        target="y",
        task=task,
        classes=classes,
        target_mean=60.0,
        target_scale=10.0,
        padded=padded,
    )


def test_the_seed_of_the_feed_is_the_models():
    first, again = build_model(settings_for(), spec_for()), build_model(settings_for(), spec_for())
    other = build_model(settings_for(model={"seed": 5}), spec_for())
    same = [np.array_equal(a, b) for a, b in zip(first.get_weights(), again.get_weights(), strict=True)]
    assert all(same)
    assert not all(np.array_equal(a, b) for a, b in zip(first.get_weights(), other.get_weights(), strict=True))


def test_padded_clips_bring_their_validity():
    assert [each.name for each in build_model(settings_for(), spec_for()).inputs] == ["clips"]
    assert {each.name for each in build_model(settings_for(), spec_for(padded=True)).inputs} == {"clips", "valid"}


def test_the_reference_network_is_for_scaled_regressions():
    settings = settings_for(model={"name": "reference_cnn_lstm"})
    assert build_model(settings, spec_for(dtype="float32")).output_shape == (None, 1)
    with pytest.raises(
        SettingError, match=r"needs scaled float32 clips, the feed provides uint8; add the transform Normalize"
    ):
        build_model(settings, spec_for())
    with pytest.raises(SettingError, match=r"cannot be used for the task 'binary'"):
        build_model(settings, spec_for("binary", dtype="float32", classes=("a", "b")))


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"padded": True}, "clips, valid"),
        ({"covariates": (Covariate(name="age"),)}, "age, clips"),
        ({"views": ("2ch", "4ch")}, "clips_2ch, clips_4ch"),
    ],
)
def test_what_the_reference_network_does_not_read_is_refused(change, shape):
    spec = dataclasses.replace(spec_for(dtype="float32"), **change)
    with pytest.raises(SettingError, match=f"has the inputs clips, the feed provides {shape}; use cnn_rnn"):
        build_model(settings_for(model={"name": "reference_cnn_lstm"}), spec)


def several(**change):
    targets = (
        TargetSpec(name="y", task="regression", mean=60.0, scale=10.0),
        TargetSpec(name="sick", task="binary", classes=("no", "yes")),
        TargetSpec(name="kind", task="multiclass", classes=("a", "b", "c")),
    )
    return dataclasses.replace(spec_for(), targets=targets, **change)


@pytest.mark.parametrize("name", ["cnn_rnn", "cnn3d"])
def test_every_network_for_scores_is_found_by_its_name(name):
    spec = dataclasses.replace(several(padded=True, views=("a", "b")), clip_shape=(4, 70, 70, 1))
    model = build_model(settings_for(model={"name": name, "encoders": "own"}), spec)
    assert set(model.output) == {"y", "sick", "kind"} and len(model.inputs) == 3 and model.name == name
    with pytest.raises(SettingError, match=r"found task 'regression'"):
        build_model(settings_for(model={"name": "autoencoder"}), spec)


def test_the_autoencoder_is_for_clips():
    spec = dataclasses.replace(spec_for("clip"), clip_shape=(3, 72, 72, 1))
    assert build_model(settings_for(model={"name": "autoencoder"}), spec).output.shape == (None, 3, 72, 72, 1)
    assert isinstance(loss_for(settings_for(), spec), ClipLoss)
    with pytest.raises(SettingError, match="70 x 70 cannot be halved 3 times"):
        build_model(settings_for(model={"name": "autoencoder"}), spec_for("clip"))
    with pytest.raises(SettingError, match="use the autoencoder"):
        build_model(settings_for(), spec_for("clip"))


def test_a_loss_is_no_model():
    with pytest.raises(SettingError, match="'ClipLoss' is not a model"):
        build_model(settings_for(model={"name": "ClipLoss"}), spec_for())


def test_the_file_of_a_backbone_is_needed_for_its_start_alone():
    settings = settings_for(model={"backbone": "MobileNet", "weights": "gone.h5", "frozen": True})
    with pytest.raises(SettingError, match=r"'gone\.h5' is not a file"):
        build_model(settings, spec_for())
    assert not build_model(settings, spec_for(), trained=True).get_layer("backbone").trainable


def test_several_targets_have_a_loss_each_by_name():
    losses = loss_for(settings_for(train={"loss": "huber"}), several())
    assert {name: type(loss).__name__ for name, loss in losses.items()} == {
        "y": "Huber",
        "sick": "BinaryCrossentropy",
        "kind": "SparseCategoricalCrossentropy",
    }


def test_shares_of_classes_have_another_loss():
    soft = dataclasses.replace(spec_for("multiclass", classes=("a", "b", "c")), soft=True)
    shares = np.array([[0.5, 0.5, 0.0]], np.float32)
    assert float(loss_for(settings_for(), soft)(shares, shares)) == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("task", "classes", "loss"),
    [
        ("regression", (), keras.losses.MeanSquaredError),
        ("binary", ("a", "b"), keras.losses.BinaryCrossentropy),
        ("multiclass", ("a", "b", "c"), keras.losses.SparseCategoricalCrossentropy),
    ],
)
def test_the_loss_follows_the_task(task, classes, loss):
    assert isinstance(loss_for(settings_for(), spec_for(task, classes=classes)), loss)


def test_huber_is_linear_beyond_one_scale():
    loss = loss_for(settings_for(train={"loss": "huber"}), spec_for())
    errors = np.array([5.0, 20.0, 30.0], np.float32)
    values = [float(loss(np.zeros((1, 1), np.float32), error.reshape(1, 1))) for error in errors]
    assert values == pytest.approx([12.5, 150.0, 250.0])


def test_a_cosine_falls_to_nothing():
    model = build_model(settings_for(), spec_for())
    compile_model(model, settings_for(train={"schedule": "cosine"}), spec_for(), steps=10)
    rate = model.optimizer._learning_rate
    assert float(rate(0)) == pytest.approx(1e-3)
    assert float(rate(10)) == pytest.approx(0.0, abs=1e-9)


CLASSES = ("a", "b", "c")


def test_label_smoothing_is_that_of_keras_for_numbers_and_shares():
    settings = settings_for(train={"label_smoothing": 0.3})
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    shares = np.eye(3, dtype=np.float32)[[0, 2]]
    expected = float(keras.losses.CategoricalCrossentropy(label_smoothing=0.3)(shares, p))
    loss = loss_for(settings, spec_for("multiclass", classes=CLASSES))
    assert float(loss(np.array([0, 2]), p)) == pytest.approx(expected)
    assert float(loss(shares, p)) == pytest.approx(expected)
    binary = loss_for(settings, spec_for("binary", classes=("a", "b")))
    assert float(binary(np.ones((1, 1)), np.full((1, 1), 0.85))) == pytest.approx(0.4227, abs=1e-4)  # least at 0.85


@pytest.mark.parametrize(
    ("train", "task", "classes", "reason"),
    [
        ({}, "regression", (), "no target has classes"),
        ({"loss": "focal"}, "multiclass", CLASSES, "the loss is 'focal'"),
    ],
)
def test_label_smoothing_is_for_cross_entropy(train, task, classes, reason):
    settings = settings_for(train={"label_smoothing": 0.1, **train})
    with pytest.raises(SettingError, match=rf"label_smoothing = 0.1 is for cross-entropy, and {reason}"):
        loss_for(settings, spec_for(task, classes=classes))


def test_weight_decay_shrinks_weights_alone():
    model = build_model(settings_for(model={"norm": "batch"}), spec_for())
    compile_model(model, settings_for(train={"weight_decay": 0.5, "learning_rate": 0.1}), spec_for(), steps=1)
    weights = model.trainable_variables
    before = [np.array(keras.ops.convert_to_numpy(each)) for each in weights]
    model.optimizer.build(weights)
    model.optimizer.apply([keras.ops.zeros_like(each) for each in weights])
    shrunk = {}
    for old, variable in zip(before, weights, strict=True):
        new = keras.ops.convert_to_numpy(variable)
        factor = 1.0 if variable.name in ("bias", "gamma", "beta") else 0.95
        np.testing.assert_allclose(new, factor * old, rtol=1e-6)
        shrunk[variable.name] = factor
    assert shrunk["kernel"] == 0.95 and shrunk["bias"] == shrunk["gamma"] == 1.0


def test_weight_decay_has_the_rate_of_the_layer():
    variables = [keras.Variable(np.ones(2, np.float32), name=name) for name in ("low", "high")]
    optimizer = LayerwiseAdam(0.1, {id(variables[0]): 0.5}, weight_decay=0.5)
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros((2,))] * 2)
    assert [float(keras.ops.convert_to_numpy(each)[0]) for each in variables] == pytest.approx([0.975, 0.95])
