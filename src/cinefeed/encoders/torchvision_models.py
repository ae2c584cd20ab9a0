"""Encoders of torchvision: video networks (R3D, MC3, R(2+1)D, S3D, MViT, Video Swin) and image networks."""

from pathlib import Path

import torch

from cinefeed.core.errors import MissingExtraError, SettingError, did_you_mean
from cinefeed.encoders.preprocessing import Preprocessing
from cinefeed.encoders.torch_encoder import PixelsToFeatures
from cinefeed.encoders.weights import load_state

# Frames of a window by the beginning of the name, as in torchvision's evaluation of its weights; of S3D half of them.
_FRAMES = {"r3d": 16, "mc3": 16, "r2plus1d": 16, "mvit": 16, "swin3d": 32, "s3d": 64}


def torchvision_encoder(name: str, *, weights: Path, encoder: str) -> PixelsToFeatures:
    """Return a network of torchvision without its classes. Its preprocessing is that of torchvision's own weights."""
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise MissingExtraError("torchvision", extra="pretrained") from error
    if name not in models.list_models():
        raise SettingError(f"{encoder} is not a network of torchvision; {did_you_mean(name, models.list_models())}")
    network = models.get_model(name, weights=None)
    head = remove_head(network, encoder=encoder)
    load_state(network, weights, encoder=encoder, heads=[head])
    preset = models.get_model_weights(name).DEFAULT.transforms()
    frames = next((count for start, count in _FRAMES.items() if name.startswith(start)), None)
    side = preset.crop_size
    height, width = side if len(side) == 2 else (side[0], side[0])
    preprocessing = Preprocessing(
        height=height, width=width, mean=tuple(preset.mean), std=tuple(preset.std), frames=frames
    )
    return PixelsToFeatures(network, preprocessing)


def remove_head(network: torch.nn.Module, *, encoder: str) -> str:
    """Replace the last linear layer (in S3D a convolution) by the identity, and return its name."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)
    layers = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    if not layers:
        raise SettingError(f"{encoder} has no layer of classes to remove; choose a network of classes")
    parent, _, child = layers[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, torch.nn.Identity())
    return str(layers[-1])
