"""Keras networks that turn each frame of a video into features: that of a run, or one of keras.applications."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cinefeed.core.errors import SettingError
from cinefeed.data.manifest.encoded import encoded_from
from cinefeed.encoders.files import check_file, sha256_of
from cinefeed.encoders.load import split_name
from cinefeed.encoders.video_encoder import VideoEncoder, augmentation
from cinefeed.feed.labels import FeedSpec
from cinefeed.models.parts import FEATURES, FRAMES, Seeded
from cinefeed.models.pretrained_backbones import frame_backbone
from cinefeed.training.keras_module import keras
from cinefeed.training.run import WEIGHTS, read_run
from cinefeed.training.trained import load_model
from cinefeed.transforms.base import ClipInfo, Transform, is_random
from cinefeed.transforms.compose import Compose
from cinefeed.video.clips import Frame


def encoder_of_run(run: str | Path, *, augmented: bool = False) -> VideoEncoder:
    """Return the frame encoder of a run's model with its best weights, and the run's frame and transforms.

    Random transforms are left out, as in validation; with `augmented` they are those of the augmented versions. Raises
    SettingError for a model without a frame encoder, and for transforms that use several frames at once.
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
            f"of one video; pass a run of cnn_rnn with one view (--model cnn_rnn), or --encoder"
        )
    frame = settings.frame
    if spec.clip_shape[3] != frame.channels:
        raise SettingError(f"{run} reads views stacked as channels; pass a run of single videos, or --encoder")
    info = ClipInfo(spec.clip_shape[0], frame.height, frame.width, frame.channels, spacing_mm=(1.0, 1.0))
    transforms = [transform for transform in settings.transforms if not is_random(transform, info=info)]
    augmentation(transforms, frame)  # raises for transforms of whole clips
    return VideoEncoder(
        model=keras.Model(model.get_layer(ends[0]).output, model.get_layer(ends[1]).output, name=FRAMES),
        compose=Compose(transforms, frame=frame),
        augment=augmentation(settings.transforms, frame) if augmented else None,
        # the folder of a run may be renamed
        name=f"{settings.model.name} of a run, {_identity(sha256_of(Path(run) / WEIGHTS), frame)}",
        parts=parts,
    )


def encoder_of_keras(
    encoder: str, *, weights: str | Path | None, frame: Frame | None = None, transforms: Sequence[Transform] = ()
) -> VideoEncoder:
    """Return "keras:NAME", a network of `keras.applications` with the weights of a local file, as an encoder.

    See `frame_backbone`. `frame` has no default, because these networks take frames of any size.
    """
    if frame is None:
        raise SettingError(f"{encoder} takes frames of any size; give one: --frame HEIGHTxWIDTHxCHANNELS (frame=)")
    path, name = check_file(weights, encoder=encoder), split_name(encoder)[1]
    shape = (1, frame.height, frame.width, frame.channels)
    spec = FeedSpec(clip_shape=shape, dtype=np.dtype(frame.dtype), batch_size=1, target="", task="regression")
    of_frame = frame_backbone(name, spec=spec, weights=str(path), frozen=True, seeded=Seeded(0), name="backbone")
    frames, digest = keras.Input(shape[1:], dtype=frame.dtype), sha256_of(path)
    return VideoEncoder(
        model=keras.Model(frames, of_frame(frames), name=FRAMES),
        compose=Compose([], frame=frame),
        augment=augmentation(transforms, frame),
        name=f"{encoder}, {_identity(digest, frame)}",
        about={"encoder": encoder, "sha256": digest},
    )


def _identity(digest: str, frame: Frame) -> str:
    """Return a text that identifies an encoder: a hash of its weights, and the size of its frames."""
    return f"weights {digest[:16]}, frames {frame.height}x{frame.width}x{frame.channels}"
