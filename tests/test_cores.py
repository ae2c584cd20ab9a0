"""How many cores a process may use: made-up cgroup trees, of both versions."""

import math
import os
import subprocess
import sys

import pytest

from cinefeed.core.cores import quota_cores, usable_cores


@pytest.fixture
def tree(tmp_path):
    """Writes /proc/self/cgroup and the files of a mount, and returns both places as arguments."""

    def write(groups, files):
        (tmp_path / "cgroup").write_text(groups)
        for name, content in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return {"own_groups": tmp_path / "cgroup", "mount": tmp_path / "mount"}

    return write


def test_version_2_reads_the_own_group(tree):
    assert quota_cores(**tree("0::/job\n", {"job/cpu.max": "150000 100000\n", "cpu.max": "max 100000\n"})) == 1.5


def test_the_least_quota_of_all_groups_around_counts(tree):
    files = {"a/b/c/cpu.max": "max 100000\n", "a/b/cpu.max": "300000 100000\n", "a/cpu.max": "400000 100000\n"}
    assert quota_cores(**tree("0::/a/b/c\n", files)) == 3


def test_a_group_named_as_on_the_host_is_the_mounted_top(tree):
    assert quota_cores(**tree("0::/docker/abc\n", {"cpu.max": "200000 100000\n"})) == 2


def test_version_1_reads_its_two_files(tree):
    groups = "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/system.slice\n"
    files = {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "25000"}
    assert quota_cores(**tree(groups, files)) == 2
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert quota_cores(**tree("1:cpu:/\n", files)) == math.inf


def test_version_1_walks_up_too(tree):
    files = {
        "cpu/pod/box/cpu.cfs_quota_us": "-1",
        "cpu/pod/box/cpu.cfs_period_us": "100000",
        "cpu/pod/cpu.cfs_quota_us": "350000",
        "cpu/pod/cpu.cfs_period_us": "100000",
    }
    assert quota_cores(**tree("1:cpu:/pod/box\n", files)) == 3.5


def test_other_controllers_and_groups_outside_of_the_namespace_bound_nothing(tree):
    assert quota_cores(**tree("2:cpuacct:/\n5:cpuset:/x\n", {"cpuset/x/cpu.max": "100000 100000"})) == math.inf
    groups = tree("0::/../other\n", {"cpu.max": "max 100000"})
    (groups["mount"].parent / "other").mkdir()
    (groups["mount"].parent / "other" / "cpu.max").write_text("100000 100000")
    assert quota_cores(**groups) == math.inf


def test_nothing_there_and_nonsense_bound_nothing(tree, tmp_path):
    assert quota_cores(own_groups=tmp_path / "absent", mount=tmp_path) == math.inf
    assert quota_cores(**tree("0::/\n", {"cpu.max": "100000 0\n"})) == math.inf
    assert quota_cores(**tree("0::/\n", {"cpu.max": "\n"})) == math.inf


@pytest.mark.parametrize(
    ("pinned", "quota", "expected"), [(8, "150000", 2), (8, "20000", 1), (8, "max", 8), (2, "800000", 2)]
)
def test_cores_are_pinned_ones_within_the_quota_rounded_up(tree, monkeypatch, pinned, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(pinned)), raising=False)
    assert usable_cores(**tree("0::/\n", {"cpu.max": f"{quota} 100000\n"})) == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are pinned on Linux")
def test_a_pinned_process_has_one_core():
    code = (
        "import os; from cinefeed.core.cores import usable_cores\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
