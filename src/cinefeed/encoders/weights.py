"""Weights of a PyTorch network from a local file, without pickled code."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cinefeed.core.errors import MissingExtraError, SettingError

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
_NESTED = ("state_dict", "model_state_dict", "model_state", "model_ema", "model")  # of files of training scripts
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_MOST_NAMES = 3


def sha256_of_state(module: torch.nn.Module) -> str:
    """Return the sha256 of the names and values of all parameters and buffers of a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a weight file by name: safetensors, or a file of `torch.save` without pickled code.

    Raises SettingError for other files, and for a file that `torch.load(weights_only=True)` refuses.
    """
    content: Any
    try:
        if path.suffix == ".safetensors":
            try:
                from safetensors.torch import load_file
            except ModuleNotFoundError as error:
                raise MissingExtraError("safetensors", extra="pretrained") from error
            content = load_file(path)
        elif path.name.endswith(_PICKLES):
            content = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise SettingError(
                f"{path} is neither .safetensors nor {', '.join(_PICKLES)}; save the weights as one of them, with "
                "safetensors.torch.save_file(model.state_dict(), path) or torch.save(model.state_dict(), path)"
            )
    except (MissingExtraError, SettingError):
        raise
    except Exception as error:  # unpickling, zip and safetensors errors have no common class
        raise SettingError(
            f"{path} cannot be read as weights without running code from it ({str(error).splitlines()[0]}); save the "
            "state_dict alone: torch.save(model.state_dict(), path)"
        ) from error
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not all(isinstance(each, torch.Tensor) for each in content.values()):
        raise SettingError(f"{path} holds {type(content).__name__}, not tensors by name; save the state_dict alone")
    return {_without_prefix(str(name)): tensor for name, tensor in content.items()}


def load_state(module: torch.nn.Module, path: Path, *, encoder: str, heads: Sequence[str] = ()) -> None:
    """Load a weight file into a module; the tensors of its classification `heads` (name prefixes) are left out.

    Raises SettingError if names or shapes differ.
    """
    state = {
        name: each for name, each in read_state(path).items() if not name.startswith(tuple(f"{h}." for h in heads))
    }
    own = module.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(state[name].shape)} there, {tuple(own[name].shape)} in the network"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    faults = [
        *([f"{len(missing)} tensors are missing ({', '.join(missing[:_MOST_NAMES])})"] if missing else []),
        *([f"{len(unknown)} are not of the network ({', '.join(unknown[:_MOST_NAMES])})"] if unknown else []),
        *shapes[:_MOST_NAMES],
    ]
    if faults:
        raise SettingError(f"{path} does not fit {encoder}: {'; '.join(faults)}; pass the file of this network")
    module.load_state_dict(state)


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
