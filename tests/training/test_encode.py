import dataclasses
import errno
import json
import shutil
import tomllib

import keras
import numpy as np
import pyarrow as pa
import pytest

from cinefeed.config import parse
from cinefeed.config.starter import starter
from cinefeed.core.errors import DiskFullError, SettingError, TableError
from cinefeed.data.manifest.encoded import check_encoded, encoded_from, feature_frame
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.data.sampling import Natural
from cinefeed.encoders.video_encoder import VideoEncoder, frame_by_frame
from cinefeed.feed.feed import Feed
from cinefeed.models import feature_rnn, reference_cnn_lstm
from cinefeed.training import encode as module
from cinefeed.training.encode import encode
from cinefeed.training.fit import train
from cinefeed.training.frame_encoder import encoder_of_keras, encoder_of_run
from cinefeed.training.run import WEIGHTS, read_run
from cinefeed.training.setup import choose_rows, make_parts
from cinefeed.training.trained import load_model
from cinefeed.transforms import Normalize, Reverse
from cinefeed.transforms.compose import Compose
from cinefeed.video.clips import Clip, Frame

ROWS, SIZE = 12, 16


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """12 videos of 6 patients, 5 to 10 frames at 25 Hz, brighter with age."""
    folder = tmp_path_factory.mktemp("studies")
    rng = np.random.default_rng(0)
    for number in range(ROWS):
        frames = rng.integers(0, 20 * (number + 1), (5 + number % 6, SIZE, SIZE))
        (folder / f"p{number // 2}").mkdir(exist_ok=True)
        np.save(folder / f"p{number // 2}" / f"v{number}.npy", frames.astype(np.uint8))
    labels = {
        "path": [f"p{number // 2}/v{number}.npy" for number in range(ROWS)],
        "patient": [f"p{number // 2}" for number in range(ROWS)],
        "age": [20.0 + number for number in range(ROWS)],
        "kind": ["ab"[number % 2] for number in range(ROWS)],
    }
    return Manifest.scan(folder, labels=pa.table(labels), out=folder.parent / f"{folder.name}.parquet", progress=False)


def table_for(manifest, out):
    return {
        "data": {"manifest": str(manifest), "target": "age", "split": {"group": "patient", "val": 0.2, "test": 0.2}},
        "clip": {"frames": 4},
        "frame": {"height": 12, "width": 12, "channels": 1},
        "transforms": [{"name": "Shift", "pixels": 1}],
        "feed": {"batch_size": 3, "workers": 0},
        "model": {"filters": [4, 6], "units": 4, "dense": 4},
        "train": {"out": str(out), "epochs": 1},
    }


