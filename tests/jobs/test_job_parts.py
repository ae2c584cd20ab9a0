"""Which rows are part k of n, and which folders of parts belong together."""

from pathlib import Path

import numpy as np
import pytest

from cinefeed.core.errors import SettingError, TableError
from cinefeed.jobs.parts import Part, parse_part, part_bounds, part_folder, part_rows
from cinefeed.jobs.records import Job, check_coverage

JOB = Job("pack", {"codec": "raw"}, {"manifest": "abc"}, {"av": "17"}, {})


def slurm(task, *, count, first, last):
    values = {"ID": task, "COUNT": count, "MIN": first, "MAX": last}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("0/3", {}, Part(0, 3)),
        ("2/3", slurm(7, count=9, first=0, last=8), Part(2, 3)),  # what is given wins
        ("slurm", slurm(7, count=50, first=0, last=49), Part(7, 50)),
        ("slurm", slurm(7, count=50, first=1, last=50), Part(6, 50)),
        ("slurm", slurm(8, count=5, first=0, last=16), Part(2, 5)),  # --array=0-16:4
        ("slurm", slurm(5, count=1, first=5, last=5), Part(0, 1)),
    ],
)
def test_numbers_of_parts(text, environment, part):
    assert parse_part(text, environment) == part


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("3/3", {}, "from 0 to COUNT - 1"),
        ("1", {}, "NUMBER/COUNT"),
        ("-1/3", {}, "NUMBER/COUNT"),
        ("0/0", {}, "NUMBER/COUNT"),
        ("slurm", {}, "sbatch --array"),
        ("slurm", slurm(3, count=3, first=1, last=8), "without a constant step"),  # --array=1,3,8
        ("slurm", slurm(3, count=3, first=1, last=7), "without a constant step"),
    ],
)
def test_wrong_numbers_of_parts(text, environment, message):
    with pytest.raises(SettingError, match=message):
        parse_part(text, environment)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("seed", range(5))
def test_each_row_is_in_one_part_and_bytes_are_balanced(count, seed):
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(200), rng.integers(1, 4, 200))
    order = rng.permutation(len(units))
    units = np.unique(units[order], return_inverse=True)[1][np.argsort(order)]  # rows of a unit need not be neighbours
    sizes = rng.integers(0, 10**12, 200)
    parts = [part_rows(Part(number, count), units, sizes) for number in range(count)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(units)))
    assert all(np.array_equal(rows, np.sort(rows)) for rows in parts)
    of_unit = [set(units[rows].tolist()) for rows in parts]
    assert sum(map(len, of_unit)) == 200
    sums = [sizes[[*each]].sum() for each in of_unit]
    assert max(sums) <= sizes.sum() / count + sizes.max()


def test_more_parts_than_units():
    bounds = part_bounds(np.array([3, 0]), 5)
    assert bounds[0] == 0 and bounds[-1] == 2 and (np.diff(bounds) >= 0).all()
    assert part_bounds(np.zeros(0), 2).tolist() == [0, 0, 0]


def test_another_number_of_parts_in_the_same_folder(tmp_path):
    part_folder(tmp_path, Part(3, 50)).mkdir()
    assert part_folder(tmp_path, Part(4, 50)).name == "part-0004-of-0050"
    with pytest.raises(SettingError, match=r"part-0003-of-0050, a part of 50.*--shard NUMBER/50"):
        part_folder(tmp_path, Part(0, 2))  # as after sbatch --array=3,17


def folders(*numbers, count=3, job=JOB):
    return {Path(f"parts/{place}-{number}"): (job, Part(number, count)) for place, number in enumerate(numbers)}


def test_coverage():
    check_coverage(folders(2, 0, 1))
    for jobs, error, message in (
        ({}, TableError, "no part is complete"),
        (folders(0, 2), TableError, "1 part of 3 missing: 1/3"),
        (folders(0, 1, 2, 1), TableError, "doubled: parts/1-1, parts/3-1"),
        (folders(0, 1) | {Path("x"): (JOB, Part(2, 4))}, SettingError, "x is a part of 4, and parts/0-0 of 3"),
    ):
        with pytest.raises(error, match=message):
            check_coverage(jobs)
    with pytest.raises(TableError, match=r"part-0001-of-0003 \(unfinished\)"):
        check_coverage(folders(0, 1, 2), unfinished=[Path("parts/part-0001-of-0003")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"codec": "jpeg"}}, "settings codec: 'raw' and 'jpeg'"),
        ({"inputs": {"manifest": "abd"}}, "inputs manifest: 'abc' and 'abd'"),
        ({"versions": {"av": "18"}}, "versions av: '17' and '18'"),
        ({"whole": {"history": [1]}}, "whole history"),
        ({"command": "encode"}, "command: pack and encode"),
    ],
)
def test_parts_of_other_work_are_named(change, message):
    other = {Path("parts/other"): (JOB._replace(**change), Part(2, 3))}
    with pytest.raises(SettingError, match=f"parts/other and parts/0-0.*{message}"):
        check_coverage(folders(0, 1) | other)
