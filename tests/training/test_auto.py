import numpy as np
import pytest

from cinefeed.config import parse
from cinefeed.feed.labels import FeedSpec
from cinefeed.training.auto import with_choices
from cinefeed.training.run import setting_differences


def settings_for(**sections):
    table = {"data": {"manifest": "m", "target": "y", "split": {"group": False}}, "frame": {"height": 32, "width": 32}}
    return parse({**table, "train": {"out": "r", **sections.pop("train", {})}, **sections})


def spec_for(*, frames=16, height=32, width=32, task="binary"):
    shape, classes = (frames, height, width, 1), ("a", "b") if task == "binary" else ()
    return FeedSpec(clip_shape=shape, dtype=np.dtype("uint8"), batch_size=8, target="y", task=task, classes=classes)


@pytest.mark.parametrize(
    ("spec", "clip", "model", "rate"),
    [
        ({}, {}, "cnn3d", 3e-3),
        ({"task": "regression"}, {}, "cnn_rnn", 3e-3),
        ({"frames": 3}, {}, "cnn_rnn", 3e-3),
        ({"height": 12}, {}, "cnn_rnn", 3e-3),
        ({"height": 1, "width": 1280}, {}, "attentive", 1e-3),
        ({"height": 1, "width": 1280}, {"position": "spread"}, "ordered", 2e-3),
        ({"task": "clip"}, {}, "autoencoder", 1e-3),
    ],
)
def test_the_network_and_its_rate_follow_the_clips(spec, clip, model, rate):
    settings = with_choices(settings_for(clip=clip), spec_for(**spec), videos=100, batches=13)
    assert (settings.model.name, settings.train.learning_rate) == (model, rate)
    assert settings.train.epochs == 100


def test_epochs_make_about_1500_steps_and_dropout_is_for_few_videos():
    few, many = (with_choices(settings_for(), spec_for(), videos=n, batches=n // 8) for n in (480, 4800))
    assert (few.train.epochs, many.train.epochs) == (25, 10)
    assert few.model.options == {"dropout": 0.2} and many.model.options == {}
    whole = with_choices(settings_for(clip={"position": "spread"}), spec_for(), videos=480, batches=60)
    assert whole.model.options == {"pooling": "ordered", "dropout": 0.2}
    late = with_choices(settings_for(train={"unfreeze_epoch": 30}), spec_for(), videos=480, batches=60)
    assert late.train.epochs == 31


def test_what_is_set_is_kept():
    train = {"epochs": 3, "learning_rate": 0.5}
    settings = settings_for(train=train, model={"name": "cnn_rnn", "units": 4})
    assert with_choices(settings, spec_for(), videos=10, batches=2) == settings


def test_a_run_with_its_choices_is_the_same_run():
    settings = settings_for()
    run = with_choices(settings, spec_for(), videos=100, batches=13)
    assert setting_differences(run, settings) == {}
    changed = settings_for(train={"epochs": 7, "schedule": "cosine"}, model={"name": "cnn3d"})
    assert setting_differences(run, changed) == {
        ("model", "dropout"): (0.2, None),
        ("train", "epochs"): (100, 7),
        ("train", "schedule"): ("plateau", "cosine"),
    }
