import dataclasses
import inspect

import keras
import numpy as np
import pyarrow as pa
import pytest

from cinefeed import Clip, Feed, Frame, Manifest
from cinefeed.config import parse
from cinefeed.metrics.predictions import predictions_of, target_columns
from cinefeed.training import sample_images as pictures
from cinefeed.training.saliency import occlude
from cinefeed.training.sample_images import keep_pictures
from cinefeed.training.worst_cases import by_error, shrink

SHAPE = (8, 24, 24, 1)
SETTINGS = parse(
    {
        "data": {"manifest": "m.parquet", "target": "age", "split": {"group": False}},
        "frame": {"height": 24, "width": 24},
        "train": {"out": "run"},
    }
)


def looks_at(*, time=slice(None), y=slice(None), x=slice(None), shape=SHAPE, outputs=1):
    """A network that reads the brightness of one part of a clip and nothing else."""
    clips = keras.Input(shape, name="clips", dtype="uint8")
    pixel = keras.ops.cast(clips[:, time, y, x], "float32")
    mean = keras.ops.mean(pixel, axis=(1, 2, 3, 4))[:, None] / 255.0
    return keras.Model({"clips": clips}, mean if outputs == 1 else keras.ops.concatenate([1 - mean, mean], axis=1))


@pytest.fixture
def feed(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", rng.integers(0, 256, SHAPE[:3]).astype(np.uint8))
    table = pa.table(
        {
            "id": [f"v{i}" for i in range(12)],
            "path": [f"{i}.npy" for i in range(12)],
            "age": [30.0 + i for i in range(12)],
        }
    )
    manifest = Manifest.from_table(table, root=tmp_path)
    frame = Frame(height=24, width=24, channels=1)
    return Feed(manifest, target="age", clip=Clip(frames=8), frame=frame, batch_size=5, workers=0)


def table_of(scores, *, labels=None, part="test", ids=None):
    count = len(scores)
    columns = {
        "id": ids or [f"v{i}" for i in range(count)],
        "split": [part] * count,
        "target": labels or [30.0 + i for i in range(count)],
        "score": scores,
    }
    return predictions_of(pa.table(columns), [target_columns("age", task="regression")])


def bright_clip(feed):
    """A batch whose first clip is bright in one corner and one span, where the networks look."""
    batch = feed.batch(0)
    batch.clips[:] = 20
    batch.clips[:, :, 12:, :12] = 220  # the lower left quadrant
    batch.clips[:, 4:6] = 250  # and a flash
    return batch


def test_the_map_peaks_in_the_quadrant_that_carries_the_label(feed):
    result = occlude(looks_at(y=slice(12, None), x=slice(0, 12)), feed.spec, bright_clip(feed))
    assert result.space.shape == (6, 6)
    own, rest = result.space[3:, :3], result.space.copy()
    rest[3:, :3] = 0
    assert own.min() > 0.01 and np.abs(rest).max() < 1e-6


def test_the_map_peaks_in_the_span_that_carries_the_label(feed):
    result = occlude(looks_at(time=slice(4, 6)), feed.spec, bright_clip(feed), spans=4)
    assert result.time.argmax() == 2 and np.abs(np.delete(result.time, 2)).max() < 1e-6
    elsewhere = occlude(looks_at(time=slice(0, 2)), feed.spec, bright_clip(feed), spans=4)
    assert np.abs(elsewhere.time).argmax() == 0


def test_the_class_that_is_predicted_is_watched(feed):
    dark = bright_clip(feed)
    dark.clips[:] = 10
    dark.clips[:, :, :4, :4] = 200
    result = occlude(looks_at(outputs=2), feed.spec, dark)
    assert result.space[0, 0] < 0 < result.space[5, 5] + 1e-3  # a bright cell hidden: class 0 gains


def test_of_several_views_and_targets_the_one_asked_for_is_watched(feed):
    clips = {view: np.full((2, *SHAPE), 30, np.uint8) for view in ("2ch", "4ch")}
    for view in clips:
        clips[view][:, :, :12, 12:] = 200  # the upper right quadrant of both
    inputs = {f"clips_{view}": keras.Input(SHAPE, name=f"clips_{view}", dtype="uint8") for view in clips}
    means = {name: keras.ops.mean(keras.ops.cast(each, "float32"), axis=(1, 2, 3, 4)) for name, each in inputs.items()}
    outputs = {"age": means["clips_2ch"][:, None], "ef": -means["clips_4ch"][:, None]}
    spec = dataclasses.replace(feed.spec, views=("2ch", "4ch"))
    batch = dataclasses.replace(feed.batch(0), clips=clips)
    result = occlude(keras.Model(inputs, outputs), spec, batch, target="ef")
    assert result.space.shape == (6, 12) and not result.space[:, :6].any()
    assert result.space[:3, 9:].max() < -0.1  # what pulls the score down there is lost: it gains
    assert np.abs(occlude(keras.Model(inputs, outputs), spec, batch, target="age").space[:, 6:]).max() == 0


def test_small_clips_and_few_frames_have_fewer_parts(feed):
    spec = dataclasses.replace(feed.spec, clip_shape=(2, 24, 24, 1))
    batch = dataclasses.replace(feed.batch(0), clips=feed.batch(0).clips[:, :2].copy())
    result = occlude(looks_at(shape=(2, 24, 24, 1)), spec, batch)
    assert result.time.shape == (2,) and result.space.shape == (6, 6)


def test_the_worst_come_first_and_clips_of_a_video_are_averaged():
    predictions = table_of([40.0, 20.0, 33.0, 90.0], labels=[30.0, 30.0, 31.0, None], ids=["a", "a", "b", "c"])
    assert [(each.id, each.error) for each in by_error(predictions)] == [("b", 2.0), ("a", 0.0)]
    assert by_error(predictions)[0].caption == "true 31 · predicted 33"


def test_the_worst_of_classes():
    table = pa.table({"id": list("abc"), "split": ["test"] * 3, "target": ["x", "y", "z"],
                      "score_x": [0.6, 0.7, 0.0], "score_y": [0.4, 0.1, 0.0], "score_z": [0.0, 0.2, 1.0]})  # fmt: skip
    columns = target_columns("kind", task="multiclass", classes=["x", "y", "z"])
    result = by_error(predictions_of(table, [columns]))
    assert [each.id for each in result] == ["b", "a", "c"]
    assert result[0].caption == "true y · probability of y 10\xa0% · predicted x"
    binary = pa.table({"id": list("ab"), "split": ["test"] * 2, "target": ["no", "yes"], "score": [0.9, 0.8]})
    result = by_error(predictions_of(binary, [target_columns("sick", task="binary", classes=["no", "yes"])]))
    assert [(each.id, each.error) for each in result] == [("a", 0.9), ("b", 0.2)]


def test_a_clip_is_shrunk_and_keeps_its_ends():
    clip = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 192, 96, 1), np.uint8)
    small = shrink(clip)
    assert small.shape == (24, 96, 48, 1) and small[0].max() == 0 and small[-1].min() == 49
    assert shrink(np.zeros((3, 20, 30, 3), np.uint8)).shape == (3, 20, 30, 3)