@pytest.fixture(scope="module")
def run(studies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    studies.write(folder / "m.parquet")
    return train(parse(table_for(folder / "m.parquet", folder / "a"))).folder


@pytest.fixture(scope="module")
def features(run, studies, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoded") / "features"
    studies.write(out.parent / "m.parquet")
    return encode(out.parent / "m.parquet", out=out, encoder=encoder_of_run(run))


def test_features_are_what_the_network_gives_for_each_frame(run, studies, features):
    settings, spec, _ = read_run(run)
    model = load_model(settings, spec, run / WEIGHTS)
    rows = Manifest.read(features.path)
    assert (features.num_encoded, features.num_reused, features.failures, features.dimension) == (ROWS, 0, (), 6)
    whole = Clip(frames=10, position="start", short="pad")
    in_order = Natural(shuffle=False)
    pixels = Feed(studies, target=None, clip=whole, frame=settings.frame, batch_size=ROWS, sampler=in_order).batch(0)
    of_frames = keras.Model(model.get_layer("frames_clips").output, model.get_layer("features_clips").output)
    expected = np.asarray(of_frames.predict(pixels.clips.reshape(-1, 12, 12, 1), verbose=0)).reshape(ROWS, 10, 6)
    for row in range(ROWS):
        count = 5 + row % 6
        stored = np.load(rows.path_of(row))
        assert stored.shape == (count, 1, 6)
        np.testing.assert_allclose(stored[:, 0], expected[row, :count], rtol=1e-5, atol=1e-6)


def test_features_pass_a_feed_bit_by_bit_and_clips_are_chosen_as_before(run, studies, features):
    rows = Manifest.read(features.path)
    settings, _, _ = read_run(run)
    assert feature_frame(rows) == {"height": 1, "width": 6, "channels": 1, "fit": "none", "dtype": "float32"}
    frame = Frame(**feature_frame(rows))
    common = {"target": "age", "clip": Clip(frames=4), "batch_size": 5, "seed": 3, "return_parameters": True}
    fed, before = Feed(rows, frame=frame, **common), Feed(studies, frame=settings.frame, **common)
    for ours, theirs in zip(fed, before, strict=True):
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert np.array_equal(ours.targets, theirs.targets)
        frames = [each["frames"] for each in ours.parameters]
        assert frames == [each["frames"] for each in theirs.parameters]
        for row, clip, selection in zip(ours.ids, ours.clips, frames, strict=True):
            number = rows.column("id").to_pylist().index(row)
            assert np.load(rows.path_of(number))[selection].tobytes() == clip.tobytes()


def test_the_second_half_with_the_firsts_weights_is_the_whole_network(run, studies, features):
    settings, spec, _ = read_run(run)
    whole = load_model(settings, spec, run / WEIGHTS)
    rows = Manifest.read(features.path)
    common = {"target": "age", "clip": Clip(frames=4, position="center"), "batch_size": ROWS}
    feed = Feed(rows, frame=Frame(**feature_frame(rows)), **common)
    assert feed.spec.clip_shape == (4, 1, 6, 1)
    half = feature_rnn(dataclasses.replace(spec, clip_shape=(4, 1, 6, 1), dtype=np.dtype("float32")), units=4, dense=4)
    weights = whole.get_weights()[-len(half.weights) :]
    half.set_weights(weights)
    pixels = Feed(studies, frame=settings.frame, **common).batch(0)
    expected = whole.predict({"clips": pixels.clips}, verbose=0)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(half.predict({"clips": feed.batch(0).clips}, verbose=0), expected, rtol=1e-5)


def test_all_columns_survive_and_the_parts_are_the_runs(run, studies, features):
    rows, parts = Manifest.read(features.path), read_run(run)[2]
    for name in ("id", "patient", "age", "kind"):
        assert rows.column(name).to_pylist() == studies.column(name).to_pylist()
    assert dict(zip(*(rows.column(name).to_pylist() for name in ("id", "split")), strict=True)) == dict(
        zip(*(parts.column(name).to_pylist() for name in ("id", "split")), strict=True)
    )
    assert encoded_from(rows).startswith("cnn_rnn of a run, weights ")
    assert rows.root == features.path.parent


def test_another_split_than_the_networks_is_warned_of(run, studies, tmp_path):
    parts = read_run(run)[2]
    trained = set(parts.where("split", ["train"]).column("id").to_pylist())
    names = ["test" if each in trained else "train" for each in studies.column("id").to_pylist()]
    turned = Manifest(studies.table.append_column("split", pa.array(names)), root=studies.root)
    result = encode(turned, out=tmp_path / "f", encoder=encoder_of_run(run))
    assert result.warning.startswith(f"{len(trained)} rows that the network was trained on")
    assert Manifest.read(result.path).column("split").to_pylist() == names


def test_only_what_is_new_or_changed_is_computed_again(run, studies, tmp_path):
    copies = tmp_path / "videos"
    rows = []
    for row in range(4):
        path = copies / studies.relative_path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(studies.path_of(row).read_bytes())
        rows.append(studies.relative_path(row))
    videos = Manifest.from_table(pa.table({"path": rows}), root=copies)
    encoder, out = encoder_of_run(run), tmp_path / "f"
    ticks = []
    first = encode(videos.take([0, 1]), out=out, encoder=encoder, tick=lambda done, total: ticks.append((done, total)))
    assert (first.num_encoded, first.num_reused, ticks) == (2, 0, [(1, 2), (2, 2)])
    with (out / "encoded.jsonl").open("a") as journal:
        journal.write('\n{"torn')
    np.save(videos.path_of(1), np.load(videos.path_of(1))[:3])
    (out / f"{rows[0]}.npy").unlink()
    again = encode(videos, out=out, encoder=encoder)
    assert (again.num_encoded, again.num_reused) == (4, 0)
    assert Manifest.read(again.path).metadata(1).times.count == 3
    last = encode(videos, out=out, encoder=encoder)
    assert (last.num_encoded, last.num_reused) == (0, 4)
    assert Manifest.read(last.path).fingerprint == Manifest.read(again.path).fingerprint
    assert encode(videos, out=out, encoder=encoder, dtype="float16").num_encoded == 4


def test_a_video_that_cannot_be_read_keeps_its_row_and_says_why(run, studies, tmp_path):
    names = [studies.path_of(0).as_posix(), (tmp_path / "bad.npy").as_posix()]
    (tmp_path / "bad.npy").write_bytes(b"no video")
    videos = Manifest.from_table(pa.table({"path": names}))
    result = encode(videos, out=tmp_path / "f", encoder=encoder_of_run(run))
    assert [each["path"] for each in result.failures] == [videos.relative_path(1)]
    rows = Manifest.read(result.path)
    assert rows.column("num_frames").to_pylist() == [5, 0]
    assert "bad.npy" in rows.column("error")[1].as_py()
    with pytest.raises(TableError, match="none of 1 videos can be encoded"):
        encode(videos.take([1]), out=tmp_path / "g", encoder=encoder_of_run(run))


class Broken:
    """A network that fails after some calls, as a full disk or a kill would."""

    def __init__(self, calls):
        self.calls = calls

    def predict_on_batch(self, frames):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return frames.mean(axis=(1, 2))[:, :1] * np.ones((1, 2))


def mean_of(calls, name="mean, weights 0"):
    """An encoder whose features are two times the mean of a frame."""
    compose = Compose([], frame=Frame(height=16, width=16, channels=1))
    return VideoEncoder(model=Broken(calls), compose=compose, name=name)


@pytest.mark.parametrize("videos", [0, 3])
def test_what_breaks_off_leaves_whole_files_only_and_goes_on(studies, tmp_path, videos):
    with pytest.raises(KeyboardInterrupt):
        encode(studies, out=tmp_path / "f", encoder=mean_of(videos))
    assert len(list((tmp_path / "f").rglob("*.npy"))) == videos
    assert not (tmp_path / "f" / "features.parquet").exists()
    assert not list((tmp_path / "f").rglob(".partial*"))
    result = encode(studies, out=tmp_path / "f", encoder=mean_of(ROWS))
    assert (result.num_encoded, result.num_reused) == (ROWS - videos, videos)
    stored = np.load(result.path.parent / "p1" / "v2.npy.npy")
    assert np.allclose(stored[:, 0, 0], np.load(studies.path_of(2)).mean(axis=(1, 2)))


def test_features_of_two_networks_are_never_under_one_name(studies, tmp_path, monkeypatch):
    first = encode(studies, out=tmp_path / "f", encoder=mean_of(ROWS))
    with pytest.raises(KeyboardInterrupt):
        encode(studies, out=tmp_path / "f", encoder=mean_of(3, "another, weights 1"))
    assert not first.path.exists()
    again = encode(studies, out=tmp_path / "f", encoder=mean_of(ROWS))
    assert (again.num_encoded, again.num_reused) == (4, ROWS - 4)  # the fourth was under way
    whole = module._write

    def write_and_die(*arguments):
        whole(*arguments)
        raise KeyboardInterrupt  # before the journal knows

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, "_write", write_and_die)
        encode(studies, out=tmp_path / "f", encoder=mean_of(ROWS, "another, weights 1"))
    assert encode(studies, out=tmp_path / "f", encoder=mean_of(ROWS)).num_encoded == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_bad_video(studies, tmp_path, monkeypatch, code):
    def write(*arguments):
        raise DiskFullError(code, "No room", "v.npy")

    with (
        monkeypatch.context() as patched,
        pytest.raises(DiskFullError, match=r"No room.; free some space, and run the same"),
    ):
        patched.setattr(module, "_write", write)
        encode(studies, out=tmp_path / "f", encoder=mean_of(ROWS))
    assert encode(studies, out=tmp_path / "f", encoder=mean_of(ROWS)).num_encoded == ROWS


def test_a_file_grows_as_it_is_written_so_that_a_full_disk_is_an_error_and_no_signal(tmp_path):
    sizes = []

    def features():
        for value in range(2):
            yield np.full((50, 1, 1000), value, np.float32)
            sizes.append(next(tmp_path.glob(".partial.*.v.npy")).stat().st_size)

    module._write(tmp_path / "v.npy", features(), 100, "float16")
    assert sizes[0] < 150_000 < (tmp_path / "v.npy").stat().st_size
    stored = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert (stored.shape, stored.dtype) == ((100, 1, 1000), np.float16)
    assert np.array_equal(stored[:, 0, 0], [0.0] * 50 + [1.0] * 50)


def test_a_run_that_is_renamed_is_the_same_run(run, studies, tmp_path):
    renamed = shutil.copytree(run, tmp_path / "renamed")
    first = encode(studies, out=tmp_path / "f", encoder=encoder_of_run(run))
    again = encode(studies, out=tmp_path / "f", encoder=encoder_of_run(renamed))
    assert (first.num_encoded, again.num_encoded) == (ROWS, 0)


def test_the_parts_of_a_runs_features_are_not_drawn_anew(studies, features):
    rows = Manifest.read(features.path)
    settings = parse(table_for(features.path, "unused"))
    with pytest.raises(SettingError, match="--split-column split"):
        make_parts(rows, settings)
    free = Manifest(rows.table.drop_columns("split"), root=rows.root)
    assert len(make_parts(free, settings).train) == 8
    names = pa.array(["keras:MobileNetV2, weights 0, frames 12x12x1"] * ROWS)
    place = rows.table.column_names.index("encoded_from")
    of_backbone = Manifest(rows.table.set_column(place, "encoded_from", names), root=rows.root)
    assert len(make_parts(of_backbone, settings).train) == 8


def test_rows_that_the_run_did_not_use_are_left_out_by_init(run, studies, tmp_path):
    parts = read_run(run)[2]
    encoder = dataclasses.replace(encoder_of_run(run), parts=parts.take(np.flatnonzero(np.arange(ROWS) % 6 != 0)))
    rows = Manifest.read(encode(studies, out=tmp_path / "f", encoder=encoder).path)
    assert rows.column("split").null_count == 2
    settings = parse(tomllib.loads(starter(rows, path="f.parquet", target="age", group="patient").text))
    assert settings.data.split.column == "split"
    selection = make_parts(choose_rows(rows, settings), settings)
    for name in ("train", "val", "test"):
        ids = set(parts.where("split", [name]).column("id").to_pylist())
        assert set(getattr(selection, name).column("id").to_pylist()) <= ids
    assert sum(map(len, selection)) == ROWS - 2


def test_private_features_are_named_by_id(run, studies, tmp_path):
    secret = studies.as_private()
    secret = Manifest(
        secret.table.set_column(0, "id", pa.array([f"{row:04x}" for row in range(ROWS)])),
        root=secret.root,
        notes=secret.notes,
    )
    result = encode(secret, out=tmp_path / "f", encoder=encoder_of_run(run))
    assert sorted(each.name for each in (tmp_path / "f").iterdir())[:2] == ["0000.npy", "0001.npy"]
    assert Manifest.read(result.path).private
    text = (tmp_path / "f" / "encoded.jsonl").read_text()
    assert "v0" not in text
    assert "videos" not in Manifest.read(result.path).notes


def test_a_private_run_makes_private_features(run, studies, tmp_path):
    encoder = encoder_of_run(run)
    private = dataclasses.replace(encoder, parts=encoder.parts.as_private())
    result = encode(studies, out=tmp_path / "f", encoder=private)
    rows = Manifest.read(result.path)
    assert rows.private and rows.column("split").to_pylist() == encoder.parts.column("split").to_pylist()
    assert not [each for each in (tmp_path / "f").rglob("*") if "v1" in each.name]
    assert not any("v1" in str(rows.column(name).to_pylist()) for name in ("id", "path"))


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", " "])
def test_a_private_id_leads_out_of_no_folder(name, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 16, 16), np.uint8))
    videos = Manifest.from_table(pa.table({"path": ["a.npy"], "id": [name]}), root=tmp_path).as_private()
    out = tmp_path / "deep" / "er" / "f"
    result = encode(videos, out=out, encoder=mean_of(1))
    assert [each.parent for each in tmp_path.rglob("*.npy") if each.name != "a.npy"] == [out]
    assert result.num_encoded == 1 and Manifest.read(result.path).path_of(0).is_file()


