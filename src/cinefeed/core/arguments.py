"""Checks of arguments: names, types, NumPy scalars, and addresses of remote files."""

import inspect
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import wraps
from types import FunctionType, NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from cinefeed.core.errors import ArgumentError, CinefeedError

Target = TypeVar("Target", bound=Callable[..., Any])

_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", NoneType: "None"}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+[^/]")  # a Path has one slash left; C:/ is a drive
Hints = Mapping[str, str | Callable[[Any], str]]  # a function gets the object whose method is called
_NO_HINTS: Hints = {}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = 4


def check_arguments(*, hints: Hints = _NO_HINTS, label: str | None = None) -> Callable[[Target], Target]:
    """Decorate a function, a class or a settings dataclass, so that wrong arguments raise ArgumentError with a remedy.

    The error for an unknown, missing or positional argument shows the nearest valid call. For a dataclass, fields of
    numbers, text and bool are also checked against their annotations, and NumPy scalars are converted to Python's. For
    any other class, public methods are decorated too.

    Args:
        hints: What to do about an unknown or missing argument, by its name; "*" is for unknown ones without a hint. A
            function returns it for the object of the method.
        label: Name of a dataclass in messages; "" if its fields are the arguments of another function.
    """

    def decorate(target: Target) -> Target:
        if not isinstance(target, type):
            return cast(Target, _wrapped(target, hints))
        if is_dataclass(target):
            setattr(target, "__init__", _wrapped(target.__init__, hints, _types_checked(target, label)))  # noqa: B010
            return target
        for name, member in list(vars(target).items()):
            if name.startswith("_") and name != "__init__":
                continue
            if isinstance(member, classmethod):
                setattr(target, name, type(member)(_wrapped(member.__func__, hints)))
            elif inspect.isfunction(member):
                setattr(target, name, _wrapped(member, hints))
        return target

    return decorate


def expect(value: object, kind: type | tuple[type, ...], *, name: str, remedy: str) -> None:
    """Raise ArgumentError unless a value has a type (or one of several); `remedy` is what to do.

    >>> expect(3, str, name="open_video(path)", remedy="give the path of a video")
    Traceback (most recent call last):
    ...
    cinefeed.core.errors.ArgumentError: open_video(path) must be a str, found 3; give the path of a video
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(f"{_article(each.__name__)} {each.__name__}" for each in kinds)
        raise ArgumentError(f"{name} must be {names}, found {in_words(value)}; {remedy}")


def expect_integer(value: object, *, name: str, remedy: str = "give one such as 0") -> int:
    """Return a whole number as an int. Raises ArgumentError for another type, bool included."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ArgumentError(f"{name}={in_words(value)} must be a whole number; {remedy}")
    return int(value)


