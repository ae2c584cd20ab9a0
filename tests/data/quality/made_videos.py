"""Small videos that differ as real ones do: smooth texture that moves."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from cinefeed.data.manifest.manifest import Manifest


def moving(number: int, *, frames: int = 12, height: int = 64, width: int = 80) -> np.ndarray:
    """A video of its own for each number, uint8 (frames, height, width): two textures, one drifting over the other."""
    rng = np.random.default_rng(number)
    still, drifting = (cv2.GaussianBlur(rng.normal(0, 1, (height, width)), (0, 0), 4) for _ in range(2))
    shifts = np.cumsum(rng.integers(1, 5, frames))
    clip = np.stack([still + np.roll(drifting, shift, axis=1) for shift in shifts])
    return np.clip(128 + 45 * clip / clip.std(), 0, 255).astype(np.uint8)


def save(folder: Path, name: str, frames: np.ndarray) -> None:
    """Write frames as a .npy file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, frames)


def scanned(folder: Path, **columns: list) -> Manifest:
    """The manifest of a folder, with columns given in the order of the paths."""
    if columns:
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
        return Manifest.scan(folder, labels=pa.table({"path": paths, **columns}), progress=False)
    return Manifest.scan(folder, progress=False)


def codes(report) -> dict[str, object]:
    """The findings of a report by their code."""
    return {each.code: each for each in report.findings}
