"""Files that tools write, and a look at their places before long work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from graphopt.errors import StorageError


def check_file(path: Path) -> None:
    """Looks whether a file may be written; folders above it may be missing.

    Raises:
        StorageError: if it may not.
    """
    with _writing(path):
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if path.is_dir():
            raise StorageError(path, "it is a folder", "the path")
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise StorageError(path, f"{above} is no folder that may be written", "the path")


def write_text(path: Path, text: str) -> None:
    """Writes a file, and the folders above it.

    Raises:
        StorageError: if it cannot be written.
    """
    write_file(path, lambda file: file.write(text.encode()))


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets a function write a file, after the folders above it are made.

    Raises:
        StorageError: if it cannot be written.
    """
    make_folder(path.parent)
    with _writing(path), path.open("wb") as file:
        write(file)


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it.

    Raises:
        StorageError: if it cannot be made.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the system refuses at a place, typed."""
    try:
        yield
    except OSError as error:
        raise StorageError(path, error.strerror or error, "the path") from error
