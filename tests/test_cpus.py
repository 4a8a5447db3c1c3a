"""CPUs by the quotas of control groups, of both versions, in Python and in C."""

import os
import subprocess
from pathlib import Path

import pytest
from c_programs import HERE, KERNELS, compile_c

from graphopt.runtime.cpus import quota_cpus, usable_cpus

V2 = "30 1 0:26 {top} {point} rw,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate"
V1 = "31 1 0:27 {top} {point} rw - cgroup cgroup rw,cpu,cpuacct"
SET = "32 1 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
DISK = "20 1 8:1 / / rw - ext4 /dev/root rw"


def v2(top: str = "/", point: str = "/sys/fs/cgroup") -> str:
    return V2.format(top=top, point=point)


def v1(top: str = "/", point: str = "/sys/fs/cgroup/cpu,cpuacct") -> str:
    return V1.format(top=top, point=point)


CASES = {
    "none": ([], ["0::/"], {}, 0),
    "no limit": ([v2()], ["0::/a"], {"sys/fs/cgroup/a/cpu.max": "max 100000"}, 0),
    "own": ([DISK, v2()], ["0::/a/b"], {"sys/fs/cgroup/a/b/cpu.max": "250000 100000"}, 3),
    "exact": ([v2()], ["0::/a"], {"sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2),
    "a fraction": ([v2()], ["0::/a"], {"sys/fs/cgroup/a/cpu.max": "1000 100000"}, 1),
    "the tightest around it": (
        [v2()],
        ["0::/a/b/c"],
        {
            "sys/fs/cgroup/cpu.max": "900000 100000",
            "sys/fs/cgroup/a/cpu.max": "400000 100000",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            "sys/fs/cgroup/a/b/c/cpu.max": "600000 100000",
            "sys/fs/cgroup/other/cpu.max": "100000 100000",
        },
        4,
    ),
    "a namespace": ([v2()], ["0::/"], {"sys/fs/cgroup/cpu.max": "500000 100000"}, 5),
    "only this container is mounted": (
        [v2("/docker/1")],
        ["0::/docker/1/x"],
        {"sys/fs/cgroup/x/cpu.max": "300000 100000"},
        3,
    ),
    "another part is mounted": (
        [v2("/docker/1")],
        ["0::/docker/10"],
        {"sys/fs/cgroup/cpu.max": "200000 100000", "sys/fs/cgroup/0/cpu.max": "100000 100000"},
        2,
    ),
    "version 1": (
        [SET, v1()],
        ["5:cpuset:/q", "4:cpu,cpuacct:/a/b", "0::/"],
        {
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "350000",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000",
        },
        4,
    ),
    "version 1 of a container": (
        [v1("/docker/1", "/sys/fs/cgroup/cpu")],
        ["4:cpuacct,cpu:/docker/1"],
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000",
        },
        2,
    ),
    "both versions": (
        [v1(), v2("/", "/sys/fs/cgroup/unified")],
        ["4:cpu,cpuacct:/a", "0::/b"],
        {
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "600000",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/b/cpu.max": "500000 100000",
        },
        5,
    ),
    "nonsense": (["x", " - ", v2()], ["0", "::", "0::/a"], {"sys/fs/cgroup/a/cpu.max": "x y"}, 0),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runtime = [KERNELS / "runtime" / name for name in ("team.c", "placement.c", "cpus.c")]
    return compile_c(tmp_path_factory.mktemp("cpus") / "x", HERE / "team_stress.c", *runtime)


@pytest.mark.parametrize("name", CASES)
def test_quotas(program: Path, tmp_path: Path, name: str) -> None:
    mounts, groups, files, expected = CASES[name]
    files = {
        **files,
        "proc/self/mountinfo": "".join(f"{line}\n" for line in mounts),
        "proc/self/cgroup": "".join(f"{line}\n" for line in groups),
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")
    said = subprocess.run([program, "quota", tmp_path], capture_output=True, text=True, check=True)
    assert (quota_cpus(str(tmp_path)), int(said.stdout)) == (expected, expected)


def test_usable_cpus(program: Path) -> None:
    said = subprocess.run([program, "default"], capture_output=True, text=True, check=True)
    assert 1 <= usable_cpus() == int(said.stdout) <= len(os.sched_getaffinity(0))
