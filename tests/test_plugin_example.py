"""The package examples/plugin passes its own tests as another installed package would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cinefeed
from installed_plugin import EXAMPLE, install_example


@pytest.mark.slow
def test_the_example_passes_its_tests(tmp_path):
    path = [*install_example(tmp_path), str(Path(cinefeed.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout
