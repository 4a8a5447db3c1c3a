"""Which large files were found whole before, so that opening them again does not read them again.

A file counts as unchanged while device, inode, size and both times of the file system are the same,
as in the index of git; one that changed a moment before it was checked is not remembered, because
a later change could bear the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from graphopt.config import Config

_LARGE = 1 << 24
_SETTLED_NS = 1_000_000_000


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex; of a large one that did not change, as it was found before."""
    status = path.stat()
    if status.st_size < _LARGE:
        return _read(path)
    note = _note(path, status)
    known = _known(note)
    if known:
        return known
    digest = _read(path)
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
        _remember(note, digest)
    return digest


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(path: Path, status: os.stat_result) -> Path:
    """Where the digest of this state of a file is written down."""
    times = status.st_mtime_ns, status.st_ctime_ns
    state = [str(path.resolve()), status.st_dev, status.st_ino, status.st_size, *times]
    name = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    return Config.from_environment().cache / "checked" / name


def _known(note: Path) -> str:
    try:
        return note.read_text()
    except OSError:
        return ""


def _remember(note: Path, digest: str) -> None:
    """Writes the digest down, if there is a place for it."""
    part = note.with_suffix(f".{os.getpid()}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(digest)
        os.replace(part, note)
    except OSError:
        return