def test_a_run_on_features_says_so_and_takes_no_videos(run, studies, features, tmp_path):
    table = table_for(features.path, tmp_path / "b") | {
        "frame": feature_frame(Manifest.read(features.path)),
        "model": {"name": "feature_rnn", "units": 4},
        "transforms": [],
    }
    table["data"]["split"] = {"column": "split", "group": "patient"}
    settings = parse(table)
    result = train(settings)
    assert np.isfinite(result.metrics["test"]["rmse"])
    rows = read_run(result.folder)[2]
    assert encoded_from(rows) == encoded_from(Manifest.read(features.path))
    check_encoded(Manifest.read(features.path), like=rows)
    with pytest.raises(SettingError, match="encode them first"):
        check_encoded(studies, like=rows)
    with pytest.raises(SettingError, match="was trained on features"):
        encoder_of_run(result.folder)
    with pytest.raises(SettingError, match="already features"):
        encode(features.path, out=tmp_path / "f", encoder=encoder_of_run(run))
    baselines = json.loads((result.folder / "baselines.json").read_text())
    assert not baselines["note"]
    assert {"constant", "thumbnail", "mean_frame"} <= baselines["models"]["age"].keys()  # of the videos
    content = json.loads((result.folder / "run.json").read_text())
    assert content.get("encoded_from", encoded_from(rows)) == encoded_from(rows)


