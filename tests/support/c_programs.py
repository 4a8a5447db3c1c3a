"""Programs in C of tests/c, with what they need of kernels/runtime."""

import platform
import subprocess
from pathlib import Path

from graphopt.kernels import registry
from graphopt.toolchain.build import Toolchain

HERE = Path(__file__).parents[1] / "c"
KERNELS = registry.ROOT
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=undefined"]


def compile_c(output: Path, *arguments: object) -> Path:
    """Compiles with the toolchain of graphopt for this machine."""
    level = registry.level(platform.machine(), "scalar")
    tools = Toolchain.find(level.arch)
    include = [f"-I{KERNELS / 'include'}", f"-I{KERNELS / 'runtime'}"]
    machine = tools.machine_flags(level, static=False)
    command = [*tools.command, *machine, *FLAGS, *include, *arguments, "-lpthread", "-o", output]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output
