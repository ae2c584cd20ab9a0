"""Reading a file in every way there is, and comparing each frame with what the `ffmpeg` program decoded."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cinefeed import open_source, probe
from cinefeed.errors import SourceError
from cinefeed.rng import Stage, rng_for
from cinefeed.sources import encoded
from cinefeed.sources.base import Facts, Source
from cinefeed.testing.sources import kept_facts

_APART = 4.0  # mean over a frame; two frames are at least 10.9 apart, half a frame that is concealed up to 2
WAYS = ("decode", "packets", "alone", "copy")


def answers(path: Path, frames: np.ndarray) -> tuple[list[str], str]:
    """Return every fault of a file in the four ways and by both decoders, and why it was refused, if it was.

    `frames` is luma, (frames, height, width), of all frames of a full decode.
    """
    copy = path.parent / "elsewhere" / f"copy of {path.name}"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(path, copy)
    wrong, refusals, seen = list[str](), dict[str, str](), dict[str, tuple[int, str | None]]()
    for place, way in enumerate(WAYS):
        try:
            facts = None if way == "alone" else probe(path, verify="packets" if way == "packets" else "decode")
            opened = copy if way == "copy" else path
            kept = None if facts is None else kept_facts(facts)
            with open_source(opened, channels=1, facts=kept) as source:
                seen[way] = source.facts.times.count, source.facts.error
                compiled = getattr(source, "_native", None) is not None
            for by_pyav in (False, True) if compiled else (False,):
                wrong += [f"{way}: {fault}" for fault in _faults(opened, kept, frames, by_pyav=by_pyav, address=place)]
        except SourceError as error:
            refusals[way] = str(error).replace(str(path), "it").replace(str(copy), "it")
    if refusals and (seen or len(set(refusals.values())) > 1):
        wrong.append(f"refused in some ways alone: {refusals}, {seen}")
    if len(set(seen.values())) > 1:
        wrong.append(f"several answers: {seen}")
    for count, error in set(seen.values()):
        if count != len(frames) and (error is None or count > len(frames)):
            wrong.append(f"{count} frames, of {len(frames)}")
    return wrong, next(iter(refusals.values()), "") or str(next(iter(seen.values()))[1] or "")


def _faults(path: Path, facts: Facts | None, frames: np.ndarray, *, by_pyav: bool, address: int) -> Iterator[str]:
    """Yield the frames that are not those asked for: each alone in a source of its own, then clips in one source."""
    rng = rng_for(15, stage=Stage.CLIP, epoch=int(by_pyav), position=address)
    with pytest.MonkeyPatch.context() as patch:
        if by_pyav:
            patch.setattr(encoded, "open_native", lambda *arguments, **settings: None)
        with open_source(path, channels=1, facts=facts) as source:
            count = len(source)
            for _ in range(3):
                start, step = int(rng.integers(0, count)), int(rng.integers(1, 4))
                yield from _differences(source, list(range(start, count, step))[:6], frames)
            yield from _differences(source, [count - 1, 0, count // 2, 0], frames)
        if facts is None:  # each opening would scan the file anew
            return
        for number in {0, 1, count - 1, *rng.integers(0, count, 6).tolist()} & {*range(count)}:
            with open_source(path, channels=1, facts=facts) as source:
                yield from _differences(source, [number], frames)


def _differences(source: Source, numbers: list[int], frames: np.ndarray) -> Iterator[str]:
    planes = source.planes(numbers).frames
    for number, plane in zip(numbers, planes, strict=True):
        luma = plane[0] if plane[0].ndim == 2 else plane[0].mean(axis=2)  # a GIF without colours
        apart = np.abs(frames.astype(np.int16) - luma.astype(np.int16)).mean(axis=(1, 2))
        if number >= len(frames) or apart[number] > _APART:
            yield f"frame {number} of {numbers} is {int(apart.argmin())} ({float(apart.min()):.1f} apart)"
