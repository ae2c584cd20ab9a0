"""Number of CPU threads that compute a network: selected once for a run, saved with it, and reused when it resumes.

The number of threads changes the order of summation, and with it the last bits of a loss. It is selected from the
network's size, never by timing, so that the same settings give the same number.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cinefeed.core.cores import usable_cores
from cinefeed.core.pools import openmp_threads_setting
from cinefeed.feed.labels import FeedSpec
from cinefeed.training.distributed import torchrun_rank
from cinefeed.training.keras_module import keras

VERSIONS = "versions.json"
_SMALL_FLOP = 2e9  # forward, per batch; below this one thread is used (benchmarks/busy.py --part threads)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def choose_threads(model: keras.Model, spec: FeedSpec, *, setting: int | str = "auto") -> int | None:
    """Return the number of threads to compute a network with, or None to leave the number unchanged.

    `setting` is `[train] threads`. "auto" is the value of OMP_NUM_THREADS if it is set, else one thread for a small
    network and one per usable core for others; on a GPU it leaves the number unchanged. With Keras on JAX or TensorFlow
    every setting does, because their thread pools follow other rules.
    """
    if keras.config.backend() != "torch":
        return None
    import torch

    if setting != "auto":
        return int(setting)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return None
    if openmp_threads_setting() or torchrun_rank()[1] > 1:
        return torch.get_num_threads()
    return 1 if forward_flop(model, spec) < _SMALL_FLOP else usable_cores()


def forward_flop(model: keras.Model, spec: FeedSpec) -> float:
    """Return the floating-point operations of the forward pass of a torch network for one batch of a feed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    one_clip = {each.name: keras.ops.zeros((1, *each.shape[1:]), dtype=each.dtype) for each in model.inputs}
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(one_clip, training=False)
    return float(counter.get_total_flops()) * spec.batch_size


def use_threads(number: int | None) -> None:
    """Set the number of torch's threads; None changes nothing."""
    if number is not None:
        import torch

        torch.set_num_threads(number)


def read_threads(run: str | Path) -> int | None:
    """Return the number of threads that a run was trained with; None if none was selected."""
    try:
        threads = json.loads((Path(run) / VERSIONS).read_text(encoding="utf-8")).get("threads")
    except (OSError, ValueError, AttributeError):
        return None
    return int(threads) if str(threads).isdigit() else None


@contextmanager
def restored_threads() -> Iterator[None]:
    """Restore, on exit, the number of torch's threads at entry."""
    if keras.config.backend() != "torch":
        yield
        return
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def with_threads_of_run(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Wrap a function whose first argument is a run folder to use the number of threads of the run's training."""

    @wraps(function)
    def wrapper(*arguments: _P.args, **options: _P.kwargs) -> _T:
        run: Any = arguments[0] if arguments else options["run"]
        with restored_threads():
            use_threads(read_threads(run))
            return function(*arguments, **options)

    return wrapper
