import builtins
import importlib.util
import os
import subprocess
import sys

import pytest

import cinefeed.errors as errors


def leaves(parent):
    return [leaf for child in parent.__subclasses__() for leaf in (leaves(child) or [child])]


def test_every_leaf_also_inherits_a_builtin():
    found = leaves(errors.CinefeedError)
    assert len(found) >= 9
    for leaf in found:
        assert any(
            getattr(builtins, base.__name__, None) is base and base is not Exception for base in leaf.__mro__[1:-3]
        )


def test_the_docstring_draws_every_error():
    for leaf in leaves(errors.CinefeedError):
        assert leaf.__name__ in errors.__doc__


def test_a_missing_extra_says_how_to_install_it():
    assert "pip install 'cinefeed[dicom]'" in str(errors.MissingExtraError("pydicom", extra="dicom"))


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
