import json

import keras
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from made_run import FRAMES, make_manifest

from cinefeed import Inputs
from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.feed import Feed
from cinefeed.feed.labels import FeedSpec, TargetSpec
from cinefeed.metrics import classification_metrics, regression_metrics
from cinefeed.metrics.predictions import read_predictions
from cinefeed.models import ClipLoss
from cinefeed.training.predictions import (
    Scores,
    by_video,
    measure,
    metric_names,
    predictions_table,
    score,
    score_batches,
)
from cinefeed.video.clips import Clip, Frame


@pytest.fixture
def rows(tmp_path):
    holes = [None if row % 4 == 3 else "yn"[row // 2 % 2] for row in range(24)]
    return Manifest.read(make_manifest(tmp_path / "v", holes=holes))


def feed_of(rows, **changes):
    settings = {"target": "age", "clip": Clip(frames=4), "frame": Frame(height=12, width=12, channels=1), "workers": 0}
    return Feed(rows, **{**settings, "batch_size": 5, **changes})


def mean_model(**heads):
    """A network without weights: the mean pixel of a clip, or one head a target by what is made of it."""
    clips = keras.Input((4, 12, 12, 1), name="clips")
    mean = keras.layers.GlobalAveragePooling3D()(keras.layers.Rescaling(1.0)(clips))
    outputs = {name: keras.layers.Lambda(make)(mean) for name, make in heads.items()}
    return keras.Model({"clips": clips}, outputs or mean)


def test_several_clips_are_spread_over_the_video_and_one_is_the_centre(rows):
    feed = feed_of(rows)
    one, three = feed.evaluation(rows), feed.evaluation(rows, clips=3)
    assert [three.settings.batch_size, three.settings.clips_per_video.count, len(three)] == [3, 3, 24]
    starts = [int(clip[0, 0, 0, 0]) for batch in three for clip in batch.clips]
    offsets = np.array(starts).reshape(24, 3) - 9 * np.arange(24)[:, None]
    free = FRAMES - 4
    assert (offsets == [int(free / 6), free // 2, int(free * 5 / 6)]).all()
    centres = [clip.tobytes() for batch in one for clip in batch.clips]
    assert centres == [clip.tobytes() for batch in three for clip in batch.clips[1::3]]
    again = [clip.tobytes() for batch in feed.evaluation(rows, clips=1) for clip in batch.clips]
    assert again == centres, "one clip is today's, byte for byte"
    assert [str(name) for batch in three for name in batch.ids] == [f"v{row}" for row in range(24) for _ in range(3)]


def test_neither_workers_nor_the_seed_change_a_clip(rows):
    def clips(**changes):
        feed = feed_of(rows, clip=Clip(frames=3, stride=2), **changes)
        return [clip.tobytes() for batch in feed.evaluation(rows, clips=4) for clip in batch.clips]

    assert clips() == clips(workers=2) == clips(seed=5)
    assert len(set(clips())) == len(clips())


@pytest.mark.parametrize("position", ["spread", "start"])
def test_a_video_with_one_place_for_a_clip_has_no_more(rows, position):
    feed = feed_of(rows, clip=Clip(frames=4, position=position))
    with pytest.raises(SettingError, match=f"clips=3: with position='{position}' .* take 1, or position='random'"):
        feed.evaluation(rows, clips=3)
    assert feed.evaluation(rows).settings.clip.position == position


@pytest.mark.parametrize("wrong", [0, True, 1.5])
def test_what_is_no_number_of_clips(rows, wrong):
    with pytest.raises(SettingError, match="must be a whole number"):
        feed_of(rows).evaluation(rows, clips=wrong)


def test_clips_of_a_video_are_averaged_before_they_are_measured(rows):
    feed, model = feed_of(rows), mean_model()
    scores = score(model, feed.evaluation(rows, clips=3))
    assert scores.values.shape == (72,) and scores.clip.tolist() == [0, 1, 2] * 24
    videos = by_video(scores)
    assert videos.ids.tolist() == [f"v{row}" for row in range(24)]
    assert videos.values == pytest.approx(scores.values.reshape(24, 3).mean(axis=1))
    result = measure(feed.spec, scores)
    expected = regression_metrics(targets=20.0 + np.arange(24), scores=videos.values)
    assert result == pytest.approx(dict(expected))
    by_clip = regression_metrics(targets=np.repeat(20.0 + np.arange(24), 3), scores=scores.values)
    assert result["rmse"] != pytest.approx(by_clip["rmse"], rel=1e-6), "clips are no videos"


def test_several_targets_are_scored_where_they_have_a_label(rows):
    feed = feed_of(rows, target=["age", "holes", "kind"])
    heads = {
        "age": lambda x: x,
        "holes": lambda x: keras.ops.sigmoid(x - 100),
        "kind": lambda x: keras.ops.softmax(keras.ops.concatenate([x / 50, x / 70, x / 90], axis=-1)),
    }
    scores = score(mean_model(**heads), feed.evaluation(rows, clips=2))
    assert scores.has_label["holes"].sum() == 36 and scores.has_label["age"].all()
    result = measure(feed.spec, scores)
    assert list(result) == metric_names(feed.spec)
    video = by_video(scores).of("holes")
    labels = [each for each in rows.column("holes").to_pylist() if each is not None]
    assert [feed.spec.targets[1].classes[each] for each in video.targets] == labels
    expected = classification_metrics(targets=video.targets, scores=video.values, classes=("n", "y"))
    assert result["holes_auroc"] == expected["auroc"] and result["holes_f1"] == expected["f1"]


def test_a_label_of_weight_0_is_still_a_label(tmp_path):
    rows = Manifest.read(make_manifest(tmp_path / "w", says=[float(row % 2) for row in range(24)]))
    feed = feed_of(rows, target=["age", "sick"], inputs=Inputs(weight="says"))
    model = mean_model(age=lambda x: x, sick=lambda x: keras.ops.sigmoid(x))
    assert score(model, feed.evaluation(rows)).has_label["age"].all()


def test_clips_that_are_given_back_are_scored_by_their_error(rows):
    feed = feed_of(rows, target="clip")
    clips = keras.Input((4, 12, 12, 1), name="clips")
    dimmer = keras.Model({"clips": clips}, keras.layers.Rescaling(0.5)(clips))
    fed = feed.evaluation(rows, clips=2)
    scores = score(dimmer, fed)
    expected = [float(ClipLoss()(batch.clips[k : k + 1], batch.clips[k : k + 1] * 0.5)) for batch in fed for k in (0,)]
    assert scores.values[:: fed.settings.batch_size] == pytest.approx(expected, rel=1e-5)
    assert measure(feed.spec, scores) == {"mse": pytest.approx(scores.values.mean())}
    assert metric_names(feed.spec) == ["mse"]
    table = predictions_table(feed.spec, scores, manifest=rows, part="val", columns=["patient"])
    assert table.column_names == ["id", "path", "split", "clip", "patient", "score"]


def test_scores_come_as_the_feed_does(rows):
    feed, model = feed_of(rows).evaluation(rows), mean_model()
    assert [len(each.ids) for each in score_batches(model, feed)] == [5, 5, 5, 5, 4]
    assert [len(each.ids) for each in score_batches(model, feed, at_least=8)] == [10, 10, 4]
    ids = []
    score(model, feed, tick=ids.append)
    assert sum(ids) == 24


def test_the_table_says_what_it_holds(rows, tmp_path):
    feed = feed_of(rows, target=["age", "holes"])
    scores = score(mean_model(age=lambda x: x, holes=lambda x: keras.ops.sigmoid(x)), feed.evaluation(rows, clips=2))
    table = predictions_table(feed.spec, scores, manifest=rows, part="test", columns=["patient", "sex"])
    names = ["id", "path", "split", "clip", "patient", "sex", "target_age", "score_age", "target_holes", "score_holes"]
    assert table.column_names == names
    assert table["target_holes"].null_count == 12
    assert table["patient"].to_pylist() == [each for each in rows.column("patient").to_pylist() for _ in range(2)]
    assert json.loads(table.schema.metadata[b"cinefeed"])["targets"][1]["classes"] == ["n", "y"]
    pq.write_table(table, tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").targets[0].name == "age"
    private = predictions_table(feed.spec, scores, manifest=rows.as_private(), part="test")
    assert pc.all(pc.equal(private["path"], private["id"])).as_py()


def test_a_column_that_is_called_as_one_of_ours_is_refused(tmp_path):
    rows = Manifest.read(make_manifest(tmp_path / "x", score=[1.0] * 24))
    scores = score(mean_model(), feed_of(rows).evaluation(rows))
    with pytest.raises(SettingError, match="'score' is a reserved column name"):
        predictions_table(feed_of(rows).spec, scores, manifest=rows, part="test", columns=["score"])


def test_scores_of_one_clip_are_left_as_they_are():
    scores = Scores(ids=np.array(["b", "a"]), targets=np.zeros(2), values=np.ones(2), clip=np.zeros(2, np.int32))
    assert by_video(scores) is scores


@pytest.mark.parametrize(
    ("task", "classes", "names"),
    [
        ("regression", (), ["r2", "rmse", "mae", "pearson_r", "bias"]),
        ("binary", ("a", "b"), ["f1", "auroc", "accuracy"]),
        ("multiclass", tuple("abcdef"), ["f1", "auroc", "accuracy"]),
    ],
)
def test_what_is_measured_is_known_before_there_is_a_model(task, classes, names):
    spec = FeedSpec(
        clip_shape=(4, 8, 8, 1), dtype=np.dtype("uint8"), batch_size=2, target="y", task=task, classes=classes
    )
    assert set(names) <= set(metric_names(spec))
    several = FeedSpec(
        clip_shape=(4, 8, 8, 1),
        dtype=np.dtype("uint8"),
        batch_size=2,
        target="y",
        task=task,
        classes=classes,
        targets=(TargetSpec(name="y", task=task, classes=classes), TargetSpec(name="z", task="regression")),
    )
    assert {f"y_{name}" for name in names} | {"z_mae"} <= set(metric_names(several))
