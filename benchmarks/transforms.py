"""The sample scale beside its peers: one thread, median and least of interleaved runs, in milliseconds a clip.

Run it with `python -m benchmarks.transforms`. "copy" is the floor: the source read once, the target written once.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from cinefeed.transforms.base import Transform
from cinefeed.transforms.compose import Compose
from cinefeed.transforms.geometry import Rotate, Shift
from cinefeed.transforms.intensity_linear import Brightness, Normalize
from cinefeed.video.clips import Frame
from cinefeed.video.color import Colour
from cinefeed.video.planes import Planes

DEGREES, RIGHT, DOWN = 17.0, 9.3, -4.6
MOVES = [{"degrees": DEGREES}, {"right": RIGHT, "down": DOWN}]
REPEATS = 60


def measure(title: str, ways: dict[str, Callable[[], object]], *, repeats: int = REPEATS) -> dict[str, float]:
    """Time all ways in turn, so that a busy moment of the machine hits each alike; print and return the medians."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - began) * 1e3)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ours = next(iter(medians.values()))
    print(f"\n{title}\n{'':44}{'median':>9}{'least':>9}{'times ours':>12}")
    for name, values in times.items():
        print(f"  {name:42}{medians[name]:9.2f}{min(values):9.2f}{medians[name] / ours:12.2f}")
    return medians


