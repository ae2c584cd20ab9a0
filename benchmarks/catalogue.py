"""Every transform of the catalogue alone, beside its peers: RGB bytes, 16 x 112 x 112, one thread, milliseconds a clip.

Run it with `python -m benchmarks.catalogue`. OpenCV goes frame by frame; Albumentations takes the clip as `images`;
Kornia takes it as a batch with `same_on_batch`, from bytes to floats and back included. The last two are listed where
they can be imported (`pip install albumentations kornia -c constraints.txt`). Below, whole chains beside the aims.
"""

import importlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np

from benchmarks import aims
from benchmarks.aims import MEAN, STD
from benchmarks.rows import Row
from cinefeed.transforms.base import ClipInfo, Transform
from cinefeed.transforms.elastic import Elastic
from cinefeed.transforms.framing import Pad, RandomResizedCrop, Resize
from cinefeed.transforms.fuse import compact_repr
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shear, Shift
from cinefeed.transforms.intensity_curves import ClipPercentiles, Equalize, Gamma, Window
from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize
from cinefeed.transforms.masks import CutOut, SectorMask
from cinefeed.transforms.mixing import CutMix, MixUp
from cinefeed.transforms.temporal import FrameDrop, Jitter, PhaseShift, Reverse, Speed
from cinefeed.transforms.texture import Blur, Noise, Saturation, Speckle

FRAMES, SIZE, CHANNELS = 16, 112, 3
REPEATS = 25
MATRIX = np.array([[0.95, 0.29, -12.0], [-0.29, 0.95, 20.0]])

Way = Callable[[np.ndarray], object]
Maker = Callable[[Any], Any]


def affine(frame: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(frame, MATRIX, (SIZE, SIZE))


def remap(frame: np.ndarray) -> np.ndarray:
    return cv2.remap(frame, *FIELD, cv2.INTER_LINEAR)


FIELD = np.mgrid[:SIZE, :SIZE][::-1].astype(np.float32) + np.float32(1.5)
TABLE = np.arange(256, dtype=np.uint8)[::-1].copy()

# transform, OpenCV frame by frame, Albumentations, Kornia
ROWS: list[tuple[Transform, Way | None, Maker | None, Maker | None]] = [
    (
        Rotate(degrees=(17, 17)),
        affine,
        lambda a: a.Rotate(limit=(17, 17), border_mode=0, p=1),
        lambda k: k.RandomRotation((17.0, 17.0), p=1.0, same_on_batch=True),
    ),
    (
        Shift(pixels=12),
        affine,
        lambda a: a.Affine(translate_px=(-12, 12), p=1),
        lambda k: k.RandomAffine(0.0, translate=(0.1, 0.1), p=1.0, same_on_batch=True),
    ),
    (
        Scale(factor=0.2),
        affine,
        lambda a: a.Affine(scale=(0.8, 1.2), p=1),
        lambda k: k.RandomAffine(0.0, scale=(0.8, 1.2), p=1.0, same_on_batch=True),
    ),
    (
        Shear(degrees=10),
        affine,
        lambda a: a.Affine(shear=(-10, 10), p=1),
        lambda k: k.RandomShear((-10.0, 10.0), p=1.0, same_on_batch=True),
    ),
    (
        Flip(probability=1.0),
        lambda frame: cv2.flip(frame, 1),
        lambda a: a.HorizontalFlip(p=1),
        lambda k: k.RandomHorizontalFlip(p=1.0, same_on_batch=True),
    ),
    (
        RandomResizedCrop(),
        affine,
        lambda a: a.RandomResizedCrop(size=(SIZE, SIZE), scale=(0.5, 1.0), p=1),
        lambda k: k.RandomResizedCrop((SIZE, SIZE), scale=(0.5, 1.0), p=1.0, same_on_batch=True),
    ),
    (Pad(pixels=(8, 8)), affine, None, None),
    (Resize(height=96, width=130), affine, None, None),
    (
        Elastic(pixels=4),
        remap,
        lambda a: a.ElasticTransform(alpha=4, sigma=14, p=1),
        lambda k: k.RandomElasticTransform(alpha=(0.07, 0.07), p=1.0, same_on_batch=True),
    ),
    (
        Brightness(factor=0.2),
        lambda frame: cv2.convertScaleAbs(frame, alpha=1.1),
        lambda a: a.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0, p=1),
        lambda k: k.RandomBrightness((0.8, 1.2), p=1.0, same_on_batch=True),
    ),
    (
        Contrast(factor=0.2),
        lambda frame: cv2.convertScaleAbs(frame, alpha=1.1, beta=-12.0),
        lambda a: a.RandomBrightnessContrast(brightness_limit=0, contrast_limit=0.2, p=1),
        lambda k: k.RandomContrast((0.8, 1.2), p=1.0, same_on_batch=True),
    ),
    (
        Gamma(gamma=0.2),
        lambda frame: cv2.LUT(frame, TABLE),
        lambda a: a.RandomGamma(gamma_limit=(80, 120), p=1),
        lambda k: k.RandomGamma((0.8, 1.2), p=1.0, same_on_batch=True),
    ),
    (Window(level=120, width=100), lambda frame: cv2.LUT(frame, TABLE), None, None),
    (ClipPercentiles(), None, None, None),
    (
        Equalize(limit=3),
        None,
        lambda a: a.CLAHE(clip_limit=3, tile_grid_size=(1, 1), p=1),
        lambda k: k.RandomEqualize(p=1.0, same_on_batch=True),
    ),
    (
        Saturation(factor=0.4),
        lambda frame: cv2.transform(frame, np.full((3, 3), 1 / 3)),
        lambda a: a.ColorJitter(brightness=0, contrast=0, saturation=0.4, hue=0, p=1),
        lambda k: k.RandomSaturation((0.6, 1.4), p=1.0, same_on_batch=True),
    ),
    (
        Noise(std=0.1),
        None,
        lambda a: a.GaussNoise(std_range=(0.1, 0.1), p=1),
        lambda k: k.RandomGaussianNoise(std=0.1, p=1.0),
    ),
    (Noise(std=0.1, fresh="clip"), None, None, None),
    (Speckle(std=0.1), None, lambda a: a.MultiplicativeNoise(multiplier=(0.8, 1.2), elementwise=True, p=1), None),
    (
        Blur(sigma=(1.5, 1.5)),
        lambda frame: cv2.GaussianBlur(frame, (11, 11), 1.5),
        lambda a: a.GaussianBlur(blur_limit=(11, 11), sigma_limit=(1.5, 1.5), p=1),
        lambda k: k.RandomGaussianBlur((11, 11), (1.5, 1.5), p=1.0, same_on_batch=True),
    ),
    (
        CutOut(size=0.4),
        None,
        lambda a: a.CoarseDropout(num_holes_range=(1, 1), p=1),
        lambda k: k.RandomErasing(scale=(0.04, 0.16), p=1.0, same_on_batch=True),
    ),
    (SectorMask(degrees=80), None, None, None),
    (Normalize(), None, None, None),
    (
        Normalize(mode="standard", mean=MEAN, std=STD),
        lambda frame: (frame - np.float32(MEAN)) / np.float32(STD),
        lambda a: a.Normalize(mean=MEAN, std=STD, max_pixel_value=1.0, p=1),
        lambda k: k.Normalize(mean=tuple(each / 255 for each in MEAN), std=tuple(each / 255 for each in STD)),
    ),
    (Normalize(mode="percentiles"), None, None, None),
    (Normalize(mode="range", high=255, dtype="float16"), None, None, None),
]
TIME: list[Transform] = [
    Speed(factor=0.3),
    Reverse(probability=1.0),
    Jitter(frames=2),
    FrameDrop(share=0.2),
    PhaseShift(fraction=0.5),
]


