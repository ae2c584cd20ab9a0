"""Where and when a model looks: a part of a clip is hidden, and what its score loses by that is kept.

space   each cell of a coarse grid, in all frames, is filled with the clip's mean
time    each span of frames is filled with the clip's mean frame: the picture stays, its motion is gone

Occlusion (Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014) needs nothing but predictions,
so it works for every network on every backend of Keras. Its price is one prediction a hidden part: with a grid of
6 x 6 and 8 spans a clip costs as much as scoring 45 videos, whatever its size.
"""

from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from cinefeed.feed.batch import Batch
from cinefeed.feed.targets import FeedSpec
from cinefeed.training.scores import model_inputs

GRID, SPANS = 6, 8

Inputs = Mapping[str, NDArray[Any]]


class Saliency(NamedTuple):
    """What a clip's score loses where a part is hidden: float32 (rows, columns), and (spans,); less than 0: it gains.

    Of several views `space` holds one grid each, side by side.
    """

    space: NDArray[np.float32]
    time: NDArray[np.float32]


def occlude(
    model: keras.Model, spec: FeedSpec, batch: Batch, *, target: str = "", grid: int = GRID, spans: int = SPANS
) -> Saliency:
    """Return what the first clip of a batch loses of its score where parts of it are hidden.

    The score is the predicted number, or the probability of the class that is predicted: of two classes, of the second.
    Of several targets `target` names the one to watch.
    """
    inputs = {name: array[:1] for name, array in model_inputs(model, batch).items()}
    frames, height, width, _ = spec.clip_shape
    cells = [(y, x) for y in _cut(height, grid) for x in _cut(width, grid)]
    times = _cut(frames, spans)
    scores = _scores(model, inputs, _hidden(inputs, spec.clip_names, cells, times), target, size=spec.batch_size)
    lost = (scores[0] - scores[1:]).astype(np.float32)
    space, time = lost[: -len(times)], lost[-len(times) :]
    grids = space.reshape(len(spec.clip_names), len(_cut(height, grid)), len(_cut(width, grid)))
    side_by_side = np.concatenate(list(grids), axis=1)
    return Saliency(np.tile(side_by_side, len(spec.views)) if spec.stacked else side_by_side, time)


def _cut(length: int, parts: int) -> list[slice]:
    """Return slices that share out a length, as equal as they can be.

    >>> _cut(5, 2), len(_cut(3, 8))
    ([slice(0, 2, None), slice(2, 5, None)], 3)
    """
    edges = np.linspace(0, length, min(parts, length) + 1).astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(edges)]


def _hidden(
    inputs: Inputs, views: tuple[str, ...], cells: list[tuple[slice, slice]], times: list[slice]
) -> Iterator[Inputs]:
    """Yield the changed inputs of each variant: nothing hidden, then each view's cells, then the spans of all views."""
    yield {}
    for name in views:
        clip = inputs[name][0]
        mean = _rounded(clip.mean(axis=(0, 1, 2)), clip.dtype)
        for y, x in cells:
            hidden = clip.copy()
            hidden[:, y, x] = mean
            yield {name: hidden}
    clips = {name: inputs[name][0] for name in views}
    stills = {name: _rounded(clip.mean(axis=0), clip.dtype) for name, clip in clips.items()}
    for span in times:
        changed = {name: clip.copy() for name, clip in clips.items()}
        for name, hidden in changed.items():
            hidden[span] = stills[name]
        yield changed


def _rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)


def _scores(
    model: keras.Model, inputs: Inputs, variants: Iterator[Inputs], target: str, *, size: int
) -> NDArray[np.float64]:
    """Return the score of each variant; every batch has one size, or JAX would compile the network again."""
    found: list[NDArray[np.float64]] = []
    watched = -1  # the output that is largest where nothing is hidden
    while several := list(islice(variants, size)):
        batch = {name: np.repeat(array, size, axis=0) for name, array in inputs.items()}
        for place, changed in enumerate(several):
            for name, clip in changed.items():
                batch[name][place] = clip
        predicted = model.predict_on_batch(batch)
        values = np.asarray(predicted[target] if isinstance(predicted, Mapping) else predicted, np.float64)
        watched = int(values[0].argmax()) if watched < 0 else watched
        found.append(values[: len(several), watched])
    return np.concatenate(found)
