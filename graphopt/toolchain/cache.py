"""Compiled objects by the content of what they were made from.

<cache>/objects/<key>/<sha256>.o
<cache>/linked/<key>/<sha256>.so
<cache>/headers/<key>/<sha256>.pch    what all modules of a level include, parsed

The key is of the source, the compiler and its flags; the name of a file is the digest of its own
content, so that one that was damaged or cut short is noticed and made again. A file is written
aside, flushed and renamed; any number of processes may share a cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from graphopt.errors import CompilerError, GraphoptError, StorageError
from graphopt.plain_files import open_plain
from graphopt.scratch_folder import ScratchFolder

_FULL = 1 << 20  # free bytes below which a compiler's failure is that of the disk
_TEMPORARY = "what is compiled is kept until this process ends; GRAPHOPT_CACHE names another folder"


class CacheWarning(UserWarning):
    """A folder that cannot be used as cache, so that nothing is kept for the next process."""


@dataclass(frozen=True)
class Cache:
    """Compiled files in a folder, or for the life of this process if it cannot be used.

    Attributes:
        folder: of the user and not open to others, because it holds machine code.
    """

    folder: Path

    def file(self, key: str, suffix: str, make: Callable[[Path], Path]) -> Path:
        """The file of a key.

        Args:
            key: relative name of what it is made from.
            suffix: of its name.
            make: makes it in a folder, and says where.

        Raises:
            StorageError: if there is no room for it.
        """
        if found := _whole(self.folder / key, suffix):
            return found
        with self._work() as (root, folder):
            if found := _whole(root / key, suffix):
                return found
            made = _made(make, folder)
            with made.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
                os.fsync(stream.fileno())
            target = root / key / f"{digest}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made, target)
            return target

    @contextmanager
    def _work(self) -> Iterator[tuple[Path, Path]]:
        """The folder to keep files in, and one in it to make them in."""
        try:
            _claim(self.folder)
            scratch, root = ScratchFolder(self.folder), self.folder
        except OSError as error:
            root = _temporary_cache()
            scratch = ScratchFolder(root)
            _warn(self.folder, error.strerror or str(error))
        try:
            with scratch as folder:
                yield root, folder
        except GraphoptError:
            raise
        except OSError as error:
            raise StorageError(root, error.strerror or error, "GRAPHOPT_CACHE") from error


def _claim(folder: Path) -> None:
    """Makes the folder; PermissionError if others could put machine code there."""
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
        raise PermissionError(0, "it is not this user's alone")


@lru_cache(maxsize=1)
def _temporary_folder() -> ScratchFolder:
    return ScratchFolder()


def _temporary_cache() -> Path:
    try:
        return _temporary_folder().path
    except OSError as error:
        raise StorageError("a temporary folder", error.strerror or error, "TMPDIR") from error


@lru_cache(maxsize=8)
def _warn(folder: Path, reason: str) -> None:
    warnings.warn(f"no cache in {folder}: {reason}; {_TEMPORARY}", CacheWarning, stacklevel=2)


def _made(make: Callable[[Path], Path], folder: Path) -> Path:
    try:
        return make(folder)
    except CompilerError as error:
        if shutil.disk_usage(folder).free < _FULL:
            raise StorageError(folder.parent, "the disk is full", "GRAPHOPT_CACHE") from error
        raise


def _whole(shelf: Path, suffix: str) -> Path | None:
    """The file of a key, if there is one and its content is as its name says."""
    try:
        names = sorted(os.listdir(shelf))
    except OSError:
        return None
    for name in names:
        path = shelf / name
        try:
            with open_plain(path) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if name == f"{digest}{suffix}":
                return path
            path.unlink()
        except OSError:  # removed by another process, or not ours to remove
            continue
    return None
