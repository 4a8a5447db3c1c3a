"""gcc's sanitizers of addresses and of undefined behaviour, and of threads."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess

import pytest

#: What `Builder` is given.
SANITIZERS = ("address", "undefined")
THREADS = ("thread",)


@functools.cache
def _missing(sanitizers: tuple[str, ...]) -> str:
    """What is missing of a gcc whose programs watch themselves, or nothing."""
    if not shutil.which("gcc"):
        return "gcc is not installed"
    command = ["gcc", f"-fsanitize={','.join(sanitizers)}", "-x", "c", "-", "-o", "/dev/null"]
    made = subprocess.run(command, input="int main(void) {}", capture_output=True, text=True)
    return f"gcc has no sanitizers: {made.stderr.strip()}" if made.returncode else ""


def require_sanitizers(sanitizers: tuple[str, ...] = SANITIZERS) -> None:
    """Skips the test, with the reason, if gcc cannot build programs with the sanitizers."""
    if missing := _missing(sanitizers):
        pytest.skip(f"{missing} ({platform.machine()})")
