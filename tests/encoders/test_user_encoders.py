"""Encoders in plain torch, by a user's own networks: no optional library is needed."""

import hashlib
import json
import pickle
import sys
import types

import keras
import numpy as np
import pytest
import torch
import typer

from cinefeed.cli.encode import encode as encode_command
from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.encoded import feature_frame
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.encoders import Preprocessing, encoder_function, load_encoder
from cinefeed.encoders.video_encoder import pretrained_encoder
from cinefeed.encoders.windows import Windows
from cinefeed.feed.feed import Feed
from cinefeed.training.encode import encode
from cinefeed.transforms import Brightness, Noise, Rotate
from cinefeed.video.clips import Clip, Frame

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class OfFrames(torch.nn.Module):
    """The mean of each channel, and a random projection of it."""

    def __init__(self):
        super().__init__()
        self.projection = torch.nn.Linear(3, 5)

    def forward(self, frames):
        return self.projection(frames.mean(dim=(-2, -1)))


class OfClips(torch.nn.Module):
    """A 3-D convolution, and the mean over time and space."""

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv3d(3, 6, 3)

    def forward(self, clips):
        return self.convolution(clips).mean(dim=(-3, -2, -1))


@encoder_function
def frame_network():
    torch.manual_seed(1)
    return OfFrames(), Preprocessing(height=32, width=32, mean=MEAN, std=STD)


@encoder_function
def clip_network():
    torch.manual_seed(2)
    return OfClips(), Preprocessing(height=32, width=32, frames=8, order="bgr", rescale=1.0)


@encoder_function
def of_keras():
    layers = [
        keras.layers.Conv2D(4, 3, strides=2, kernel_initializer=keras.initializers.HeNormal(seed=3)),
        keras.layers.BatchNormalization(),  # with the statistics of a batch it would give other features
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers]), Preprocessing(height=32, width=32, mean=MEAN, std=STD)


@encoder_function
def of_maps():
    return torch.nn.Conv2d(3, 4, 3), Preprocessing(height=32, width=32)


def unmarked():
    raise AssertionError("called")


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """This module under a name of its own, as a user's module would have."""
    module = types.ModuleType("my_networks")
    for each in (frame_network, clip_network, of_keras, of_maps, unmarked):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, "my_networks", module)


def test_a_feature_per_frame_of_an_own_network(videos, tmp_path):
    encoder = pretrained_encoder("python:my_networks:frame_network", device="cpu")
    result = encode(videos, out=tmp_path / "f", encoder=encoder)
    assert (result.num_encoded, result.dimension, result.num_features) == (3, 5, 20 + 9 + 33)
    network, _ = frame_network()
    rows = Manifest.read(result.path)
    for row in range(3):
        frames = np.load(videos.path_of(row)).astype(np.float64)
        x = torch.tensor((frames / 255 - MEAN) / STD, dtype=torch.float32).movedim(-1, 1)
        stored = np.load(rows.path_of(row))
        assert stored.shape == (len(frames), 1, 5)
        np.testing.assert_allclose(stored[:, 0], network(x).detach().numpy(), atol=1e-5)
    assert rows.notes["encoder"]["sha256"] == load_encoder("python:my_networks:frame_network").sha256
    assert encode(videos, out=tmp_path / "f", encoder=encoder).num_reused == 3


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the encoders run in PyTorch")
def test_a_keras_model_of_the_user_gets_channels_last(videos, tmp_path):
    encoder = pretrained_encoder("python:my_networks:of_keras", device="cpu")
    result = encode(videos, out=tmp_path / "f", encoder=encoder)
    network, _ = of_keras()
    rows = Manifest.read(result.path)
    for row in range(3):
        x = ((np.load(videos.path_of(row)) / 255.0 - MEAN) / STD).astype(np.float32)
        np.testing.assert_allclose(np.load(rows.path_of(row))[:, 0], network.predict(x, verbose=0), atol=1e-5)


def test_a_feature_per_window_with_its_time_and_a_clip_selects_by_it(videos, tmp_path):
    encoder = pretrained_encoder(
        "python:my_networks:clip_network", windows=Windows(frames=8, stride=2, hop=5), device="cpu"
    )
    rows = Manifest.read(encode(videos, out=tmp_path / "f", encoder=encoder).path)
    network, _ = clip_network()
    for row in range(3):
        frames, metadata = np.load(videos.path_of(row)), videos.metadata(row)
        indices, centres = encoder.windows.of(metadata.times)
        x = torch.tensor(frames[indices][..., ::-1].copy(), dtype=torch.float32).movedim(-1, 1)  # B, G, R
        np.testing.assert_allclose(np.load(rows.path_of(row))[:, 0], network(x).detach().numpy(), rtol=1e-4, atol=1e-3)
        assert np.allclose(rows.metadata(row).times.seconds(), metadata.times.seconds()[centres])
    last = 2  # of 33 frames; windows centred on frames 7, 12, 17, 22, and 25 of the last one
    assert np.allclose(rows.metadata(last).times.seconds(), [0.28, 0.48, 0.68, 0.88, 1.0])
    clip = Clip(frames=2, position="start")
    indices, _ = clip.select(rows.metadata(last).times, start_seconds=0.6, end_seconds=0.9)
    assert indices.tolist() == [2, 3]
    feed = Feed(rows, target="age", clip=clip, frame=Frame(**feature_frame(rows)), batch_size=3)
    assert feed.batch(0).clips.shape == (3, 2, 1, 6, 1)


