import keras
import numpy as np
import pytest

from cinefeed.adapters.keras import FeedDataset
from cinefeed.core.errors import SettingError, TrainingError
from cinefeed.feed.feed import Feed
from cinefeed.metrics import regression_metrics
from cinefeed.training.callbacks import BestWeights, StopAtNaN, StopWhenF1StaysZero, WholeSetMetrics, mode_of
from cinefeed.video.clips import Clip, Frame


@pytest.fixture
def feed(manifest):
    return Feed(
        manifest,
        target="age",
        clip=Clip(frames=4),
        frame=Frame(height=8, width=8, channels=1),
        batch_size=4,
        workers=0,
    )


def small_model(bias=0.0):
    clips = keras.Input((4, 8, 8, 1), name="clips")
    x = keras.layers.Rescaling(1 / 255)(clips)
    x = keras.layers.GlobalAveragePooling3D()(x)
    x = keras.layers.Dense(1, bias_initializer=keras.initializers.Constant(bias))(x)
    model = keras.Model([clips], x)
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss="mse")
    return model


class Play:
    """Calls a callback as `fit` would, with logs of our own making."""

    def __init__(self, callback, model=None):
        self.model = model or small_model()
        callback.set_model(self.model)
        self.callback = callback

    def epochs(self, *values, name="val_loss"):
        for epoch, value in enumerate(values):
            self.callback.on_epoch_end(epoch, {name: value})
        return self


def test_metrics_are_of_the_whole_set_not_means_of_batches(feed):
    metrics = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: metrics.append(dict(logs)))
    model = small_model(bias=40)
    val = feed.evaluation(feed.manifest)
    dataset = FeedDataset(feed)
    model.fit(dataset, epochs=2, verbose=0, callbacks=[dataset.callback, WholeSetMetrics(val), watch])
    scores = np.concatenate([model.predict_on_batch({"clips": batch.clips})[:, 0] for batch in val])
    truth = np.array(feed.manifest.column("age").to_pylist())
    expected = regression_metrics(targets=truth, scores=scores)
    assert metrics[-1]["val_r2"] == pytest.approx(expected["r2"])
    assert metrics[-1]["val_loss"] == pytest.approx(np.mean((truth - scores) ** 2), rel=1e-5)
    batches = [slice(start, start + 4) for start in range(0, 11, 4)]
    mean_of_batches = np.mean([regression_metrics(targets=truth[b], scores=scores[b])["rmse"] for b in batches])
    assert metrics[-1]["val_rmse"] != pytest.approx(mean_of_batches, rel=1e-3)
    assert [each["learning_rate"] for each in metrics] == pytest.approx([0.1, 0.1])


def test_a_nan_loss_is_not_measured(feed):
    logs = {"loss": float("nan")}
    play = Play(callback := WholeSetMetrics(feed.evaluation(feed.manifest)))
    callback.on_epoch_end(0, logs)
    assert all(np.isnan(logs[f"val_{name}"]) for name in ("loss", "rmse", "r2"))
    before = {"loss": 1.0}
    callback.on_epoch_end(0, before)
    assert before.keys() == logs.keys() and np.isfinite(before["val_rmse"])
    stop = keras.callbacks.EarlyStopping("val_rmse", mode="min")
    for watch in (BestWeights("unused.weights.h5", monitor="val_rmse"), stop):
        watch.set_model(play.model)
        watch.on_train_begin()
        watch.on_epoch_end(0, logs)  # neither refuses the monitor as not measured, nor warns of it


def test_best_weights_follow_the_metric(tmp_path):
    path = tmp_path / "best.weights.h5"
    best = BestWeights(path, monitor="val_loss")
    play = Play(best).epochs(3.0, 2.0, float("nan"), 2.5)
    assert (best.best, best.best_epoch) == (2.0, 1)
    play.model.load_weights(path)
    best = BestWeights(path, monitor="val_auroc")
    Play(best).epochs(0.5, 0.7, 0.6, name="val_auroc")
    assert (best.best, best.best_epoch) == (0.7, 1)
    assert [each.name for each in tmp_path.iterdir()] == ["best.weights.h5"]


def test_weights_that_cannot_be_saved_leave_the_last_good_ones(tmp_path, monkeypatch):
    path = tmp_path / "best.weights.h5"
    play = Play(BestWeights(path)).epochs(3.0)
    good = path.read_bytes()

    def full_disk(partial):
        partial.write_bytes(good[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(play.model, "save_weights", full_disk)
    with pytest.raises(TrainingError, match=r"epoch 3 cannot be saved.*those of epoch 1 are kept"):
        play.callback.on_epoch_end(2, {"val_loss": 1.0})
    assert path.read_bytes() == good
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unknown_monitor_is_named():
    with pytest.raises(SettingError, match=r"val_rmsee.*val_rmse"):
        Play(BestWeights("unused.weights.h5", monitor="val_rmsee")).epochs(1.0, name="val_rmse")


@pytest.mark.parametrize(
    ("monitor", "mode"), [("val_loss", "min"), ("val_rmse", "min"), ("val_r2", "max"), ("val_f1", "max")]
)
def test_which_way_is_better(monitor, mode):
    assert mode_of(monitor) == mode


def test_a_nan_stops_at_its_batch():
    stop = StopAtNaN()
    play = Play(stop)
    stop.on_epoch_begin(2)
    stop.on_train_batch_end(0, {"loss": 1.0})
    assert not stop.reason
    stop.on_train_batch_end(1, {"loss": float("nan")})
    assert stop.reason == "the loss is nan at epoch 3, batch 2"
    assert play.model.stop_training


def test_f1_must_be_zero_in_a_row():
    stop = StopWhenF1StaysZero(patience=2)
    Play(stop).epochs(0.0, 0.1, 0.0, name="val_f1")
    assert not stop.reason
    assert Play(stop).epochs(0.0, name="val_f1").model.stop_training
    assert "2 epochs" in stop.reason


@pytest.mark.parametrize(("name", "value"), [("val_rmse", 3.0), ("val_sick_f1", 0.0)])  # one of several targets
def test_without_f1_nothing_stops(name, value):
    Play(stop := StopWhenF1StaysZero(patience=1)).epochs(value, name=name)
    assert not stop.reason
