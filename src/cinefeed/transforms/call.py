"""Any callable as a transform of a clip, such as those of torchvision."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import FunctionType
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from cinefeed.core.arguments import check_arguments
from cinefeed.core.errors import SettingError, did_you_mean
from cinefeed.core.rng import Stage, rng_for
from cinefeed.transforms.base import ClipInfo, Frames, Parameters, Transform
from cinefeed.transforms.seeding import Draws, call_seeded, found_draws, takes_rng

ClipAxes = Literal["THWC", "TCHW", "CTHW"]
_SEEDS = 2**63
_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


class Trial(NamedTuple):
    """Result of one call: the dtype of the clip before and after, and the source of its random numbers."""

    before: np.dtype[Any]
    after: np.dtype[Any]
    draws: Draws


@check_arguments()
@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Call:
    """Apply a callable to each clip: a torchvision transform, a torch module, a function of your own.

    function:     takes a clip and returns one of the same shape; the dtype may differ, such as float32 for uint8
    layout:       "THWC", a NumPy array (frames, height, width, channels); "TCHW" or "CTHW", a torch tensor in that
                  order of axes. By default "TCHW" for torch modules and torchvision, "THWC" for all others
    random:       whether the result is random; by default determined by a call. An evaluation leaves out random
                  callables and keeps all others
    keeps_place:  True states that no pixel moves, so that masks, which are not passed to the callable, still match

    If `function` has a parameter `rng`, it receives a NumPy generator that is seeded by the clip's address. All other
    random numbers are seeded by it too: those of torch's functions, and those of the global generators of Python, NumPy
    and torch, which are restored after the call. A callable that draws from global generators runs only in worker
    processes (or with `workers=0`), because threads share these generators with your program.

    A feed converts callables itself: `transforms=[v2.ColorJitter(0.2), my_function]`.

    >>> def darker(clip, rng):
    ...     return (clip * rng.uniform(0.5, 1)).astype(clip.dtype)
    >>> call = Call(function=darker)
    >>> parameters = call.sample(np.random.default_rng(0), ClipInfo(2, 4, 4, 1))
    >>> clip = np.full((2, 4, 4, 1), 200, np.uint8)
    >>> once, again = (call.apply(clip, parameters) for _ in range(2))
    >>> np.array_equal(once, again), bool(once.max() < clip.max())
    (True, True)
    """

    function: Callable[..., Any]
    layout: ClipAxes | None = None
    random: bool | None = None
    keeps_place: bool = False
    trial: Trial | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.function, type) or not callable(self.function):
            raise SettingError(f"Call(function={self.function!r}) must be a callable, such as v2.ColorJitter(0.2)")
        if self.layout is not None and self.layout not in get_args(ClipAxes):
            hint = did_you_mean(str(self.layout), get_args(ClipAxes))
            raise SettingError(f"Call(layout={self.layout!r}) is not a choice; {hint}")
        if self.random is not None and not isinstance(self.random, bool):
            raise SettingError(f"Call(random={self.random!r}) must be True, False, or None to find out")

    def __repr__(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(self)[1:4]}
        defaults = {each.name: each.default for each in fields(self)}
        others = "".join(f", {name}={value!r}" for name, value in values.items() if value != defaults[name])
        return f"Call(function={callable_name(self.function)}{others})"

    @property
    def is_random(self) -> bool:
        """Whether the result is random: it may differ between clips of one video."""
        return self.draws != "nothing" if self.random is None else self.random

    @property
    def draws(self) -> Draws:
        """The source of its random numbers; before a trial, the most general one that is possible."""
        if self.trial is not None:
            return self.trial.draws
        return "rng" if takes_rng(self.function) else "global"

    def sample(self, rng: np.random.Generator, info: ClipInfo) -> Parameters:
        """Draw the seed of the call; an empty dict if the call is not random."""
        return {"seed": int(rng.integers(_SEEDS))} if self.is_random else {}

    def apply(self, frames: Frames, parameters: Parameters) -> Frames:
        """Return the result of the callable. Raises SettingError for another shape, or another dtype than the trial."""
        if not len(frames):
            return frames.astype(self.output_dtype(frames.dtype))
        # Without a seed, the callable is not random: seed 0 gives the same result each time.
        result = call_seeded(self.function, self._to_callable(frames), seed=parameters.get("seed", 0), draws=self.draws)
        return self._from_callable(result, frames)

    def output_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the dtype of the result for clips of a dtype, as found by the trial."""
        return self.trial.after if self.trial is not None and self.trial.before == dtype else dtype

    def tried(self, shape: Sequence[int], dtype: np.dtype[Any]) -> "Call":
        """Return this transform with the result of a trial: a call with noise, (frames, height, width, channels).

        Raises SettingError if the callable fails, returns another shape, or returns different results for the same
        seed.
        """
        if self.trial is not None and self.trial.before == dtype:
            return self
        rng = rng_for(0, stage=Stage.AUGMENT, epoch=0)
        top = np.iinfo(dtype).max if dtype.kind == "u" else 1
        noise = (rng.random(tuple(shape)) * top).astype(dtype)
        free = replace(self, trial=None)
        try:
            draws, result = found_draws(self.function, free._to_callable(noise), seed=1)
            first = free._from_callable(result, noise, any_type=True)
            again = call_seeded(self.function, free._to_callable(noise), seed=1, draws=draws)
            second = free._from_callable(again, noise, any_type=True)
        except SettingError:
            raise
        except Exception as error:
            raise SettingError(
                f"{self!r} failed on a clip of noise, {self._described(noise)}: {type(error).__name__}: {error}; "
                "set layout= of cinefeed.transforms.Call if it needs another array type or order of axes"
            ) from error
        if not np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            raise SettingError(
                f"{self!r} made two different clips of the same one with the same seed: it has a generator of its own, "
                "or keeps a state; take a parameter `rng`, a NumPy generator, and draw from that"
            )
        return replace(self, trial=Trial(dtype, first.dtype, draws))

    @property
    def described(self) -> str:
        """A short description: whether it is random. What the callable does is unknown."""
        return f"a callable, {'seeded by the address of each clip' if self.is_random else 'the same for every clip'}"

    @property
    def _axes(self) -> ClipAxes:
        return self.layout or ("TCHW" if _is_of_torch(self.function) else "THWC")

    def _to_callable(self, frames: Frames) -> Any:
        """Return a copy of the clip in the array type and order of axes of the callable."""
        order = ["THWC".index(axis) for axis in self._axes]
        ordered = np.array(frames.transpose(order), order="C")
        if self._axes == "THWC":
            return ordered
        import torch  # installed, because the callable is for torch

        return torch.from_numpy(ordered)

    def _from_callable(self, result: Any, frames: Frames, *, any_type: bool = False) -> Frames:
        if hasattr(result, "detach"):
            result = result.detach().cpu().numpy()
        made = np.asarray(result)
        axes, dtype = self._axes, self.output_dtype(frames.dtype)
        if made.ndim == 4:
            made = made.transpose([axes.index(axis) for axis in "THWC"])
        if made.shape != frames.shape:
            raise SettingError(
                f"{self!r} made {made.shape} of a clip of {frames.shape} (frames, height, width, channels): transforms "
                "keep the shape; cf.Frame sets the size, cf.Clip the frames"
            )
        if made.dtype not in _TYPES or (made.dtype != dtype and not any_type):
            raise SettingError(
                f"{self!r} made {made.dtype} of a clip of {frames.dtype}, where "
                + ("uint8, uint16 or float32 is needed" if made.dtype not in _TYPES else f"it made {dtype} of noise")
            )
        return np.ascontiguousarray(made)

    def _described(self, frames: Frames) -> str:
        sizes = dict(zip("THWC", frames.shape, strict=True))
        kind = "a NumPy array" if self._axes == "THWC" else "a torch tensor"
        return f"{kind} {tuple(sizes[axis] for axis in self._axes)} of {frames.dtype} in the order {self._axes}"


