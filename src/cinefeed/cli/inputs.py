"""Checks of the paths on a command line, before any work begins."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cinefeed.core.errors import SettingError
from cinefeed.core.remote.address import SCHEMES
from cinefeed.data.manifest.files import PACKED_MANIFEST

_READ = {"folder", "labels", "manifest", "config", "transforms", "group_table", "weights", "paths", "sources"}
_READ |= {"run", "a", "b"}
_WRITTEN = {"out", "page", "groups"}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # a Path has one slash left; C:/ is a drive
_PARQUET = b"PAR1"


def check_paths(parameters: Mapping[str, Any], *, flags: Mapping[str, str], command: str) -> None:
    """Raise SettingError for a remote address, for a path to read that does not exist, and for a wrong kind of file.

    `parameters` are the values by name, `flags` the options by name; other names are arguments.
    """
    is_output = _WRITTEN | ({"run"} if command == "init" else set())
    is_input = _READ | ({"parts"} if command == "merge" else set())  # elsewhere their number
    for name, value in parameters.items():
        if name not in is_input | is_output or value is None:
            continue
        for path in map(Path, value if isinstance(value, list | tuple) else [value]):
            check_path(path, name=name, label=flags.get(name, ""), is_read=name not in is_output)


def check_path(path: Path, *, name: str, label: str, is_read: bool = True) -> None:
    """Raise SettingError if a path cannot serve; `label` is the option or the setting that it was given for."""
    requested_path = f"{label} {path}".strip()
    if address := _ADDRESS.match(str(path)):
        kind, rest = address[1], str(path)[address.end() :]
        if name == "folder" and kind in SCHEMES:
            return
        raise SettingError(
            f"{label} {kind}://{rest}".strip() + ": only the folder of 'cinefeed scan' may be remote "
            f"({', '.join(f'{scheme}://' for scheme in SCHEMES)}; docs/remote.md); copy the files into a local folder, "
            "and give that path"
        )
    if not is_read:
        return
    if not os.path.lexists(path):
        is_relative_setting = label.startswith("[") and not path.is_absolute()
        start = "a path in the settings is relative to the current folder, and not to that of the settings"
        raise SettingError(f"{requested_path} does not exist; {start if is_relative_setting else _nearest(path)}")
    if name == "folder" and not path.is_dir():
        raise SettingError(f"{requested_path} is not a folder; give the folder that contains the videos")
    if name == "manifest":
        _check_manifest(path, requested_path)


def _nearest(path: Path) -> str:
    folder = path.parent
    names = sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []
    near = get_close_matches(path.name, names, n=1)
    return f"did you mean {str(folder / near[0])!r}?" if near else "check the path"


def _check_manifest(path: Path, requested_path: str) -> None:
    if (path / PACKED_MANIFEST).is_file():
        return
    if path.is_dir():
        raise SettingError(
            f"{requested_path} is a folder, and not the folder of a packed data set; make a manifest of its videos "
            f"first: cinefeed scan {path} --out manifest.parquet"
        )
    if not path.is_file():
        return  # reading it names the kind of file
    with path.open("rb") as file:
        if file.read(len(_PARQUET)) != _PARQUET:
            raise SettingError(
                f"{requested_path} is not a manifest; make one of the videos first: cinefeed scan FOLDER "
                "--out manifest.parquet (a table of labels is given there, with --labels)"
            )
