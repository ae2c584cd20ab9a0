"""Networks of keras.applications as the shared CNN."""

import dataclasses

import keras
import numpy as np
import pytest
from model_specs import TASKS, clips_of, predict

from cinefeed.core.errors import SettingError
from cinefeed.models import cnn_rnn

GREY = dataclasses.replace(TASKS["binary"], clip_shape=(2, 32, 32, 1))
COLOUR = dataclasses.replace(GREY, clip_shape=(2, 32, 32, 3))


def lively(model, *, seed=0):
    """Give batch norm statistics as after training: those of the first weights let nothing through."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [np.abs(each) + rng.uniform(0, 0.1, each.shape) * (each.ndim == 1) for each in model.get_weights()]
    )


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file as Keras keeps weights without the top; MobileNet is the quickest to build."""
    model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    lively(model)
    path = tmp_path_factory.mktemp("backbone") / "mobilenet_no_top.weights.h5"
    model.save_weights(path)
    return str(path)


def grey_as_colour(clips):
    return np.repeat(clips, 3, axis=-1)


def features(model, clips):
    """What the backbone gives of each frame."""
    backbone = model.get_layer("backbone")
    prepared = next(each for each in model.layers if isinstance(each, keras.layers.Rescaling))
    frames = clips.reshape(-1, *clips.shape[2:])
    return np.asarray(keras.ops.convert_to_numpy(backbone(prepared(frames), training=False)))


def test_grey_meets_the_sum_of_the_colours(weights):
    grey, colour = (cnn_rnn(spec, backbone="MobileNet", weights=weights, frozen=True) for spec in (GREY, COLOUR))
    assert not grey.get_layer("backbone").trainable_weights and grey.trainable_weights
    kernels = [each.get_layer("backbone").get_weights()[0] for each in (grey, colour)]
    assert kernels[0].shape[2] == 1 and kernels[1].shape[2] == 3
    assert kernels[0][:, :, 0] == pytest.approx(kernels[1].sum(axis=2), abs=1e-6)
    clips = clips_of(GREY)
    expected = features(colour, grey_as_colour(clips))
    assert features(grey, clips) == pytest.approx(expected, rel=1e-3) and np.ptp(expected) > 0


@pytest.mark.slow
def test_stacked_views_share_that_sum(weights):
    clips = clips_of(GREY)
    grey = cnn_rnn(GREY, backbone="MobileNet", weights=weights)
    two = cnn_rnn(dataclasses.replace(GREY, clip_shape=(2, 32, 32, 2)), backbone="MobileNet", weights=weights)
    assert features(two, np.repeat(clips, 2, axis=-1)) == pytest.approx(features(grey, clips), rel=1e-3)


@pytest.mark.slow
def test_frozen_it_is_not_trained_and_unfrozen_it_is(weights, tmp_path):
    model = cnn_rnn(GREY, backbone="MobileNet", weights=weights, frozen=True)
    backbone = model.get_layer("backbone")
    before = backbone.get_weights()
    clips, labels = clips_of(GREY), np.array([0, 1, 1, 0])
    model.compile(optimizer="adam", loss="binary_crossentropy")
    model.train_on_batch({"clips": clips}, labels)
    assert all(np.array_equal(one, two) for one, two in zip(before, backbone.get_weights(), strict=True))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert not again.get_layer("backbone").trainable and np.array_equal(predict(again, clips), predict(model, clips))
    backbone.trainable = True
    model.compile(optimizer="adam", loss="binary_crossentropy")
    model.train_on_batch({"clips": clips}, labels)
    assert any(not np.array_equal(one, two) for one, two in zip(before, backbone.get_weights(), strict=True))


def test_the_seed_fixes_weights_that_no_file_gives():
    first, again, other = (cnn_rnn(GREY, backbone="MobileNet", seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def scaling(spec, backbone):
    model = cnn_rnn(spec, backbone=backbone)
    layer = next(each for each in model.layers if isinstance(each, keras.layers.Rescaling))
    pixels = np.arange(0, 256, 5, dtype=np.float32)[:51].reshape(1, 1, 17, 3)
    return keras.ops.convert_to_numpy(layer(pixels)), pixels, model


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0"])
def test_pixels_come_in_as_the_backbone_was_trained(backbone):
    output, pixels, model = scaling(COLOUR, backbone)
    modules = {"MobileNetV2": "mobilenet_v2", "DenseNet121": "densenet", "EfficientNetB0": "efficientnet"}
    module = getattr(keras.applications, modules.get(backbone, "resnet"))
    turned = backbone == "ResNet50"  # blue comes first there; in the network it is turned before it is scaled
    expected = module.preprocess_input(pixels[..., ::-1].copy() if turned else pixels.copy())
    assert output == pytest.approx(expected, abs=1e-3)
    assert any("flip" in each.name for each in model.operations) == turned
    assert predict(model, clips_of(COLOUR)).shape == (4, 1)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"backbone": "MobileNetv2"}, "did you mean 'MobileNetV2'"),
        (
            {},
            {"backbone": "MobileNet", "weights": "imagenet"},
            "'imagenet' is not a file; give a local weight file of MobileNet",
        ),
        ({}, {"backbone": "MobileNet", "weights": __file__}, "do not fit MobileNet"),
        (
            {"clip_shape": (2, 16, 32, 1)},
            {"backbone": "MobileNet"},
            "does not support frames of 16 x 32 x 1.*at least 32x32",
        ),
        ({"dtype": np.dtype("float32")}, {"backbone": "MobileNetV3Small"}, "feed uint8, without Normalize"),
    ],
)
def test_what_cannot_fit_is_refused(change, options, message):
    with pytest.raises(SettingError, match=message):
        cnn_rnn(dataclasses.replace(GREY, **change), **options)
