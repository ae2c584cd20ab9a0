"""A pretrained PyTorch network as a Keras layer, on the torch backend, which no file stores as pickled code."""

from typing import Any

import keras
import numpy as np

from cinefeed.core.errors import SettingError
from cinefeed.encoders.load import load_encoder


@keras.saving.register_keras_serializable(package="cinefeed")
class PretrainedEncoder(keras.layers.Layer):  # type: ignore[misc]  # keras is untyped
    """A network of `load_encoder` as a layer: pixels of frames or windows to features, (batch, dimension).

    Its configuration holds the encoder's name, the path of its weights and their sha256, from which it is built again;
    Keras' own TorchModuleWrapper would store the module pickled. Batch norm and dropout stay in inference mode, also
    while the weights are trained.

    Raises SettingError on another backend than torch, and for frames that the network does not take.
    """

    def __init__(self, *, encoder: str, weights: str | None = None, sha256: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        if keras.config.backend() != "torch":
            raise SettingError(
                f"{encoder} is trained with Keras on torch, this is {keras.config.backend()}; set KERAS_BACKEND=torch, "
                "or compute its features first: cinefeed encode"
            )
        network = load_encoder(encoder, weights=weights, sha256=sha256)
        if network.module.of_keras:
            raise SettingError(
                f"{encoder} is a Keras model, and fine-tuning needs a torch.nn.Module; compute its features: cinefeed "
                "encode"
            )
        self.encoder, self.weights_path, self.sha256 = encoder, weights, network.sha256
        self.preprocessing = network.preprocessing
        self.network: Any = network.module  # Keras wraps it in a TorchModuleWrapper, which tracks its parameters
        self.dimension = 0

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Find the number of features by a call with black pixels."""
        black = np.zeros((1, *input_shape[1:]), np.float32)
        try:
            features = self.network(keras.ops.convert_to_tensor(black), training=False)
        except (RuntimeError, ValueError, AssertionError) as error:
            shape = " x ".join(map(str, input_shape[1:]))
            raise SettingError(f"{self.encoder} does not take {shape} ({str(error).splitlines()[0]})") from error
        self.dimension = int(features.shape[-1])
        self.built = True

    def call(self, pixels: Any) -> Any:
        """Return the features of pixels from 0 to 255."""
        import torch

        half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.compute_dtype)
        with torch.autocast(pixels.device.type, half or torch.bfloat16, enabled=half is not None):
            return self.network(pixels, training=False)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, int]:
        """Return (batch, dimension)."""
        return input_shape[0], self.dimension

    def get_config(self) -> dict[str, Any]:
        """Return name, path of the weights and sha256: no code and no weights."""
        own = {"encoder": self.encoder, "weights": self.weights_path, "sha256": self.sha256}
        return {**super().get_config(), **own}

    def learning_rate_factors(self, decay: float) -> dict[int, float]:
        """Return by `id` of each variable the factor of its learning rate: `decay` for each block above its own.

        A block is a numbered member of the network, such as `blocks.3` or `layer2.0`, or else a named one.
        """
        names = [name for name, _ in self.network.module.named_parameters()]
        blocks = list(dict.fromkeys(map(_block_of, names)))
        return {
            id(variable): decay ** (len(blocks) - blocks.index(_block_of(name)))
            for name, variable in zip(names, self.network.variables, strict=True)
        }


def _block_of(parameter: str) -> str:
    """Return the block of a parameter.

    >>> _block_of("network.encoder.layer.3.norm.weight"), _block_of("network.embeddings.patch.weight")
    ('network.encoder.layer.3', 'network.embeddings')
    """
    steps = parameter.split(".")
    number = next((place for place, step in enumerate(steps) if step.isdigit()), 1)
    return ".".join(steps[: number + 1])
