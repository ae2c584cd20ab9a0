"""The sample scale beside the 2020 system, Albumentations and Kornia, and beside its aims, for the catalogue.

One thread, medians. All draw new parameters for each clip, as in training.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from cinefeed.data.manifest.manifest import Manifest
from cinefeed.feed.feed import Feed
from cinefeed.transforms.base import ClipInfo, Transform
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.framing import RandomResizedCrop
from cinefeed.transforms.geometry import Rotate, Shift
from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize
from cinefeed.video.clips import Clip, Frame
from cinefeed.video.color import Colour
from cinefeed.video.planes import Planes

MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
BATCH, CINE = 16, (25, 150, 150)
FRAMES, HEIGHT, WIDTH, SIZE = 16, 128, 170, 112
DEGREES, PIXELS = 25.0, 12.0
ROUNDS, BURST = 10, 5

Ways = dict[str, Callable[[], Any]]


def measure(title: str, ways: Ways, *, rounds: int = ROUNDS, burst: int = BURST) -> dict[str, float]:
    """Time the ways in turns, a burst of runs each; print and return the medians, in milliseconds.

    Turns, so that a busy moment hits each alike; bursts whose first run does not count, so that none finds the caches
    full of what another left there: after Kornia's turn one run alone took 2.3 ms where the next ones took 1.5.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            for run in range(burst):
                began = time.perf_counter()
                way()
                if run or burst == 1:
                    times[name].append((time.perf_counter() - began) * 1e3)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ours = next(iter(medians.values()))
    print(f"\n{title}\n{'':44}{'median':>9}{'least':>9}{'times ours':>12}")
    for name, values in times.items():
        print(f"  {name:42}{medians[name]:9.2f}{min(values):9.2f}{medians[name] / ours:12.2f}")
    return medians


def cine() -> dict[str, float]:
    """Time batches of 16 files as the 2020 system made them, and as cinefeed does; print and return the medians."""
    rng, moves = np.random.default_rng(0), [Rotate(degrees=DEGREES), Shift(pixels=PIXELS)]
    frame = Frame(height=CINE[1], width=CINE[2], channels=1)
    compose = Compose([*moves, Normalize()], frame=frame)
    out = np.empty((BATCH, *CINE, 1), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number:02}.npy") for number in range(BATCH)]
        for path in paths:
            np.save(path, rng.integers(0, 256, CINE, np.uint8))
        manifest = Manifest.scan(folder, progress=False)

        def scipy_batch(**options: int) -> np.ndarray:
            batch = np.empty((BATCH, *CINE, 1))
            for number, path in enumerate(paths):
                right, down = rng.uniform(-PIXELS, PIXELS, 2)
                clip = ndimage.shift(np.load(path), (0, down, right), **options)
                clip = ndimage.rotate(clip, rng.uniform(-DEGREES, DEGREES), axes=(1, 2), reshape=False, **options)
                batch[number, ..., 0] = clip / clip.max()
            return batch

        def ours() -> np.ndarray:
            for number, path in enumerate(paths):
                planes = Planes([(image,) for image in np.load(path)], Colour(model="grey"))
                compose.render(planes, out[number], compose.sample(rng, frames=CINE[0]))
            return out

        def feed(workers: int) -> Feed:
            return Feed(
                manifest,
                target=None,
                clip=Clip(frames=CINE[0], position="start"),
                frame=frame,
                transforms=compose.transforms,
                batch_size=BATCH,
                workers=workers,
            )

        whole = feed(workers=0)
        checked(
            {"cinefeed": ours, "feed": lambda: whole.batch(0).clips, "SciPy": partial(scipy_batch, order=1)}, out.shape
        )
        title = f".npy {CINE}, in batches of {BATCH}: shift, rotate, divide by the maximum; ms a batch"
        medians = measure(title, {"cinefeed": ours, "cinefeed, a whole feed": lambda: whole.batch(0)})
        slow = {"2020 system: SciPy as it comes (cubic)": scipy_batch, "SciPy, linear": partial(scipy_batch, order=1)}
        return medians | measure("... its own path", slow, rounds=3, burst=1)


