"""Which rows are part k of n: pure functions, the same on every machine."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cinefeed.core.errors import SettingError

_FOLDER = re.compile(r"part-(\d+)-of-(\d+)")
_SLURM = "SLURM_ARRAY_TASK_"


@dataclass(frozen=True, order=True)
class Part:
    """One of several parts of some work; `number` counts from 0.

    >>> str(Part(3, 50))
    '3/50'
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """Return the part that a text names: "3/50", or "slurm" for that of a SLURM array job.

    Parts count from 0: 0/3, 1/3 and 2/3 are the three parts of three. Raises SettingError.

    >>> parse_part("2/3")
    Part(number=2, count=3)
    >>> task = {"ID": "5", "COUNT": "3", "MIN": "1", "MAX": "5"}  # sbatch --array=1-5:2
    >>> parse_part("slurm", {f"SLURM_ARRAY_TASK_{name}": value for name, value in task.items()})
    Part(number=2, count=3)
    """
    if text == "slurm":
        return _slurm_part(environment)
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise SettingError(
            f"--shard {text!r} must be NUMBER/COUNT, with numbers from 0 to COUNT - 1, such as 0/3, 1/3 and 2/3; or "
            "slurm, inside a SLURM array job"
        )
    return Part(int(number), int(count))


def _slurm_part(environment: Mapping[str, str]) -> Part:
    try:
        task, count, first, last = (int(environment[_SLURM + name]) for name in ("ID", "COUNT", "MIN", "MAX"))
    except (KeyError, ValueError) as error:
        raise SettingError(
            f"--shard slurm needs the variables of a SLURM array job ({_SLURM}ID, COUNT, MIN and MAX), and they are "
            "not set here; submit with 'sbatch --array=0-49', or give --shard NUMBER/COUNT"
        ) from error
    step = (last - first) // max(count - 1, 1) or 1
    number = (task - first) // step
    if not (first + number * step == task and first + (count - 1) * step == last and 0 <= number < count):
        raise SettingError(
            f"--shard slurm: tasks {first} to {last} of this array are {count} numbers without a constant step, so the "
            f"part of task {task} is unclear; give --shard $SLURM_ARRAY_TASK_ID/COUNT"
        )
    return Part(number, count)


def part_bounds(sizes: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return where the parts of units of these sizes begin and end: (count + 1,) indices; part k is [k] to [k + 1].

    Parts are contiguous. Each unit is in the part that has its middle byte, so sums of sizes are balanced up to one
    unit. With fewer units than parts, or a unit larger than a part, some parts are empty.

    >>> part_bounds(np.array([5, 1, 1, 1, 1, 1]), 2)
    array([0, 1, 6])
    """
    weights = np.maximum(np.asarray(sizes).astype(np.int64), 1)
    middles = 2 * np.cumsum(weights) - weights
    targets = 2 * int(weights.sum()) * np.arange(1, count) // count
    return np.concatenate([[0], np.searchsorted(middles, targets), [len(weights)]]).astype(np.int64)


def part_rows(part: Part, units: NDArray[np.int64], sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rows of a part, in order; rows of one unit, such as a file, are in the same part.

    Args:
        part: The part.
        units: The number of each row's unit, from 0 in the order of the first rows, (rows,).
        sizes: The size of each unit in bytes, (units,).

    >>> part_rows(Part(0, 2), np.array([0, 0, 1, 0]), np.array([100, 100]))
    array([0, 1, 3])
    """
    first, last = part_bounds(sizes, part.count)[part.number : part.number + 2]
    return np.flatnonzero((units >= first) & (units < last))


def part_folder(parts: Path, part: Part) -> Path:
    """Return the folder of a part. Raises SettingError if `parts` has parts of another number of parts.

    >>> part_folder(Path("parts"), Part(3, 50)).as_posix()
    'parts/part-0003-of-0050'
    """
    if parts.exists() and not parts.is_dir():
        raise SettingError(f"--out {parts} is a file; with --shard, --out is a folder, which 'cinefeed merge' reads")
    others = [each for each in part_folders(parts) if each[1].count != part.count]
    if others:
        folder, other = others[0]
        raise SettingError(
            f"{parts} has {folder.name}, a part of {other.count}, and this is part {part} of {part.count}; give "
            f"--shard NUMBER/{other.count}, or another --out"
        )
    return parts / f"part-{part.number:04}-of-{part.count:04}"


def part_folders(parts: Path) -> list[tuple[Path, Part]]:
    """Return the folders of parts in a folder and what their names state, sorted by name."""
    folders = sorted(parts.glob("part-*-of-*")) if parts.is_dir() else []
    matches = [(folder, _FOLDER.fullmatch(folder.name)) for folder in folders]
    return [(folder, Part(int(match[1]), int(match[2]))) for folder, match in matches if match]
