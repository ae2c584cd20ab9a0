"""A pretrained encoder of PyTorch, trained with its head, saved and built again."""

import dataclasses
import io
import re
import sys
import types

import keras
import numpy as np
import pyarrow as pa
import pytest

from cinefeed.config import ModelSettings, parse
from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.encoders import Preprocessing, encoder_function
from cinefeed.models import pretrained
from cinefeed.models.torch_layer import PretrainedEncoder
from cinefeed.training.encode import encode
from cinefeed.training.evaluate import evaluate
from cinefeed.training.export import export
from cinefeed.training.fit import train
from cinefeed.training.frame_encoder import encoder_of_run
from cinefeed.training.network import LayerwiseAdam, build_model, learning_rate_factors
from cinefeed.training.run import WEIGHTS, read_run
from cinefeed.training.trained import load_model

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="fine-tuning needs Keras on torch")
BASE = {"name": "pretrained", "encoder": "python:fine_networks:frames", "units": 8, "head": "attentive"}


class Blocks(torch.nn.Module):
    """Two numbered blocks with batch norm, and a last layer."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 3, stride=2)
        self.blocks = torch.nn.Sequential(
            *[
                torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
                for _ in range(2)
            ]
        )

    def forward(self, frames):
        return self.blocks(self.stem(frames)).mean(dim=(-2, -1))


@encoder_function
def frames():
    torch.manual_seed(3)
    return Blocks(), Preprocessing(height=16, width=16, mean=(0.3, 0.3, 0.3), std=(0.3, 0.3, 0.3))


class Clips(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv3d(3, 5, (2, 3, 3))

    def forward(self, clips):
        return self.convolution(clips).mean(dim=(-3, -2, -1))


@encoder_function
def clips():
    torch.manual_seed(4)
    return Clips(), Preprocessing(height=16, width=16, frames=2)


@encoder_function
def keras_model():
    layers = [keras.Input((16, 16, 3)), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential(layers), Preprocessing(height=16, width=16)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    module = types.ModuleType("fine_networks")
    module.frames, module.clips, module.keras_model = frames, clips, keras_model
    monkeypatch.setitem(sys.modules, "fine_networks", module)


@pytest.fixture
def settings_for(tmp_path):
    """Settings for 12 videos of 6 patients, brighter with age."""
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 20 * (number + 1), (6, 16, 16, 3))
        np.save(tmp_path / f"{number}.npy", pixels.astype(np.uint8))
    table = {
        "path": [f"{number}.npy" for number in range(12)],
        "patient": [f"p{number // 2}" for number in range(12)],
        "age": [20.0 + number for number in range(12)],
    }
    Manifest.from_table(pa.table(table), root=tmp_path).write(tmp_path / "m.parquet")

    def settings(name="run", model=None, **changes):
        split = {"group": "patient", "val": 0.2, "test": 0.2}
        return parse(
            {
                "data": {"manifest": str(tmp_path / "m.parquet"), "target": "age", "split": split},
                "clip": {"frames": 4},
                "frame": {"height": 16, "width": 16},
                "feed": {"batch_size": 4, "workers": 0},
                "model": BASE | (model or {}),
                "train": {"out": str(tmp_path / name), "epochs": 1} | changes,
            }
        )

    return settings


def state_of(model):
    return {
        name: each.detach().clone()
        for layer in model.layers
        if isinstance(layer, PretrainedEncoder)
        for name, each in layer.network.module.state_dict().items()
    }


def test_a_frozen_encoder_stays_and_an_unfrozen_one_is_trained(settings_for):
    before = {f"network.{name}": each for name, each in frames()[0].state_dict().items()}
    frozen = train(settings_for("frozen")).folder
    tuned = train(settings_for("tuned", epochs=2, unfreeze_epoch=1, unfreeze_learning_rate=1e-2)).folder
    for folder, changes in ((frozen, False), (tuned, True)):
        settings, spec, _ = read_run(folder)
        after = state_of(load_model(settings, spec, folder / WEIGHTS))
        assert after.keys() == before.keys()
        moved = {name for name, each in after.items() if not torch.equal(each, before[name])}
        assert bool(moved) == changes
        assert not any("running" in name or "num_batches" in name for name in moved)  # batch norm is not updated


@pytest.mark.parametrize("head", ["linear", "attentive", "feature_rnn"])
@pytest.mark.parametrize("encoder", ["frames", "clips"])
def test_a_saved_run_gives_its_scores_again(settings_for, head, encoder):
    model = {"head": head, "encoder": f"python:fine_networks:{encoder}"}
    result = train(settings_for(model=model, epochs=2, unfreeze_epoch=1, layer_decay=0.5))
    again = evaluate(result.folder)
    assert again.metrics["rmse"] == pytest.approx(result.metrics["test"]["rmse"], rel=1e-5)
    text = (result.folder / "settings.toml").read_text()
    assert re.search(r'sha256 = "[0-9a-f]{64}"', text)


def test_a_run_of_other_weights_is_refused(settings_for, tmp_path, monkeypatch):
    torch.save(frames()[0].state_dict(), tmp_path / "a.pth")
    folder = train(settings_for(model={"weights": str(tmp_path / "a.pth")})).folder
    evaluate(folder)
    torch.manual_seed(9)
    torch.save(Blocks().state_dict(), tmp_path / "a.pth")
    with pytest.raises(SettingError, match="pass the file with which the run was trained"):
        evaluate(folder)


def test_no_module_is_pickled(settings_for, tmp_path):
    model = build_model(settings_for(), spec_of(settings_for()))
    config = str(model.get_config())
    assert "python:fine_networks:frames" in config and "module" not in config.replace("'module': ", "")
    folder = train(settings_for()).folder
    pickled = re.compile(rb"torch\.nn|__torch__")
    torch.save(frames()[0], buffer := io.BytesIO())
    assert pickled.search(buffer.getvalue())  # what is searched for is in a pickled module
    assert not [each for each in folder.iterdir() if each.is_file() and pickled.search(each.read_bytes())]


def spec_of(settings):
    from cinefeed.training.setup import build_feed

    return build_feed(settings, Manifest.read(settings.data.manifest)).spec


def test_the_features_of_a_tuned_run_can_be_encoded(settings_for, tmp_path):
    folder = train(settings_for(epochs=2, unfreeze_epoch=1)).folder
    settings, spec, _ = read_run(folder)
    result = encode(tmp_path / "m.parquet", out=tmp_path / "f", encoder=encoder_of_run(folder))
    tuned = next(x for x in load_model(settings, spec, folder / WEIGHTS).layers if isinstance(x, PretrainedEncoder))
    pixels = np.load(tmp_path / "0.npy")
    expected = keras.ops.convert_to_numpy(tuned(pixels))
    np.testing.assert_allclose(np.load(result.path.parent / "0.npy.npy")[:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("format", ["keras", "onnx"])
def test_a_tuned_run_is_exported_with_its_scores(settings_for, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    folder = train(settings_for(epochs=2, unfreeze_epoch=1)).folder
    exported = export(folder, format=format)  # compares the scores of the file with those of the run
    assert exported.path.is_file() and exported.clips > 0 and exported.difference < 1e-3


def test_a_keras_model_is_not_fine_tuned(settings_for):
    with pytest.raises(SettingError, match="is a Keras model, and fine-tuning needs a torch"):
        train(settings_for(model={"encoder": "python:fine_networks:keras_model"}))


def test_lower_blocks_have_lower_learning_rates(settings_for):
    settings = settings_for(model={"frozen": False})
    model = build_model(settings, spec_of(settings))
    layer = next(x for x in model.layers if isinstance(x, PretrainedEncoder))
    names = [name for name, _ in layer.network.module.named_parameters()]
    factors = learning_rate_factors(model, 0.5)
    by_name = {name: factors[id(each)] for name, each in zip(names, layer.network.variables, strict=True)}
    assert by_name["network.stem.weight"] == 0.125
    assert by_name["network.blocks.0.0.weight"] == by_name["network.blocks.0.1.bias"] == 0.25
    assert by_name["network.blocks.1.0.weight"] == 0.5
    steps = {}
    for kind in ("uniform", "layerwise"):
        values = {name: p.detach().clone() for name, p in layer.network.module.named_parameters()}
        optimizer = LayerwiseAdam(0.01, factors if kind == "layerwise" else {})
        optimizer.build(layer.network.variables)
        gradients = [torch.ones_like(each.value) for each in layer.network.variables]
        optimizer.apply(gradients, layer.network.variables)
        after = dict(layer.network.module.named_parameters())
        steps[kind] = {name: float((after[name].detach() - values[name]).mean()) for name in names}
    for name in names:
        assert steps["layerwise"][name] == pytest.approx(by_name[name] * steps["uniform"][name], rel=1e-3)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ({"encoder": "python:fine_networks:clips"}, {"frames": 3}, "clips have 3; set .clip. frames to a multiple"),
        ({"encoder": "timm:resnet18"}, {}, "none is downloaded"),
        ({"head": "atentive"}, {}, "did you mean 'attentive'"),
    ],
)
def test_what_cannot_be_built_says_why(settings_for, model, changes, message):
    settings = settings_for(model=model)
    settings = dataclasses.replace(settings, clip=dataclasses.replace(settings.clip, **changes))
    with pytest.raises(SettingError, match=message):
        train(settings)


def test_float_clips_and_layer_decay_elsewhere_are_refused(settings_for, tmp_path):
    spec = dataclasses.replace(spec_of(settings_for()), dtype=np.dtype("float32"))
    with pytest.raises(SettingError, match="found float32"):
        pretrained(spec, encoder="python:fine_networks:frames")
    with pytest.raises(SettingError, match=r"layer_decay = 0\.5 is for"):
        train(dataclasses.replace(settings_for(layer_decay=0.5), model=ModelSettings(options={"filters": [4, 4]})))
    assert not (tmp_path / "run").exists()
