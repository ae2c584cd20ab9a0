"""The sample scale beside the 2020 system, Albumentations and Kornia, and beside its aims, for the catalogue.

One thread, medians. All draw new parameters for each clip, as in training.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from benchmarks.rows import Row, contestants
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
RATIO = (3 / 4, 4 / 3)  # of the sides of a random crop, the default of the peers
WHOLE = (WIDTH / HEIGHT, WIDTH / HEIGHT)  # of a crop that is the whole frame
CUBIC, COPY = "2020 system: SciPy as it comes (cubic)", "copy: each pixel read and written once"

Ways = dict[str, Callable[[], Any]]


def measure(ways: Ways, *, rounds: int = ROUNDS, burst: int = BURST) -> dict[str, list[float]]:
    """Time the ways in turns, a burst of runs each; return the median of each burst, in milliseconds.

    Turns, so that a busy moment hits each alike; bursts whose first run does not count, so that none finds the caches
    full of what another left there: after Kornia's turn one run alone took 2.3 ms where the next ones took 1.5.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            runs = []
            for _ in range(burst):
                began = time.perf_counter()
                way()
                runs.append((time.perf_counter() - began) * 1e3)
            times[name].append(statistics.median(runs[1:] or runs))
    return times


def printed(title: str, times: dict[str, list[float]]) -> dict[str, float]:
    """Print a table of times; return the medians."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = next(iter(medians.values()))
    print(f"\n{title}\n{'':44}{'median':>9}{'least':>9}{'times ours':>12}")
    for name, values in times.items():
        print(f"  {name:42}{medians[name]:9.2f}{min(values):9.2f}{medians[name] / ours:12.2f}")
    return medians


def cine(*, rounds: int = ROUNDS, scipy_rounds: int = 3) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time batches of 16 files as the 2020 system made them, and as cinefeed does; return also whose frames differ."""
    rng, moves = np.random.default_rng(0), [Shift(pixels=PIXELS), Rotate(degrees=DEGREES)]
    frame = Frame(height=CINE[1], width=CINE[2], channels=1)
    compose = Compose([*moves, Normalize()], frame=frame)
    out = np.empty((BATCH, *CINE, 1), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number:02}.npy") for number in range(BATCH)]
        for path in paths:
            np.save(path, rng.integers(0, 256, CINE, np.uint8))
        manifest = Manifest.scan(folder, progress=False)

        def scipy_clip(path: Path, right: float, down: float, degrees: float, **options: int) -> np.ndarray:
            clip = ndimage.shift(np.load(path), (0, down, right), **options)
            clip = ndimage.rotate(clip, degrees, axes=(1, 2), reshape=False, **options)
            return clip / clip.max()

        def scipy_batch(**options: int) -> np.ndarray:
            batch = np.empty((BATCH, *CINE, 1))
            for number, path in enumerate(paths):
                right, down = rng.uniform(-PIXELS, PIXELS, 2)
                batch[number, ..., 0] = scipy_clip(path, right, down, rng.uniform(-DEGREES, DEGREES), **options)
            return batch

        def ours() -> np.ndarray:
            for number, path in enumerate(paths):
                planes = Planes([(image,) for image in np.load(path)], Colour(model="grey"))
                compose.render(planes, out[number], compose.sample(rng, frames=CINE[0]))
            return out

        def cinefeed_clip() -> np.ndarray:
            planes = Planes([(image,) for image in np.load(paths[0])], Colour(model="grey"))
            compose.render(planes, out[0], [{"right": 9.3, "down": -4.6}, {"degrees": 17.0}, {}])
            return out[0, ..., 0].copy()

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
        times = measure({"cinefeed": ours, "cinefeed, a whole feed": lambda: whole.batch(0)}, rounds=rounds)
        slow = {CUBIC: scipy_batch, "SciPy, linear": partial(scipy_batch, order=1)}
        expected, problems = cinefeed_clip(), {}
        for name, options in ((CUBIC, {}), ("SciPy, linear", {"order": 1})):
            problems[name] = difference(scipy_clip(paths[0], 9.3, -4.6, 17.0, **options), expected)
        return times | measure(slow, rounds=scipy_rounds, burst=1), {k: v for k, v in problems.items() if v}


def difference(frames: np.ndarray, expected: np.ndarray) -> str:
    """Return the problem of frames that are not nearer to the expected ones than two of these are to each other."""
    off, apart = np.abs(frames - expected).mean(), np.abs(expected[1:] - expected[:-1]).mean()
    return f"its pixels differ by {off / apart:.0%} of the difference between two frames" if off > apart / 2 else ""


def colour(imported: Callable[[str], Any], *, rounds: int = ROUNDS) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Time a colour clip from frames to normalised floats by every library; return also whose frames differ."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    clip = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in noise])
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

    def plain() -> np.ndarray:
        Compose(values[2:], frame=Frame(height=SIZE, width=SIZE, fit="stretch")).render(planes, out, [{}])
        return out.copy()

    peers: Ways = {}
    still: Ways = {}  # the same chains, with ranges of zero
    for name, add in (("albumentations", by_albumentations), ("kornia.augmentation", by_kornia)):
        if (module := imported(name)) is not None:
            peers |= add(module, clip, 1.0)
            still |= add(module, clip, 0.0)
    checked({"cinefeed": ours, **peers}, out.shape)
    expected = plain()
    problems = {name: problem for name, way in still.items() if (problem := difference(np.asarray(way()), expected))}
    ways = {
        "cinefeed": ours,
        "cinefeed, one after the other": in_turn,
        "cinefeed, the geometry alone": alone,
        **peers,
        COPY: copied,
    }
    return measure(ways, rounds=rounds), problems


