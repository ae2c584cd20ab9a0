"""Reading a file in every way there is, and comparing each frame with what the `ffmpeg` program decoded."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cinefeed import open_video, probe
from cinefeed.core.errors import SourceError
from cinefeed.core.rng import Stage, rng_for
from cinefeed.testing.sources import stored_metadata
from cinefeed.video.ffmpeg import source as encoded
from cinefeed.video.metadata import VideoMetadata
from cinefeed.video.source import Source

WAYS = ("decode", "packets", "alone", "copy")
_APART = 4.0  # mean over a frame; two frames are at least 10.9 apart, and half a frame that is concealed up to 2


def answers(
    path: Path, frames: np.ndarray, *, begins_later: bool = False, cut_off: bool = False
) -> tuple[list[str], str]:
    """Return every fault of a file in the four ways and by both decoders, and the error that all of them give.

    `frames` is luma, (frames, height, width), of all frames of a full decode. If there are fewer, they are the first of
    these, or with `begins_later` the last. `cut_off`: of the last frame a part is there, which is not compared.
    """
    copy = path.parent / "elsewhere" / f"copy of {path.name}"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(path, copy)
    wrong, refusals, read = list[str](), dict[str, str](), dict[str, tuple[int, str | None]]()
    for address, way in enumerate(WAYS):
        opened = copy if way == "copy" else path
        try:
            metadata = None if way == "alone" else probe(path, verify="packets" if way == "packets" else "decode")
            manifest_facts = None if metadata is None else stored_metadata(metadata)
            with open_video(opened, channels=1, metadata=manifest_facts) as source:
                read[way] = len(source), source.metadata.error
                compiled = getattr(source, "_fast_decoder", None) is not None
            expected = frames[-len(source) :] if begins_later else frames[: len(frames) - cut_off]
            count = min(len(source), len(expected)) if cut_off else len(source)
            if cut_off and source.metadata.damaged.size:  # what the part of the last frame may damage is refused
                count = min(count, int(source.metadata.damaged[0, 0]))
            for by_pyav in (False, True) if compiled else (False,):
                faults = _faults(opened, manifest_facts, expected, count=count, by_pyav=by_pyav, address=address)
                wrong += [f"{way}{', by PyAV' * by_pyav}: {fault}" for fault in faults]
        except SourceError as error:
            refusals[way] = str(error).replace(str(copy), "the file").replace(str(path), "the file")
    if refusals and (read or len(set(refusals.values())) > 1):
        wrong.append(f"refused in some ways alone: {refusals}, {read}")
    if len(set(read.values())) > 1:
        wrong.append(f"several answers: {read}")
    for count, error in set(read.values()):
        if count > len(frames) + cut_off or (count < len(frames) - cut_off and not error and not begins_later):
            wrong.append(f"{count} frames, of {len(frames)}")
    errors = [*refusals.values(), *(error for _, error in read.values() if error)]
    return wrong, errors[0] if errors else ""


def _faults(
    path: Path, metadata: VideoMetadata | None, frames: np.ndarray, *, count: int, by_pyav: bool, address: int
) -> Iterator[str]:
    """Yield the frames that are not those asked for: clips of one source, then each alone in a source of its own."""
    rng = rng_for(15, stage=Stage.CLIP, epoch=int(by_pyav), position=address)
    with pytest.MonkeyPatch.context() as patch:
        if by_pyav:
            patch.setattr(encoded, "open_fast_decoder", lambda *arguments, **settings: None)
        with open_video(path, channels=1, metadata=metadata) as source:
            for _ in range(3):
                start, step = int(rng.integers(0, count)), int(rng.integers(1, 4))
                yield from _differences(source, list(range(start, count, step))[:6], frames)
            yield from _differences(source, [count - 1, 0, count // 2, 0], frames)
        if metadata is None:  # each opening would scan the file anew
            return
        for number in {0, min(1, count - 1), count - 1, *rng.integers(0, count, 6).tolist()}:
            with open_video(path, channels=1, metadata=metadata) as source:
                yield from _differences(source, [number], frames)


def _differences(source: Source, numbers: list[int], frames: np.ndarray) -> Iterator[str]:
    planes = source.planes(numbers).frames
    for number, plane in zip(numbers, planes, strict=True):
        luma = plane[0] if plane[0].ndim == 2 else plane[0].mean(axis=2)  # a GIF in shades of grey
        apart = np.abs(frames.astype(np.int16) - luma.astype(np.int16)).mean(axis=(1, 2))
        if number >= len(frames) or apart[number] > _APART:
            yield f"frame {number} of {numbers} is {int(apart.argmin())} ({float(apart.min()):.1f} apart)"
