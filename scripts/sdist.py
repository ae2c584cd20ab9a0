"""Build the source distribution, unpack it, and run the quick tests of what is in it: `make sdist`.

    python scripts/sdist.py

The tests run with this interpreter and the packages that are installed for it. An environment of its own builds, with
the newest `build` and `hatchling`, so that it needs the package index.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Return the exit code of the quick tests in the unpacked source distribution."""
    with tempfile.TemporaryDirectory(prefix="cinefeed-sdist-") as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "build"], check=True)
        subprocess.run([python, "-m", "build", "--sdist", "--outdir", folder, ROOT], check=True)
        archive = next(folder.glob("cinefeed-*.tar.gz"))
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        source = folder / archive.name.removesuffix(".tar.gz")
        size = archive.stat().st_size
        print(f"{archive.name}: {size / 1e6:.2f} MB, {sum(each.is_file() for each in source.rglob('*'))} files")
        environment = os.environ | {"PYTHONPATH": str(source / "src")}
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--quick"]
        return subprocess.run(tests, cwd=source, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
