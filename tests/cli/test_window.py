"""16-bit files from the folder to a prediction: one window, of the training rows, all the way."""

import json
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from cinefeed.data.manifest.parquet import NOTES, with_digest


@pytest.fixture
def dark(tmp_path):
    """Twelve videos of 16 bits, whose numbers lie between 100 and 1,000."""
    folder = tmp_path / "dark"
    folder.mkdir()
    for number in range(12):
        rng = np.random.default_rng(number)
        np.save(folder / f"v{number:02d}.npy", rng.integers(100, 1000 - number, (6, 16, 16)).astype(np.uint16))
    names, patients = ([f"{letter}{number:02d}" for number in range(12)] for letter in "vp")
    paths = [f"{name}.npy" for name in names]
    table = {"path": paths, "patient": patients, "age": [20.5 + number for number in range(12)]}
    pa.csv.write_csv(pa.table(table), tmp_path / "labels.csv")
    return folder


@pytest.fixture
def scanned(cinefeed, dark, tmp_path):
    done = cinefeed("scan", dark, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "m.parquet")
    assert done.code == 0, done.err
    assert "values     100 to 9" in done.out
    return tmp_path / "m.parquet"


def test_without_a_window_every_command_names_one(cinefeed, scanned, tmp_path):
    for command in (["inspect", scanned, "--out", tmp_path / "i.html"], ["bench", scanned, "--workers", "0"]):
        done = cinefeed(*command, "--frames", 4, "--frame", "16x16x1")
        assert done.code == 2, done.err
        assert "12 of 12 rows hold floats, signed integers or more than 8 bits" in done.err
        assert "[frame] window = [10" in done.err
    done = cinefeed("inspect", scanned, "--out", tmp_path / "i.html", "--frame", "16x16x1", "--window", "100,1000")
    assert done.code == 0, done.err
    assert "levels are used" in (tmp_path / "i.html").read_text()
    done = cinefeed("inspect", scanned, "--frame", "16x16x1", "--window", "1000")
    assert "--window '1000' must be two numbers" in done.err


def test_init_writes_the_window_and_check_looks_through_it(cinefeed, scanned, tmp_path):
    config = tmp_path / "run.toml"
    done = cinefeed("init", scanned, "--target", "age", "--group", "patient", "--out", config)
    assert done.code == 0, done.err
    low, high = tomllib.loads(config.read_text())["frame"]["window"]
    assert 100 <= low < 110 and 980 < high < 1000
    words = ["check", scanned, "--target", "age", "--group", "patient", "--json"]
    assert "window_missing" in {each["code"] for each in cinefeed(*words).json["findings"]}
    codes = {each["code"] for each in cinefeed(*words, "--config", config).json["findings"]}
    assert not codes & {"window_missing", "few_levels", "clipped"}
    codes = {each["code"] for each in cinefeed(*words, "--config", config, "--window", "0,60000").json["findings"]}
    assert "few_levels" in codes


def test_the_window_of_the_run_serves_evaluation_and_prediction(cinefeed, scanned, dark, tmp_path):
    config, run = tmp_path / "run.toml", tmp_path / "run"
    split = {"group": "patient", "val": 0.25, "test": 0.25}
    lines = [
        f'[data]\nmanifest = "{scanned}"\ntarget = "age"\n[data.split]',
        *(f"{name} = {json.dumps(value)}" for name, value in split.items()),
        "[clip]\nframes = 4\n[frame]\nheight = 16\nwidth = 16\nchannels = 1\nwindow = [100, 1000]",
        '[feed]\nbatch_size = 4\nworkers = 0\n[model]\nname = "cnn_rnn"\nfilters = [4]\nunits = 4\n[train]\nepochs = 1',
        f'out = "{run}"\n[evaluate]\nresamples = 10',
    ]
    config.write_text("\n".join(lines))
    assert (done := cinefeed("train", "--config", config)).code == 0, done.err
    assert tomllib.loads((run / "settings.toml").read_text())["frame"]["window"] == [100.0, 1000.0]
    counts = np.array(json.loads((run / "pixels.json").read_text())["counts"])
    assert np.count_nonzero(counts) > 200
    again = cinefeed("predict", run, dark / "v03.npy", "--out", tmp_path / "a.parquet")
    assert again.code == 0, again.err
    as_bytes = np.rint(np.clip((np.load(dark / "v03.npy") - 100.0) / 900, 0, 1) * 255).astype(np.uint8)
    np.save(tmp_path / "by_hand.npy", as_bytes)
    assert cinefeed("predict", run, tmp_path / "by_hand.npy", "--out", tmp_path / "b.parquet").code == 0
    scores = [pa.parquet.read_table(tmp_path / f"{name}.parquet")["score"].to_pylist() for name in "ab"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_training_stops_at_labels_that_teach_nothing(cinefeed, scanned, tmp_path):
    table = pa.parquet.read_table(scanned)
    for values, words in (([45.0] * 12, "'age' is 45.0 in all"), ([None] * 12, "none of ")):
        place = table.schema.get_field_index("age")
        changed = table.set_column(place, "age", pa.array(values, pa.float64()))
        pa.parquet.write_table(with_digest(changed, table.schema.metadata[NOTES]), tmp_path / "c.parquet")
        done = cinefeed(
            "train", tmp_path / "c.parquet", "--target", "age", "--no-group", "--frame", "16x16x1", "--frames", 4,
            "--window", "100,1000", "--out", tmp_path / "none",
        )  # fmt: skip
        assert done.code == 1, done.err
        assert words in done.err, done.err
        assert not (tmp_path / "none").exists()
