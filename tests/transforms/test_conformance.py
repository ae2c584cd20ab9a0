"""Every built-in transform passes the checks, and the checks can fail."""

from dataclasses import dataclass

import numpy as np
import pytest

from cinefeed.testing import check_transform
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shift
from cinefeed.transforms.intensity import Brightness, Contrast, Normalize

BUILT_IN = [
    Rotate(degrees=25),
    Shift(pixels=3),
    Shift(fraction=(0.0, 0.2)),
    Scale(factor=0.2),
    Flip(),
    Flip(axis="both", probability=1.0),
    Brightness(factor=0.3),
    Contrast(factor=(0.5, 2.0)),
    Normalize(),
    Normalize(mode="clip_max"),
    Normalize(mode="standard"),
    Normalize(mode="standard", mean=100, std=50),
    Normalize(mode="range", high=255),
]


@pytest.mark.parametrize("transform", BUILT_IN, ids=repr)
def test_built_in_transforms(transform):
    check_transform(transform)


@dataclass(frozen=True)
class Faulty:
    fault: str

    def sample(self, rng, info):
        return (
            {"value": np.float64(1) if self.fault == "array" else [1]}
            | ({"drawn": float(np.random.default_rng().random())} if self.fault == "global" else {})
            | ({"array": np.ones(1)} if self.fault == "array" else {})
        )

    def apply(self, frames, parameters):
        if self.fault == "input":
            frames += 1
        if self.fault == "parameters":
            parameters["value"].append(2)
        if self.fault == "shared":
            return frames
        if self.fault == "shape":
            return frames[:, :-1].copy()
        if self.fault == "dtype":
            return frames.astype(np.float64)
        if self.fault == "frames":
            return (frames * (np.arange(len(frames)) < 2)[:, None, None, None]).astype(frames.dtype)
        return frames.copy()


@pytest.mark.parametrize("fault", ["array", "global", "input", "parameters", "shared", "shape", "dtype", "frames"])
def test_a_faulty_transform_is_found(fault):
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check_transform(Faulty(fault))


def test_a_faultless_transform_passes():
    check_transform(Faulty("none"))
