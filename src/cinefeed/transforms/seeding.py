"""Random numbers of user-defined functions: generators are seeded for one call and restored afterwards.

The global generators are seeded only for the call of a user's function, under a lock, and then restored; cinefeed
itself never draws from them. torch is not imported here: if it is not loaded, the function cannot draw from it.
"""

import inspect
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

import numpy as np

Draws = Literal["nothing", "rng", "torch", "global"]

# Functions of torch with a parameter `generator`, which `_torch_seeded` sets. Those of `_LIKE` have none, and are
# replaced by a function that takes the shape.
_FUNCTIONS = "rand randn randint randperm bernoulli normal multinomial poisson".split()
_METHODS = "uniform_ normal_ random_ bernoulli_ exponential_ geometric_ log_normal_ cauchy_".split()
_LIKE = {"rand_like": "rand", "randn_like": "randn", "randint_like": "randint"}
_lock = threading.RLock()  # for global generators, which all threads share


def takes_rng(function: Callable[..., Any]) -> bool:
    """Return whether a callable has a parameter `rng`, for a NumPy Generator."""
    try:
        return "rng" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in without a signature
        return False


def call_seeded(function: Callable[..., Any], value: Any, *, seed: int, draws: Draws) -> Any:
    """Call a function with seeded random numbers. `draws` is the source of its random numbers.

    rng:     a NumPy Generator, which the function takes as `rng`
    torch:   functions of torch with a parameter `generator`, which is set for this thread only
    global:  the global generators of torch, NumPy and Python; they are restored afterwards, and no other code may draw
             from them during the call
    """
    if draws == "rng":
        return function(value, rng=np.random.Generator(np.random.Philox(seed)))
    with _global_seeded(seed) if draws == "global" else nullcontext(), _torch_seeded(seed):
        return function(value)


def found_draws(function: Callable[..., Any], value: Any, *, seed: int) -> tuple[Draws, Any]:
    """Call a function, and return the source of its random numbers and its result."""
    if takes_rng(function):
        rng = np.random.Generator(np.random.Philox(seed))
        unused = repr(rng.bit_generator.state)
        result = function(value, rng=rng)
        return "rng" if repr(rng.bit_generator.state) != unused else "nothing", result
    with _global_seeded(seed):
        before_global = _states()
        with _torch_seeded(seed) as generator:
            before = None if generator is None else generator.get_state().tolist()
            result = function(value)
            has_drawn = generator is not None and generator.get_state().tolist() != before
        if _states() != before_global:
            return "global", result
    return "torch" if has_drawn else "nothing", result


def _states() -> list[Any]:
    torch = sys.modules.get("torch")
    return [
        random.getstate(),
        repr(np.random.get_state()),  # noqa: NPY002  # the global generator is what foreign code draws from
        np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        None if torch is None else torch.default_generator.get_state().tolist(),
    ]


@contextmanager
def _global_seeded(seed: int) -> Iterator[None]:
    torch = sys.modules.get("torch")
    with _lock:
        of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        of_torch = None if torch is None else torch.default_generator.get_state()
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            if torch is not None:
                torch.default_generator.manual_seed(seed)
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
            if torch is not None:
                torch.default_generator.set_state(of_torch)


@contextmanager
def _torch_seeded(seed: int) -> Iterator[Any]:
    """Make torch's functions draw from a generator of this thread, and yield the generator; None without torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield None
        return
    generator = torch.Generator()
    generator.manual_seed(seed)
    with _mode()(generator):
        yield generator


@cache
def _mode() -> Any:
    """Return the class of a context, for one thread, in which torch's functions receive a generator."""
    torch: Any = sys.modules["torch"]
    drawing = {getattr(torch, name) for name in _FUNCTIONS} | {getattr(torch.Tensor, name) for name in _METHODS}
    drawing |= {torch.Tensor.bernoulli, torch.Tensor.multinomial}
    like = {getattr(torch, name): getattr(torch, other) for name, other in _LIKE.items()}

    class Given(torch.overrides.TorchFunctionMode):  # type: ignore[misc]  # torch may be absent
        def __init__(self, generator: Any) -> None:
            super().__init__()
            self.generator = generator

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            options = dict(kwargs or {})
            if func in like and "generator" not in options:
                first, *others = args
                options = {"dtype": first.dtype, "device": first.device, **options}
                options.pop("memory_format", None)
                return like[func](*others, size=first.shape, generator=self.generator, **options)
            if func in drawing and options.get("generator") is None:
                options["generator"] = self.generator
            return func(*args, **options)

    return Given
