"""LLVM's command line tools: found once, called with text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache

from graphopt.errors import MissingToolError, PricingError

#: The oldest LLVM that understands the LATENCY annotation and has Arm's model of N2.
OLDEST = 21
_NEWEST = 30  # suffixes that are tried
PACKAGE = "llvm-22"


@dataclass(frozen=True)
class Llvm:
    """One installed LLVM.

    Attributes:
        suffix: behind the names of its tools, such as ``-22``.
        version: its major version.
    """

    suffix: str
    version: int

    @staticmethod
    def find() -> Llvm:
        """The LLVM of `LLVM_SUFFIX` if that is set, else the newest that is installed.

        Raises:
            MissingToolError: if no llvm-mca of version 21 or later is on the PATH.
        """
        return _find(os.environ.get("LLVM_SUFFIX"), os.environ.get("PATH", ""))

    def run(self, tool: str, *arguments: str, text: str | None = None) -> tuple[str, str]:
        """Standard output and standard error of one tool.

        Args:
            tool: its name without a version.
            arguments: of the command.
            text: standard input; none if None.

        Raises:
            MissingToolError: if this LLVM came without the tool.
            PricingError: if the tool fails.
        """
        name = tool + self.suffix
        if shutil.which(name) is None:
            raise MissingToolError(name, PACKAGE)
        done = subprocess.run(
            [name, *arguments], input=text, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise PricingError(f"{name} failed: {done.stderr.strip()[-1000:]}")
        return done.stdout, done.stderr


@lru_cache(maxsize=4)
def _find(named: str | None, path: str) -> Llvm:
    suffixes = [named] if named is not None else [*(f"-{v}" for v in range(_NEWEST, 20, -1)), ""]
    for suffix in suffixes:
        tool = shutil.which(f"llvm-mca{suffix}", path=path)
        version = _version(tool) if tool else 0
        if version >= OLDEST:
            return Llvm(suffix, version)
    raise MissingToolError(f"llvm-mca of LLVM {OLDEST} or later", PACKAGE)


def _version(tool: str) -> int:
    shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)", shown)
    return int(found[1]) if found else 0
