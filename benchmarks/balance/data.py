"""What is learnt: the demo's ejection fraction made rarer where it is low, and `lips`. Clips lie in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import cinefeed as cf
from cinefeed.core.rng import Stage, rng_for
from cinefeed.demo import Ventricle, draw_video, plan_demo
from cinefeed.video.timestamps import FrameTimes

Labels = NDArray[Any]
Rows = NDArray[np.int64]

LOW = 50.0  # per cent: an ejection fraction below is kept in one of five videos
KEPT = 0.2
EDGES = np.arange(20.0, 76.0, 5.0)  # of the bins that the uniform parts fill alike, and that shots are counted in
TRAIN_SEED, VAL_SEED, TEST_SEED = 1000, 3000, 2026  # of the demo's hearts: no heart is in two parts
EF_CLIP, EF_FRAME = cf.Clip(frames=12, position="random"), cf.Frame(height=48, width=48, channels=1)
EF_RATE_HZ = 10.0  # 12 frames span 1.1 s, the longest beat (52 a minute) 1.15 s
LIPS_CLIP = cf.Clip(frames=14, rate_hz=12.5, position="start")  # the word's start counts from the clip's own
LIPS_HELD = cf.Clip(frames=14, position="start")  # the same of what is kept in memory
LIPS_FRAME = cf.Frame(height=56, width=56, channels=1)
CLASSES = ("few words", "many words")  # the second is the positive one
THINNED = 0.1


@dataclass(frozen=True, kw_only=True)
class Part:
    """Videos of a part, uint8 (frames, height, width), and their labels: numbers, or class names."""

    videos: Sequence[NDArray[np.uint8]]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def manifest(self) -> cf.Manifest:
        """Return the part as a manifest, with its labels as the column `label`."""
        return cf.Manifest.from_arrays(self.videos, {"label": self.labels.tolist()})

    def take(self, rows: Rows) -> "Part":
        """Return some of the videos."""
        return Part(videos=[self.videos[row] for row in rows.tolist()], labels=self.labels[rows])


def skewed(planned: Sequence[Ventricle], *, count: int, seed: int) -> list[int]:
    """Return the numbers of the first `count` videos that are left where low ejection fractions are made rare."""
    chance = rng_for(seed, stage=Stage.SPLIT, epoch=0).random(len(planned))
    numbers = [k for k, each in enumerate(planned) if each.ejection_fraction >= LOW or chance[k] < KEPT]
    return numbers[:count]


def uniform(planned: Sequence[Ventricle], *, each_bin: int) -> list[int]:
    """Return the numbers of the first `each_bin` videos of each bin, one a patient so that they are independent."""
    bins: list[list[int]] = [[] for _ in EDGES[1:]]
    videos: set[str] = set()
    for number, each in enumerate(planned):
        bin_number = int(np.searchsorted(EDGES, each.ejection_fraction, side="right")) - 1
        if each.patient in videos or not 0 <= bin_number < len(bins) or len(bins[bin_number]) == each_bin:
            continue
        videos.add(each.patient)
        bins[bin_number].append(number)
    if min(map(len, bins)) < each_bin:
        raise SystemExit(f"bins hold {[len(one) for one in bins]} videos, {each_bin} were asked for; plan more")
    return [number for one in bins for number in one]


def one_a_patient(planned: Sequence[Ventricle], numbers: Sequence[int], *, count: int) -> list[int]:
    """Return the first `count` of these videos that are each of another patient."""
    first = {planned[number].patient: number for number in reversed(numbers)}
    return sorted(first.values())[:count]


def draw_part(planned: Sequence[Ventricle], numbers: Sequence[int], *, seed: int, cache: Path) -> Part:
    """Draw videos of the demo at half size and EF_RATE_HZ, or read them from `cache`, where they are kept."""
    labels = np.array([planned[number].ejection_fraction for number in numbers])
    if not cache.exists():
        videos = []
        for number in numbers:
            each = planned[number]
            frames = draw_video(each, rng=rng_for(seed, stage=Stage.DEMO, epoch=2, position=number))
            ticks = int((each.frames - 1) / each.rate_hz * EF_RATE_HZ) + 1
            times = FrameTimes(0.0, 1 / each.rate_hz, each.frames)
            indices, _ = cf.Clip(frames=ticks, rate_hz=EF_RATE_HZ, position="start").select(times)
            size = (EF_FRAME.width, EF_FRAME.height)
            videos.append(np.stack([cv2.resize(frames[k], size, interpolation=cv2.INTER_AREA) for k in indices]))
        cache.parent.mkdir(parents=True, exist_ok=True)
        lengths = np.array([len(video) for video in videos])
        np.savez(cache.with_suffix(".partial.npz"), pixels=np.concatenate(videos), lengths=lengths, labels=labels)
        cache.with_suffix(".partial.npz").rename(cache)
    with np.load(cache, allow_pickle=False) as arrays:
        if not np.array_equal(arrays["labels"], labels):
            raise SystemExit(f"{cache} holds other videos than are asked for; give another --out")
        return Part(videos=np.split(arrays["pixels"], np.cumsum(arrays["lengths"])[:-1]), labels=labels)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The parts of an experiment: one to train, one to look at while settings are chosen, and the tests by name."""

    train: Part
    val: Part
    tests: dict[str, Part]
    classes: tuple[str, ...] = ()


