"""Temporary folders that do not outlive their process by much.

A folder is locked (flock) as long as its process lives, however that ends. Whoever makes a folder
beside it removes those that nobody locks any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

_SUFFIX = ".graphopt-scratch"


class ScratchFolder:
    """A new folder, removed when the object is, or by the next process after a crash.

    Also a context manager that gives the path.

    Args:
        parent: folder to make it in; where temporary files belong by default.
        prefix: of its name.

    Attributes:
        path: the folder, which is empty.

    Raises:
        OSError: if the system does not let it be made.
    """

    def __init__(self, parent: Path | None = None, prefix: str = "") -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        _sweep(parent)
        self.path, lock = _make(parent, prefix)
        self._remove = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Removes the folder and all that is in it."""
        self._remove()


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(_SUFFIX, prefix, parent))
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # swept before it was locked
            continue
        if _is_locked(lock) is not False and os.path.exists(path):
            return path, lock
        os.close(lock)


def _is_locked(folder: int) -> bool | None:
    """Whether the lock could be had; None where a file system has none, and nothing is swept."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _sweep(parent: Path) -> None:
    """Removes what processes left that ended before they could."""
    try:
        names = [name for name in os.listdir(parent) if name.endswith(_SUFFIX)]
    except OSError:  # a folder may be written and not be listed
        return
    for name in names:
        try:
            folder = os.open(parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone by now, or of another user
            continue
        try:
            if _is_locked(folder):
                shutil.rmtree(parent / name, ignore_errors=True)
        finally:
            os.close(folder)


def _remove(path: Path, lock: int, owner: int) -> None:
    """Removes a folder, unless a forked child ends that its parent still needs it for."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
    os.close(lock)
