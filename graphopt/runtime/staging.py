"""The one way to write a package: beside its place, whole, on the disk, and then into its place."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from graphopt.errors import GraphoptError, PackageError
from graphopt.runtime.sealed import as_path
from graphopt.scratch_folder import ScratchFolder

_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def replaced_folder(path: str | os.PathLike[str], marks: Sequence[str]) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when the block ends without an error.

    Readers find the old folder or the new one; a crash leaves the old one.

    Args:
        path: the place; missing folders above it are made.
        marks: files of a folder that may be replaced.

    Raises:
        PackageError: if something else is there, or the system does not let the folder be written.
    """
    place = check_place(path, marks)
    with _writing(place, Path("/")):
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = ScratchFolder(place.parent, f".{place.name[:40]}-")
    with scratch as folder, _writing(place, folder):
        staging = folder / "new"
        staging.mkdir()
        yield staging
        _flush(staging)
        _move(staging, place)
        _flush_folder(place.parent)


def check_place(path: str | os.PathLike[str], marks: Sequence[str]) -> Path:
    """The absolute form of a path where a folder may be written, for a look before long work.

    Raises:
        PackageError: if something is there that has not the marks, or the path is none.
    """
    place = as_path(path).absolute()
    with _writing(place, Path("/")):
        if not place.is_symlink() and not place.exists():
            return place
        if not place.is_symlink() and all((place / name).is_file() for name in marks):
            return place
    raise PackageError(f"{place} exists and is no package; remove it or choose another name")


@contextmanager
def _writing(place: Path, folder: Path) -> Iterator[None]:
    """What the system refuses in a folder, typed; other errors are not about writing there."""
    try:
        yield
    except GraphoptError:
        raise
    except OSError as error:
        inside = isinstance(error.filename, str) and Path(error.filename).is_relative_to(folder)
        if not inside and error.errno not in _FULL:
            raise
        reason = error.strerror or error
        raise PackageError(
            f"cannot write {place}: {reason}; make room there or choose another place"
        ) from error


def _move(staging: Path, place: Path) -> None:
    """Puts a folder where another may be, which ends up where the first was."""
    if _exchange(staging, place):
        return
    try:
        os.rename(staging, place)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    aside = place.with_name(f".{place.name[:40]}-before-{os.getpid()}")
    os.rename(place, aside)
    try:
        os.rename(staging, place)
    except OSError:
        os.rename(aside, place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, two: Path) -> bool:
    """Whether two folders could change places in one step; some file systems cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(two)
    return rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0


def _flush(folder: Path) -> None:
    """Waits until all files of a folder are on the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(parent))


def _flush_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
