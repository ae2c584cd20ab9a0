"""Encoders of transformers from a local folder: VideoMAE and V-JEPA 2 for windows, image networks for frames."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cinefeed.core.errors import MissingExtraError, SettingError
from cinefeed.encoders.files import sha256_of
from cinefeed.encoders.preprocessing import Preprocessing
from cinefeed.encoders.torch_encoder import PixelsToFeatures

_PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
# Parts of a network that its features do not pass through, so that weights without them are enough.
_UNUSED = ("pooler", "predictor", "decoder", "classifier", "head", "text_model", "logit")


def transformers_encoder(folder: Path, *, encoder: str) -> tuple[PixelsToFeatures, str]:
    """Return the network of a folder that `save_pretrained` wrote, and the sha256 of its weights.

    A feature is the mean of the last hidden state over all tokens, or over the pixels of its maps. Frames are encoded
    one by one unless the configuration names the frames of a clip.

    Raises SettingError for a folder without configuration, weights or preprocessing, and for weights that do not fit.
    """
    try:
        from transformers import AutoModel
        from transformers.utils import logging
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", extra="pretrained") from error
    if not (folder / "config.json").is_file():
        raise SettingError(f"{folder} has no config.json; pass the folder of a network: none is downloaded")
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if not files:
        raise SettingError(f"{folder} has no weights (*.safetensors, *.bin); copy them there: none is downloaded")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # weights of a task's head, which are not used, would be reported
    try:
        network, info = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise SettingError(f"{folder} cannot be loaded by transformers: {str(error).splitlines()[0]}") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = [name for name in sorted(info["missing_keys"]) if not any(part in name for part in _UNUSED)]
    mismatched = sorted(str(each) for each in info.get("mismatched_keys", ()))
    if missing or mismatched:
        raise SettingError(
            f"the weights of {folder} do not fit its config.json: "
            f"{', '.join((missing + mismatched)[:3])} of {len(missing) + len(mismatched)} are missing; copy both "
            "from one source"
        )
    config = network.config
    network = getattr(network, "vision_model", network)
    frames = getattr(config, "frames_per_clip", None) or getattr(config, "num_frames", None)
    preprocessing = preprocessing_of(folder, frames=frames)
    return PixelsToFeatures(network, preprocessing, features=_features_of(network)), sha256_of(*files)


def preprocessing_of(folder: Path, *, frames: int | None) -> Preprocessing:
    """Return the preprocessing that a folder's preprocessor_config.json describes.

    Raises SettingError if the file is absent or lacks size, mean or standard deviation, or asks for an offset.
    """
    path = next((folder / name for name in _PROCESSORS if (folder / name).is_file()), None)
    if path is None:
        raise SettingError(
            f"{folder} has no preprocessor_config.json, so the scale of its pixels is unknown; copy it from the source "
            "of the network"
        )
    table = json.loads(path.read_text(encoding="utf-8"))
    table = table.get("video_processor") or table.get("image_processor") or table
    if table.get("offset") or table.get("rescale_offset"):
        raise SettingError(f"{path} asks for an offset of the pixels, which is not supported; use a python: encoder")
    is_cropped = table.get("do_center_crop", False) and table.get("crop_size") is not None
    height, width = _size(table.get("crop_size") if is_cropped else table.get("size"), path)
    scales: dict[str, Any] = {}
    if table.get("do_normalize", True):
        if not (table.get("image_mean") and table.get("image_std")):
            raise SettingError(f"{path} has no image_mean and image_std; write those of the network's training there")
        scales = {"mean": _by_channel(table["image_mean"]), "std": _by_channel(table["image_std"])}
    return Preprocessing(
        height=height,
        width=width,
        rescale=float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0,
        order="bgr" if table.get("do_flip_channel_order") else "rgb",
        frames=frames,
        layout="frames_first",
        **scales,
    )


def _size(size: object, path: Path) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        if "height" in size and "width" in size:
            return int(size["height"]), int(size["width"])
        if "shortest_edge" in size:
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise SettingError(f"{path} has the size {size!r}; write {{'height': ..., 'width': ...}} there")


def _by_channel(values: object) -> tuple[float, ...]:
    return tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),) * 3  # type: ignore[arg-type]


def _features_of(network: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    argument = str(getattr(network, "main_input_name", "pixel_values"))
    options = {"skip_predictor": True} if argument == "pixel_values_videos" else {}

    def features(pixels: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = network(**{argument: pixels}, **options).last_hidden_state
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=tuple(range(2, hidden.ndim)))

    return features
