"""Occlusion saliency: the change of a model's score if a part of a clip is hidden.

space   each cell of a coarse grid, in all frames, is filled with the clip's mean
time    each span of frames is filled with the clip's mean frame: the image stays, its motion is removed

Occlusion (Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014) needs predictions only, so it
works for every network on every backend of Keras. It takes one prediction per hidden part: with a grid of 6 x 6 and 8
spans a clip costs as much as scoring 45 videos, whatever its size.
"""

from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinefeed.feed.batch import Batch
from cinefeed.feed.labels import FeedSpec
from cinefeed.training.keras_module import keras
from cinefeed.training.predictions import model_inputs

GRID, SPANS = 6, 8

Inputs = Mapping[str, NDArray[Any]]


class Saliency(NamedTuple):
    """Decrease of a clip's score if a part is hidden, float32: `space` (rows, columns) and `time` (spans,).

    A negative value is an increase. With several views `space` holds their grids side by side.
    """

    space: NDArray[np.float32]
    time: NDArray[np.float32]


def occlude(
    model: keras.Model, spec: FeedSpec, batch: Batch, *, target: str = "", grid: int = GRID, spans: int = SPANS
) -> Saliency:
    """Return the decrease of the score of a batch's first clip if parts of it are hidden.

    The score is the predicted number, or the probability of the predicted class; with two classes, that of the second.

    Args:
        model: The network.
        spec: The spec of the feed.
        batch: A batch; only its first clip is used.
        target: Name of the target to explain, if there are several.
        grid: Number of cells along height and width.
        spans: Number of spans of frames.
    """
    inputs = {name: array[:1] for name, array in model_inputs(model, batch).items()}
    frames, height, width, _ = spec.clip_shape
    cells = [(y, x) for y in _split(height, grid) for x in _split(width, grid)]
    times = _split(frames, spans)
    scores = _scores(model, inputs, _variants(inputs, spec.clip_names, cells, times), target, size=spec.batch_size)
    decreases = (scores[0] - scores[1:]).astype(np.float32)
    space, time = decreases[: -len(times)], decreases[-len(times) :]
    grids = space.reshape(len(spec.clip_names), len(_split(height, grid)), len(_split(width, grid)))
    side_by_side = np.concatenate(list(grids), axis=1)
    return Saliency(np.tile(side_by_side, len(spec.views)) if spec.stacked else side_by_side, time)


def _split(length: int, parts: int) -> list[slice]:
    """Return slices that split a length into parts of nearly equal size.

    >>> _split(5, 2), len(_split(3, 8))
    ([slice(0, 2, None), slice(2, 5, None)], 3)
    """
    edges = np.linspace(0, length, min(parts, length) + 1).astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


def _variants(
    inputs: Inputs, views: tuple[str, ...], cells: list[tuple[slice, slice]], times: list[slice]
) -> Iterator[Inputs]:
    """Yield the changed inputs of each variant: nothing hidden, then the cells of each view, then the spans."""
    yield {}
    for name in views:
        clip = inputs[name][0]
        mean = _as_dtype(clip.mean(axis=(0, 1, 2)), clip.dtype)
        for y, x in cells:
            hidden = clip.copy()
            hidden[:, y, x] = mean
            yield {name: hidden}
    clips = {name: inputs[name][0] for name in views}
    stills = {name: _as_dtype(clip.mean(axis=0), clip.dtype) for name, clip in clips.items()}
    for span in times:
        clips_of_variant = {name: clip.copy() for name, clip in clips.items()}
        for name, hidden in clips_of_variant.items():
            hidden[span] = stills[name]
        yield clips_of_variant


def _as_dtype(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)


def _scores(
    model: keras.Model, inputs: Inputs, variants: Iterator[Inputs], target: str, *, size: int
) -> NDArray[np.float64]:
    """Return the score of each variant; all batches have the same size, so that JAX compiles the network once."""
    parts: list[NDArray[np.float64]] = []
    output = -1  # index of the largest output if nothing is hidden
    while chunk := list(islice(variants, size)):
        batch = {name: np.repeat(array, size, axis=0) for name, array in inputs.items()}
        for number, changed_inputs in enumerate(chunk):
            for name, clip in changed_inputs.items():
                batch[name][number] = clip
        outputs = model.predict_on_batch(batch)
        values = np.asarray(outputs[target] if isinstance(outputs, Mapping) else outputs, np.float64)
        output = int(values[0].argmax()) if output < 0 else output
        parts.append(values[: len(chunk), output])
    return np.concatenate(parts)
