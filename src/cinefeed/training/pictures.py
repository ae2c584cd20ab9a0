"""Pictures of a finished run: its worst videos, and where it looks. A run never fails by them.

worst.npz      clips of the ten worst videos of the test part, small       captions, errors, ids, note
saliency.npz   four clips from the worst to the best, what hiding their parts does (space, time), captions, ids, note

`note` says why there are none: of a private manifest no picture is kept. What it costs has a bound: the worst videos
are ten clips to read, and the four clips of the saliency as much as scoring 180 videos; after two minutes no further
one is begun.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cinefeed.config import Settings
from cinefeed.feed.feed import Feed
from cinefeed.metrics.predictions import Predictions
from cinefeed.training.run import write_arrays
from cinefeed.training.saliency import Saliency, occlude
from cinefeed.training.worst import WORST, Scored, by_error, small_clips

_log = logging.getLogger(__name__)
_LOOKED_AT = 4
_SECONDS = 120.0
_LONGEST = 300  # letters of a note: Keras' errors may hold whole arrays
_LEAST_SIDE = 8  # pixels: what is smaller is no picture, such as features of an encoder

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

    Whatever goes wrong is noted in the file in place of pictures: the results of a training of days are there by now,
    and must not be lost for want of a picture.
    """
    try:
        scored = [] if predictions is None or "test" not in predictions.parts else by_error(predictions.part("test"))
        note = _nothing(test, scored)
    except Exception as error:
        scored, note = [], _said(error)
    _keep(Path(folder) / "worst.npz", note, lambda: _worst(test, scored))
    name = predictions.targets[0].name if predictions is not None else ""
    _keep(Path(folder) / "saliency.npz", note, lambda: _saliency(model, test, scored, target=name))


def _nothing(test: Feed, scored: list[Scored]) -> str:
    """Return why there can be no pictures, "" where there can."""
    _, height, width, _ = test.spec.clip_shape
    if test.manifest.private:
        return "the data are private"
    if min(height, width) < _LEAST_SIDE:
        return f"the clips are {height} x {width}: features, not pictures"
    return "" if scored else "no video of the test part has a label and a score"


def _keep(path: Path, note: str, make: Callable[[], Mapping[str, Any]]) -> None:
    arrays: Mapping[str, Any] = {}
    if not note:
        try:
            arrays = make()
        except Exception as error:  # see keep_pictures
            note = _said(error)
    kept = {"clips": np.zeros((0, 1, 1, 1, 1), np.uint8), "captions": np.zeros(0, np.str_), **arrays, "note": note}
    try:
        write_arrays(path, **kept)
    except OSError as error:  # see keep_pictures; the page, too, says that the file is not there
        _log.warning("%s cannot be written: %s", path, error.strerror or error)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST]


def _worst(test: Feed, scored: list[Scored]) -> Arrays:
    chosen = scored[:WORST]
    return {"clips": small_clips(test, rows=_rows(test, chosen)), **_described(chosen)}


def _described(chosen: list[Scored]) -> Arrays:
    return {
        "captions": np.array([each.caption for each in chosen], np.str_),
        "ids": np.array([each.id for each in chosen], np.str_),
        "errors": np.array([each.error for each in chosen], np.float64),
    }


def _rows(test: Feed, chosen: list[Scored]) -> list[int]:
    ids = test.manifest.column("id").to_pylist()
    return [ids.index(each.id) for each in chosen]


def _saliency(model: keras.Model, test: Feed, scored: list[Scored], *, target: str) -> Arrays:
    """Return the maps of a few videos, from the worst to the best: what leads a model astray, and what it goes by."""
    places = np.unique(np.linspace(0, len(scored) - 1, min(_LOOKED_AT, len(scored))).round().astype(int))
    started = time.monotonic()
    chosen: list[Scored] = []
    maps: list[Saliency] = []
    for each in (scored[place] for place in places):
        if chosen and time.monotonic() - started > _SECONDS:
            break
        one = test.evaluation(test.manifest.take(_rows(test, [each])), clips=1)
        maps.append(occlude(model, test.spec, one.batch(0), target=target))
        chosen.append(each)
    return {
        "clips": small_clips(test, rows=_rows(test, chosen)),
        "space": np.stack([each.space for each in maps]),
        "time": np.stack([each.time for each in maps]),
        **_described(chosen),
    }
