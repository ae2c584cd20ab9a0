"""The experiments: which data, which methods, which settings, chosen on validation parts (see the docs)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cinefeed as cf
from benchmarks.balance.data import (
    EDGES,
    EF_CLIP,
    EF_FRAME,
    LIPS_FRAME,
    LIPS_HELD,
    Data,
    ejection_fraction,
    rare_class,
    starts,
)
from benchmarks.balance.methods import BinnedClasses
from cinefeed.data.sampling import Sampler
from cinefeed.transforms.base import Transform

_EF_BINS, _LIPS_BINS = 11, 8
EF_EDGES = tuple(EDGES.tolist())


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of a training. An epoch is as many draws as the part has videos, with every method."""

    clip: cf.Clip
    frame: cf.Frame
    transforms: Sequence[Transform]
    epochs: int
    learning_rate: float
    batch_size: int = 8
    filters: tuple[int, ...] = (8, 16, 32, 32)
    units: int = 32


EF = Training(
    clip=EF_CLIP,
    frame=EF_FRAME,
    transforms=(cf.Rotate(degrees=15), cf.Shift(pixels=3)),
    epochs=36,
    learning_rate=2e-3,
)
EF_LONG = replace(EF, epochs=3 * EF.epochs)
LIPS = Training(
    clip=LIPS_HELD,
    frame=LIPS_FRAME,
    transforms=(cf.Rotate(degrees=5), cf.Shift(pixels=3)),
    epochs=20,
    learning_rate=2e-3,
)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What `make` gives for a seed is learnt with each of the methods; `edges` are those of the bins of a label."""

    title: str
    make: Callable[..., Data]  # folder, source (of lips), seed
    training: Training
    methods: dict[str, Sampler]
    edges: tuple[float, ...] = ()


EXPERIMENTS = {
    "ef": Experiment(
        title="The demo's ejection fraction, low values rare",
        make=ejection_fraction,
        training=EF,
        methods={
            "natural": cf.Natural(),
            "uniform": cf.UniformLabels(bins=_EF_BINS),
            "classes": BinnedClasses(),
            "smoothed": cf.UniformLabels(bins=_EF_BINS, smoothing=2),
            "weights": cf.UniformLabels(bins=_EF_BINS, by="weights"),
        },
        edges=EF_EDGES,
    ),
    "ef_long": Experiment(
        title="The same, trained three times as long",
        make=ejection_fraction,
        training=EF_LONG,
        methods={
            "natural": cf.Natural(),
            "uniform": cf.UniformLabels(bins=_EF_BINS),
        },
        edges=EF_EDGES,
    ),
    "lips_rare": Experiment(
        title="`lips`: more than three words, thinned to a tenth",
        make=rare_class,
        training=LIPS,
        methods={
            "natural": cf.Natural(),
            "classes": cf.BalancedClasses(),
            "weights": cf.BalancedClasses(by="weights"),
        },
    ),
    "lips_start": Experiment(
        title="`lips`: when does the word begin?",
        make=starts,
        training=LIPS,
        methods={
            "natural": cf.Natural(),
            "uniform": cf.UniformLabels(bins=_LIPS_BINS),
        },
        edges=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9),
    ),
}
