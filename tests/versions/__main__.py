"""`make versions`: cinefeed from its wheel, in empty environments, with the newest and the lowest of what it needs.

    python tests/versions [--only 3.13] [--keep folder] [--list]

Each case is a version of Python, the newest or the lowest versions that `pyproject.toml` allows, and some extras; what
is installed then runs `from_wheel.py`. torch is tried where its CPU build is, on Python 3.11, and JAX elsewhere. uv
makes the environments, for it finds the lowest versions; where it is missing, it is installed into one of its own.
Pythons are looked for on the path (`python3.12`) and among those of pyenv. Exits with 1 where a case fails.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
READERS = ("dicom", "nifti", "hdf5", "report", "tensorboard")
TORCH = "torch==2.13.0"  # of which a CPU build serves; the bound is that version as well


class Case(NamedTuple):
    """One environment: the version of Python, "highest" or "lowest-direct" as uv calls them, and extras."""

    python: str
    resolution: str
    extras: tuple[str, ...]

    def __str__(self) -> str:
        which = "newest" if self.resolution == "highest" else "lowest"
        return f"Python {self.python}, {which}, {'+'.join(self.extras) or 'no extra'}"


def cases() -> Iterator[Case]:
    """Yield all that is tried: newest and lowest on each Python, and each extra alone."""
    for python in PYTHONS:
        yield Case(python, "highest", ("keras", "jax"))
        yield Case(python, "lowest-direct", ("keras", "jax", *READERS))
    for extra in ("", *READERS, "keras", "jax", "onnx"):
        yield Case(PYTHONS[-1], "highest", (extra,) if extra else ())
    yield Case("3.11", "highest", ("torch",))
    yield Case("3.11", "highest", ("keras", "torch", "onnx"))


def python_of(version: str) -> str | None:
    """Return the path of a Python, None where there is none."""
    own = [Path.home() / ".pyenv" / "versions", Path(os.environ.get("PYENV_ROOT", "/")) / "versions"]
    interpreters = [each for place in own for each in sorted(place.glob(f"{version}.*/bin/python"))]
    return str(interpreters[-1]) if interpreters else shutil.which(f"python{version}")


def run(*command: str | Path, folder: Path) -> str:
    """Run a command, without a word unless it fails, and return what it prints."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if "PIP_FIND_LINKS" in clean:  # where a CPU build of torch lies
        clean["UV_FIND_LINKS"] = clean["PIP_FIND_LINKS"]
    done = subprocess.run(
        [str(each) for each in command], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-1000:]}{done.stderr[-4000:]}")
    return done.stdout


def find_uv(folder: Path) -> str:
    """Return the path of uv, which is installed where it is missing."""
    if path := shutil.which("uv"):
        return path
    run(sys.executable, "-m", "venv", folder / "uv", folder=folder)
    run(folder / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", "uv", folder=folder)
    return str(folder / "uv" / "bin" / "uv")


def try_out(case: Case, uv: str, wheel: Path, folder: Path) -> dict[str, Any]:
    """Install one case into an empty environment, run the script there, and return what it found."""
    python = python_of(case.python)
    if python is None:
        raise RuntimeError(f"there is no Python {case.python}")
    place = folder / "environment"
    shutil.rmtree(place, ignore_errors=True)
    run(uv, "venv", "--quiet", "--python", python, place, folder=folder)
    install = [uv, "pip", "install", "--quiet", "--python", place / "bin" / "python", "--only-binary", ":all:"]
    torch = [TORCH] if "torch" in case.extras else []
    if case.resolution == "highest":
        run(*install, f"{wheel}[{','.join(case.extras)}]", *torch, folder=folder)
    else:  # "direct" is what a file of requirements names: of a wheel, the wheel alone
        extras = [each for extra in case.extras for each in ("--extra", extra)]
        run(*install, "--resolution", case.resolution, "-r", ROOT / "pyproject.toml", *extras, *torch, folder=folder)
        run(*install, "--no-deps", wheel, folder=folder)
    script = Path(__file__).with_name("from_wheel.py")
    output = run(place / "bin" / "python", "-I", script, *case.extras, folder=folder)
    return dict(json.loads(output.splitlines()[-1]))


def main() -> int:
    """Try each case, say in a line how it went, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose line holds this, such as 3.13 or 'no extra'")
    parser.add_argument("--json", type=Path, help="file for what each case found")
    parser.add_argument("--list", action="store_true", help="say what would be tried")
    args = parser.parse_args()
    selection = [each for each in cases() if args.only in str(each)]
    if args.list:
        print(*selection, sep="\n")
        return 0
    failed, results = 0, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uv = find_uv(folder)
        run(uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT, folder=folder)
        (wheel,) = folder.glob("*.whl")
        for case in selection:
            began = time.perf_counter()
            try:
                result = results[str(case)] = try_out(case, uv, wheel, folder)
                which = ", ".join(f"{each} {result['versions'][each]}" for each in ("av", "numpy"))
                print(f"ok      {case}: {which}; {result['decoder']}; {time.perf_counter() - began:.0f} s", flush=True)
            except RuntimeError as error:
                failed += 1
                print(f"FAILED  {case}\n{error}", flush=True)
    digests = {each["digest"] for each in results.values() if each["compiled"]}
    print(f"{len(selection) - failed} of {len(selection)} went well; clips fed: {', '.join(sorted(digests))}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