def as_transform(each: Any) -> Any:
    """Return a callable that is not a transform as a `Call`; return everything else unchanged."""
    if isinstance(each, Transform | type) or not callable(each):
        return each
    return Call(function=each)


def tried(transform: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    """Return a transform after a trial of its callables, including those that a choice may select."""
    if isinstance(transform, Call):
        return transform.tried(shape, dtype)
    if not calls_of([transform]):
        return transform
    changes: dict[str, Any] = {}
    for name in ("transform", "transforms"):
        if (value := getattr(transform, name, None)) is not None:
            whole = isinstance(value, tuple | list)
            changes[name] = tuple(tried(each, shape, dtype) for each in value) if whole else tried(value, shape, dtype)
    return replace(transform, **changes)


def calls_of(transforms: Sequence[Any]) -> list[Call]:
    """Return the callables among transforms, including those that a choice may select."""
    calls: list[Call] = []
    for each in transforms:
        members = getattr(each, "members", ())  # for other transforms than choices, `members` may be any setting
        calls += [each] if isinstance(each, Call) else calls_of(members if isinstance(members, tuple) else ())
    return calls


def callable_name(function: Any) -> str:
    """Return a name of a callable that is the same in every process: its settings, or its module, name and code.

    >>> callable_name(np.flip), callable_name(partial(np.roll, shift=1))
    ('numpy.flip', 'partial(numpy.roll, shift=1)')
    """
    if isinstance(function, partial):
        parts = [callable_name(function.func), *map(_without_address, function.args)]
        parts += [f"{name}={_without_address(value)}" for name, value in function.keywords.items()]
        return f"partial({', '.join(parts)})"
    name = getattr(function, "__qualname__", None)
    if name is None:
        return re.sub(r"^<(\S+) object>$", r"\1()", " ".join(_without_address(function).split()))
    name = f"{function.__module__}.{name}"
    if not isinstance(function, FunctionType) or not ("<" in name or name.startswith("__main__")):
        return name
    cells = [_without_address(each.cell_contents) for each in function.__closure__ or ()]
    code = function.__code__
    text = repr((code.co_code, _without_address(code.co_consts), code.co_names, cells, function.__defaults__))
    return f"{name}#{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def _without_address(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _is_of_torch(function: Any) -> bool:
    """Return whether a callable is a torch module or one of torchvision, without loading either."""
    kinds = type(function).__mro__ if not hasattr(function, "__qualname__") else (function,)
    return any(str(kind.__module__).partition(".")[0] in ("torch", "torchvision") for kind in kinds)
