"""Folders that cinefeed writes: runs and features, whose weights and arrays a scan must not take for videos."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Set
from pathlib import PurePosixPath
from typing import Any

# By files that only they contain.
MAX_NAMES = 5  # of files that a scan did not read, per kind
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


def count_files(not_read: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the number of files that a scan did not read, without the folders that cinefeed writes.

    >>> count_files({".avs": {"files": 2, "first": []}, "run folder": {"files": 1, "first": ["runs/a"]}})
    2
    """
    return sum(files["files"] for kind, files in not_read.items() if kind not in _FILES)
