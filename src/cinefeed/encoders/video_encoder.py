"""From a video to the features of its frames or windows: reading, fitting by a feed's transforms, and a network."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.encoders.load import load_encoder
from cinefeed.encoders.windows import Windows
from cinefeed.transforms.base import ClipInfo, Parameters, Transform, is_random
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fuse import compact_repr, kind_of
from cinefeed.video.clips import Frame
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.regions import cropped, find_region
from cinefeed.video.source import Source
from cinefeed.video.timestamps import FrameTimes

_FRAMES_AT_ONCE = 64
Item = TypeVar("Item")


class Predicts(Protocol):
    """A network: a Keras model, or a TorchEncoder."""

    def predict_on_batch(self, pixels: NDArray[Any]) -> Any:
        """Return the features of frames (n, height, width, channels) or windows (n, frames, ...), (n, dimension)."""


@dataclass(frozen=True, kw_only=True)
class VideoEncoder:
    """A network that maps frames or windows to features, the transforms before it, and a name of both.

    Args:
        model: The network.
        compose: The frame and the transforms before the network.
        name: Identifies network, weights, frame and windows; stored as `encoded_from` of the features.
        windows: The windows of a clip encoder; None for an encoder of single frames.
        compiles_by_shape: Whether the network may be compiled once per shape, so that batches are padded to few sizes.
        parts: Manifest of the run that trained the network.
        augment: The transforms of augmented versions, random ones included; None if there are none.
        about: What is stored with the features of the network: its name and the sha256 of its weights.
    """

    model: Predicts
    compose: Compose
    name: str
    windows: Windows | None = None
    compiles_by_shape: bool = True
    parts: Manifest | None = None
    augment: Compose | None = None
    about: dict[str, str] | None = None

    def times(self, metadata: VideoMetadata) -> FrameTimes:
        """Return the times of a video's features."""
        return metadata.times if self.windows is None else self.windows.times_of(metadata.times)

    def __call__(self, source: Source, *, rngs: Sequence[np.random.Generator] = ()) -> Iterator[NDArray[np.float32]]:
        """Yield the features of all frames or windows of a video in chunks, float32 (n, 1 + versions, dimension).

        The first is of the video as it is; then follows one augmented version for each generator of `rngs`.

        Raises SettingError if augmented versions are asked of an encoder without random transforms.
        """
        versions = [(self.compose, self._sample(self.compose, source.metadata, np.random.default_rng(0)))]
        for rng in rngs:
            if self.augment is None:
                raise SettingError("augmented versions need random transforms, such as Rotate or Brightness")
            versions.append((self.augment, self._sample(self.augment, source.metadata, rng)))
        for chunk in _one_ahead(self._chunks(source, versions)):
            features = [np.asarray(self.model.predict_on_batch(pixels), np.float32)[:count] for pixels, count in chunk]
            yield np.stack(features, axis=1)

    def _sample(self, compose: Compose, metadata: VideoMetadata, rng: np.random.Generator) -> list[Parameters]:
        """Return sampled parameters of the transforms, the same for all frames of a video."""
        frame, size = compose.frame, (metadata.height, metadata.width)
        if frame.region is not None:
            region = find_region(metadata.regions, frame.region)
            size = region.bottom - region.top, region.right - region.left
        spacing = frame.target_spacing(*size, spacing_mm=metadata.spacing_mm)
        return compose.sample(rng, frames=_FRAMES_AT_ONCE, spacing_mm=spacing)

    def _chunks(
        self, source: Source, versions: Sequence[tuple[Compose, list[Parameters]]]
    ) -> Iterator[list[tuple[NDArray[Any], int]]]:
        """Yield by version the pixels of some frames or windows at a time, and their number without padding."""
        frame, spacing = self.compose.frame, source.metadata.spacing_mm
        region = None if frame.region is None else find_region(source.metadata.regions, frame.region)
        indices = np.arange(len(source)) if self.windows is None else self.windows.of(source.metadata.times)[0]
        shape = (*indices.shape[1:], frame.height, frame.width, frame.channels)
        at_once = max(_FRAMES_AT_ONCE // (self.windows.frames if self.windows else 1), 1)
        for first in range(0, len(indices), at_once):
            chunk = indices[first : first + at_once]
            planes = source.planes(chunk.ravel())
            planes = planes if region is None else cropped(planes, region)
            count = len(chunk)
            # Padded to a power of two: JAX compiles once per shape, and videos have any length.
            rows = 1 << (count - 1).bit_length() if self.compiles_by_shape else count
            rendered = []
            for compose, parameters in versions:
                pixels = np.zeros((rows, *shape), compose.dtype)
                compose.render(planes, pixels[:count].reshape(-1, *shape[-3:]), parameters, spacing_mm=spacing)
                rendered.append((pixels, count))
            yield rendered


def pretrained_encoder(
    encoder: str,
    *,
    weights: str | Path | None = None,
    frame: Frame | None = None,
    windows: Windows | None = None,
    transforms: Sequence[Transform] = (),
    precision: str = "float32",
    device: str | None = None,
) -> VideoEncoder:
    """Return a pretrained PyTorch network as an encoder of videos; see `load_encoder`.

    Args:
        encoder: Name of the network.
        weights: Local file of its weights.
        frame: Frame to encode, uint8 or float32 of 0 to 255; by default the size of the network, in three channels.
        windows: Windows of a clip encoder; by default as many frames as the network has, one after the other.
        transforms: Transforms of the augmented versions.
        precision: "float32" or "bfloat16".
        device: Device of PyTorch; by default a GPU if there is one.

    Raises SettingError for settings that do not suit the network, and the errors of `load_encoder`.
    """
    network = load_encoder(encoder, weights=weights).on(device=device, precision=precision)
    expected = network.preprocessing
    if frame is None:
        frame = Frame(height=expected.height, width=expected.width)
    if frame.dtype == "uint16":
        raise SettingError("frame.dtype='uint16' is not the scale of a pretrained network; use uint8, or float32")
    if expected.frames is None and windows is not None:
        raise SettingError(f"{encoder} encodes single frames, so it has no windows; leave frames, stride and hop out")
    if expected.frames is not None and windows is None:
        windows = Windows(frames=expected.frames)
    augment = augmentation(transforms, frame)
    parts = [encoder_label(encoder), f"weights {network.sha256[:16]}"]
    parts[1] += f", frames {frame.height}x{frame.width}x{frame.channels}"
    parts += [str(windows)] if windows is not None else []
    parts += [precision] if precision != "float32" else []
    return VideoEncoder(
        model=network,
        compose=Compose([], frame=frame),
        augment=augment,
        name=", ".join(parts),
        windows=windows,
        compiles_by_shape=False,
        about={"encoder": encoder_label(encoder), "sha256": network.sha256, "precision": precision},
    )


def encoder_label(encoder: str) -> str:
    """Return an encoder's name without the path of its folder.

    >>> encoder_label("transformers:/home/me/videomae-base/")
    'transformers:videomae-base'
    """
    scheme, _, rest = encoder.partition(":")
    return f"{scheme}:{Path(rest).name}" if scheme == "transformers" else encoder


def augmentation(transforms: Sequence[Transform], frame: Frame) -> Compose | None:
    """Return the transforms of augmented versions; None if none is random.

    Raises SettingError for a transform that uses several frames at once: features are computed in pieces.
    """
    info = ClipInfo(_FRAMES_AT_ONCE, frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    for transform in transforms:
        if not frame_by_frame(transform, frame):
            raise SettingError(
                f"{compact_repr(transform)} uses several frames of a clip at once, so the features of a frame depend "
                f"on the clip; encode with transforms that process each frame independently"
            )
    return Compose(transforms, frame=frame) if any(is_random(each, info=info) for each in transforms) else None


def frame_by_frame(transform: Transform, frame: Frame) -> bool:
    """Return whether a transform processes frames independently, tested on three different frames."""
    if kind_of(transform) == "time":
        return False
    rng = np.random.default_rng(0)
    shape = (frame.height, frame.width, frame.channels)
    frames = np.stack([rng.integers(0, level, shape) for level in (9, 90, 250)]).astype(frame.dtype)

    def apply(clip: NDArray[Any]) -> NDArray[Any]:
        info = ClipInfo(len(clip), *shape, spacing_mm=(1.0, 1.0))
        return np.array(transform.apply(clip.copy(), transform.sample(np.random.default_rng(0), info)))

    return bool(np.array_equal(apply(frames), np.concatenate([apply(frames[i : i + 1]) for i in range(3)])))


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items of an iterator while a thread computes the next one: pixels, during the network's work."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item
