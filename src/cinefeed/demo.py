"""Synthetic data set: videos of a beating left ventricle with known ejection fraction.

Each video shows a left ventricle along its long axis, in an ultrasound sector: a dark cavity (half an ellipse), closed
by the mitral valve, in a bright wall, with the atrium below. The volume follows the heart cycle, and the drawn shape
follows the volume, so that the label can be measured in the pixels:

    volume = 2/3 pi radius^2 length        (half a prolate ellipsoid; the same as the rule 8 area^2 / (3 pi length))
    ejection fraction = 100 (1 - smallest volume / largest volume)

Every random number has its own address (see cinefeed.core.rng): the same seed writes the same videos, and a data set of
ten videos equals the first ten of a larger one.
"""

import csv
import io
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError
from cinefeed.core.files import write_atomically, write_errors
from cinefeed.core.rng import Stage, rng_for

SIZE = 96  # pixels a side
MM_PER_PIXEL = 1.8
_VIDEO, _PATIENT = 0, 1  # the "epoch" of an address: the kind of object that a generator is for
_COLUMNS = "path patient ejection_fraction heart_rate end_diastolic_volume_ml end_systolic_volume_ml".split()

_TISSUE, _MUSCLE, _BLOOD, _RIM, _VALVE = 0.25, 0.55, 0.08, 0.85, 0.7  # brightness before speckle and gain
_FAN_RADIANS = math.radians(44)