def timed(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median of each way, in milliseconds, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(REPEATS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: float(np.median(values)) for name, values in times.items()}


def imported(name: str) -> Any:
    try:
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it asks the network for its newest version
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        print(f"({name} is not listed: {error})")
        return None


def by_frame(way: Way, clip: np.ndarray) -> list[object]:
    return [way(frame) for frame in clip]


def by_kornia(layer: Any, clip: np.ndarray) -> Callable[[], object]:
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)

    def run() -> object:
        with torch.inference_mode():
            frames = layer(torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255)
            if type(layer).__name__ != "Normalize":  # whose floats are what is wanted
                frames = (frames * 255).clamp(0, 255).byte()
            return frames.permute(0, 2, 3, 1).numpy()

    return run


def listed() -> None:
    albumentations, kornia = imported("albumentations"), imported("kornia.augmentation")
    clip = np.random.default_rng(0).integers(0, 256, (FRAMES, SIZE, SIZE, CHANNELS), np.uint8)
    clip = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in clip])
    info = ClipInfo(*clip.shape)
    print(f"\n{'':52}{'cinefeed':>10}{'OpenCV':>10}{'Albument.':>10}{'Kornia':>10}")
    for transform, opencv, album, korn in ROWS:
        parameters = transform.sample(np.random.default_rng(0), info)
        ways: dict[str, Callable[[], object]] = {"cinefeed": partial(transform.apply, clip, parameters)}
        if opencv is not None:
            ways["OpenCV"] = partial(by_frame, opencv, clip)
        if album is not None and albumentations is not None:
            ways["Albumentations"] = partial(albumentations.Compose([album(albumentations)]), images=clip)
        if korn is not None and kornia is not None:
            ways["Kornia"] = by_kornia(korn(kornia), clip)
        medians = timed(ways)
        columns = (medians.get(name) for name in ("cinefeed", "OpenCV", "Albumentations", "Kornia"))
        print(
            f"  {compact_repr(transform)[:50]:50}"
            + "".join(f"{'' if each is None else f'{each:.2f}':>10}" for each in columns)
        )
    indices = np.arange(0, 2 * FRAMES, 2)
    for transform in TIME:
        parameters = transform.sample(np.random.default_rng(0), info)
        milliseconds = timed({"cinefeed": partial(transform.indices, indices, parameters, 64)})  # type: ignore[attr-defined]
        print(f"  {compact_repr(transform)[:50]:50}{milliseconds['cinefeed']:10.3f}")
    batch = np.stack([clip] * 8)
    for mix in (MixUp(), CutMix()):
        parameters = mix.sample(np.random.default_rng(0), info, size=8)
        milliseconds = timed({"cinefeed": partial(mix.apply, batch, parameters)})
        print(f"  {compact_repr(mix) + ', a clip of a batch of 8':50}{milliseconds['cinefeed'] / 8:10.2f}")


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of the benchmarks page: the whole chains."""
    yield from aims.rows(imported, quick=quick)


def main() -> None:
    """Print the catalogue, then whole chains beside the peers and the aims."""
    cv2.setNumThreads(1)
    listed()
    aims.main(imported)


if __name__ == "__main__":
    main()
