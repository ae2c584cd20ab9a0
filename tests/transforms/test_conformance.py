"""Every built-in transform passes the checks, and the checks can fail."""

import inspect
from dataclasses import dataclass

import numpy as np
import pytest

from cinefeed import transforms
from cinefeed.testing import check_transform
from cinefeed.transforms.base import Transform
from cinefeed.transforms.call import Call
from cinefeed.transforms.choice import OneOf, RandomOrder, Sometimes
from cinefeed.transforms.elastic import Elastic
from cinefeed.transforms.framing import Pad, RandomResizedCrop, Resize
from cinefeed.transforms.geometry import Flip, Rotate, Scale, Shear, Shift
from cinefeed.transforms.intensity_curves import ClipPercentiles, Equalize, Gamma, Window
from cinefeed.transforms.intensity_linear import Brightness, Contrast, Normalize
from cinefeed.transforms.masks import CutOut, SectorMask
from cinefeed.transforms.temporal import FrameDrop, Jitter, PhaseShift, Reverse, Speed
from cinefeed.transforms.texture import Blur, Noise, Saturation, Speckle

BUILT_IN = [
    Rotate(degrees=25),
    Rotate(degrees=(0, 90, 180, 270)),
    Rotate(degrees={0, 180}),
    Shift(pixels=3),
    Shift(fraction=(0.0, 0.2)),
    Shift(mm=2.5),
    Scale(factor=0.2),
    Shear(degrees=10),
    Shear(degrees=(-5, 20), axis="both"),
    Flip(),
    Flip(axis="both", probability=1.0),
    RandomResizedCrop(),
    RandomResizedCrop(area=0.25, aspect=1.0),
    Pad(pixels=2),
    Pad(mm=(1, 2)),
    Resize(height=9, width=30),
    Elastic(pixels=3),
    Elastic(fraction=(0.05, 0.1), points=3),
    Brightness(factor=0.3),
    Contrast(factor=(0.5, 2.0)),
    Gamma(gamma=0.5),
    Window(level=120, width=80),
    Window(level=(100, 140), width=(40, 200)),
    ClipPercentiles(low=5, high=90),
    Equalize(),
    Equalize(limit=1),
    Saturation(factor=0.5),
    Noise(std=0.1),
    Noise(std=0.1, fresh="clip"),
    Speckle(std=(0.1, 0.2)),
    Speckle(std=0.2, fresh="clip"),
    Blur(sigma=2),
    CutOut(size=0.4, count=3),
    SectorMask(degrees=80, apex=(0.5, -0.1), near=0.2, far=1.0),
    Normalize(),
    Normalize(mode="clip_max"),
    Normalize(mode="standard"),
    Normalize(mode="standard", mean=100, std=50),
    Normalize(mode="range", high=255),
    Normalize(mode="percentiles"),
    Normalize(mode="percentiles", low=10, high=80, dtype="float16"),
    Normalize(mode="range", high=255, dtype="float16"),
    Normalize(mode="range", high=255, dtype="bfloat16"),
    Speed(factor=0.5),
    Reverse(probability=1.0),
    Jitter(frames=2),
    FrameDrop(share=0.5),
    PhaseShift(fraction=1.0),
    Call(function=np.copy, random=False),
    OneOf(transforms=(Rotate(degrees=25), Brightness(factor=0.3), Noise(std=0.1)), weights=(1, 2, 3)),
    Sometimes(transform=Blur(sigma=2), probability=0.3),
    RandomOrder(transforms=(Gamma(gamma=0.3), Scale(factor=0.2), Reverse(), Sometimes(transform=CutOut(size=0.3)))),
]


@pytest.mark.parametrize("transform", BUILT_IN, ids=repr)
def test_built_in_transforms(transform):
    check_transform(transform)


def test_all_of_the_catalogue_is_checked():
    names = {name for name in transforms.__all__ if hasattr(getattr(transforms, name), "sample")}
    tested_names = {type(each).__name__ for each in BUILT_IN}
    assert names - {"Compose", "MixUp", "CutMix", "Transform"} == tested_names


