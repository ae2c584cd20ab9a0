"""Features equal those of the original libraries. CI needs 'cinefeed[pretrained]' for these tests."""

import json

import keras
import numpy as np
import pytest
import torch

from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.encoders.video_encoder import pretrained_encoder
from cinefeed.encoders.windows import Windows
from cinefeed.feed.labels import FeedSpec
from cinefeed.models import cnn3d
from cinefeed.training.encode import encode
from cinefeed.video.clips import Frame


def features_of(videos, encoder, out):
    """Return the stored features of each video, and the frames of each window or of each frame."""
    result = encode(videos, out=out, encoder=encoder)
    assert result.failures == ()
    rows, features, frames = Manifest.read(result.path), [], []
    for row in range(len(videos)):
        pixels = np.load(videos.path_of(row))
        indices = encoder.windows.of(videos.metadata(row).times)[0] if encoder.windows else np.arange(len(pixels))
        features.append(np.load(rows.path_of(row))[:, 0])
        frames.append(pixels[indices])
    return features, frames


def assert_equal(features, expected):
    for ours, theirs in zip(features, expected, strict=True):
        assert ours.shape == theirs.shape and np.ptp(theirs) > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["VideoMAE", "VJEPA2"])
def test_clip_encoders_of_transformers(videos, tmp_path, kind, library):
    library("torchvision")  # the library's own preprocessing needs it
    transformers = library("transformers")
    torch.manual_seed(0)
    small = {"patch_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "VideoMAE":
        config = transformers.VideoMAEConfig(image_size=32, num_frames=8, intermediate_size=64, **small)
        model, processor = (
            transformers.VideoMAEModel(config),
            transformers.VideoMAEImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6]
            ),
        )
    else:
        predictor = {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
        config = transformers.VJEPA2Config(crop_size=32, frames_per_clip=8, mlp_ratio=2, **small, **predictor)
        model, processor = (
            transformers.VJEPA2Model(config),
            transformers.VJEPA2VideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        )
    model.eval().save_pretrained(tmp_path / "network")
    processor.save_pretrained(tmp_path / "network")
    encoder = pretrained_encoder(f"transformers:{tmp_path / 'network'}", device="cpu")
    assert encoder.windows == Windows(frames=8)
    assert encoder.name.startswith("transformers:network, weights ")
    features, frames = features_of(videos, encoder, tmp_path / "f")

    def original(windows):
        as_given = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        inputs = [processor(list(window) if kind == "VideoMAE" else window, **as_given) for window in windows]
        name = model.main_input_name
        with torch.inference_mode():
            return torch.cat([model(**{name: each[name]}).last_hidden_state.mean(dim=1) for each in inputs]).numpy()

    assert_equal(features, [original(each) for each in frames])


def test_an_image_network_of_transformers(videos, tmp_path, library):
    library("torchvision")
    transformers = library("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "network")
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_std=[0.3, 0.4, 0.5])
    processor.save_pretrained(tmp_path / "network")
    encoder = pretrained_encoder(f"transformers:{tmp_path / 'network'}", device="cpu")
    features, frames = features_of(videos, encoder, tmp_path / "f")
    with torch.inference_mode():
        inputs = [processor(list(each), do_resize=False, return_tensors="pt")["pixel_values"] for each in frames]
        expected = [model(each).last_hidden_state.mean(dim=1).numpy() for each in inputs]
    assert_equal(features, expected)


def test_a_folder_that_lacks_a_file_or_a_tensor_says_so(tmp_path, library):
    transformers = library("transformers")
    config = transformers.ViTConfig(
        image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=r"no preprocessor_config\.json"):
        pretrained_encoder(f"transformers:{tmp_path}")
    settings = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for name in ("image_mean", "size"):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != name}))
        with pytest.raises(SettingError, match=name):
            pretrained_encoder(f"transformers:{tmp_path}")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert pretrained_encoder(f"transformers:{tmp_path}").compose.frame == Frame(height=32, width=32)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(SettingError, match=r"do not fit its config\.json"):
        pretrained_encoder(f"transformers:{tmp_path}")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SettingError, match="has no weights"):
        pretrained_encoder(f"transformers:{tmp_path}")