def by_albumentations(album: Any, clip: np.ndarray, strength: float) -> Ways:
    """Return its ways from bytes to floats, all frames alike; a crop that resizes as ours does, and a plain one.

    With strength 1 they are random, with 0 the whole frame is resized and normalised.
    """
    turn, shift = DEGREES * strength, round(PIXELS * strength)
    affine = album.Affine(rotate=(-turn, turn), translate_px=(-shift, shift), p=1)
    values = [
        album.RandomBrightnessContrast(brightness_limit=0.2 * strength, contrast_limit=0.2 * strength, p=1),
        album.Normalize(mean=MEAN, std=STD, max_pixel_value=1.0, p=1),
    ]
    crops = {
        "Albumentations": album.RandomResizedCrop(
            size=(SIZE, SIZE),
            scale=(0.6, 1.0) if strength else (1.0, 1.0),
            ratio=RATIO if strength else WHOLE,
            p=1,
        )
    }
    if strength:
        crops["Albumentations, a crop without resizing"] = album.RandomCrop(SIZE, SIZE, p=1)
    chains = {name: album.Compose([affine, crop, *values]) for name, crop in crops.items()}
    return {name: lambda chain=chain: chain(images=clip)["images"] for name, chain in chains.items()}


def by_kornia(kornia: Any, clip: np.ndarray, strength: float) -> Ways:
    """Return its way from bytes to floats, all frames alike, with channels first; `strength` as above."""
    import torch

    torch.set_num_threads(1)
    shift = (PIXELS / WIDTH * strength, PIXELS / HEIGHT * strength)
    alike = {"p": 1.0, "same_on_batch": True}
    scale, ratio = ((0.6, 1.0), RATIO) if strength else ((1.0, 1.0), WHOLE)
    factors = (1 - 0.2 * strength, 1 + 0.2 * strength)
    chain = torch.nn.Sequential(
        kornia.RandomAffine(DEGREES * strength, translate=shift, **alike),
        kornia.RandomResizedCrop((SIZE, SIZE), scale=scale, ratio=ratio, **alike),
        kornia.RandomBrightness(factors, **alike),
        kornia.RandomContrast(factors, **alike),
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


def rows(imported: Callable[[str], Any], *, quick: bool) -> Iterator[Row]:
    """Yield the rows of the benchmarks page."""
    cv2.setNumThreads(1)
    check = "Peers were compared with cinefeed for the same parameters: pixels, up to the method of interpolation."
    times, problems = cine(rounds=2 if quick else ROUNDS, scipy_rounds=1 if quick else 5)
    ours = {"cinefeed, a whole feed without workers": times.pop("cinefeed, a whole feed")}
    ours["cinefeed, without its feed"] = times.pop("cinefeed")
    yield Row(
        what=f"2020 system: .npy {CINE}, shift, rotate, divide",
        unit=f"ms a batch of {BATCH}",
        check=check,
        higher_is_better=False,
        contestants=contestants(ours | times, problems=problems, bounds=["cinefeed, without its feed"]),
    )
    times, differences = colour(imported, rounds=2 if quick else 20)
    absent = {"Albumentations", "Kornia"} - times.keys()
    problems = dict.fromkeys(sorted(absent), "cannot be loaded here") | differences
    yield Row(
        what=f"RGB {FRAMES} x {HEIGHT} x {WIDTH}: affine, crop, intensity",
        unit="ms a clip",
        check=f"{check} (Brightness and contrast were left out of the comparison.)",
        higher_is_better=False,
        contestants=contestants(
            times, problems=problems, bounds=[COPY, *(name for name in times if name.startswith("cinefeed,"))]
        ),
    )


def main(imported: Callable[[str], Any]) -> None:
    """Print both workloads, then every ratio beside its aim."""
    cv2.setNumThreads(1)
    title = f".npy {CINE}, in batches of {BATCH}: shift, rotate, divide by the maximum; ms a batch"
    files = printed(title, cine()[0])
    title = f"RGB {FRAMES} x {HEIGHT} x {WIDTH} to {SIZE}: affine, crop, brightness, contrast, normalise to float32"
    clips = printed(title, colour(imported)[0])
    rows = [("the 2020 system's own path", files, CUBIC, 150.0)]
    rows += [("... with linear interpolation", files, "SciPy, linear", None)]
    rows += [("Albumentations", clips, "Albumentations", 6.0)]
    rows += [("... a crop without resizing", clips, "Albumentations, a crop without resizing", 6.0)]
    rows += [("Kornia", clips, "Kornia", 10.0)]
    print(f"\n{'times as fast as':44}{'found':>9}{'aim':>9}")
    for title, medians, name, aim in rows:
        cell = f"{medians[name] / medians['cinefeed']:9.1f}" if name in medians else f"{'absent':>9}"
        print(f"  {title:42}{cell}{'' if aim is None else f'{aim:9.0f}'}")
    share = clips[COPY] / clips["cinefeed"]
    print(f"\nThe fused path reaches {share:.0%} of the speed of a pure copy.")
