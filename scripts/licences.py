"""Write docs/licences.md: the licence of every package that cinefeed and its extras install, as its metadata states it.

Run: .venv/bin/python scripts/licences.py (needs `pip install pip-licenses`)
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
HEAD = """# Licences of the dependencies

cinefeed is under the MIT licence. These are the packages that `pip install 'cinefeed[all]'` installs on Linux, with the
licences that they state; `python scripts/licences.py` writes this page. The wheels of PyAV contain FFmpeg with x264 and
x265, which are under the GPL: see the README.

"""


def dependencies(name: str, extras: tuple[str, ...], packages: set[str]) -> set[str]:
    """Add the names of a package and of all packages that it installs here to `packages`, and return them."""
    try:
        requirements = [Requirement(text) for text in distribution(name).requires or []]
    except PackageNotFoundError:
        return packages
    is_new = name.lower() not in packages
    packages.add(name.lower())
    for each in requirements:
        applies = each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras or ("",))
        if applies and (is_new or extras):
            dependencies(each.name, tuple(each.extras), packages)
    return packages


def main() -> None:
    """Write the page."""
    names = sorted(dependencies("cinefeed", ("all",), set()))
    command = [sys.executable, "-m", "piplicenses", "--format=markdown", "--packages", *names]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    PAGE.write_text(HEAD + table, encoding="utf-8")


if __name__ == "__main__":
    main()
