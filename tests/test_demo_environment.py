"""What `make demo` installs, and what it takes as it is."""

import venv
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script():
    spec = spec_from_file_location("demo_environment", ROOT / "scripts" / "demo_environment.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("setting", "installed", "backend", "is_missing"),
    [
        ("", [], "torch", True),
        ("", ["jax"], "jax", False),
        ("", ["jax", "torch"], "torch", False),
        ("jax", ["torch"], "jax", True),
        ("jax", [], "jax", True),
        ("torch", ["torch"], "torch", False),
    ],
)
def test_what_is_installed_is_taken(script, setting, installed, backend, is_missing):
    assert script.choose_backend(setting, installed=installed) == (backend, is_missing)


def test_a_backend_of_the_python_outside_is_seen_within_and_not_installed(script, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    (outside / "jax").mkdir(parents=True)
    (outside / "jax" / "__init__.py").write_text("")
    monkeypatch.setattr(script, "_origin", lambda name: str(outside / "jax" / "__init__.py") if name == "jax" else None)
    builder = venv.EnvBuilder(with_pip=False, symlinks=True)
    monkeypatch.setattr(script.venv, "create", lambda folder, with_pip: builder.create(folder))
    command = script.make_environment(tmp_path / "env", "")
    assert command[-1] == f"{ROOT}[keras,report]"
    assert script.make_environment(tmp_path / "env", "torch")[-1] == f"{ROOT}[keras,report,torch]"
