"""Number of cores that this process may use: fewer than the machine has if CPU affinity or a cgroup quota limits it."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_OWN_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def usable_cores(*, own_groups: Path = _OWN_GROUPS, mount: Path = _MOUNT) -> int:
    """Return the number of cores that this process may use: its affinity, bounded by the quota of its cgroup.

    A quota of 1.5 cores counts as 2, because one worker would leave half a core idle. The result is at least 1.
    """
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(pinned, quota_cores(own_groups=own_groups, mount=mount))))


def quota_cores(*, own_groups: Path = _OWN_GROUPS, mount: Path = _MOUNT) -> float:
    """Return the processor time that the cgroups of this process allow, in cores; infinite without a quota.

    Cgroups are nested, and each may have a quota: the smallest one applies. Version 2 stores it in `cpu.max`, version 1
    in `cpu.cfs_quota_us` and `cpu.cfs_period_us` (Linux: Documentation/admin-guide/cgroup-v2.rst and
    Documentation/scheduler/sched-bwc.rst).
    """
    try:
        lines = own_groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux, or no /proc
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folders = [*_upwards(mount, group), *_upwards(mount / "unified", group)]
            quotas += [_cores(_words(each / "cpu.max")) for each in folders]
        elif "cpu" in controllers.split(","):
            folders = [*_upwards(mount / controllers, group), *_upwards(mount / "cpu", group)]
            quotas += [
                _cores(_words(each / "cpu.cfs_quota_us") + _words(each / "cpu.cfs_period_us")) for each in folders
            ]
    return min(quotas)


def _upwards(top: Path, group: str) -> Iterator[Path]:
    """Yield the folders of a cgroup and of all its parents.

    Within a container, the path may be that of the host, which does not exist there: the mounted root is then the
    cgroup of the container.
    """
    path = PurePosixPath(group.strip().lstrip("/"))
    if ".." not in path.parts:  # otherwise the cgroup is outside of this namespace
        yield from (top / each for each in (path, *path.parents))
    else:
        yield top


def _cores(words: list[str]) -> float:
    """Return quota / period, both in microseconds; "max" and -1 stand for no bound.

    >>> _cores(["150000", "100000"]), _cores(["max", "100000"]), _cores(["-1", "100000"]), _cores([])
    (1.5, inf, inf, inf)
    """
    if len(words) != 2 or not all(word.isdigit() for word in words) or not int(words[1]):
        return math.inf
    return int(words[0]) / int(words[1])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:  # missing in the root cgroup of version 2, and if the controller is off
        return []
