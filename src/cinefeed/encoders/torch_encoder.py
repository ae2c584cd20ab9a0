"""A PyTorch network from pixels to features, and its use in inference mode."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.encoders.preprocessing import Preprocessing

Precision = Literal["float32", "bfloat16"]


class PixelsToFeatures(torch.nn.Module):
    """A network with its preprocessing before it: pixels from 0 to 255, channels last, to features (batch, dimension).

    Pixels are (batch, height, width, channels), or with windows (batch, frames, height, width, channels). A single
    channel is repeated.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self,
        network: torch.nn.Module,
        preprocessing: Preprocessing,
        *,
        features: Callable[[Any], Any] | None = None,
        of_keras: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self._features = features  # calls the network and returns its features
        self.of_keras = of_keras  # a Keras model on the torch backend, which takes channels last
        scale, offset = preprocessing.scale_and_offset()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features, (batch, dimension). Raises SettingError if the network returns another shape."""
        x = pixels.float()
        if x.shape[-1] == 1:
            x = x.expand(*x.shape[:-1], 3)
        if self.preprocessing.order == "bgr":
            x = x.flip(-1)
        x = x * self.scale + self.offset
        if not self.of_keras:
            first = self.preprocessing.layout == "channels_first" or x.ndim == 4
            x = x.movedim(-1, 1 if first else 2)
        features = (self._features or self.network)(x)
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(pixels):
            shape = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise SettingError(
                f"the network returns {shape} for {len(pixels)} inputs; an encoder returns (batch, dimension)"
            )
        return features.float()


@dataclass(frozen=True, kw_only=True)
class TorchEncoder:
    """A pretrained network: its module, its name for `load_encoder`, and the sha256 of its weights.

    `predict_on_batch` runs it in inference mode on `device`, in float32 or bfloat16 (autocast); `on` selects both.
    """

    name: str
    module: PixelsToFeatures
    sha256: str
    precision: Precision = "float32"
    device: str = "cpu"

    def on(self, *, device: str | None = None, precision: str = "float32") -> "TorchEncoder":
        """Return the encoder on a device, by default a GPU if there is one, with a precision.

        Raises SettingError for a device that is absent, or an unknown precision.
        """
        if precision not in get_args(Precision):
            raise SettingError(f"precision={precision!r} is no choice; {did_you_mean(precision, get_args(Precision))}")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.module.to(device)
        except (RuntimeError, AssertionError) as error:
            raise SettingError(f"device={device!r} cannot be used ({str(error).splitlines()[0]}); try 'cpu'") from error
        return replace(self, device=device, precision=precision)  # type: ignore[arg-type]  # checked above

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the network."""
        return self.module.preprocessing

    def predict_on_batch(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features of frames or windows, float32 (batch, dimension)."""
        self.module.eval()
        device = torch.device(self.device)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode(), autocast:
            return np.asarray(self.module(torch.from_numpy(pixels).to(device)).cpu().numpy(), np.float32)
