"""Programs in C of tests/c, with what they need of kernels/runtime."""

import platform
import subprocess
from pathlib import Path

from graphopt.kernels import registry
from graphopt.toolchain.build import Toolchain

HERE = Path(__file__).parents[1] / "c"
KERNELS = registry.ROOT
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]


def compile_c(output: Path, *arguments: object) -> Path:
    """Compiles with the toolchain of graphopt for this machine."""
    tools = Toolchain.find(platform.machine())
    include = [f"-I{KERNELS / 'include'}", f"-I{KERNELS / 'runtime'}"]
    machine = tools.link_flags(static=False)
    command = [*tools.command, *machine, *FLAGS, *include, *arguments, "-lpthread", "-o", output]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output
