"""Images of a finished run: its worst videos and saliency maps. An error in them never fails a run.

worst.npz      small clips of the ten worst videos of the test part        captions, errors, ids, note
saliency.npz   four clips from the worst to the best, saliency (space, time), captions, ids, note

`note` holds the reason if there are no images, such as a private manifest. The cost is bounded: the worst videos take
ten clips to read, and saliency of four clips takes as much as scoring 180 videos; after two minutes no further clip is
started.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cinefeed.config import Settings
from cinefeed.core.errors import DiskFullError
from cinefeed.feed.feed import Feed
from cinefeed.metrics.predictions import Predictions
from cinefeed.training.keras_module import keras
from cinefeed.training.run import write_arrays
from cinefeed.training.saliency import Saliency, occlude
from cinefeed.training.worst_cases import WORST, Scored, by_error, small_clips

_log = logging.getLogger(__name__)
_SALIENCY_CLIPS = 4
_MAX_SECONDS = 120.0
_MAX_CHARACTERS = 300  # of a note: Keras' errors may contain whole arrays
_MIN_SIDE = 8  # pixels; smaller clips are not images, but for example features of an encoder

Arrays = dict[str, Any]


def keep_pictures(
    folder: str | Path,
    *,
    settings: Settings,
    model: keras.Model,
    feed: Feed,
    test: Feed,
    predictions: Predictions | None,
) -> None:
    """Write worst.npz and saliency.npz into a run folder, from the predictions of the test part.

    An error is written as `note` instead of images, so that it never loses the results of a finished training.
    """
    try:
        scored = [] if predictions is None or "test" not in predictions.parts else by_error(predictions.part("test"))
        note = _why_none(test, scored)
    except Exception as error:
        scored, note = [], _describe(error)
    _write(Path(folder) / "worst.npz", note, lambda: _worst(test, scored))
    name = predictions.targets[0].name if predictions is not None else ""
    _write(Path(folder) / "saliency.npz", note, lambda: _saliency(model, test, scored, target=name))


def _why_none(test: Feed, scored: list[Scored]) -> str:
    """Return the reason why there can be no images, "" if there can."""
    _, height, width, _ = test.spec.clip_shape
    if test.manifest.private:
        return "the data are private"
    if min(height, width) < _MIN_SIDE:
        return f"the clips are {height} x {width}: features, not images"
    return "" if scored else "no video of the test part has a label and a score"


def _write(path: Path, note: str, make: Callable[[], Mapping[str, Any]]) -> None:
    arrays: Mapping[str, Any] = {}
    if not note:
        try:
            arrays = make()
        except Exception as error:  # see keep_pictures
            note = _describe(error)
    content = {"clips": np.zeros((0, 1, 1, 1, 1), np.uint8), "captions": np.zeros(0, np.str_), **arrays, "note": note}
    try:
        write_arrays(path, **content)
    except DiskFullError:  # the next file would fail too; the same command resumes here
        raise
    except OSError as error:  # see keep_pictures; the report also shows that the file is missing
        _log.warning("%s cannot be written: %s", path, error.strerror or error)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_MAX_CHARACTERS]


def _worst(test: Feed, scored: list[Scored]) -> Arrays:
    videos = scored[:WORST]
    return {"clips": small_clips(test, rows=_rows(test, videos)), **_captions(videos)}


def _captions(videos: list[Scored]) -> Arrays:
    return {
        "captions": np.array([video.caption for video in videos], np.str_),
        "ids": np.array([video.id for video in videos], np.str_),
        "errors": np.array([video.error for video in videos], np.float64),
    }


def _rows(test: Feed, videos: list[Scored]) -> list[int]:
    ids = test.manifest.column("id").to_pylist()
    return [ids.index(video.id) for video in videos]


def _saliency(model: keras.Model, test: Feed, scored: list[Scored], *, target: str) -> Arrays:
    """Return the saliency maps of a few videos, evenly spaced from the worst to the best."""
    ranks = np.unique(np.linspace(0, len(scored) - 1, min(_SALIENCY_CLIPS, len(scored))).round().astype(int))
    start_time = time.monotonic()
    videos: list[Scored] = []
    maps: list[Saliency] = []
    for video in (scored[rank] for rank in ranks):
        if videos and time.monotonic() - start_time > _MAX_SECONDS:
            break
        feed = test.evaluation(test.manifest.take(_rows(test, [video])), clips=1)
        maps.append(occlude(model, test.spec, feed.batch(0), target=target))
        videos.append(video)
    return {
        "clips": small_clips(test, rows=_rows(test, videos)),
        "space": np.stack([each.space for each in maps]),
        "time": np.stack([each.time for each in maps]),
        **_captions(videos),
    }