def in_words(value: object) -> str:
    """Return a value for a message: short, without the address of an object.

    >>> in_words((56, 56, 3)), in_words(int), in_words(np.random.default_rng(0))
    ('(56, 56, 3)', 'the class int', 'a numpy.random Generator')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | int | float | NoneType | bytes | tuple | list | dict | set | frozenset | os.PathLike):
        return re.sub(r" at 0x[0-9a-fA-F]+", "", _SHORT.repr(value))
    kind = type(value)
    place = [step for step in kind.__module__.split(".") if not step.startswith("_")]
    is_plain = place[0] in ("cinefeed", "builtins", "__main__")
    name = kind.__name__ if is_plain else f"{'.'.join(place[:2])} {kind.__name__}"
    return f"{_article(name)} {name}"


def is_remote(path: object) -> bool:
    """Return whether a path is the address of a remote file, such as "s3://bucket/a.mp4".

    >>> is_remote("s3://bucket/a.mp4"), is_remote("C:/videos/a.mp4"), is_remote("videos/a.mp4")
    (True, False, False)
    """
    return isinstance(path, str | os.PathLike) and bool(_ADDRESS.match(os.fspath(path)))


def require_local(*paths: object, error: type[CinefeedError], what: str = "files") -> None:
    """Raise an error for the address of a remote file; other values pass."""
    for path in paths:
        if is_remote(path) and not os.path.exists(path):  # type: ignore[arg-type]  # noqa: PTH110
            address = re.sub(r"^([^/]+:)/+", r"\1//", str(path))
            raise error(
                f"{address}: only the root of a manifest may be remote (docs/remote.md); copy the {what} into a local "
                "folder, and give that path"
            )


def _wrapped(function: Any, hints: Hints, clean: Callable[..., Any] | None = None) -> Any:
    """Return a function that raises ArgumentError if a call does not fit its signature."""
    clean, explain, layers = clean or _plain, _call_error, []
    inner = function
    while hasattr(inner, "__wrapped__"):  # decorators, which pass all arguments on
        layers.append(inner.__code__)
        inner = inner.__wrapped__

    def is_of_call(error: TypeError) -> bool:
        trace = error.__traceback__.tb_next  # type: ignore[union-attr]  # the first frame is the one below
        while trace is not None and trace.tb_frame.f_code in layers:
            trace = trace.tb_next
        return trace is None  # otherwise it was raised within the function

    def template(*args: Any, **kwargs: Any) -> Any:
        kwargs = clean(kwargs)
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if not is_of_call(error):
                raise
            fault = explain(function, args, kwargs, hints, str(error))
        raise fault

    # It has the globals of the function, because doctest only runs examples of functions that have the globals of the
    # module.
    same = FunctionType(template.__code__, function.__globals__, function.__name__, None, template.__closure__)
    return wraps(function)(same)


def _call_error(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], hints: Any, text: str) -> Exception:
    """Return the error for a call that does not fit the signature of a function."""
    parameters = list(inspect.signature(function).parameters.values())
    owner, call = "", function.__name__
    if parameters and parameters[0].name in ("self", "cls") and args:
        kind = args[0] if isinstance(args[0], type) else type(args[0])
        owner, call = f"{kind.__name__}.", call
        is_made = kind is not args[0] and call != "__init__"  # a function needs the object
        hints = {
            name: hint if isinstance(hint, str) else hint(args[0])
            for name, hint in hints.items()
            if is_made or isinstance(hint, str)
        }
        parameters, args = parameters[1:], args[1:]
    if call == "__init__":
        owner, call = "", owner[:-1]
    names = [each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    unknown = next((name for name in kwargs if name not in names), None)
    if unknown is not None:
        return ArgumentError(f"{owner}{call} has no argument {unknown!r}; {_nearest(unknown, names, hints)}")
    by_place = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if len(args) > len(by_place):
        free = [name for name in names if name not in by_place and name not in kwargs]
        named = dict(zip(free, args[len(by_place) :], strict=False))
        which = "its arguments" if not by_place else f"all arguments but {' and '.join(by_place)}"
        if not _fit(function, named):  # they are in another order than the parameters
            example = ", ".join(f"{name}=..." for name in names)
            advice = "".join(f"; {hints[name]}" for name in named if name in hints)
            return ArgumentError(f"{owner}{call} takes {which} by name: {call}({example}){advice}")
        values = [in_words(each) for each in args[: len(by_place)]]
        values += [f"{name}={in_words(value)}" for name, value in (named | dict(kwargs)).items()]
        return ArgumentError(f"{owner}{call} takes {which} by name, as in {call}({', '.join(values)})")
    present = {*by_place[: len(args)], *kwargs}
    missing = [each.name for each in parameters if each.default is each.empty and each.name in names]
    missing = [name for name in missing if name not in present]
    if missing:
        needed = " and ".join(missing)
        advice = "; ".join(hints[name] for name in missing if name in hints) or (
            f"give {'it' if len(missing) == 1 else 'them'}: {call}({', '.join(f'{name}=...' for name in missing)})"
        )
        return ArgumentError(f"{owner}{call} needs {needed}; {advice}")
    return ArgumentError(f"{owner}{call}: {text}")


def _fit(function: Any, arguments: Mapping[str, Any]) -> bool:
    """Return whether arguments of numbers, text, bool and None have the types of their annotations."""
    annotations = get_type_hints(function)
    allowed = {name: _plain_types(annotations.get(name)) for name in arguments}
    return all(not allowed[name] or isinstance(value, allowed[name]) for name, value in arguments.items())


def _nearest(name: str, names: Sequence[str], hints: Mapping[str, str]) -> str:
    if name in hints:
        return hints[name]
    near = get_close_matches(name, names, n=1) or [each for each in names if each in name or name in each][:1]
    if near:
        return f"did you mean {near[0]!r}?"
    if "*" in hints:
        return hints["*"]
    return f"its arguments are: {', '.join(names)}" if names else "it takes none"


def _types_checked(kind: type, label: str | None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a function that checks the arguments of a dataclass by the annotations of its fields."""
    allowed: dict[str, tuple[type, ...]] = {}
    name = kind.__name__ if label is None else label

    def clean(arguments: Mapping[str, Any]) -> dict[str, Any]:
        if not allowed:
            allowed.update({each: _plain_types(hint) for each, hint in get_type_hints(kind).items()})
        values = {each: _without_numpy(value) for each, value in arguments.items()}
        for each, value in values.items():
            types = allowed.get(each)
            if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
                text = f"{name}({each}={in_words(value)})" if name else f"{each}={in_words(value)}"
                words = " or ".join(_WORDS[one] for one in types if not (one is int and float in types))
                raise ArgumentError(f"{text} must be {words}{_converted(each, value, types)}")
        return values

    return clean


def _plain_types(hint: Any) -> tuple[type, ...]:
    """Return the types of an annotation of numbers, text, bool and None; nothing for any other annotation."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not all(each in _WORDS for each in members):
        return ()
    return (*members, int) if float in members else tuple(members)


def _converted(name: str, value: Any, types: tuple[type, ...]) -> str:
    """Return a hint with the valid value that a text or list was probably meant to be, or ""."""
    if isinstance(value, bool):
        return ""
    if str in types and isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str):
        return f"; did you mean {name}={value[0]!r}?"
    if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no") and bool in types:
        return f"; did you mean {name}={value.lower() in ('true', 'yes')}?"
    for kind in (int, float):
        try:
            if kind in types and (number := kind(value)) == float(value):
                return f"; did you mean {name}={number}?"
        except (TypeError, ValueError, OverflowError):
            pass
    return ""


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with NumPy scalars as Python's."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in arguments.items()}


def _without_numpy(value: Any) -> Any:
    """Return a NumPy scalar, or those in a tuple or list, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (tuple, list) and any(isinstance(each, np.generic) for each in value):
        return type(value)(_without_numpy(each) for each in value)
    return value


def _article(name: str) -> str:
    return "an" if name[:1].lower() in "aeiou" else "a"
