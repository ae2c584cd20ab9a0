"""Each plug-in passes the checks of cinefeed, and is found by its name in settings and on the command line."""

import json
import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pyarrow as pa
import pytest
from cinefeed_example.codecs import zlib_codec
from cinefeed_example.metrics import concordance
from cinefeed_example.reader import write_rawcine
from cinefeed_example.samplers import SquareRoot
from cinefeed_example.transforms import Vignette

import cinefeed as cf
from cinefeed.cli import main
from cinefeed.testing import check_sampler, check_source, check_transform, stored_metadata

ROWS = 24


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Return the path of a manifest of small videos that are brighter the older the patient is."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for row in range(ROWS):
        video = rng.integers(9 * row, 9 * row + 20, (6, 12, 14)).astype(np.uint8)
        write_rawcine(folder / f"{row:02}.rawcine", video)
    labels = {"path": [f"{row:02}.rawcine" for row in range(ROWS)], "age": [20.0 + row for row in range(ROWS)]}
    out = folder.parent / "m.parquet"
    cf.Manifest.scan(folder, labels=pa.table(labels), out=out, progress=False)
    return out


def test_the_transform():
    check_transform(Vignette(strength=0.8))
    frames = np.full((2, 8, 8, 1), 100, np.uint8)
    darker = Vignette().apply(frames, {"share": 0.5})
    assert darker[0, 0, 0, 0] == 50 < darker[0, 3, 3, 0]


def test_the_sampler():
    check_sampler(SquareRoot())
    check_sampler(SquareRoot(by="weights"), labels=["sick"] * 3 + ["well"] * 20)


def test_the_reader(tmp_path):
    video = np.arange(6 * 8 * 9, dtype=np.uint16).reshape(6, 8, 9)
    path = tmp_path / "a.rawcine"
    write_rawcine(path, video)
    metadata = stored_metadata(cf.probe(path))
    check_source(cf.open_video(path), reopen=lambda: cf.open_video(path, metadata=metadata))
    with cf.open_video(path) as source:
        np.testing.assert_array_equal(source.read([5, 0])[..., 0], video[[5, 0]])


def test_the_metric():
    targets, ones = np.arange(5.0), np.ones(5)
    assert concordance(targets=targets, scores=targets, weights=ones) == pytest.approx(1)
    assert concordance(targets=targets, scores=targets + 1, weights=ones) == pytest.approx(0.8)  # 2 * 2 / (4 + 1)
    assert np.isnan(concordance(targets=ones, scores=ones, weights=ones))
    twice = concordance(targets=targets, scores=targets**2, weights=np.array([2.0, 1, 1, 1, 1]))
    repeated = np.array([0.0, 0, 1, 2, 3, 4])
    assert twice == pytest.approx(concordance(targets=repeated, scores=repeated**2, weights=np.ones(6)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_codec(dtype):
    plane = np.random.default_rng(0).random((7, 9)).astype(dtype)
    data = memoryview(zlib_codec.encode(plane))
    np.testing.assert_array_equal(zlib_codec.decode(data, plane.shape, plane.dtype), plane)


def test_packed_frames_are_those_of_the_source(manifest, tmp_path):
    packed_folder = tmp_path / "packed"
    assert main(["pack", str(manifest), "--codec", "zlib", "--out", str(packed_folder), "--workers", "2"]) == 0
    source, packed = cf.Manifest.read(manifest), cf.Manifest.read(packed_folder)
    assert packed.column("codec").to_pylist() == ["zlib"] * ROWS
    frame = cf.Frame(height=10, width=10, channels=1)
    for backend in ("thread", "process"):
        feeds = [
            cf.Feed(
                rows, target="age", clip=cf.Clip(frames=4), frame=frame, workers=cf.Workers(count=1, backend=backend)
            )
            for rows in (source, packed)
        ]
        first, second = (feed.batch(0).clips.copy() for feed in feeds)
        assert [feed.choice.backend for feed in feeds] == [backend] * 2
        for feed in feeds:
            feed.close()
        np.testing.assert_array_equal(first, second)


def test_a_training_by_names_alone(manifest, tmp_path, capsys):
    settings = tmp_path / "run.toml"
    settings.write_text(
        '[[transforms]]\nname = "Vignette"\nstrength = 0.3\n[clip]\nframes = 4\n[feed]\nworkers = 0\nbatch_size = 4\n'
    )
    run = tmp_path / "run"
    command = f"train {manifest} --config {settings} --target age --no-group --frame 12x12x1 --epochs 1 --out {run}"
    command += " --sampler SquareRoot --model mean_frame --metrics ccc --no-baselines --json"
    assert main(command.split()) == 0, capsys.readouterr().err
    text = (run / "settings.toml").read_text()
    assert 'name = "Vignette"' in text and 'name = "SquareRoot"' in text and 'name = "mean_frame"' in text
    assert json.loads((run / "versions.json").read_text())["cinefeed-example"] == "0.1.0"
    assert -1 <= json.loads((run / "metrics.json").read_text())["val"]["ccc"] <= 1
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    assert "ccc" in json.loads(capsys.readouterr().out)["metrics"]


def test_help_and_errors_have_the_names(manifest, capsys):
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("SquareRoot", "mean_frame", "ccc"))
    assert main(f"train {manifest} --target age --no-group --frame 8x8 --out r --sampler Squareroot".split()) == 2
    assert "--sampler 'Squareroot' is not known; did you mean 'SquareRoot'?" in capsys.readouterr().err
    assert main(f"pack {manifest} --codec zlip --out r".split()) == 2
    assert "did you mean 'zlib'?" in capsys.readouterr().err