def backward(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse map as OpenCV takes it, with pixel centres at whole numbers."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return (np.linalg.inv(half) @ np.linalg.inv(matrix) @ half)[:2]


def forward(transforms: list[Transform], frame: Frame, height: int, width: int) -> np.ndarray:
    matrix = frame.matrix(height, width)
    for transform, parameters in zip(transforms, MOVES, strict=False):
        matrix = transform.matrix(parameters, height=frame.height, width=frame.width) @ matrix  # type: ignore[attr-defined]
    return matrix


def cine_2020(folder: Path) -> None:
    path = folder / "cine.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (25, 150, 150), np.uint8))
    frame = Frame(height=150, width=150, channels=1)
    moves: list[Transform] = [Rotate(degrees=25), Shift(pixels=15)]
    compose = Compose([*moves, Normalize()], frame=frame)
    out = np.empty((25, 150, 150, 1), np.float32)
    matrix = backward(forward(moves, frame, 150, 150))

    def ours() -> None:
        compose.render(
            Planes([(image,) for image in np.load(path, mmap_mode="r")], Colour(model="grey")), out, [*MOVES, {}]
        )

    def scipy_path() -> np.ndarray:
        clip = np.load(path).astype(np.float32)
        clip = ndimage.shift(clip, (0, DOWN, RIGHT), order=1)
        clip = ndimage.rotate(clip, DEGREES, axes=(1, 2), reshape=False, order=1)
        return clip / clip.max(axis=(1, 2), keepdims=True)

    def scipy_cubic() -> np.ndarray:
        clip = np.load(path).astype(np.float32)
        clip = ndimage.rotate(ndimage.shift(clip, (0, DOWN, RIGHT)), DEGREES, axes=(1, 2), reshape=False)
        return clip / clip.max(axis=(1, 2), keepdims=True)

    def opencv() -> None:
        for number, image in enumerate(np.load(path)):
            moved = cv2.warpAffine(image, matrix, (150, 150), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            np.multiply(moved, np.float32(1 / moved.max()), out=out[number, :, :, 0])

    ways: dict[str, Callable[[], object]] = {"cinefeed": ours, "OpenCV, a frame at a time": opencv}
    measure("2020 system: .npy (25, 150, 150), rotate, shift, divide by the frame's maximum", ways)
    measure("... its own path", {"cinefeed": ours, "SciPy, linear": scipy_path, "SciPy, cubic": scipy_cubic}, repeats=5)


def ultrasound() -> None:
    rng = np.random.default_rng(0)
    clip = [rng.integers(0, 256, (516, 576), np.uint8)[:, :516] for _ in range(16)]  # rows padded, as FFmpeg does
    frame = Frame(height=112, width=112, channels=1)
    moves: list[Transform] = [Rotate(degrees=25), Shift(pixels=12)]
    out = np.empty((16, 112, 112, 1), np.uint8)
    whole, reduced = forward(moves, frame, 516, 516), np.diag([4.0, 4.0, 1.0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fused = Compose(moves, frame=frame)

    def ours(compose: Compose, full_range: bool) -> Callable[[], None]:
        planes = Planes([(image,) for image in clip], Colour(model="grey", full_range=full_range))
        return lambda: compose.render(planes, out, MOVES[: len(compose.transforms)])

    def opencv_blocks() -> None:
        for number, image in enumerate(clip):
            small = cv2.resize(image, (129, 129), interpolation=cv2.INTER_AREA)
            cv2.warpAffine(small, backward(whole @ reduced), (112, 112), dst=out[number, :, :, 0], flags=flags)

    def opencv_size() -> None:
        fit = frame.matrix(516, 516)
        for number, image in enumerate(clip):
            small = cv2.resize(image, (112, 112), interpolation=cv2.INTER_AREA)
            matrix = backward(whole @ np.linalg.inv(fit))
            cv2.warpAffine(small, matrix, (112, 112), dst=out[number, :, :, 0], flags=flags)

    measure(
        "ultrasound: grey 16 x 516 x 516 to 112 x 112, rotate, shift",
        {
            "cinefeed": ours(fused, True),
            "cinefeed, limited range": ours(fused, False),
            "cinefeed, fit alone": ours(Compose([], frame=frame), True),
            "OpenCV, area by 4, one warp": opencv_blocks,
            "OpenCV, area to size, one warp": opencv_size,
            "copy": lambda: ([image.copy() for image in clip], out.copy()),
        },
    )


def colour() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (16, 128, 170, 3), np.uint8)
    planes = [tuple(rng.integers(0, 256, size, np.uint8) for size in ((128, 170), (64, 85), (64, 85))) for _ in clip]
    frame = Frame(height=112, width=112)
    moves: list[Transform] = [Rotate(degrees=25), Shift(pixels=12)]
    mean, std = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
    compose = Compose([*moves, Brightness(factor=0.2), Normalize(mode="standard", mean=mean, std=std)], frame=frame)
    parameters = [*MOVES, {"factor": 1.1}, {}]
    out = np.empty((16, 112, 112, 3), np.float32)
    matrix = backward(forward(moves, frame, 128, 170))
    rgb, yuv = Colour(model="rgb"), Colour(model="yuv", full_range=False)

    def opencv() -> None:
        for number, image in enumerate(clip):
            moved = cv2.warpAffine(image, matrix, (112, 112), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
            bright = cv2.convertScaleAbs(moved, alpha=1.1)
            out[number] = (bright - np.float32(mean)) / np.float32(std)

    ways: dict[str, Callable[[], object]] = {
        "cinefeed, RGB": lambda: compose.render(Planes([(image,) for image in clip], rgb), out, parameters),
        "cinefeed, from 4:2:0 planes": lambda: compose.render(Planes(planes, yuv), out, parameters),
        "OpenCV, a frame at a time": opencv,
    }
    try:
        import torch
    except ImportError:
        print("\n(torch is not installed: no grid_sample)")
    else:
        torch.set_num_threads(1)
        theta = torch.eye(2, 3)[None].expand(16, 2, 3)
        centre = torch.tensor(mean).view(1, 3, 1, 1)
        spread = torch.tensor(std).view(1, 3, 1, 1)

        def grid_sample() -> torch.Tensor:
            frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float()
            grid = torch.nn.functional.affine_grid(theta, [16, 3, 112, 112], align_corners=False)
            moved = torch.nn.functional.grid_sample(frames, grid, align_corners=False)
            return ((moved * 1.1).clamp(0, 255) - centre) / spread

        ways["torch, grid_sample"] = grid_sample
    ways["copy"] = lambda: (clip.copy(), out.copy())
    measure("colour: 16 x 128 x 170 to 112 x 112, affine, brightness, normalise to float32", ways)


def main() -> None:
    """Print the three tables."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        cine_2020(Path(folder))
    ultrasound()
    colour()


if __name__ == "__main__":
    main()
