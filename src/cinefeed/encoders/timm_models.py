"""Encoders of timm: image networks, one feature a frame."""

from pathlib import Path

from cinefeed.core.errors import MissingExtraError, SettingError, did_you_mean
from cinefeed.encoders.preprocessing import Preprocessing
from cinefeed.encoders.torch_encoder import PixelsToFeatures
from cinefeed.encoders.weights import load_state


def timm_encoder(name: str, *, weights: Path, encoder: str) -> PixelsToFeatures:
    """Return a network of timm with its own pooling and without its classes; size, mean and std are of its tag."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError("timm", extra="pretrained") from error
    base = name.partition(".")[0]
    if not timm.is_model(base):
        raise SettingError(f"{encoder} is not a network of timm; {did_you_mean(base, timm.list_models())}")
    try:
        network = timm.create_model(name, pretrained=False, num_classes=0)
    except (RuntimeError, ValueError) as error:
        raise SettingError(f"{encoder} cannot be built: {error}; choose a tag of timm.list_pretrained()") from error
    config = network.pretrained_cfg
    heads = config.get("classifier") or ()
    load_state(network, weights, encoder=encoder, heads=[heads] if isinstance(heads, str) else list(heads))
    _, height, width = config["input_size"]
    return PixelsToFeatures(
        network,
        Preprocessing(height=height, width=width, mean=tuple(config["mean"]), std=tuple(config["std"])),
    )
