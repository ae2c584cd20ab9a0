"""Losses, class weights, precision, and the loss of a whole validation part for every task."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
import numpy as np
import pyarrow as pa
import pytest
from sklearn.utils.class_weight import compute_sample_weight

import cinefeed as cf
from cinefeed.config import overlay, parse, to_table
from cinefeed.core.errors import SettingError
from cinefeed.feed.feed import Feed
from cinefeed.training.batches import TrainingSet
from cinefeed.training.callbacks import loss_of
from cinefeed.training.fit import train
from cinefeed.training.losses import Focal, RootMeanSquaredError, class_weights
from cinefeed.training.network import build_model, compile_model, frozen_backbones, stages
from cinefeed.training.predictions import score
from cinefeed.training.run import read_run
from cinefeed.video.clips import Clip, Frame

SMALL = {"clip": Clip(frames=4), "frame": Frame(height=8, width=8, channels=1), "batch_size": 4, "workers": 0}


@pytest.fixture
def path(manifest, tmp_path):
    manifest.write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def settings_for(path, **sections):
    table = {
        "data": {"manifest": str(path), "target": "age", "split": {"group": False, "val": 0.3, "test": 0.2, "seed": 1}},
        "clip": {"frames": 4},
        "frame": {"height": 8, "width": 8, "channels": 1},
        "feed": {"batch_size": 3, "seed": 7, "workers": 0},
        "model": {"filters": [4, 4], "units": 4, "dense": 0},
        "train": {"out": str(path.parent / "run"), "epochs": 2, "learning_rate": 0.001},
    }
    return parse(overlay(table, sections))


def values(*numbers):
    return np.array(numbers, np.float32).reshape(-1, 1)


def test_rmse_is_the_root_and_can_be_perfect():
    loss = RootMeanSquaredError()
    assert float(loss(values(0, 0), values(3, 4))) == pytest.approx(np.sqrt(12.5))
    assert float(loss(values(1, 2), values(1, 2))) == pytest.approx(0, abs=1e-5)
    weighted = float(loss(values(0, 0), values(3, 4), np.array([0.0, 1.0], np.float32)))
    assert weighted == pytest.approx(4)  # a row of weight 0 counts for nothing


def test_focal_is_keras_own_for_two_classes_and_the_papers_for_more():
    labels, scores = np.array([1.0, 0.0, 1.0], np.float32), values(0.9, 0.3, 0.2)
    theirs = keras.losses.BinaryFocalCrossentropy(gamma=2.0)(labels.reshape(-1, 1), scores)
    assert float(Focal()(labels, scores)) == pytest.approx(float(theirs), rel=1e-4)
    numbers = np.array([2, 0])
    shares = np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]], np.float32)
    by_hand = -np.mean([(1 - 0.5) ** 2 * np.log(0.5), (1 - 0.7) ** 2 * np.log(0.7)])
    assert float(Focal()(numbers, shares)) == pytest.approx(by_hand, rel=1e-5)
    assert float(Focal()(np.eye(3, dtype=np.float32)[numbers], shares)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("loss", ["rmse", "mae", "huber", "mse"])
def test_each_loss_of_a_regression_trains(path, loss):
    result = train(settings_for(path, train={"loss": loss, "epochs": 1, "clip_norm": 1.0}))
    assert np.isfinite(result.metrics["test"]["rmse"])


def test_a_loss_that_does_not_fit_is_refused(path):
    with pytest.raises(SettingError, match="loss = 'focal' is for classes; the task is 'regression'"):
        train(settings_for(path, train={"loss": "focal"}))
    assert not (path.parent / "run").exists()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_focal_and_class_weights_train(path, task):
    data = {"target": "sick", "task": task, "split": {"stratify": "sick"}}
    train(settings_for(path, data=data, train={"loss": "focal", "class_weights": "balanced"}))


def test_balanced_weights_are_those_of_scikit_learn(manifest):
    feed = Feed(manifest, target="sick", **SMALL)
    dataset = TrainingSet(feed, class_weights=class_weights(feed))
    plain = TrainingSet(Feed(manifest, target="sick", **SMALL))
    for each in (dataset, plain):
        each.on_epoch_begin()
    weights = np.concatenate([np.asarray(dataset[0][2]) for _ in range(len(dataset))])
    targets = np.concatenate([np.asarray(plain[0][1]) for _ in range(len(plain))])
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", targets), rtol=1e-6)


def test_class_weights_have_their_place(manifest, path):
    balanced = Feed(manifest, target="sick", sampler=cf.BalancedClasses(), **SMALL)
    with pytest.raises(SettingError, match="both balance; use one of the two"):
        class_weights(balanced)
    with pytest.raises(SettingError, match="is for classes"):
        class_weights(Feed(manifest, target="age", **SMALL))
    with pytest.raises(SettingError, match="no training row has the class 'yes'"):
        class_weights(Feed(manifest.where("sick", ["no"]), target="sick", classes=["no", "yes"], **SMALL))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_the_models_alone(path, precision):
    settings = settings_for(path, train={"precision": precision, "epochs": 1})
    folder = train(settings).folder
    assert keras.config.dtype_policy().name == "float32"
    _, spec, _ = read_run(folder)
    model = build_model(settings, spec)
    assert model.layers[2].compute_dtype == precision.removeprefix("mixed_")
    assert model.output.dtype == "float32"
    compile_model(model, settings, spec, steps=10)
    assert (type(model.optimizer).__name__ == "LossScaleOptimizer") == (precision == "mixed_float16")


def test_a_failed_build_leaves_the_precision_as_it_was(path):
    settings = settings_for(path, train={"precision": "mixed_bfloat16"}, model={"filters": [4] * 8})
    with pytest.raises(SettingError, match="too small"):
        train(settings)
    assert keras.config.dtype_policy().name == "float32"


def test_gradients_are_clipped_where_asked(path):
    settings = settings_for(path, train={"clip_norm": 0.5})
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    compile_model(model, settings, Feed(cf.Manifest.read(path), target="age", **SMALL).spec, steps=10)
    assert model.optimizer.global_clipnorm == 0.5


def test_unfreezing_needs_a_frozen_backbone(path):
    with pytest.raises(SettingError, match="unfreeze_epoch needs a frozen backbone"):
        train(settings_for(path, train={"unfreeze_epoch": 1}))


@pytest.mark.slow
def test_a_real_backbone_is_unfrozen_and_scored(manifest, path):
    sections = {
        "frame": {"height": 32, "width": 32},
        "model": {"backbone": "MobileNetV2", "frozen": True, "filters": [4, 4]},
        "train": {"unfreeze_epoch": 1, "unfreeze_learning_rate": 1e-5},
    }
    losses = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: losses.append(
            (watch.model.get_layer("backbone").trainable, logs["learning_rate"])
        )
    )
    result = train(settings_for(path, **sections), callbacks=[watch])
    assert [each[0] for each in losses] == [False, True]
    assert [each[1] for each in losses] == pytest.approx([1e-3, 1e-5])
    assert result.complete
    settings, spec, _ = read_run(result.folder)
    assert len(frozen_backbones(build_model(settings, spec))) == 1
    assert [each.end for each in stages(settings)] == [1, 2]


# val_loss: of the whole part, for every task


def compiled(path, feed, **sections):
    settings = settings_for(path, **sections)
    model = build_model(settings, feed.spec)
    compile_model(model, settings, feed.spec, steps=10)
    return model


def test_the_loss_of_several_targets_leaves_out_missing_labels(manifest, path):
    ages = [None, *manifest.column("age").to_pylist()[1:]]
    table = manifest.table.set_column(manifest.table.column_names.index("age"), "age", pa.array(ages))
    feed = Feed(cf.Manifest.from_table(table, root=path.parent), target=["age", "sick"], **SMALL)
    model = compiled(path, feed)
    val = feed.evaluation(feed.manifest)
    scores = score(model, val)
    age, sick = scores.values["age"], np.clip(scores.values["sick"], 1e-7, 1 - 1e-7)
    squares = np.square(age[1:] - np.array(ages[1:])) / feed.spec.targets[0].scale ** 2
    yes = scores.targets["sick"] == 1
    entropy = -np.mean(np.where(yes, np.log(sick), np.log(1 - sick)))
    # Keras divides by all rows, those of weight 0 too, as it does in training
    assert loss_of(model, scores) == pytest.approx(squares.sum() / 11 + entropy, rel=1e-4)


def test_targets_mixed_in_training_are_class_numbers_in_validation(path):
    mixing = {"name": "MixUp", "alpha": 0.4}
    data = {"target": "sick", "task": "multiclass", "split": {"stratify": "sick"}}
    result = train(settings_for(path, data=data, feed={"mixing": mixing}))
    line = (result.folder / "history.csv").read_text().splitlines()
    row = dict(zip(line[0].split(","), line[1].split(","), strict=True))
    assert np.isfinite(float(row["val_loss"]))


def test_several_targets_train_from_end_to_end(path):
    settings = settings_for(
        path,
        data={"target": ["age", "sick"], "split": {"stratify": "sick"}},
        train={"monitor": "val_age_rmse", "class_weights": "balanced"},
    )
    result = train(settings, progress=True)
    assert {"age_rmse", "sick_auroc"} <= set(result.metrics["test"])


def test_an_autoencoder_trains_from_end_to_end(path, capsys):
    settings = settings_for(path, data={"target": "clip"})
    settings = parse({**to_table(settings), "model": {"name": "autoencoder", "filters": [4, 4]}})
    result = train(settings, progress=True)
    assert "val_mse" in capsys.readouterr().err
    assert result.metrics["test"]["mse"] > 0


def test_a_row_whose_label_is_missing_does_not_make_the_root_small():
    true, predicted = np.zeros((4, 1), np.float32), np.array([[1.0], [7.0], [9.0], [9.0]], np.float32)
    loss = RootMeanSquaredError()
    assert float(loss(true, predicted, sample_weight=np.array([1.0, 1.0, 0.0, 0.0]))) == pytest.approx(5.0)
    assert float(loss(true, predicted, sample_weight=np.zeros(4))) == pytest.approx(0.0, abs=1e-5)
