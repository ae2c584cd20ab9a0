"""From clip to clip."""

import dataclasses

import keras
import numpy as np
import pytest
from model_specs import SPEC, clips_of, half_padded, padding_changes_nothing, predict

import cinefeed as cf
from cinefeed.adapters.keras import FeedDataset
from cinefeed.core.errors import SettingError
from cinefeed.models import ClipLoss, autoencoder

CLIPS = dataclasses.replace(SPEC, task="clip", target="clip", target_mean=0.0, target_scale=1.0)
SMALL = {"filters": (4, 8), "code": 2}


@pytest.mark.parametrize(
    ("dtype", "black", "white"), [("uint8", 0, 255), ("uint16", 0, 65_535), ("float32", -1, 3), ("float16", -1, 3)]
)
def test_it_gives_clips_in_their_own_units(dtype, black, white):
    spec = dataclasses.replace(CLIPS, dtype=np.dtype(dtype))
    model = autoencoder(spec, **SMALL)
    last = [each for each in model.layers if isinstance(each, keras.layers.Conv3D)][-1]
    for bias, level in ((-1.0, black), (3.0, white)):
        last.set_weights([np.zeros(last.kernel.shape), np.array([bias])])
        output = predict(model, clips_of(spec))
        assert output.dtype == np.float32 and output.shape == (4, *spec.clip_shape)
        assert output == pytest.approx(level, rel=1e-5, abs=1e-3)


def test_padding_changes_nothing_and_is_given_back_black():
    spec = dataclasses.replace(CLIPS, padded=True)
    black, _ = half_padded(spec)
    padding_changes_nothing(lambda: autoencoder(spec, **SMALL), spec, targets=black["clips"], loss=ClipLoss())
    output = autoencoder(spec, **SMALL).predict(black, verbose=0)
    assert not output[:, 3:].any() and output[:, :3].all()


def test_the_code_is_narrow_and_can_be_read():
    model = autoencoder(CLIPS, **SMALL)
    code = keras.Model(model.inputs, model.get_layer("code").output)
    assert code.predict([clips_of(CLIPS)], verbose=0).shape == (4, 5, 8, 6, 2)


def test_saved_and_loaded_in_safe_mode_it_says_the_same(tmp_path):
    model, clips = autoencoder(dataclasses.replace(CLIPS, padded=True), **SMALL), clips_of(CLIPS)
    inputs = {"clips": clips, "valid": np.arange(5) < np.array([[5], [4], [1], [0]])}
    model.compile(optimizer="adam", loss=ClipLoss())
    model.train_on_batch(inputs, clips)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_a_row_of_weight_0_does_not_count():
    model, clips = autoencoder(CLIPS, **SMALL), clips_of(CLIPS)
    model.compile(optimizer="adam", loss=ClipLoss())
    others = clips.copy()
    others[2:] = 0
    weights = np.array([1.0, 1.0, 0.0, 0.0])
    one, other = (model.test_on_batch({"clips": clips}, each, sample_weight=weights) for each in (clips, others))
    assert one == other and model.test_on_batch({"clips": clips}, others) != one
    assert one == pytest.approx(np.mean((predict(model, clips)[:2] - clips[:2].astype(float)) ** 2) / 2, rel=1e-4)


def test_it_trains_on_a_feed(manifest):
    clip, frame = cf.Clip(frames=14, short="pad"), cf.Frame(height=16, width=16, channels=1)
    feed = cf.Feed(manifest, target="clip", clip=clip, frame=frame, batch_size=4, workers=0)
    assert feed.spec.padded
    model = autoencoder(feed.spec, **SMALL)
    model.compile(optimizer="adam", loss=ClipLoss())
    dataset = FeedDataset(feed)
    losses = model.fit(dataset, epochs=2, verbose=0, callbacks=[dataset.callback]).history["loss"]
    assert np.isfinite(losses).all() and losses[0] != losses[1]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"task": "regression"}, {}, "found task 'regression'.*target='clip'"),
        ({"clip_shape": (4, 30, 64, 1)}, {}, "30 x 64 cannot be halved 3 times.* 24 x 64"),
        ({"clip_shape": (4, 4, 64, 1)}, {}, "4 x 64 are too small"),
        ({"views": ("a", "b")}, {}, "stack the views"),
        ({}, {"code": 0}, "code=0"),
    ],
)
def test_what_cannot_fit_is_refused(change, options, message):
    with pytest.raises(SettingError, match=message):
        autoencoder(dataclasses.replace(CLIPS, **change), **options)