def ejection_fraction(
    folder: Path, *, source: Path, seed: int, train: int = 400, val_bin: int = 10, test_bin: int = 24
) -> Data:
    """Return hearts with a rare low ejection fraction: training ones by seed, tests the same for all seeds.

    Validation is uniform, as one of the tests is; the other is skewed as the training part.
    """
    hearts, others = TRAIN_SEED + seed, VAL_SEED + seed
    planned, held = plan_demo(videos=train * 2, seed=hearts), plan_demo(videos=400 * val_bin, seed=others)
    numbers = skewed(planned, count=train, seed=hearts)
    aside = uniform(held, each_bin=val_bin)
    tested = plan_demo(videos=400 * test_bin, seed=TEST_SEED)
    flat = uniform(tested, each_bin=test_bin)
    as_trained = one_a_patient(tested, skewed(tested, count=len(tested), seed=TEST_SEED), count=248)
    return Data(
        train=draw_part(planned, numbers, seed=hearts, cache=folder / f"ef_train_{seed}.npz"),
        val=draw_part(held, aside, seed=others, cache=folder / f"ef_val_{seed}.npz"),
        tests={
            "uniform": draw_part(tested, flat, seed=TEST_SEED, cache=folder / "ef_uniform.npz"),
            "skewed": draw_part(tested, as_trained, seed=TEST_SEED, cache=folder / "ef_skewed.npz"),
        },
    )


def lips(source: Path, *, cache: Path) -> tuple[list[NDArray[np.uint8]], dict[str, Labels]]:
    """Return the clips of `lips` that have a label, and its columns. Each is read once, as a feed reads it."""
    manifest = cf.Manifest.scan(source, labels=source / "labels.csv").readable()
    starts = np.asarray(manifest.column("word_start_s").fill_null(np.nan), np.float64)
    manifest = manifest.take(np.flatnonzero(np.isfinite(starts)))
    if not cache.exists():
        feed = cf.Feed(manifest, target=None, clip=LIPS_CLIP, frame=LIPS_FRAME, batch_size=32, workers=1)
        cache.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.concatenate([batch.clips[..., 0].copy() for batch in feed.evaluation(manifest, labelled=False)])
        np.save(cache.with_suffix(".partial.npy"), pixels)
        cache.with_suffix(".partial.npy").rename(cache)
    columns = {name: np.asarray(manifest.column(name).to_pylist()) for name in ("word", "word_start_s", "n_words")}
    return list(np.load(cache, allow_pickle=False)), columns


def starts(folder: Path, *, source: Path, seed: int) -> Data:
    """Return `lips` with the second at which the labelled word begins; the parts are the same for all seeds."""
    videos, columns = lips(source, cache=folder / "lips.npy")
    every = Part(videos=videos, labels=columns["word_start_s"])
    train, val, test = lips_parts(columns)
    return Data(train=every.take(train), val=every.take(val), tests={"test": every.take(test)})


def rare_class(folder: Path, *, source: Path, seed: int) -> Data:
    """Return `lips` with clips of more than three words, of which the training part keeps one in ten, drawn by seed."""
    videos, columns = lips(source, cache=folder / "lips.npy")
    many = columns["n_words"] > 3
    every = Part(videos=videos, labels=np.where(many, *reversed(CLASSES)))
    train, val, test = lips_parts(columns)
    order = rng_for(seed, stage=Stage.SPLIT, epoch=1).permutation(train[many[train]])
    numbers = np.sort(np.concatenate([train[~many[train]], order[: round(len(order) * THINNED)]]))
    return Data(train=every.take(numbers), val=every.take(val), tests={"test": every.take(test)}, classes=CLASSES)


def lips_parts(columns: dict[str, Labels]) -> tuple[Rows, Rows, Rows]:
    """Return the rows that train, validate (15 %) and test (30 %): every word, early and late, in each part."""
    numbers = np.lexsort((columns["word_start_s"], columns["word"]))
    place = np.empty(len(numbers), np.int64)
    place[numbers] = np.arange(len(numbers)) * 13 % 20  # in the order of words and starts: of each 20, 11, 3 and 6
    return np.flatnonzero(place >= 9), np.flatnonzero(place < 3), np.flatnonzero((place >= 3) & (place < 9))
