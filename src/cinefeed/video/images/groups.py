"""Grouping of images into videos: images of one folder, format and name pattern, in numeric order."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from glob import escape
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cinefeed.core.errors import DecodeError, SourceError
from cinefeed.video.images.tiff import Pages
from cinefeed.video.kinds import IMAGE_SUFFIXES, is_animated, read_start, suffix_of
from cinefeed.video.source import DiscoveredSample, Folder

_SAME_SUFFIX = {".jpeg": ".jpg", ".tiff": ".tif"}


_DIGITS = re.compile("[0-9]+")


_GEO_KEYS = 34735  # the TIFF entry of a geographic position


class ImageGroups(NamedTuple):
    """The samples in a set of images, the images in no sample (description and name), and folders that need a choice.

    `ambiguous` maps each folder that needs a choice to the patterns that select one kind of its images.
    """

    samples: list[DiscoveredSample]
    unread: list[tuple[str, str]]
    ambiguous: dict[str, tuple[str, ...]]


def group_images(names: Iterable[str], *, root: Folder | None = None, frames: str | None = None) -> ImageGroups:
    """Return the folders whose images are the frames of one sample, with the files of each in natural order.

    `names` are all files that a scan treats as videos or images, relative, with /. A folder is a sample if it has two
    or more images, all of one format, and no other file. Images that do not match `frames`, a name pattern, are
    excluded first. With `root`, the folder of the names, multi-page TIFF files and animated images are separate videos;
    the first file of a format decides for its folder. GeoTIFF files, which are maps, are then frames only if `frames`
    is given.

    Images of two formats, or with two name patterns and the same numbers, may be frames and masks: the frames must be
    selected, and the folder is ambiguous.

    >>> group_images(["a/f10.png", "a/f9.png", "b/one.png", "c/x.png", "c/y.png", "c/cine.mp4"]).samples
    [DiscoveredSample(path='a', part=None, files=('f9.png', 'f10.png'), tags={})]
    >>> group_images(["a/1.jpg", "a/2.jpg", "a/1.png", "a/2.png"]).ambiguous
    {'a': ('*.jpg', '*.png')}
    """
    folders: dict[str, list[str]] = defaultdict(list)
    groups = ImageGroups([], [], {})
    with_others = set()
    for name in names:
        folder, _, file = name.rpartition("/")
        if suffix_of(file) not in IMAGE_SUFFIXES:
            with_others.add(folder)
        elif frames is None or fnmatchcase((name if "/" in frames else file).lower(), frames.lower()):
            folders[folder].append(file)
        else:
            groups.unread.append((f"image that frames={frames!r} leaves out", name))
    for folder in sorted(folders, key=PurePosixPath):
        alone, path = folder not in with_others, PurePosixPath(folder)
        _group_folder(path, folders[folder], groups, root=root, has_pattern=frames is not None, alone=alone)
    return groups


def _group_folder(
    folder: PurePosixPath,
    names: list[str],
    groups: ImageGroups,
    *,
    root: Folder | None,
    has_pattern: bool,
    alone: bool,
) -> None:
    """Add the samples in the images of one folder; `alone` means that the folder has no other files."""
    formats: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names, key=natural_key):
        suffix = suffix_of(name)
        formats[_SAME_SUFFIX.get(suffix, suffix)].append(name)
    moving = [files for files in formats.values() if root is not None and is_moving(root / str(folder / files[0]))]
    if not alone or moving:
        for name in names:
            if root is not None and is_moving(root / str(folder / name)):
                groups.samples.append(DiscoveredSample(str(folder / name)))
            else:
                groups.unread.append((f"image beside a video ({suffix_of(name)})", str(folder / name)))
        return
    most = max(formats.values(), key=len)
    if len(most) == 1:
        groups.unread.extend(
            ("image alone in its folder" if len(names) == 1 else "image alone of its format", str(folder / each))
            for each in names
        )
    elif len(formats) > 1:
        groups.ambiguous[str(folder)] = tuple(f"*{suffix}" for suffix in sorted(formats))
    elif not has_pattern and root is not None and _is_map(root / str(folder / most[0])):
        groups.unread.extend(("GeoTIFF, read with frames='*.tif'", str(folder / name)) for name in most)
    elif not has_pattern and (patterns := _rival_patterns(most)):
        groups.ambiguous[str(folder)] = patterns
    else:
        groups.samples.append(DiscoveredSample(str(folder), files=tuple(most)))


def _rival_patterns(files: Sequence[str]) -> tuple[str, ...]:
    """Return the name patterns that share numbers, as frames and their masks do; empty if there are fewer than two.

    >>> _rival_patterns(["f1.png", "f2.png", "f1_mask.png", "f2_mask.png"]), _rival_patterns(["a1.png", "b2.png"])
    (('f*[0-9].png', 'f*[0-9]_mask.png'), ())
    """
    if len({_DIGITS.sub("0", file) for file in files}) == 1:  # the usual case, in a fifth of the time
        return ()
    numbers: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    for file in files:
        pieces = re.split(r"([0-9]+)", file)
        pattern = "*[0-9]".join(escape(piece) for piece in pieces[::2])
        numbers[pattern].add(tuple(map(int, pieces[1::2])))
    series = {pattern: members for pattern, members in numbers.items() if len(members) > 1}
    if len(series) < 2:
        return ()
    return tuple(
        pattern
        for pattern, members in series.items()
        if any(members & other for key, other in series.items() if key != pattern)
    )


def missing_numbers(files: Sequence[str]) -> int:
    """Return the number of missing frames according to the last numbers in the names and their common step.

    >>> missing_numbers(["f0.png", "f10.png", "f30.png"]), missing_numbers(["a.png", "b.png"])
    (1, 0)

    If more are missing than present, the result is 0: such numbers are timestamps.
    """
    runs = [re.findall(r"[0-9]+", PurePosixPath(file).stem) for file in files]
    if not all(runs):
        return 0
    numbers = sorted({int(run[-1]) for run in runs})
    step = math.gcd(*(after - before for before, after in pairwise(numbers)))
    if step == 0 or len(numbers) < len(files):
        return 0
    missing = (numbers[-1] - numbers[0]) // step + 1 - len(numbers)
    return missing if missing <= len(numbers) else 0


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key by which frame2 precedes frame10: digits by value, letters without case."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], name


def is_moving(path: Path) -> bool:
    """Return whether an image file is a separate video: a multi-page TIFF, an animated PNG or WebP."""
    suffix = path.suffix.lower()
    if _SAME_SUFFIX.get(suffix, suffix) == ".tif":
        return has_pages(path)
    if suffix not in (".png", ".webp"):
        return False
    try:
        return is_animated(read_start(path))
    except OSError:
        return False


def _is_map(path: Path) -> bool:
    """Return whether a file is a GeoTIFF."""
    try:
        with closing(Pages(path)) as pages:
            return pages.has_entry(_GEO_KEYS)
    except (SourceError, DecodeError):
        return False


def has_pages(path: Path) -> bool:
    """Return whether a file is a TIFF of several pages."""
    try:
        pages = Pages(path)
    except SourceError:
        return False
    try:
        return pages.find(1)
    except DecodeError:
        return False
    finally:
        pages.close()
