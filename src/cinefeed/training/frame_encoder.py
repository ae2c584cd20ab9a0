"""Networks that turn each frame of a video into features: that of a run, or a backbone."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.encoded import encoded_from
from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.parts import FEATURES, FRAMES, Seeded
from cinefeed.models.pretrained_backbones import frame_backbone
from cinefeed.training.evaluate import load_model
from cinefeed.training.keras_module import keras
from cinefeed.training.run import WEIGHTS, read_run
from cinefeed.transforms.base import ClipInfo, Transform, is_random
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.fuse import compact_repr, kind_of
from cinefeed.video.clips import Frame
from cinefeed.video.regions import cropped, find_region
from cinefeed.video.source import Source

_FRAMES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class FrameEncoder:
    """A network that maps frames to features, the transforms before it, and a name of both."""

    model: keras.Model
    compose: Compose
    name: str
    parts: Manifest | None = None  # manifest of the run that trained the network

    def __call__(self, source: Source) -> Iterator[NDArray[np.float32]]:
        """Yield the features of all frames of a video in chunks, float32 (n, dimension)."""
        frame, spacing = self.compose.frame, source.metadata.spacing_mm
        region = None if frame.region is None else find_region(source.metadata.regions, frame.region)
        shape = (frame.height, frame.width, frame.channels)
        info = ClipInfo(_FRAMES_AT_ONCE, *shape, spacing_mm=None)
        parameters = [transform.sample(np.random.default_rng(0), info) for transform in self.compose.transforms]
        for first in range(0, len(source), _FRAMES_AT_ONCE):
            planes = source.planes(np.arange(first, min(first + _FRAMES_AT_ONCE, len(source))))
            planes = planes if region is None else cropped(planes, region)
            count = len(planes.frames)
            # Padded to a power of two: JAX compiles once per shape, and videos have any length.
            frames = np.zeros((1 << (count - 1).bit_length(), *shape), self.compose.dtype)
            self.compose.render(planes, frames[:count], parameters, spacing_mm=spacing)
            yield np.asarray(self.model.predict_on_batch(frames), np.float32)[:count]


def encoder_of_run(run: str | Path) -> FrameEncoder:
    """Return the frame encoder of a run's model with its best weights, and the run's frame and transforms.

    Random transforms are left out, as in validation. Raises SettingError for a model without a frame encoder, and for
    transforms that use several frames at once.
    """
    settings, spec, parts = read_run(run)
    if encoded_from(parts) is not None:
        raise SettingError(f"{run} was trained on features, so it has no frame encoder; pass a run trained on videos")
    model = load_model(settings, spec, Path(run) / WEIGHTS)
    ends = [f"{end}_{name}" for name in spec.clip_names for end in (FRAMES, FEATURES)]
    names = [transform.name for transform in model.layers]
    if len(spec.clip_names) > 1 or not set(ends) <= set(names):
        raise SettingError(
            f"{run} is a {settings.model.name} of {' and '.join(spec.clip_names)}, which has no encoder of the frames "
            f"of one video; pass a run of cnn_rnn with one view, or --backbone"
        )
    frame = settings.frame
    if spec.clip_shape[3] != frame.channels:
        raise SettingError(f"{run} reads views stacked as channels; pass a run of single videos, or --backbone")
    info = ClipInfo(spec.clip_shape[0], frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    transforms = [transform for transform in settings.transforms if not is_random(transform, info=info)]
    for transform in transforms:
        if not frame_by_frame(transform, frame):
            raise SettingError(
                f"{compact_repr(transform)} uses several frames of a clip at once, so the features of a frame depend "
                f"on the clip; encode with a run whose transforms process each frame independently"
            )
    return FrameEncoder(
        model=keras.Model(model.get_layer(ends[0]).output, model.get_layer(ends[1]).output, name=FRAMES),
        compose=Compose(transforms, frame=frame),
        name=f"{settings.model.name} of a run, {_identity(Path(run) / WEIGHTS, frame)}",  # its folder may be renamed
        parts=parts,
    )


def encoder_of_backbone(backbone: str, *, weights: str | Path | None, frame: Frame) -> FrameEncoder:
    """Return a network of `keras.applications` with the weights of a local file; see `frame_backbone`."""
    if weights is None:
        raise SettingError(f"{backbone} has no weights; pass a local file of its weights without the top (--weights)")
    shape = (1, frame.height, frame.width, frame.channels)
    spec = FeedSpec(clip_shape=shape, dtype=np.dtype(frame.dtype), batch_size=1, target="", task="regression")
    of_frame = frame_backbone(backbone, spec=spec, weights=str(weights), frozen=True, seeded=Seeded(0), name="backbone")
    frames = keras.Input(shape[1:], dtype=frame.dtype)
    return FrameEncoder(
        model=keras.Model(frames, of_frame(frames), name=FRAMES),
        compose=Compose([], frame=frame),
        name=f"{backbone}, {_identity(Path(weights), frame)}",
    )


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


def _identity(weights: Path, frame: Frame) -> str:
    """Return a text that identifies an encoder: a hash of its weights, and the size of its frames."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return f"weights {digest}, frames {frame.height}x{frame.width}x{frame.channels}"