def test_a_backbone_named_directly_encodes_colour_and_grey(studies, tmp_path):
    network = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg", alpha=1.0
    )
    network.save_weights(tmp_path / "mobile.weights.h5")
    frame = Frame(height=32, width=32, channels=1)
    result = encode(
        studies.take([0, 1]),
        out=tmp_path / "f",
        encoder=encoder_of_keras("keras:MobileNetV2", weights=tmp_path / "mobile.weights.h5", frame=frame),
    )
    assert result.dimension == 1280
    rows = Manifest.read(result.path)
    fed = Feed(rows, target=None, clip=Clip(frames=2), frame=Frame(**feature_frame(rows)), batch_size=2).batch(0)
    assert fed.clips.shape == (2, 2, 1, 1280, 1)
    assert np.isfinite(fed.clips).all() and np.ptp(fed.clips) > 0
    with pytest.raises(SettingError, match="has no weights"):
        encoder_of_keras("keras:MobileNetV2", weights=None, frame=frame)


def test_what_cannot_be_encoded_is_refused(run, studies, features, tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "thesis.docx").write_text("")
    with pytest.raises(SettingError, match=r"thesis\.docx"):
        encode(studies, out=folder, encoder=encoder_of_run(run))
    mixed = pa.array(["one", "two"])
    two = Manifest.from_table(pa.table({"path": ["a", "b"], "encoded_from": mixed}))
    with pytest.raises(SettingError, match="features of 2 kinds"):
        encoded_from(two)
    source = tmp_path / "m.parquet"
    studies.write(source)
    large = {"height": 16, "width": 16, "channels": 1}
    settings = parse(table_for(source, tmp_path / "c") | {"model": {"name": "cnn3d"}, "frame": large})
    with pytest.raises(SettingError, match="has no encoder of the frames of one video"):
        encoder_of_run(train(settings).folder)


def test_the_2020_systems_network_can_be_cut_and_its_scaling_is_frame_by_frame():
    model = reference_cnn_lstm((2, 67, 67, 1))
    of_frames = keras.Model(model.get_layer("frames_clips").output, model.get_layer("features_clips").output)
    assert of_frames.input_shape == (None, 67, 67, 1)
    assert of_frames.output_shape == (None, 512)
    frame = Frame(height=8, width=8, channels=1)
    assert frame_by_frame(Normalize(), frame)
    assert not frame_by_frame(Normalize(mode="clip_max"), frame)
    assert not frame_by_frame(Reverse(), frame)


def test_a_transform_that_looks_at_the_whole_clip_is_refused(studies, tmp_path):
    source = tmp_path / "m.parquet"
    studies.write(source)
    table = table_for(source, tmp_path / "d") | {"transforms": [{"name": "Normalize", "mode": "clip_max"}]}
    with pytest.raises(SettingError, match=r"Normalize\(mode='clip_max'\) uses several frames of a clip at once"):
        encoder_of_run(train(parse(table)).folder)
