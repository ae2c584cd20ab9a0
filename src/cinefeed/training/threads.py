"""How many threads a network is computed with: chosen once for a run, kept with it, and used again when it goes on.

Sums over threads are added up in another order than on one, so that the number may change the last bits of a loss.
It is chosen from the network's size, never by measuring, so that the same settings give the same number.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import keras

from cinefeed.cores import usable_cores
from cinefeed.feed.targets import FeedSpec
from cinefeed.pools import openmp_threads_setting
from cinefeed.training.distributed import launched

VERSIONS = "versions.json"
_SMALL_FLOP = 2e9  # of a batch, forward, below which one thread is used (benchmarks/busy.py --part threads)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def choose_threads(model: keras.Model, spec: FeedSpec, *, wanted: int | str = "auto") -> int | None:
    """Return the number of threads to compute a network with; None where it is not chosen here.

    "auto" is what OMP_NUM_THREADS asks for, else one for a small network and one a usable core for others. On a GPU,
    and with Keras on JAX or TensorFlow, whose pools follow other rules, nothing is chosen.
    """
    if keras.config.backend() != "torch":
        return None
    import torch

    if wanted != "auto":
        return int(wanted)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return None
    if openmp_threads_setting() or launched()[1] > 1:
        return torch.get_num_threads()
    return 1 if forward_flop(model, spec) < _SMALL_FLOP else usable_cores()


def forward_flop(model: keras.Model, spec: FeedSpec) -> float:
    """Return the floating-point operations by which a network on torch reads one batch of a feed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    one_clip = {each.name: keras.ops.zeros((1, *each.shape[1:]), dtype=each.dtype) for each in model.inputs}
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(one_clip, training=False)
    return float(counter.get_total_flops()) * spec.batch_size


def use_threads(number: int | None) -> None:
    """Let torch compute with so many threads from now on; None changes nothing."""
    if number is not None:
        import torch

        torch.set_num_threads(number)


def kept_threads(run: str | Path) -> int | None:
    """Return the number of threads that a run was trained with; None where none was chosen."""
    try:
        threads = json.loads((Path(run) / VERSIONS).read_text(encoding="utf-8")).get("threads")
    except (OSError, ValueError, AttributeError):
        return None
    return int(threads) if str(threads).isdigit() else None


@contextmanager
def own_threads() -> Iterator[None]:
    """Put back, at the end, the number of threads that torch had at the beginning."""
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
    """Let a function whose first argument is a run folder compute with the threads that the run was trained with."""

    @wraps(function)
    def called(*arguments: _P.args, **options: _P.kwargs) -> _T:
        run: Any = arguments[0] if arguments else options["run"]
        with own_threads():
            use_threads(kept_threads(run))
            return function(*arguments, **options)

    return called