Pixels = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ventricle:
    """Parameters of one video. Lengths are in pixels of a `SIZE` x `SIZE` frame, angles in radians."""

    patient: str
    ejection_fraction: float  # per cent
    heart_rate: float  # beats per minute
    phase: float  # of the heart cycle at the first frame, 0..1; 0 is end diastole
    frames: int
    rate_hz: int
    radius: float  # of the cavity at its base, end diastole
    length: float  # of the cavity from base to apex, end diastole
    wall: float  # thickness at end diastole
    shift: tuple[float, float]
    angle: float
    gain: float
    fading: float  # share of the brightness lost from the top to the bottom of the fan
    speckle: float  # contrast of the multiplicative noise, 0..1

    def volumes(self) -> NDArray[np.float64]:
        """Return the volume of the cavity at each frame, in ml, float64 (frames,)."""
        largest = _volume_ml(self.radius, self.length)
        return largest * (1 - self.ejection_fraction / 100 * self.ejected_share())

    def ejected_share(self) -> NDArray[np.float64]:
        """Return the share of the stroke volume that is ejected at each frame, 0..1, float64 (frames,)."""
        seconds = np.arange(self.frames) / self.rate_hz
        return _ejected_share_at((self.phase + seconds * self.heart_rate / 60) % 1, heart_rate=self.heart_rate)

    def shape(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return radius and length of the cavity at each frame, float32 (frames,).

        The length shortens by a quarter of the ejected share, as the base of a heart moves towards its apex; the radius
        accounts for the rest: at an ejection fraction of 60 %, 15 % shorter and 31 % narrower.
        """
        volume_ratio = self.volumes() / _volume_ml(self.radius, self.length)
        length_ratio = 1 - (1 - volume_ratio) / 4
        return (self.radius * np.sqrt(volume_ratio / length_ratio)).astype(np.float32), (
            self.length * length_ratio
        ).astype(np.float32)


def _volume_ml(radius: float, length: float) -> float:
    return 2 / 3 * np.pi * radius**2 * length * (MM_PER_PIXEL / 10) ** 3


def _ejected_share_at(cycle: NDArray[np.float64], *, heart_rate: float) -> NDArray[np.float64]:
    """Return the ejected share of the stroke volume, 0..1, at moments of the heart cycle (0..1).

    Ejection takes 0.3 s times the square root of the length of a beat (Bazett). After 0.07 s without change (isovolumic
    relaxation), 75 % flow back early, and 25 % with the contraction of the atrium in the last fifth.
    """
    beat = 60 / heart_rate
    ejection = 0.3 * np.sqrt(beat) / beat
    filling = ejection + 0.07 / beat
    early = filling + 0.4 * (0.8 - filling)

    def rise(start: float, stop: float) -> NDArray[np.float64]:
        return 0.5 - 0.5 * np.cos(np.pi * np.clip((cycle - start) / (stop - start), 0, 1))

    return rise(0, ejection) - 0.75 * rise(filling, early) - 0.25 * rise(0.8, 1.0)


def draw_ejection_fraction(rng: np.random.Generator) -> float:
    """Return a random ejection fraction in per cent, distributed as in clinics: 82 % around 61, the others around 36.

    About one in eight is under 40; all are from 15 to 75.
    """
    mean, deviation = (61.0, 6.0) if rng.random() < 0.82 else (36.0, 9.0)
    return float(np.clip(rng.normal(mean, deviation), 15, 75))


def plan_demo(*, videos: int = 800, seed: int = 7, nuisance: float = 0.4) -> list[Ventricle]:
    """Return the ventricles of a demo data set: one to three videos per patient, of nearly the same heart.

    `nuisance` is the strength of variations that are unrelated to the label, from 0 (none) to 1 (hard): angle up to 60
    degrees, shift up to 16 pixels of 96, gain and fading by up to 60 %, size by up to 30 %, speckle from weak to fully
    developed. Heart rate, phase and the proportions of the ventricle always vary.

    The default of 0.4 is mild, so that training takes minutes on a CPU: with 800 videos and 26 epochs of 48 x 48 pixels
    the demo reached a test R2 of 0.95; with 64 x 64, which is not a whole fraction of the video's size, 0.90.

    Raises SettingError for numbers out of range.

    >>> [ventricle.patient for ventricle in plan_demo(videos=4)]
    ['p0000', 'p0000', 'p0000', 'p0001']
    """
    if videos < 1 or not 0 <= nuisance <= 1:
        raise SettingError(f"videos={videos}, nuisance={nuisance}: give videos of at least 1, and nuisance from 0 to 1")
    ventricles: list[Ventricle] = []
    patient = 0
    while len(ventricles) < videos:
        heart = rng_for(seed, stage=Stage.DEMO, epoch=_PATIENT, position=patient)
        mean_fraction = draw_ejection_fraction(heart)
        size = 1 + 0.3 * nuisance * heart.uniform(-1, 1)
        radius, length = 15.5 * size * heart.uniform(0.92, 1.08), 42 * size * heart.uniform(0.95, 1.05)
        wall = size * heart.uniform(4.5, 6.0)
        mean_rate = heart.uniform(58, 95)
        for _ in range(min(1 + int(heart.integers(3)), videos - len(ventricles))):
            rng = rng_for(seed, stage=Stage.DEMO, epoch=_VIDEO, position=len(ventricles))
            rate_hz = int(rng.choice([20, 25, 30]))
            ventricles.append(
                Ventricle(
                    patient=f"p{patient:04d}",
                    ejection_fraction=round(float(np.clip(mean_fraction + rng.normal(0, 1.5), 15, 75)), 1),
                    heart_rate=round(float(np.clip(mean_rate + rng.normal(0, 4), 52, 105)), 1),
                    phase=float(rng.random()),
                    frames=int(rate_hz * rng.uniform(1.3, 1.6)),
                    rate_hz=rate_hz,
                    radius=radius,
                    length=length,
                    wall=wall,
                    shift=(float(16 * nuisance * rng.uniform(-1, 1)), float(16 * nuisance * rng.uniform(-1, 1))),
                    angle=float(np.deg2rad(60 * nuisance) * rng.uniform(-1, 1)),
                    gain=float(1 + 0.6 * nuisance * rng.uniform(-1, 1)),
                    fading=float(0.6 * nuisance * rng.random()),
                    speckle=float(nuisance * rng.uniform(0.7, 1)),
                )
            )
        patient += 1
    return ventricles


def draw_video(ventricle: Ventricle, *, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the grey frames of a ventricle, full range, uint8 (frames, SIZE, SIZE). `rng` is for the speckle."""
    radius, length = (each[:, None, None] for each in ventricle.shape())
    down, right = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + np.float32(0.5)
    x, y = right - SIZE / 2 - ventricle.shift[0], down - SIZE * 0.48 - ventricle.shift[1]
    cosine, sine = math.cos(ventricle.angle), math.sin(ventricle.angle)
    across, along = cosine * x + sine * y, sine * x - cosine * y  # `along` points to the apex, which is near the probe
    base = ventricle.length / 2 - length  # the apex is fixed, the base moves
    above_base = along - base

    # The area of the wall is constant, so it thickens as the cavity shrinks.
    muscle = ventricle.wall * (ventricle.radius + ventricle.length + ventricle.wall)
    wall = (np.sqrt((radius + length) ** 2 + 4 * muscle) - radius - length) / 2
    cavity = _inside(across, np.maximum(above_base, 0), radius, length)
    heart = _inside(across, np.maximum(above_base, 0), radius + wall, length + wall)
    floor = -0.95 * ventricle.length  # the far end of the atrium is fixed, its near end is the moving base
    atrium = _inside(across, along - (base + floor) / 2, 0.95 * ventricle.radius, (base - floor) / 2)
    valve_opacity = np.where(ventricle.ejected_share() > 0.03, 1.0, 0.25).astype(np.float32)[:, None, None]
    valve = valve_opacity * _cover(1 - np.abs(above_base)) * (np.abs(across) < radius + wall)

    image = np.full(above_base.shape, _TISSUE, np.float32)
    for level, share in (
        (_MUSCLE, _cover(atrium + 2)),
        (_BLOOD, _cover(atrium)),
        (_MUSCLE, _cover(np.minimum(heart, above_base))),
        (_RIM, _cover(1 - np.abs(heart)) * (above_base > 0)),
        (_BLOOD, _cover(np.minimum(cavity, above_base))),
        (_VALVE, valve),
    ):
        image += (level - image) * share
    image *= 1 + ventricle.speckle * (_speckle(rng, image.shape) - 1)
    beam, depth = np.arctan2(np.abs(right - SIZE / 2), down + 6), np.hypot(right - SIZE / 2, down + 6)
    fan = _cover((_FAN_RADIANS - beam) * 60) * _cover(SIZE + 2 - depth)
    image *= fan * ventricle.gain * (1 - ventricle.fading * down / SIZE)
    return (np.clip(image, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)


def _inside(across: Pixels, along: Pixels, radius: Pixels | float, length: Pixels) -> Pixels:
    """Return the approximate distance from the edge of an ellipse in pixels, positive inside."""
    distance: Pixels = (1 - np.sqrt((across / radius) ** 2 + (along / length) ** 2)) * np.minimum(radius, length)
    return distance


def _cover(distance: Pixels) -> Pixels:
    """Return the share of a pixel that lies inside an edge, for the distance of the edge from its centre."""
    share: Pixels = np.clip(distance + 0.5, 0, 1)
    return share


def _speckle(rng: np.random.Generator, shape: tuple[int, ...]) -> Pixels:
    """Return speckle of mean 1: the amplitude of a blurred random complex field (Rayleigh), half of it constant.

    The blur averages about ten numbers per pixel, so uniform numbers give the same result as normal ones, ten times as
    fast.
    """
    frames, height, width = shape
    power = np.zeros(shape, np.float32)
    for _ in range(2):
        moving = rng.integers(-127, 128, (height, width, frames), np.int8)
        still = rng.integers(-127, 128, (height, width, 1), np.int8)
        field = cv2.GaussianBlur(moving.astype(np.float32) + still, (0, 0), sigmaX=1.1, sigmaY=0.7)
        power += field.reshape(height, width, frames).transpose(2, 0, 1) ** 2
    amplitude: Pixels = np.sqrt(power)
    amplitude /= amplitude.mean()
    return amplitude


def write_demo(
    folder: str | os.PathLike[str],
    *,
    videos: int = 800,
    seed: int = 7,
    nuisance: float = 0.4,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write a demo data set and return the path of its table `labels.csv`.

    The videos are H.264 in MP4, in one folder per patient. The columns of the table are path, patient,
    ejection_fraction (per cent), heart_rate (beats per minute), and the end-diastolic and end-systolic volumes in ml.
    The table is written last, so that a folder with a table is complete.

    Args:
        folder: folder to write to, created if needed.
        videos: number of videos.
        seed: seed of all random numbers.
        nuisance: see `plan_demo`.
        progress: called with the number of videos written.

    Raises SettingError or DiskFullError if the folder cannot be written.
    """
    root = Path(folder)
    ventricles = plan_demo(videos=videos, seed=seed, nuisance=nuisance)
    names = [f"{ventricle.patient}/v{number:04d}.mp4" for number, ventricle in enumerate(ventricles)]
    with write_errors(root, advice="give another folder"):
        for patient in {ventricle.patient for ventricle in ventricles}:
            (root / patient).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as threads:
            # The output of x264 depends on its number of threads: one thread per encoder makes it reproducible.
            jobs = [
                threads.submit(write_atomically, root / name, partial(_write_one, ventricle, seed, number))
                for number, (name, ventricle) in enumerate(zip(names, ventricles, strict=True))
            ]
            for num_written, job in enumerate(as_completed(jobs), start=1):
                job.result()
                if progress is not None:
                    progress(num_written)
        table = root / "labels.csv"
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for name, each in zip(names, ventricles, strict=True):
            largest = _volume_ml(each.radius, each.length)
            smallest = largest * (1 - each.ejection_fraction / 100)
            writer.writerow(
                [name, each.patient, each.ejection_fraction, each.heart_rate, f"{largest:.1f}", f"{smallest:.1f}"]
            )
        write_atomically(table, lambda path: path.write_bytes(text.getvalue().encode()))
    return table


def _write_one(ventricle: Ventricle, seed: int, number: int, path: Path) -> None:
    speckle = rng_for(seed, stage=Stage.DEMO, epoch=_VIDEO + 2, position=number)
    frames = draw_video(ventricle, rng=speckle)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=Fraction(ventricle.rate_hz), options={"preset": "ultrafast", "crf": "23", "g": "12"}
        )
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.thread_count = 1
        planes = np.full((SIZE * 3 // 2, SIZE), 128, np.uint8)
        for frame in frames:
            planes[:SIZE] = 16 + (frame.astype(np.uint16) * 219 + 127) // 255  # luma of limited range
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
