"""The tasks: data, networks, and the bounds of their scores."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.learning.data import Data, clips_alone, covariate, order_of_frames, two_views
from cinefeed import Inputs

_SMALL = {"filters": (8, 16, 32), "units": 32, "dense": 32}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network on a task. Its metric must be at least `least` and at most `most`."""

    name: str
    model: str = "cnn_rnn"
    options: dict[str, Any] = field(default_factory=lambda: dict(_SMALL))
    feed: dict[str, Any] = field(default_factory=dict)
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bounds."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def must(self) -> str:
        """The bounds of the metric as text.

        >>> Trial(name="", least=0.9).must, Trial(name="", most=0.6).must
        ('at least 0.9', 'at most 0.6')
        """
        bounds = (("at least", self.least), ("at most", self.most))
        return ", ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question about clips, and the trials that answer it."""

    title: str
    question: str
    metric: str
    trials: tuple[Trial, ...]
    epochs: int

    def settings(self, trial: Trial) -> str:
        """Return the settings of a training as text, which identifies its results."""
        return f"{self.epochs} epochs, {trial.model}, {trial.options}, {trial.feed}"


@dataclass(frozen=True, kw_only=True)
class DiscTask(Task):
    """A task on synthetic discs in memory, generated for each seed."""

    make: Callable[..., Data]  # seed
    target: str
    learning_rate: float = 3e-3
    batch_size: int = 16


TASKS: dict[str, DiscTask] = {
    "two_views": DiscTask(
        title="Two views that are both needed",
        question="A small or a large disc in each view: are both alike? Every video appears once with each answer.",
        make=two_views,
        target="discs",
        metric="accuracy",
        trials=(
            Trial(name="view a alone", feed={"inputs": Inputs(views=("a",))}, most=0.55),
            Trial(name="view b alone", feed={"inputs": Inputs(views=("b",))}, most=0.55),
            Trial(name="both, one encoder", least=0.9),
            Trial(name="both, an encoder each", options={**_SMALL, "encoders": "own"}, least=0.9),
            Trial(name="both, as channels", feed={"inputs": Inputs(stack=True)}, least=0.9),
        ),
        epochs=12,
    ),
    "covariate": DiscTask(
        title="A covariate that matters",
        question="How wide is the disc in mm? The clip shows its width in pixels, the covariate is the pixel size.",
        make=covariate,
        target="width_mm",
        metric="r2",
        trials=(
            Trial(name="the clip alone", most=0.6),
            Trial(name="clip and covariate", feed={"inputs": Inputs(covariates=("mm_per_pixel",))}, least=0.95),
        ),
        epochs=16,
    ),
    "order": DiscTask(
        title="The order of frames alone",
        question="Does the disc grow or shrink? Every video appears forwards and backwards, so both classes have the "
        "same frames.",
        make=order_of_frames,
        target="change",
        metric="accuracy",
        trials=(
            Trial(name='cnn_rnn, rnn="none"', options={**_SMALL, "rnn": "none"}, most=0.55),
            Trial(name="cnn_rnn, gru", least=0.9),
            Trial(name="cnn3d", model="cnn3d", options={"dense": 32}, least=0.9),
        ),
        epochs=12,
    ),
    "clips": DiscTask(
        title="Reconstruction of clips from a short code",
        question="Reconstruct the clip. The error is the mean square, in grey levels of 255; lower is better.",
        make=clips_alone,
        target="clip",
        metric="mse",
        trials=(Trial(name="autoencoder", model="autoencoder", options={"filters": (8, 16, 32)}, most=400),),
        epochs=16,
    ),
}

DEMO_SEED = 7
DEMO = Task(
    title="The demo: ejection fraction of a beating ventricle",
    question="800 H.264 files, split by patient; docs/demo.md describes how its settings were selected.",
    metric="r2",
    trials=(
        Trial(name="cnn_rnn", options={"norm": "layer"}, least=0.85),
        Trial(name="cnn3d", model="cnn3d", options={}, least=0.85),
    ),
    epochs=22,
)
