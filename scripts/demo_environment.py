"""Make .venv with what `make demo` needs, and take what is installed already; `make demo` runs it.

Run: python3 scripts/demo_environment.py [torch|jax]

A PyTorch or JAX that .venv has, or the Python that runs this, is used as it is: it is neither replaced nor downloaded.
If there is none, the one named is installed, by default torch. It needs nothing but Python.
"""

import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = "torch", "jax"
EXTRAS = ["keras", "report"]


def choose_backend(wanted: str, *, installed: list[str]) -> tuple[str, bool]:
    """Return the backend of the demo, and whether it has to be installed; `wanted` is "" for any.

    >>> choose_backend("", installed=["jax"]), choose_backend("torch", installed=["jax"])
    (('jax', False), ('torch', True))
    """
    backend = wanted or next((name for name in BACKENDS if name in installed), BACKENDS[0])
    return backend, backend not in installed


def make_environment(folder: Path, wanted: str) -> list[str]:
    """Make the environment if it is absent, and return the pip command that completes it."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
        outside = {str(Path(origin).parents[1]) for name in BACKENDS if (origin := _origin(name))}
        for packages in folder.glob("lib/python*/site-packages"):
            (packages / "outside.pth").write_text("".join(f"{each}\n" for each in sorted(outside)))
    look = f"from importlib.util import find_spec; print(*(n for n in {BACKENDS} if find_spec(n)))"
    installed = subprocess.run([python, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    backend, is_missing = choose_backend(wanted, installed=installed)
    extras = ",".join([*EXTRAS, *([backend] if is_missing else [])])
    print(f"{folder}: {backend} {'is installed by pip' if is_missing else 'is there already'}", flush=True)
    options = ["--quiet", "--constraint", str(ROOT / "constraints.txt")]
    return [str(python), "-m", "pip", "install", *options, "--editable", f"{ROOT}[{extras}]"]


def _origin(name: str) -> str | None:
    spec = find_spec(name)
    return None if spec is None else spec.origin


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    if wanted not in ("", *BACKENDS):
        raise SystemExit(f"{wanted!r} is no backend of the demo; there are: {', '.join(BACKENDS)}")
    raise SystemExit(subprocess.run(make_environment(ROOT / ".venv", wanted), check=False).returncode)