def test_bfloat16_and_float16_are_near(videos, tmp_path):
    exact = pretrained_encoder("python:my_networks:frame_network", device="cpu")
    half = pretrained_encoder("python:my_networks:frame_network", device="cpu", precision="bfloat16")
    assert exact.name != half.name and half.name.endswith(", bfloat16")
    results = [
        encode(videos, out=tmp_path / "a", encoder=exact),
        encode(videos, out=tmp_path / "b", encoder=half, dtype="float16"),
    ]
    a, b = (np.load(Manifest.read(each.path).path_of(0)) for each in results)
    assert (a.dtype, b.dtype) == (np.float32, np.float16)
    assert 0 < np.abs(a - b).max() < 0.05


def test_augmented_versions_are_drawn_by_address_and_only_for_training(videos, tmp_path):
    transforms = [Rotate(degrees=30), Brightness(factor=0.4)]
    encoder = pretrained_encoder("python:my_networks:frame_network", transforms=transforms, device="cpu")
    plain = encode(videos, out=tmp_path / "plain", encoder=encoder)
    result = encode(videos, out=tmp_path / "f", encoder=encoder, augmented=3, seed=5)
    again = encode(videos.take([2, 0]), out=tmp_path / "g", encoder=encoder, augmented=3, seed=5)
    other = encode(videos, out=tmp_path / "h", encoder=encoder, augmented=3, seed=6)
    rows = Manifest.read(result.path)
    stored = [np.load(rows.path_of(row)) for row in range(3)]
    assert stored[0].shape == (20, 4, 5) and result.num_features == 4 * 62
    assert np.array_equal(stored[0][:, 0], np.load(plain.path.parent / "0.npy.npy")[:, 0])
    assert np.ptp(stored[0], axis=1).min(axis=0).max() > 0.01  # the versions differ
    assert np.array_equal(np.load(again.path.parent / "2.npy.npy"), stored[2])
    assert not np.array_equal(np.load(other.path.parent / "2.npy.npy")[:, 1:], stored[2][:, 1:])

    frame = Frame(**feature_frame(rows))
    assert (frame.height, frame.width, frame.region) == (1, 5, "version")
    feed = Feed(rows, target="age", clip=Clip(frames=4), frame=frame, batch_size=3, seed=3, return_parameters=True)
    versions = set()
    for epoch in range(12):
        batch = feed.batch(0, epoch=epoch)
        for row, clip, parameters in zip(batch.ids, batch.clips, batch.parameters, strict=True):
            number = rows.column("id").to_pylist().index(row)
            candidates = stored[number][parameters["frames"]]
            matches = [v for v in range(4) if np.array_equal(candidates[:, v], clip[:, 0, :, 0])]
            assert len(matches) == 1
            versions.update(matches)
    assert versions == {0, 1, 2, 3}
    assert np.array_equal(feed.batch(0, epoch=2).clips, feed.batch(0, epoch=2).clips)
    val = feed.evaluation(rows).batch(0)
    for row, clip in enumerate(val.clips):
        middle = (len(stored[row]) - 4) // 2
        assert np.array_equal(clip[:, 0, :, 0], stored[row][middle : middle + 4, 0])


def test_versions_need_transforms_that_take_frames_one_by_one(videos, tmp_path):
    encoder = pretrained_encoder("python:my_networks:frame_network", device="cpu")
    with pytest.raises(SettingError, match="augmented=2 needs random transforms"):
        encode(videos, out=tmp_path / "f", encoder=encoder, augmented=2)
    with pytest.raises(SettingError, match="uses several frames of a clip at once"):
        pretrained_encoder("python:my_networks:frame_network", transforms=[Noise(std=3.0)], device="cpu")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_file_are_loaded_and_verified(tmp_path, suffix):
    torch.manual_seed(7)
    state = OfFrames().state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": each for name, each in state.items()}}, path)
    encoder = load_encoder("python:my_networks:frame_network", weights=path)
    assert torch.equal(encoder.module.network.projection.weight, state["projection.weight"])
    assert load_encoder(encoder.name, weights=path, sha256=encoder.sha256).sha256 == encoder.sha256
    with pytest.raises(SettingError, match="and 000000"):
        load_encoder(encoder.name, weights=path, sha256="0" * 64)


