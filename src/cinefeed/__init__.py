"""cinefeed feeds video to deep learning: frame-exact, balanced, augmented, parallel, reproducible to the byte."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cinefeed.core.html import page_writers
from cinefeed.core.pools import wait_passively as _wait_passively

_wait_passively()  # an import of torch that follows, as in sorted imports, finds it set

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pathlib import Path

    from cinefeed import models as models
    from cinefeed import testing as testing
    from cinefeed import transforms as transforms
    from cinefeed.core.errors import CinefeedError as CinefeedError
    from cinefeed.data.manifest.manifest import Manifest as Manifest
    from cinefeed.data.sampling import BalancedClasses as BalancedClasses
    from cinefeed.data.sampling import Natural as Natural
    from cinefeed.data.sampling import UniformLabels as UniformLabels
    from cinefeed.feed.batch import Batch as Batch
    from cinefeed.feed.feed import Feed as Feed
    from cinefeed.feed.labels import FeedSpec as FeedSpec
    from cinefeed.feed.settings import ClipsPerVideo as ClipsPerVideo
    from cinefeed.feed.settings import Inputs as Inputs
    from cinefeed.feed.settings import Shard as Shard
    from cinefeed.feed.settings import Workers as Workers
    from cinefeed.transforms.geometry import Flip as Flip
    from cinefeed.transforms.geometry import Rotate as Rotate
    from cinefeed.transforms.geometry import Scale as Scale
    from cinefeed.transforms.geometry import Shift as Shift
    from cinefeed.transforms.intensity_linear import Brightness as Brightness
    from cinefeed.transforms.intensity_linear import Contrast as Contrast
    from cinefeed.transforms.intensity_linear import Normalize as Normalize
    from cinefeed.video.clips import Clip as Clip
    from cinefeed.video.clips import Frame as Frame
    from cinefeed.video.limits import ReadLimits as ReadLimits
    from cinefeed.video.read_options import ReadOptions as ReadOptions
    from cinefeed.video.readers import register_reader as register_reader
    from cinefeed.video.registry import open_video as open_video
    from cinefeed.video.registry import probe as probe

# Looked up on first use (PEP 562), so that `import cinefeed` costs no more than this file.
_HOME = {
    "BalancedClasses": "cinefeed.data.sampling",
    "Batch": "cinefeed.feed.batch",
    "Brightness": "cinefeed.transforms.intensity_linear",
    "CinefeedError": "cinefeed.core.errors",
    "Clip": "cinefeed.video.clips",
    "ClipsPerVideo": "cinefeed.feed.settings",
    "Contrast": "cinefeed.transforms.intensity_linear",
    "Feed": "cinefeed.feed.feed",
    "FeedSpec": "cinefeed.feed.labels",
    "Flip": "cinefeed.transforms.geometry",
    "Frame": "cinefeed.video.clips",
    "Inputs": "cinefeed.feed.settings",
    "Manifest": "cinefeed.data.manifest.manifest",
    "Natural": "cinefeed.data.sampling",
    "Normalize": "cinefeed.transforms.intensity_linear",
    "ReadLimits": "cinefeed.video.limits",
    "ReadOptions": "cinefeed.video.read_options",
    "Rotate": "cinefeed.transforms.geometry",
    "Scale": "cinefeed.transforms.geometry",
    "Shard": "cinefeed.feed.settings",
    "Shift": "cinefeed.transforms.geometry",
    "UniformLabels": "cinefeed.data.sampling",
    "Workers": "cinefeed.feed.settings",
    "models": "cinefeed.models",
    "open_video": "cinefeed.video.registry",
    "probe": "cinefeed.video.registry",
    "register_reader": "cinefeed.video.readers",
    "testing": "cinefeed.testing",
    "transforms": "cinefeed.transforms",
}

_ELSEWHERE = {
    **dict.fromkeys(("FeedLoader", "DataLoader"), "use cinefeed.adapters.torch.FeedLoader(feed)"),
    **dict.fromkeys(("FeedDataset", "Sequence", "PyDataset"), "use cinefeed.adapters.keras.FeedDataset(feed)"),
    **dict.fromkeys(("Dataset", "VideoDataset"), "use Manifest.scan(folder), and Feed(manifest, ...)"),
}

__all__ = [
    "__version__",
    *_HOME,
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        from cinefeed import transforms
        from cinefeed.core.errors import did_you_mean

        advice = _ELSEWHERE.get(name) or did_you_mean(name.removeprefix("Random"), _HOME)
        if name in transforms.__all__:
            advice = f"use cinefeed.transforms.{name}"
        raise AttributeError(f"module 'cinefeed' has no attribute {name!r}; {advice}")
    home = import_module(_HOME[name])
    value = home if _HOME[name] == f"cinefeed.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def _inspect_page(*args: Any, **options: Any) -> "Path":
    from cinefeed.reports import inspect_page

    return inspect_page(*args, **options)


page_writers["inspect"] = _inspect_page  # for Feed.preview, which is upstream of reports


def __dir__() -> list[str]:
    from cinefeed.core.keras_backend import can_import_keras

    hidden = set() if can_import_keras() else {"models"}  # help(cinefeed) accesses all names, and would fail
    return sorted((set(globals()) | set(__all__)) - hidden)
