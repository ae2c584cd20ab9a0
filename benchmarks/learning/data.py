"""Synthetic data of the tasks: moving discs with a known answer that cannot be found from a part of the input.

All tasks are built in the same way: a video appears several times, each time with another answer. A network that reads
only the video is right for one of its rows and wrong for another, so its score is known before any training.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

import cinefeed as cf
from cinefeed.core.rng import Stage, rng_for
from cinefeed.metrics import regression_metrics

SIDE, FRAMES = 24, 8
SMALL, LARGE = (3.0, 4.5), (6.0, 7.5)  # radii in pixels; values between them do not occur
RADII, MM_PER_PIXEL = (4.0, 9.0), (0.4, 1.6)
_NOISE = 6.0  # standard deviation, of 255

Video = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Data:
    """The two parts of a task, and scores of baselines on the test part, which need no training."""

    train: cf.Manifest
    test: cf.Manifest
    baselines: dict[str, float] = field(default_factory=dict)


def disc(rng: np.random.Generator, *, radius: NDArray[np.float64], drift: float = 0.0) -> Video:
    """Return a bright disc on a dark ground, uint8 (frames, SIDE, SIDE), of a radius for each frame.

    Position, brightness and noise are random and independent of the answer. `drift` is its path in pixels.
    """
    frames = len(radius)
    direction = rng.uniform(0, 2 * np.pi)
    path = np.linspace(-drift / 2, drift / 2, frames)[:, None, None]
    x = SIDE / 2 + rng.uniform(-2, 2) + path * np.cos(direction)
    y = SIDE / 2 + rng.uniform(-2, 2) + path * np.sin(direction)
    down, right = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    cover = np.clip(radius[:, None, None] - np.hypot(right - x, down - y) + 0.5, 0, 1)
    image = 30 + (rng.uniform(150, 210) - 30) * cover + _NOISE * rng.standard_normal(cover.shape)
    video: Video = np.clip(image, 0, 255).astype(np.uint8)
    return video


def still(radius: float) -> NDArray[np.float64]:
    """Return the radii of a disc of constant size."""
    return np.full(FRAMES, radius)


def growing(radius: float, by: float) -> NDArray[np.float64]:
    """Return the radii of a disc that grows by `by` pixels, with a mean of `radius`."""
    return np.linspace(radius - by / 2, radius + by / 2, FRAMES)


def order_of_frames(*, seed: int, train: int = 400, test: int = 200) -> Data:
    """Return discs that grow and discs that shrink, `train` and `test` videos: each forwards and backwards.

    Both classes thus have the same frames, and a network that ignores their order gives both videos of a pair the same
    score.
    """

    def part(number: int, count: int) -> cf.Manifest:
        videos: list[Video] = []
        for position in range(count // 2):
            rng = rng_for(seed, stage=Stage.DEMO, epoch=number, position=position)
            video = disc(rng, radius=growing(rng.uniform(5, 7), by=rng.uniform(1.5, 3)), drift=4)
            videos += [video, video[::-1]]
        return cf.Manifest.from_arrays(videos, {"change": ["grows", "shrinks"] * (count // 2)})

    return Data(train=part(0, train), test=part(1, test), baselines={"guessing": 0.5})


def two_views(*, seed: int, train: int = 480, test: int = 200) -> Data:
    """Return studies of two views, a small or a large disc in each: are both alike?

    Two videos of each view make four studies, one per pair: each video is in one study whose discs are alike, and in
    one whose discs differ. A view alone is therefore independent of the answer.
    """

    def part(number: int, count: int) -> cf.Manifest:
        videos: list[Video] = []
        rows: dict[str, list[str]] = {"study": [], "view": [], "discs": []}
        for four in range(count // 4):
            rng = rng_for(seed, stage=Stage.DEMO, epoch=number, position=four)
            made = {
                view: [disc(rng, radius=still(rng.uniform(*sizes))) for sizes in (SMALL, LARGE)] for view in ("a", "b")
            }
            for a in (0, 1):
                for b in (0, 1):
                    videos += [made["a"][a], made["b"][b]]
                    rows["study"] += [f"{four}.{a}{b}"] * 2
                    rows["view"] += ["a", "b"]
                    rows["discs"] += ["alike" if a == b else "differ"] * 2
        return cf.Manifest.from_arrays(videos, rows).pivot(by="view", within="study")

    return Data(train=part(2, train), test=part(3, test), baselines={"guessing": 0.5})


def covariate(*, seed: int, train: int = 480, test: int = 200, times: int = 4) -> Data:
    """Return discs and the size of their pixels in mm: how wide is the disc in mm?

    The clip shows the width in pixels, the covariate is the size of a pixel in mm; the answer is their product. Each
    video appears `times` times, with other pixel sizes, so the best answer from a clip alone is known: the mean answer
    of its rows.
    """

    def part(number: int, count: int) -> tuple[cf.Manifest, dict[str, float]]:
        videos: list[Video] = []
        radii, sizes = np.empty(count), np.empty(count)
        for position in range(count // times):
            rng = rng_for(seed, stage=Stage.DEMO, epoch=number, position=position)
            rows = slice(position * times, (position + 1) * times)
            radii[rows], sizes[rows] = rng.uniform(*RADII), rng.uniform(*MM_PER_PIXEL, size=times)
            videos += [disc(rng, radius=still(radii[position * times]))] * times
        answer = 2 * radii * sizes
        of_video = np.repeat(answer.reshape(-1, times).mean(axis=1), times)
        of_size = np.polyval(np.polyfit(sizes, answer, 1), sizes)
        baselines = {
            name: regression_metrics(targets=answer, scores=scores)["r2"]
            for name, scores in (("best from the clip alone", of_video), ("linear fit of the covariate", of_size))
        }
        return cf.Manifest.from_arrays(videos, {"mm_per_pixel": sizes.tolist(), "width_mm": answer.tolist()}), baselines

    tested, baselines = part(5, test)
    return Data(train=part(4, train)[0], test=tested, baselines=baselines)


def clips_alone(*, seed: int, train: int = 400, test: int = 100) -> Data:
    """Return moving discs that grow or shrink, without a label; the baselines are the errors of two mean frames."""

    def part(number: int, count: int) -> NDArray[np.uint8]:
        videos: list[Video] = []
        for position in range(count):
            rng = rng_for(seed, stage=Stage.DEMO, epoch=number, position=position)
            videos.append(disc(rng, radius=growing(rng.uniform(4, 7), by=rng.uniform(-4, 4)), drift=6))
        return np.stack(videos)

    trained, tested = part(6, train), part(7, test)
    truth = tested.astype(np.float64)
    baselines = {
        "mean frame of the training part": float(np.mean((truth - trained.mean(axis=(0, 1))) ** 2)),
        "mean frame of the clip": float(np.mean((truth - truth.mean(axis=1, keepdims=True)) ** 2)),
    }
    return Data(train=cf.Manifest.from_arrays(trained), test=cf.Manifest.from_arrays(tested), baselines=baselines)