def test_every_transform_is_a_frozen_dataclass_by_keyword():
    for transform in BUILT_IN:
        assert isinstance(transform, Transform)
        kind = type(transform)
        assert kind.__dataclass_params__.frozen
        with pytest.raises(TypeError):
            kind(1)
        assert inspect.getdoc(kind) and all(inspect.getdoc(getattr(kind, name)) for name in ("sample", "apply"))


def test_what_changes_the_meaning_says_so():
    for kind in (Reverse, Speed, Flip, Rotate, PhaseShift, FrameDrop, Jitter, Scale):
        words = inspect.getdoc(kind)
        assert any(word in words for word in ("changes the meaning", "change", "vanish"))


@dataclass(frozen=True)
class Faulty:
    fault: str
    same_for_all_frames: bool = True

    def sample(self, rng, info):
        return (
            {"value": np.float64(1) if self.fault == "array" else [1]}
            | ({"drawn": float(np.random.default_rng().random())} if self.fault == "global" else {})
            | ({"array": np.ones(1)} if self.fault == "array" else {})
        )

    def identity(self, info):
        return {"value": np.float64(1) if self.fault == "plain" else [1]}

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
        if self.fault == "negative":
            return -frames if frames.dtype == np.float32 else frames.copy()
        if self.fault == "nan":
            return frames * np.float32(np.nan) if frames.dtype == np.float32 else frames.copy()
        if self.fault == "identity":
            return frames // 2 if frames.dtype != np.float32 else frames / 2
        return frames.copy()


FAULTS = "array global input parameters shared shape dtype frames negative nan identity".split()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_transform_is_found(fault):
    errors = (AssertionError, ValueError) if fault == "input" else AssertionError  # NumPy refuses a read-only array
    with pytest.raises(errors, match="plain data" if fault == "array" else None):
        check_transform(Faulty(fault))


def test_a_faultless_transform_passes():
    check_transform(Faulty("none"))


class Brightening(Faulty):
    def matrix(self, parameters, *, height, width):
        return {"singular": np.zeros((3, 3)), "float32": np.eye(3, dtype=np.float32)}.get(self.fault, np.eye(3))

    def apply(self, frames, parameters):
        return np.full_like(frames, 255) if self.fault == "bright" else frames.copy()


class Winding(Faulty):
    def indices(self, indices, parameters, count):
        return {
            "beyond": indices + 1,
            "fewer": indices[1:],
            "type": indices.astype(np.int32),
            "still": np.zeros_like(indices),
        }.get(self.fault, indices.copy())


class Curving(Faulty):
    def curve(self, values, parameters, levels):
        if self.fault == "shape":
            return values[:, :, :-1].copy()
        return values // 2 if self.fault == "other" else values.copy()

    def apply(self, frames, parameters):
        return frames.copy()


class Choosing(Faulty):
    members = (Rotate(degrees=3),)

    def select(self, parameters):
        return [(Rotate(degrees=3) if self.fault == "foreign" else self.members[0], {})]


class Pointing(Faulty):
    def source_points(self, points, parameters, *, height, width):
        if self.fault == "nan":
            return points * np.nan
        return points + (len(points[0]) if self.fault == "neighbours" else 0)


@pytest.mark.parametrize(
    ("kind", "faults"),
    [
        (Brightening, ["singular", "bright"]),
        (Winding, ["beyond", "fewer", "type", "still"]),
        (Curving, ["shape", "other"]),
        (Choosing, ["foreign"]),
        (Pointing, ["nan", "neighbours"]),
    ],
)
def test_what_is_special_to_a_kind_is_checked(kind, faults):
    check_transform(kind("none"))
    for fault in faults:
        with pytest.raises(AssertionError):
            check_transform(kind(fault))


def test_frames_may_differ_where_it_is_said():
    class Flickering(Noise):
        same_for_all_frames = True

    check_transform(Noise(std=0.2))
    with pytest.raises(AssertionError, match="three equal frames"):
        check_transform(Flickering(std=0.2))