def test_weights_of_another_network_name_what_differs(tmp_path):
    torch.save(OfClips().state_dict(), tmp_path / "a.pth")
    with pytest.raises(SettingError, match=r"2 tensors are missing \(projection\.bias.*2 are not of the network"):
        load_encoder("python:my_networks:frame_network", weights=tmp_path / "a.pth")
    torch.save({"projection.weight": torch.zeros(5, 4), "projection.bias": torch.zeros(5)}, tmp_path / "b.pth")
    with pytest.raises(SettingError, match=r"projection\.weight is \(5, 4\) there, \(5, 3\) in the network"):
        load_encoder("python:my_networks:frame_network", weights=tmp_path / "b.pth")


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code of a weight file was run",))


def test_no_code_of_a_weight_file_is_run(tmp_path):
    torch.save({"weights": Evil()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Evil()))
    torch.save(OfFrames(), tmp_path / "c.pth")  # a whole module
    for name in "abc":
        with pytest.raises(SettingError, match="without running code from it"):
            load_encoder("python:my_networks:frame_network", weights=tmp_path / f"{name}.pth")
    (tmp_path / "d.pkl").write_bytes(b"")
    with pytest.raises(SettingError, match="neither"):
        load_encoder("python:my_networks:frame_network", weights=tmp_path / "d.pkl")
    with pytest.raises(SettingError, match="is not a file"):
        load_encoder("python:my_networks:frame_network", weights=tmp_path / "e.pth")


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("python:my_networks:unmarked", "not a function marked by @cinefeed.encoders.encoder_function"),
        ("python:os:abort", "not a function marked"),
        ("python:no_such_module:f", "cannot be imported"),
        ("python:my_networks", "must be python:module:function"),
        ("pyhton:a:b", "did you mean 'python'?"),
        ("resnet18", "must begin with one of torchvision:, timm:"),
        ("timm:resnet18", "none is downloaded"),
        ("torchvision:r3d_18", "none is downloaded"),
        ("transformers:no_folder", "config.json|transformers is not installed"),
        ("keras:MobileNetV2", "is a Keras network"),
    ],
)
def test_what_cannot_be_loaded_says_why(encoder, message):
    with pytest.raises((SettingError, ImportError), match=message):
        load_encoder(encoder)


def test_an_encoder_that_returns_maps_is_an_error(videos, tmp_path):
    result_error = r"returns \(20, 4, 30, 30\) for 20 inputs; an encoder returns \(batch, dimension\)"
    with pytest.raises(Exception, match=result_error):
        encode(videos.take([0]), out=tmp_path / "f", encoder=pretrained_encoder("python:my_networks:of_maps"))


def test_grey_frames_are_repeated_and_other_scales_refused(videos):
    encoder = load_encoder("python:my_networks:frame_network")
    grey = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    assert np.allclose(encoder.predict_on_batch(grey), encoder.predict_on_batch(np.repeat(grey, 3, axis=-1)))
    with pytest.raises(SettingError, match="uint16"):
        pretrained_encoder("python:my_networks:frame_network", frame=Frame(height=8, width=8, dtype="uint16"))
    with pytest.raises(SettingError, match="single frames"):
        pretrained_encoder("python:my_networks:frame_network", windows=Windows(frames=4))
    with pytest.raises(SettingError, match="'float64' is no choice"):
        pretrained_encoder("python:my_networks:frame_network", precision="float64")


def test_the_name_has_the_digest_of_the_weights_and_no_path():
    encoder = pretrained_encoder("python:my_networks:clip_network", device="cpu")
    digest = hashlib.sha256()
    for name, tensor in sorted(clip_network()[0].state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    weights = digest.hexdigest()[:16]
    expected = f"python:my_networks:clip_network, weights {weights}, frames 32x32x3, windows of 8 frames, stride 1"
    assert encoder.name == expected


def test_the_command_encodes_windows_and_versions(videos, tmp_path, capsys):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(encode_command)
    (tmp_path / "moves.toml").write_text('[[transforms]]\nname = "Rotate"\ndegrees = 20.0\n')
    words = f"{tmp_path / 'm.parquet'} --encoder python:my_networks:clip_network --frames 4 --stride 2 --hop 6 --out"
    words += f" {tmp_path / 'f'} --augmented 2 --transforms {tmp_path / 'moves.toml'} --precision bfloat16 --json"
    app(words.split(), standalone_mode=False)
    result = json.loads(capsys.readouterr().out)
    assert (result["computed"], result["dimension"], result["failures"]) == (3, 6, [])
    assert result["encoded_from"].endswith("windows of 4 frames, stride 2 every 6 frames, bfloat16")
    assert result["features_per_second"] > 0
    rows = Manifest.read(result["manifest"])
    assert np.load(rows.path_of(0)).shape == (4, 3, 6)  # windows from frames 0, 6, 12 and 13
    (tmp_path / "none.toml").write_text("")
    with pytest.raises(SettingError, match=r"has no \[\[transforms\]\]"):
        app([*words.split(), "--transforms", str(tmp_path / "none.toml")], standalone_mode=False)