def colour(imported: Callable[[str], Any]) -> dict[str, float]:
    """Time a colour clip from decoded frames to normalised floats by every library; print and return the medians."""
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    planes = Planes([(image,) for image in clip], Colour(model="rgb"))
    moves: list[Transform] = [
        Rotate(degrees=DEGREES),
        Shift(pixels=PIXELS),
        RandomResizedCrop(area=(0.6, 1.0)),
    ]
    values: list[Transform] = [
        Brightness(factor=0.2),
        Contrast(factor=0.2),
        Normalize(mode="standard", mean=MEAN, std=STD),
    ]
    frame = Frame(height=SIZE, width=SIZE)
    compose, geometry = Compose([*moves, *values], frame=frame), Compose(moves, frame=frame)
    out, pixels = (np.empty((FRAMES, SIZE, SIZE, 3), dtype) for dtype in (np.float32, np.uint8))

    def ours() -> np.ndarray:
        compose.render(planes, out, compose.sample(rng, frames=FRAMES))
        return out

    def alone() -> np.ndarray:
        geometry.render(planes, pixels, geometry.sample(rng, frames=FRAMES))
        return pixels

    def in_turn() -> np.ndarray:
        changed = alone()
        for transform in values:
            changed = transform.apply(changed, transform.sample(rng, ClipInfo(FRAMES, SIZE, SIZE, 3)))
        out[:] = changed
        return out

    def copied() -> None:
        clip.copy()
        np.copyto(out, np.float32(0.5))

    peers: Ways = {}
    if (album := imported("albumentations")) is not None:
        peers |= by_albumentations(album, clip)
    if (kornia := imported("kornia.augmentation")) is not None:
        peers |= by_kornia(kornia, clip)
    checked({"cinefeed": ours, **peers}, out.shape)
    return measure(
        f"RGB {FRAMES} x {HEIGHT} x {WIDTH} to {SIZE}: affine, crop, brightness, contrast, normalise to float32",
        {
            "cinefeed": ours,
            "cinefeed, one after the other": in_turn,
            "cinefeed, the geometry alone": alone,
            **peers,
            "copy: each pixel read and written once": copied,
        },
    )


def by_albumentations(album: Any, clip: np.ndarray) -> Ways:
    """Return its ways from bytes to floats, all frames alike; a crop that resizes as ours does, and a plain one."""
    shift = (-round(PIXELS), round(PIXELS))
    affine = album.Affine(rotate=(-DEGREES, DEGREES), translate_px=shift, p=1)
    values = [
        album.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=1),
        album.Normalize(mean=MEAN, std=STD, max_pixel_value=1.0, p=1),
    ]
    crops = {
        "Albumentations": album.RandomResizedCrop(size=(SIZE, SIZE), scale=(0.6, 1.0), p=1),
        "Albumentations, a crop without resizing": album.RandomCrop(SIZE, SIZE, p=1),
    }
    chains = {name: album.Compose([affine, crop, *values]) for name, crop in crops.items()}
    return {name: lambda chain=chain: chain(images=clip)["images"] for name, chain in chains.items()}


def by_kornia(kornia: Any, clip: np.ndarray) -> Ways:
    """Return its way from bytes to floats, all frames alike, channels first as PyTorch has them."""
    import torch

    torch.set_num_threads(1)
    shift = (PIXELS / WIDTH, PIXELS / HEIGHT)
    alike = {"p": 1.0, "same_on_batch": True}
    chain = torch.nn.Sequential(
        kornia.RandomAffine(DEGREES, translate=shift, **alike),
        kornia.RandomResizedCrop((SIZE, SIZE), scale=(0.6, 1.0), **alike),
        kornia.RandomBrightness((0.8, 1.2), **alike),
        kornia.RandomContrast((0.8, 1.2), **alike),
        kornia.Normalize(mean=torch.tensor(MEAN) / 255, std=torch.tensor(STD) / 255),
    )

    def run() -> np.ndarray:
        with torch.inference_mode():
            frames: np.ndarray = chain(torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255).numpy()
        return frames.transpose(0, 2, 3, 1)

    return {"Kornia": run}


def checked(ways: Mapping[str, Callable[[], Any]], shape: tuple[int, ...]) -> None:
    """Raise AssertionError where a way does not give floats of the shape, or gives one value only."""
    for name, way in ways.items():
        result = np.asarray(way())
        if result.shape != shape or result.dtype.kind != "f" or result.std() < 0.1:
            raise AssertionError(f"{name} gave {result.dtype} {result.shape}, spread {result.std():.3g}")


def main(imported: Callable[[str], Any]) -> None:
    """Print both workloads, then every ratio beside its aim."""
    cv2.setNumThreads(1)
    files, clips = cine(), colour(imported)
    rows = [("the 2020 system's own path", files, "2020 system: SciPy as it comes (cubic)", 150.0)]
    rows += [("... with linear interpolation", files, "SciPy, linear", None)]
    rows += [("Albumentations", clips, "Albumentations", 6.0)]
    rows += [("... a crop without resizing", clips, "Albumentations, a crop without resizing", 6.0)]
    rows += [("Kornia", clips, "Kornia", 10.0)]
    print(f"\n{'times as fast as':44}{'found':>9}{'aim':>9}")
    for title, medians, name, aim in rows:
        cell = f"{medians[name] / medians['cinefeed']:9.1f}" if name in medians else f"{'absent':>9}"
        print(f"  {title:42}{cell}{'' if aim is None else f'{aim:9.0f}'}")
    share = clips["copy: each pixel read and written once"] / clips["cinefeed"]
    print(f"\nThe fused path reaches {share:.0%} of the speed of a pure copy.")