@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18", "mc3_18"])
def test_video_networks_of_torchvision(videos, tmp_path, name, library):
    library("torchvision")
    from torchvision import models
    from torchvision.transforms._presets import VideoClassification

    torch.manual_seed(0)
    network = models.get_model(name, weights=None, num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    frame = Frame(height=32, width=32)
    encoder = pretrained_encoder(
        f"torchvision:{name}", weights=tmp_path / "weights.pth", frame=frame, windows=Windows(frames=8), device="cpu"
    )
    features, frames = features_of(videos.take([1]), encoder, tmp_path / "f")
    preset = models.get_model_weights(name).DEFAULT.transforms()
    same_size = VideoClassification(crop_size=(32, 32), resize_size=(32, 32), mean=preset.mean, std=preset.std)
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        clips = same_size(torch.from_numpy(frames[0]).permute(0, 1, 4, 2, 3))
        assert_equal(features, [network(clips).numpy()])
    default = pretrained_encoder(f"torchvision:{name}", weights=tmp_path / "weights.pth")
    assert default.compose.frame == Frame(height=112, width=112) and default.windows == Windows(frames=16)


@pytest.mark.parametrize(
    ("name", "frames", "size"),
    [("s3d", 64, 224), ("mvit_v2_s", 16, 224), ("swin3d_t", 32, 224), ("resnet18", None, 224)],
)
def test_other_networks_of_torchvision_lose_their_classes_alone(tmp_path, name, frames, size, library):
    library("torchvision")
    from torchvision import models

    from cinefeed.encoders.torchvision_models import remove_head, torchvision_encoder

    network = models.get_model(name, weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    head = remove_head(network, encoder=name)
    assert head.split(".")[0] in ("fc", "classifier", "head")
    module = torchvision_encoder(name, weights=tmp_path / "weights.pth", encoder=name)
    expected = module.preprocessing
    assert (expected.frames, expected.height, expected.width) == (frames, size, size)
    with pytest.raises(SettingError, match="is not a network of torchvision"):
        torchvision_encoder(f"{name}x", weights=tmp_path / "weights.pth", encoder=name)


def test_networks_of_timm(videos, tmp_path, library):
    timm = library("timm")
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    frame = Frame(height=32, width=32)
    encoder = pretrained_encoder(
        "timm:tf_efficientnet_lite0", weights=tmp_path / "weights.pth", frame=frame, device="cpu"
    )
    features, frames = features_of(videos.take([1]), encoder, tmp_path / "f")
    settings = timm.data.resolve_model_data_config(network)
    mean, std = np.array(settings["mean"]), np.array(settings["std"])
    x = torch.tensor((frames[0] / 255 - mean) / std, dtype=torch.float32).movedim(-1, 1)
    with torch.inference_mode():
        expected = network.forward_head(network.forward_features(x), pre_logits=True).numpy()
    assert_equal(features, [expected])
    default = pretrained_encoder("timm:tf_efficientnet_lite0", weights=tmp_path / "weights.pth")
    assert default.compose.frame == Frame(height=224, width=224)
    with pytest.raises(SettingError, match="did you mean"):
        pretrained_encoder("timm:efficientnet_lite00", weights=tmp_path / "weights.pth")


def test_our_r2plus1d_18_gives_the_logits_of_torchvision(library, tmp_path):
    library("torchvision")
    from torchvision import models

    torch.manual_seed(0)
    network = models.get_model("r2plus1d_18", weights=None, num_classes=5)
    noise = torch.rand(2, 3, 8, 48, 64) * 4 - 2
    network.train()
    for _ in range(3):  # means and variances of batch norm that are not 0 and 1
        network(noise)
    network.eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    spec = FeedSpec(
        clip_shape=(9, 47, 64, 3), dtype=np.dtype("uint8"), batch_size=2, target="a", task="multiclass", classes="abcde"
    )
    model = cnn3d(spec, size="r2plus1d_18", weights=str(tmp_path / "weights.pth"), dense=0)
    head = model.layers[-1]
    head.kernel.assign(network.fc.weight.detach().T.numpy())
    head.bias.assign(network.fc.bias.detach().numpy())
    head.activation = keras.activations.linear
    clips = np.random.default_rng(0).integers(0, 256, (2, 9, 47, 64, 3), np.uint8)
    preset = models.get_model_weights("r2plus1d_18").DEFAULT.transforms()
    mean, std = np.array(preset.mean), np.array(preset.std)
    with torch.inference_mode():
        x = torch.tensor((clips / 255 - mean) / std, dtype=torch.float32).movedim(-1, 1)
        expected = network(x).numpy()
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(model.predict(clips, verbose=0), expected, atol=1e-4)
