"""Covariates, views and several targets: what a feed gives is what a network takes, and a step can be trained."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
from model_specs import SPEC, TASKS, clips_of

import cinefeed as cf
from cinefeed.adapters.keras import FeedDataset
from cinefeed.config import parse
from cinefeed.core.errors import SettingError
from cinefeed.feed.covariates import Covariate
from cinefeed.feed.labels import TargetSpec
from cinefeed.models import cnn3d, cnn_rnn
from cinefeed.training.network import compile_model

NETWORKS = {
    "cnn_rnn": lambda spec, **options: cnn_rnn(spec, filters=(4, 8), units=6, dense=8, **options),
    "cnn3d": lambda spec, **options: cnn3d(spec, dense=8, **options),
}
SETTINGS = parse(
    {
        "data": {"manifest": "m", "target": "age", "split": {"group": False}},
        "frame": {"height": 16, "width": 16},
        "train": {"out": "unused", "epochs": 2, "learning_rate": 0.001},
    }
)


IMAGES = dataclasses.replace(SPEC, clip_shape=(16, 112, 112, 1))
FEATURES = dataclasses.replace(SPEC, clip_shape=(16, 1, 64, 1), dtype=np.dtype("float32"))


@pytest.mark.parametrize(
    ("name", "spec", "options"),
    [
        ("cnn_rnn", IMAGES, {}),
        ("feature_rnn", FEATURES, {}),
        ("linear", FEATURES, {}),
        ("attentive", FEATURES, {}),
        ("ordered", FEATURES, {}),
        ("cnn3d", IMAGES, {}),
        ("cnn3d", IMAGES, {"size": "r2plus1d_18"}),
        ("autoencoder", dataclasses.replace(IMAGES, target="clip", task="clip"), {}),
    ],
)
def test_the_page_has_the_number_of_parameters(name, spec, options):
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    [row] = [line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
    assert f"{getattr(cf.models, name)(spec, **options).count_params():,}" in row.split("|")[-2]


@pytest.fixture
def studies(tmp_path):
    """Six studies of two views, with two covariates; some labels are missing."""
    rows = []
    for study in range(6):
        for view in ("2ch", "4ch"):
            frames = np.random.default_rng(study).integers(0, 256, (10, 16, 16)).astype(np.uint8)
            np.save(tmp_path / f"s{study}_{view}.npy", frames)
            rows.append(
                {
                    "path": f"s{study}_{view}.npy",
                    "view": view,
                    "study": f"s{study}",
                    "age": 30.0 + study,
                    "tall": [150.0, None, 170, 180, 190, 160][study],
                    "site": "ab"[study % 2],
                    "finding": ["x", "y", None, "z", None, "x"][study],
                    "weight": [60.0, None, None, 80, 90, 70][study],
                }
            )
    return cf.Manifest.from_table(pa.Table.from_pylist(rows), root=tmp_path).pivot(by="view", within="study")


def feed_of(studies, **changes):
    settings = {
        "target": ["age", "finding", "weight"],
        "task": {"finding": "multiclass"},
        "inputs": cf.Inputs(covariates=["tall", "site"]),
        "clip": cf.Clip(frames=12, short="pad"),
        "frame": cf.Frame(height=16, width=16, channels=1),
        "batch_size": 3,
        "workers": 0,
        "seed": 1,
    }
    return cf.Feed(studies, **{**settings, **changes})


@pytest.mark.parametrize(
    ("network", "views"),
    [
        ("cnn_rnn", "shared"),
        ("cnn_rnn", "own"),
        ("cnn_rnn", "stacked"),
        pytest.param("cnn3d", "shared", marks=pytest.mark.slow),
        pytest.param("cnn3d", "own", marks=pytest.mark.slow),
        ("cnn3d", "stacked"),
    ],
)
def test_a_step_is_trained_on_a_feed_with_everything(studies, network, views, tmp_path):
    inputs = cf.Inputs(covariates=["tall", "site"], stack=views == "stacked")
    feed = feed_of(studies, inputs=inputs)
    assert feed.spec.padded and len(feed.spec.targets) == 3
    model = NETWORKS[network](feed.spec, encoders="own" if views == "own" else "shared")
    clips = {"clips"} if views == "stacked" else {"clips_2ch", "clips_4ch"}
    assert {each.name for each in model.inputs} == {*clips, "tall", "site", "valid"}
    compile_model(model, SETTINGS, feed.spec, steps=4)
    dataset = FeedDataset(feed)
    history = model.fit(dataset, epochs=2, verbose=0, callbacks=[dataset.callback]).history
    assert {"age_loss", "finding_loss", "weight_loss", "loss"} <= set(history)
    assert np.isfinite(list(history.values())).all() and history["loss"][0] != history["loss"][1]
    inputs = feed.batch(0).inputs(padded=True)
    scores = model.predict(inputs, verbose=0)
    assert {name: each.shape for name, each in scores.items()} == {"age": (3, 1), "finding": (3, 3), "weight": (3, 1)}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True).predict(inputs, verbose=0)
    assert all(np.array_equal(again[name], each) for name, each in scores.items())


def test_encoders_of_their_own_are_two_and_shared_ones_are_one():
    spec = dataclasses.replace(SPEC, views=("2ch", "4ch"))
    one, shared, own = cnn_rnn(SPEC), cnn_rnn(spec), cnn_rnn(spec, encoders="own")
    head = 64 * 64  # the dense layer reads the features of both views
    assert shared.count_params() == one.count_params() + head
    encoder = one.count_params() - (64 * 64 + 64) - (64 + 1)
    assert own.count_params() == shared.count_params() + encoder
    kernels = [each.get_weights()[0] for each in own.layers if isinstance(each, keras.layers.Conv2D)]
    assert sum(kernel.shape == (5, 5, 1, 16) for kernel in kernels) == 2
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels)


@pytest.mark.parametrize("encoders", ["shared", "own"])
def test_each_view_counts(encoders):
    spec = dataclasses.replace(TASKS["binary"], views=("a", "b"))
    model = NETWORKS["cnn_rnn"](spec, encoders=encoders)
    one, other = clips_of(spec, seed=1), clips_of(spec, seed=2)
    ab, aa, bb = (
        model.predict({"clips_a": first, "clips_b": second}, verbose=0)
        for first, second in ((one, other), (one, one), (other, other))
    )
    assert min(np.abs(ab - aa).max(), np.abs(ab - bb).max()) > 1e-4


def test_the_head_uses_covariates():
    covariates = (Covariate(name="age", mean=50, scale=9), Covariate(name="site", categories=("a", "b", "c")))
    model = cnn_rnn(dataclasses.replace(TASKS["binary"], covariates=covariates))
    assert model.count_params() == cnn_rnn(TASKS["binary"]).count_params() + 4 * 64
    clips, site = clips_of(SPEC), np.eye(4, 3, dtype=np.float32)
    young, old = (
        model.predict({"clips": clips, "age": np.full((4, 1), age, np.float32), "site": site}, verbose=0)
        for age in (-1, 1)
    )
    assert np.abs(young - old).max() > 1e-4


def heads(*, scale=10.0):
    targets = (
        TargetSpec(name="ef", task="regression", mean=55.0, scale=scale),
        TargetSpec(name="sick", task="binary", classes=("no", "yes")),
        TargetSpec(name="a/b", task="multiclass", classes=("a", "b", "c")),
    )
    return dataclasses.replace(SPEC, target="ef", target_mean=55.0, target_scale=scale, targets=targets)


def test_a_missing_label_does_not_count():
    spec = heads()
    targets = {"ef": np.array([40.0, 60, 50, 70]), "sick": np.array([0, 1, 1, 0]), "a/b": np.array([0, 1, 2, 0])}
    weights = {"ef": np.array([1.0, 1, 0, 1]), "sick": np.ones(4), "a/b": np.array([1.0, 0, 0, 1])}
    changed = {"ef": np.array([40.0, 60, 999, 70]), "sick": targets["sick"], "a/b": np.array([0, 2, 0, 0])}

    def stepped(labels):
        model = NETWORKS["cnn_rnn"](spec)
        compile_model(model, SETTINGS, spec, steps=4)
        loss = model.train_on_batch({"clips": clips_of(spec)}, labels, sample_weight=weights)
        return loss, model.get_weights()

    (loss, one), (same, other) = stepped(targets), stepped(changed)
    assert loss == same and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    counted = {**targets, "ef": np.array([40.0, 60, 50, 99])}
    assert stepped(counted)[0] != loss


def test_each_of_several_losses_counts_alike():
    spec = heads(scale=10.0)
    model = NETWORKS["cnn_rnn"](spec)
    compile_model(model, SETTINGS, spec, steps=4)
    targets = {"ef": np.array([45.0, 65, 45, 65]), "sick": np.array([0, 1, 1, 0]), "a/b": np.array([0, 1, 2, 0])}
    losses = model.test_on_batch({"clips": clips_of(spec)}, targets, return_dict=True)
    assert losses["ef_loss"] == pytest.approx(100.0)  # the first predictions are the mean, which is 10 off
    assert losses["loss"] == pytest.approx(1.0 + losses["sick_loss"] + losses["a/b_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariates": (Covariate(name="kg/m2"),)}, "not support '/' in the name of an input; found 'kg/m2'"),
        ({"targets": (TargetSpec(name="clip", task="clip"),)}, "use the autoencoder"),
        ({"targets": (TargetSpec(name="b", task="binary", classes=("x",)),)}, "'b' needs two classes; found 1: x"),
        ({"targets": (TargetSpec(name="ef", task="regression", scale=0.0),)}, "'ef' target_mean=0.0, target_scale=0.0"),
    ],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_what_cannot_be_is_refused(network, change, message):
    with pytest.raises(SettingError, match=message):
        NETWORKS[network](dataclasses.replace(SPEC, clip_shape=(8, 16, 16, 1), **change))
