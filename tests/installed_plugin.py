"""A package that is installed for tests: its metadata in a folder, without pip."""

import tomllib
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


def write_metadata(folder, *, name="some-plugin", version="1.2", entry_points):
    """Write the metadata of a package with entry points, by group, into a folder of the module path."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line
        for group, entries in entry_points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def install_example(folder):
    """Write the metadata that an installation of examples/plugin writes, and return the module path that it needs."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    write_metadata(folder, name=project["name"], version=project["version"], entry_points=project["entry-points"])
    return [str(folder), str(EXAMPLE / "src")]