def test_pictures_of_a_run(feed, tmp_path):
    scores = [30.0 + i + (i * 7 % 12) for i in range(12)]
    keep_pictures(
        tmp_path,
        settings=SETTINGS,
        model=looks_at(),
        feed=feed,
        test=feed.evaluation(feed.manifest),
        predictions=table_of(scores),
    )
    with np.load(tmp_path / "worst.npz", allow_pickle=False) as worst:
        assert worst["clips"].shape == (10, *SHAPE) and worst["note"] == ""
        errors = worst["errors"].tolist()
        assert errors == sorted(errors, reverse=True) and errors[0] == 11
        row = int(str(worst["ids"][0])[1:])
        assert np.array_equal(worst["clips"][0, ..., 0], np.load(tmp_path / f"{row}.npy"))
    with np.load(tmp_path / "saliency.npz", allow_pickle=False) as result:
        assert result["clips"].shape == (4, *SHAPE) and result["space"].shape == (4, 6, 6)
        assert result["time"].shape == (4, 8) and result["ids"][0] == f"v{row}"


def note_of(path):
    with np.load(path, allow_pickle=False) as stored:
        assert len(stored["clips"]) == 0
        return str(stored["note"])


def test_of_private_data_there_are_none(feed, tmp_path):
    private = feed.evaluation(feed.manifest.as_private())
    keep_pictures(
        tmp_path, settings=SETTINGS, model=looks_at(), feed=feed, test=private, predictions=table_of([30.0] * 12)
    )
    assert note_of(tmp_path / "worst.npz") == note_of(tmp_path / "saliency.npz") == "the data are private"


def test_a_run_never_fails_by_its_pictures(feed, tmp_path, monkeypatch):
    test = feed.evaluation(feed.manifest)

    def keep(predictions, model=None):
        keep_pictures(
            tmp_path, settings=SETTINGS, model=model or looks_at(), feed=feed, test=test, predictions=predictions
        )
        return note_of(tmp_path / "worst.npz"), note_of(tmp_path / "saliency.npz")

    assert keep(None)[0] == "no video of the test part has a label and a score"
    assert keep(table_of([30.0] * 12, part="val"))[0] == "no video of the test part has a label and a score"
    assert all("'x' is not in list" in note for note in keep(table_of([1.0], ids=["x"])))
    assert all("no finite score" in note for note in keep(table_of([float("nan")] * 12)))
    (tmp_path / "0.npy").write_bytes(b"broken")
    assert all("0.npy" in note for note in keep(table_of([99.0] + [30.0 + i for i in range(1, 12)])))
    keep_pictures(tmp_path / "no folder", settings=SETTINGS, model=looks_at(), feed=feed, test=test, predictions=None)
    assert not (tmp_path / "no folder").exists()


def test_no_further_clip_is_begun_after_its_time(feed, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_MAX_SECONDS", -1.0)
    arguments = {"settings": SETTINGS, "model": looks_at(), "feed": feed, "test": feed.evaluation(feed.manifest)}
    keep_pictures(tmp_path, **arguments, predictions=table_of([30.0] * 12))
    with np.load(tmp_path / "saliency.npz") as result:
        assert len(result["clips"]) == len(result["space"]) == 1
    assert set(arguments) | {"folder", "predictions"} == set(inspect.signature(keep_pictures).parameters)
