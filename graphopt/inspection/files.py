"""Files that tools write, and a look at their places before long work."""

from __future__ import annotations

import os
from pathlib import Path

from graphopt.errors import StorageError


def check_file(path: Path) -> None:
    """Looks whether a file may be written; folders above it may be missing.

    Raises:
        StorageError: if it may not.
    """
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
    make_folder(path.parent)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(path, error.strerror or error, "the path") from error


def make_folder(folder: Path) -> None:
    """Makes a folder, and those above it.

    Raises:
        StorageError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(folder, error.strerror or error, "the path") from error
