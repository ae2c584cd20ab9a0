"""Encoders that a user's own function returns: "python:module:function"."""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from cinefeed.core.errors import SettingError, did_you_mean

Function = TypeVar("Function", bound=Callable[..., Any])


def encoder_function(function: Function) -> Function:
    """Mark a function as one that returns an encoder, so that "python:module:function" may call it.

    The function takes no argument and returns a network and its `Preprocessing`: a `torch.nn.Module`, or for
    `cinefeed encode` a Keras model on the torch backend that takes the preprocessed pixels, channels last. Only marked
    functions are called, because the settings of a run name them, and a run may come from elsewhere.

    >>> from cinefeed.encoders import Preprocessing
    >>> @encoder_function
    ... def my_network():
    ...     import torch
    ...     network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    ...     return network, Preprocessing(height=64, width=64)
    """
    function.is_encoder_function = True  # type: ignore[attr-defined]
    return function


def call_user_function(place: str) -> tuple[Any, Any]:
    """Return the network and the preprocessing of "module:function".

    Raises SettingError if there is no such module or function, if it is not marked by `encoder_function`, and if it
    returns something else.
    """
    module_name, _, function_name = place.partition(":")
    if not module_name or not function_name:
        raise SettingError(f"'python:{place}' must be python:module:function, such as python:my_networks:encoder")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingError(
            f"'python:{place}': the module {module_name!r} cannot be imported ({error}); install it, or add its folder "
            "to PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not getattr(function, "is_encoder_function", False):
        marked = [name for name, each in vars(module).items() if getattr(each, "is_encoder_function", False)]
        raise SettingError(
            f"'python:{place}': {function_name!r} is not a function marked by @cinefeed.encoders.encoder_function; "
            f"{did_you_mean(function_name, marked)}"
        )
    assert callable(function)
    result = function()
    if not isinstance(result, tuple) or len(result) != 2:
        raise SettingError(f"'python:{place}' returned {type(result).__name__}; return (network, Preprocessing(...))")
    return result
