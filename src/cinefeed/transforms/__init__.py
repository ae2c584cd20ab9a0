"""Transforms of clips. Each public name is imported on first access."""

from importlib import import_module
from typing import TYPE_CHECKING

from cinefeed.core.errors import did_you_mean

if TYPE_CHECKING:
    from cinefeed.transforms.base import ClipInfo as ClipInfo
    from cinefeed.transforms.base import Transform as Transform
    from cinefeed.transforms.call import Call as Call
    from cinefeed.transforms.choice import OneOf as OneOf
    from cinefeed.transforms.choice import RandomOrder as RandomOrder
    from cinefeed.transforms.choice import Sometimes as Sometimes
    from cinefeed.transforms.compose import Compose as Compose
    from cinefeed.transforms.elastic import Elastic as Elastic
    from cinefeed.transforms.framing import Pad as Pad
    from cinefeed.transforms.framing import RandomResizedCrop as RandomResizedCrop
    from cinefeed.transforms.framing import Resize as Resize
    from cinefeed.transforms.geometry import Flip as Flip
    from cinefeed.transforms.geometry import Rotate as Rotate
    from cinefeed.transforms.geometry import Scale as Scale
    from cinefeed.transforms.geometry import Shear as Shear
    from cinefeed.transforms.geometry import Shift as Shift
    from cinefeed.transforms.intensity_curves import ClipPercentiles as ClipPercentiles
    from cinefeed.transforms.intensity_curves import Equalize as Equalize
    from cinefeed.transforms.intensity_curves import Gamma as Gamma
    from cinefeed.transforms.intensity_curves import Window as Window
    from cinefeed.transforms.intensity_linear import Brightness as Brightness
    from cinefeed.transforms.intensity_linear import Contrast as Contrast
    from cinefeed.transforms.intensity_linear import Normalize as Normalize
    from cinefeed.transforms.masks import CutOut as CutOut
    from cinefeed.transforms.masks import SectorMask as SectorMask
    from cinefeed.transforms.mixing import CutMix as CutMix
    from cinefeed.transforms.mixing import MixUp as MixUp
    from cinefeed.transforms.temporal import FrameDrop as FrameDrop
    from cinefeed.transforms.temporal import Jitter as Jitter
    from cinefeed.transforms.temporal import PhaseShift as PhaseShift
    from cinefeed.transforms.temporal import Reverse as Reverse
    from cinefeed.transforms.temporal import Speed as Speed
    from cinefeed.transforms.texture import Blur as Blur
    from cinefeed.transforms.texture import Noise as Noise
    from cinefeed.transforms.texture import Saturation as Saturation
    from cinefeed.transforms.texture import Speckle as Speckle

_HOME = {
    name: f"cinefeed.transforms.{room}"
    for room, names in {
        "base": "ClipInfo Transform",
        "call": "Call",
        "geometry": "Flip Rotate Scale Shear Shift",
        "framing": "Pad RandomResizedCrop Resize",
        "elastic": "Elastic",
        "intensity_linear": "Brightness Contrast Normalize",
        "intensity_curves": "ClipPercentiles Equalize Gamma Window",
        "texture": "Blur Noise Saturation Speckle",
        "masks": "CutOut SectorMask",
        "temporal": "FrameDrop Jitter PhaseShift Reverse Speed",
        "choice": "OneOf RandomOrder Sometimes",
        "mixing": "CutMix MixUp",
        "compose": "Compose",
    }.items()
    for name in names.split()
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'cinefeed.transforms' has no attribute {name!r}; {did_you_mean(name, _HOME)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
