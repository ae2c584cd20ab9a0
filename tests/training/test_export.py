import json

import keras
import numpy as np
import pyarrow as pa
import pytest

from cinefeed.config import parse
from cinefeed.core.errors import SettingError, TrainingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.training import export as module
from cinefeed.training.export import check_scores, export
from cinefeed.training.fit import train
from cinefeed.training.predictions import model_inputs
from cinefeed.training.run import WEIGHTS, read_run
from cinefeed.training.setup import build_feed
from cinefeed.training.trained import load_model

ROWS = 12


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """12 videos with an age and a kind."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(ROWS):
        np.save(
            folder / f"v{number:02d}.npy", rng.integers(0, 20 * (number + 1), (3 + number, 16, 16)).astype(np.uint8)
        )
    labels = pa.table(
        {
            "path": [f"v{number:02d}.npy" for number in range(ROWS)],
            "age": [20.0 + number for number in range(ROWS)],
            "kind": ["abc"[number % 3] for number in range(ROWS)],
        }
    )
    out = folder.parent / "m.parquet"
    Manifest.scan(folder, labels=labels, out=out, progress=False)
    return {
        "data": {"manifest": str(out), "target": "age", "split": {"group": False, "val": 0.2, "test": 0.4}},
        "clip": {"frames": 4},
        "frame": {"height": 16, "width": 16, "channels": 1},
        "feed": {"batch_size": 4, "workers": 0},
        "model": {"filters": [4, 4], "units": 4, "dense": 0},
        "train": {"out": "", "epochs": 1},
    }


def trained(table, tmp_path, **sections):
    return train(parse(table | sections | {"train": {"out": str(tmp_path / "run"), "epochs": 1}})).folder


def session_of(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(autouse=True)
def _torch_alone():
    if keras.config.backend() != "torch":
        pytest.skip("ONNX is written through PyTorch")


MODELS = {
    "gru": {"filters": [4, 4], "units": 4, "dense": 0},
    "bidirectional": {"filters": [4, 4], "units": 4, "rnn": "lstm", "bidirectional": True, "pooling": "attention"},
    "cnn3d": {"name": "cnn3d"},
}
CASES = [(name, short) for name in MODELS for short in ("repeat_last", "pad")]


@pytest.mark.parametrize(
    ("name", "short"),
    [pytest.param(*each, marks=[] if each == ("gru", "repeat_last") else pytest.mark.slow) for each in CASES],
)
def test_onnx_runtime_gives_the_models_scores(table, tmp_path, name, short):
    pytest.importorskip("onnxscript")
    clip = {"frames": 6, "short": short}
    run = trained(table, tmp_path, model=MODELS[name], clip=clip)
    result = export(run)
    assert result.path == run / "model.onnx"
    assert result.difference < 0.001
    settings, spec, parts = read_run(run)
    assert result.clips == len(parts.where("split", ["test"]))
    session = session_of(result.path)
    assert [each.name for each in session.get_outputs()] == ["score"]
    assert result.any_batch == (session.get_inputs()[0].shape[0] == "batch")
    assert result.any_batch == ((name, short) != ("bidirectional", "pad"))
    content = json.loads(session.get_modelmeta().custom_metadata_map["cinefeed"])
    assert (content["target"], content["task"], content["clip_shape"]) == ("age", "regression", [6, 16, 16, 1])
    model = load_model(settings, spec, run / WEIGHTS)
    batch = build_feed(settings, parts).batch(0)
    assert np.ptp(model.predict_on_batch(model_inputs(model, batch))) > 0
    for row in range(3):
        one = {key: np.ascontiguousarray(value[row : row + 1]) for key, value in model_inputs(model, batch).items()}
        expected = model.predict_on_batch(one)
        np.testing.assert_allclose(session.run(None, one)[0], expected, rtol=1e-4)
    assert b"site-packages" not in result.path.read_bytes()


def test_several_classes_and_a_file_of_keras(table, tmp_path):
    data = table["data"] | {"target": "kind"}
    run = trained(table, tmp_path, data=data)
    result = export(run, format="keras", out=tmp_path / "there" / "kind.keras")
    assert result.difference < 1e-6
    loaded = keras.saving.load_model(result.path, compile=False)
    assert loaded.output_shape == (None, 3)


def test_a_file_that_gives_other_scores_is_not_left_behind(table, tmp_path, monkeypatch):
    run = trained(table, tmp_path)
    true_scores = module._keras_scores

    def off(path):
        assert path.exists()
        scores = true_scores(path)
        return lambda inputs: {name: values + 1.0 for name, values in scores(inputs).items()}

    monkeypatch.setattr(module, "_keras_scores", off)
    with pytest.raises(TrainingError, match="score differs by up to 1"):
        export(run, format="keras")
    assert not list(run.glob("*.keras"))
    assert not list(run.glob(".partial*"))


def test_a_score_that_is_no_number_is_a_difference(table, tmp_path):
    run = trained(table, tmp_path)
    settings, spec, parts = read_run(run)
    model = load_model(settings, spec, run / WEIGHTS)
    batches = [build_feed(settings, parts).batch(0)]
    same = check_scores(model, lambda inputs: {"score": model.predict_on_batch(inputs)}, batches, spec)
    assert same == 0
    with pytest.raises(TrainingError, match="up to nan"):
        check_scores(model, lambda inputs: {"score": np.full((4, 1), np.nan)}, batches, spec)


def test_what_cannot_be_exported_is_refused(table, tmp_path):
    run = trained(table, tmp_path)
    with pytest.raises(SettingError, match="did you mean 'onnx'"):
        export(run, format="onx")
    with pytest.raises(SettingError, match=r"must end in \.keras"):
        export(run, format="keras", out=tmp_path / "model.h5")
    with pytest.raises(SettingError, match="is not a run folder"):
        export(tmp_path, format="keras")
