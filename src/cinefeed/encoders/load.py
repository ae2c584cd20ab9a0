"""Encoders by name: "torchvision:r2plus1d_18", "timm:vit_small_patch16_224", "transformers:folder", "python:m:f"."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cinefeed.core.errors import MissingExtraError, SettingError, did_you_mean
from cinefeed.encoders.files import check_file, sha256_of
from cinefeed.encoders.preprocessing import Preprocessing
from cinefeed.encoders.user_functions import call_user_function

if TYPE_CHECKING:
    from cinefeed.encoders.torch_encoder import TorchEncoder

SCHEMES = ("torchvision", "timm", "transformers", "keras", "python")


def split_name(encoder: str) -> tuple[str, str]:
    """Return scheme and rest of an encoder's name. Raises SettingError for an unknown scheme.

    >>> split_name("python:my_networks:encoder")
    ('python', 'my_networks:encoder')
    """
    scheme, colon, rest = encoder.partition(":")
    if not colon or not rest or scheme not in SCHEMES:
        raise SettingError(
            f"encoder={encoder!r} must begin with one of {', '.join(f'{each}:' for each in SCHEMES)} and a name; "
            f"{did_you_mean(scheme, SCHEMES)}"
        )
    return scheme, rest


def load_encoder(encoder: str, *, weights: str | Path | None = None, sha256: str | None = None) -> "TorchEncoder":
    """Return a pretrained PyTorch network with the weights of a local file; nothing is downloaded.

    Args:
        encoder: "torchvision:NAME", "timm:NAME", "transformers:FOLDER" or "python:MODULE:FUNCTION".
        weights: Local file of the weights, .safetensors or .pth (read with `weights_only=True`). A transformers folder
            has its own; a user's function may return a network that has them.
        sha256: The sha256 that the weights must have, such as that of an earlier run.

    Raises SettingError for an unknown name, an absent or unsuitable file, and other weights than `sha256`;
    MissingExtraError if the library is not installed.
    """
    scheme, name = split_name(encoder)
    if scheme == "keras":
        raise SettingError(f"{encoder} is a Keras network, not one of PyTorch; 'cinefeed encode' and cnn_rnn take it")
    try:
        from cinefeed.encoders.torch_encoder import TorchEncoder
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", extra="pretrained") from error
    from cinefeed.encoders.weights import load_state, sha256_of_state

    if scheme == "transformers":
        from cinefeed.encoders.transformers_models import transformers_encoder

        if weights is not None:
            raise SettingError(f"{encoder} has its weights in its folder; leave weights={str(weights)!r} out")
        module, digest = transformers_encoder(Path(name), encoder=encoder)
    elif scheme == "python":
        module = _of_user(name)
        if weights is not None:
            load_state(module.network, check_file(weights, encoder=encoder), encoder=encoder)
        digest = sha256_of_state(module.network)
    else:
        from cinefeed.encoders.timm_models import timm_encoder
        from cinefeed.encoders.torchvision_models import torchvision_encoder

        path = check_file(weights, encoder=encoder)
        build = torchvision_encoder if scheme == "torchvision" else timm_encoder
        module, digest = build(name, weights=path, encoder=encoder), sha256_of(path)
    if sha256 is not None and digest != sha256:
        raise SettingError(
            f"the weights of {encoder} have the sha256 {digest[:16]}..., and {sha256[:16]}... is needed; pass the "
            "file with which the run was trained"
        )
    return TorchEncoder(name=encoder, module=module, sha256=digest)


def _of_user(place: str):  # type: ignore[no-untyped-def]  # its class is imported with torch
    import torch

    from cinefeed.encoders.torch_encoder import PixelsToFeatures

    network, preprocessing = call_user_function(place)
    keras = sys.modules.get("keras")  # imported, if the network is one of Keras
    if keras is not None and isinstance(network, keras.Model) and isinstance(preprocessing, Preprocessing):
        if keras.config.backend() != "torch":
            raise SettingError(
                f"'python:{place}' returned a Keras model on {keras.config.backend()}; encoders run in PyTorch: set "
                "KERAS_BACKEND=torch"
            )
        return PixelsToFeatures(network, preprocessing, features=partial(network, training=False), of_keras=True)
    if not isinstance(network, torch.nn.Module) or not isinstance(preprocessing, Preprocessing):
        raise SettingError(
            f"'python:{place}' returned {type(network).__name__} and {type(preprocessing).__name__}; return a "
            "torch.nn.Module, or a Keras model, and a cinefeed.encoders.Preprocessing"
        )
    return PixelsToFeatures(network, preprocessing)
