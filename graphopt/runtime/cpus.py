"""How many CPUs this process may use, as kernels/runtime/cpus.c counts them too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus() -> int:
    """CPUs by affinity and by the quotas of control groups, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, quota_cpus() or allowed))


def quota_cpus(root: str = "") -> int:
    """What the CPU quotas of this process's control groups are worth, rounded up; 0 without one.

    A group's quota binds the groups in it, so all from this process's own up to the mount count.

    Args:
        root: where the files of the system are, but for tests.
    """
    quotas = [
        quota
        for top, point, group in _mounted(root)
        for folder in _upwards(Path(root + point), top, group)
        if (quota := _group_cpus(folder))
    ]
    return min(quotas, default=0)


def _mounted(root: str) -> Iterator[tuple[str, str, str]]:
    """Of each hierarchy that limits CPUs: its top in the mount, the mount, and our group in it."""
    groups = [line.split(":", 2) for line in _lines(Path(f"{root}/proc/self/cgroup"))]
    for line in _lines(Path(f"{root}/proc/self/mountinfo")):
        mount, _, kind = (part.split() for part in line.partition(" - "))
        if len(mount) < 5 or len(kind) < 3:
            continue
        for number, controllers, group in (parts for parts in groups if len(parts) == 3):
            is_v2 = kind[0] == "cgroup2" and (number, controllers) == ("0", "")
            is_v1 = kind[0] == "cgroup" and "cpu" in kind[2].split(",")
            if is_v2 or (is_v1 and "cpu" in controllers.split(",")):
                yield mount[3], mount[4], group


def _upwards(point: Path, top: str, group: str) -> Iterator[Path]:
    """The folders of a group and of those around it; of one that is not mounted, the mount."""
    outer = top.rstrip("/")
    inside = group == outer or group.startswith(f"{outer}/")
    folder = Path(f"{point}{group[len(outer) :] if inside else ''}")
    while folder != point:
        yield folder
        folder = folder.parent
    yield point


def _group_cpus(folder: Path) -> int:
    found = _numbers(folder / "cpu.max")
    if len(found) != 2:
        found = _numbers(folder / "cpu.cfs_quota_us") + _numbers(folder / "cpu.cfs_period_us")
    if len(found) != 2 or min(found) <= 0:
        return 0
    return -(-found[0] // found[1])


def _numbers(path: Path) -> list[int]:
    """The numbers in a file; none where it says "max"."""
    try:
        return [int(word) for line in _lines(path) for word in line.split()]
    except ValueError:
        return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
