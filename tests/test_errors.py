import builtins
import importlib.util
import os
import subprocess
import sys

import pytest

import cinefeed.core.errors as errors


def leaves(parent):
    return [leaf for child in parent.__subclasses__() for leaf in (leaves(child) or [child])]


def test_every_leaf_also_inherits_a_builtin():
    result = leaves(errors.CinefeedError)
    assert len(result) >= 9
    for leaf in result:
        assert any(
            getattr(builtins, base.__name__, None) is base and base is not Exception for base in leaf.__mro__[1:-3]
        )


def test_the_docstring_draws_every_error():
    for leaf in leaves(errors.CinefeedError):
        assert leaf.__name__ in errors.__doc__


def test_a_missing_extra_says_how_to_install_it():
    assert "pydicom is not installed; run: pip install 'cinefeed[dicom]'" in str(
        errors.MissingExtraError("pydicom", extra="dicom")
    )
    assert str(errors.MissingExtraError("a", "b", extra="x")).startswith("a and b are not installed")


def test_what_is_said_where_keras_cannot_be_imported(monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: name if name in installed else None)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    installed = {"jax"}
    with_jax = errors.keras_missing(ImportError(name="tensorflow"))
    assert "tensorflow is not installed, jax is; set KERAS_BACKEND=jax" in str(with_jax)
    installed = set()
    without = errors.keras_missing(ImportError(name="tensorflow"))
    assert "pip install 'cinefeed[keras,torch]'" in str(without) and "KERAS_BACKEND=torch" in str(without)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    error = errors.keras_missing(ImportError(name="jax"))
    assert str(error) == "Keras' backend jax is not installed; run: pip install 'cinefeed[keras,jax]'"
    assert str(errors.keras_missing(ImportError(name="keras"))).startswith("keras is not installed")
    broken = ImportError("libcudart.so.12: cannot open shared object file", name="torch._C")
    installed = {"torch"}
    assert errors.keras_missing(broken) is broken


def test_did_you_mean():
    assert errors.did_you_mean("hight", ["height", "width"]) == "did you mean 'height'?"
    assert errors.did_you_mean("x", []) == "there are none"


@pytest.mark.parametrize("module", ["cinefeed.models", "cinefeed.adapters.keras"])
def test_a_missing_backend_says_how_to_choose_another(module):
    script = f"import {module}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    if importlib.util.find_spec("tensorflow") is None:
        assert "KERAS_BACKEND=torch" in done.stderr.splitlines()[-1]
    else:
        assert done.returncode == 0
