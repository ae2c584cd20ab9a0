"""Folders that cinefeed writes: runs and features, whose weights and arrays a scan must not take for videos."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Set
from pathlib import PurePosixPath
from typing import Any

from cinefeed.core.text import format_count

# By files that only they contain.
MAX_NAMES = 5  # of files that a scan did not read
_FILES = {
    "run folder": {"settings.toml", "spec.json"},
    "cross-validation": {"folds.json"},
    "folder of features": {"encoded.jsonl"},
}


def output_kind(names: Set[str]) -> str | None:
    """Return the kind of a folder that cinefeed wrote, given the names in it; None for any other folder.

    >>> output_kind({"spec.json", "settings.toml", "best.weights.h5"}), output_kind({"a.mp4"})
    ('run folder', None)
    """
    return next((kind for kind, files in _FILES.items() if files <= names), None)


def output_folders(names: Iterable[str]) -> dict[str, str]:
    """Return the kind of each folder that cinefeed wrote, by its path, given the paths of all files.

    >>> output_folders(["a.mp4", "runs/x/spec.json", "runs/x/settings.toml"])
    {'runs/x': 'run folder'}
    """
    within: dict[str, set[str]] = defaultdict(set)
    for name in names:
        path = PurePosixPath(name)
        within[str(path.parent)].add(path.name)
    return {folder: kind for folder, files in within.items() if (kind := output_kind(files))}


def is_within(name: str, folders: Container[str]) -> bool:
    """Return whether a path with "/" is in one of some folders, or below it.

    >>> is_within("runs/x/fold1/best.weights.h5", {"runs/x"}), is_within("runs/y.mp4", {"runs/x"})
    (True, False)
    """
    return any(str(folder) in folders for folder in PurePosixPath(name).parents)


def files_not_read(not_read: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the number and the first names of the files that a scan did not read, without folders of cinefeed.

    >>> files_not_read({".avs": {"files": 2, "first": ["a.avs", "b.avs"]}, "run folder": {"files": 1, "first": ["r"]}})
    '2 files not read: a.avs, b.avs'
    >>> files_not_read({}), files_not_read({".avs": {"files": 1, "first": []}})
    ('', '1 file not read')
    """
    files = [each for kind, each in not_read.items() if kind not in _FILES]
    count = sum(each["files"] for each in files)
    names = [name for each in files for name in each["first"]][:MAX_NAMES]
    if not count:
        return ""
    listed = f": {', '.join(names)}{' ...' if len(names) < count else ''}" if names else ""
    return f"{format_count(count, 'file')} not read{listed}"
