"""Which large files were found whole before, so that opening them again does not read them again.

A file counts as unchanged while device, inode, size and both times of the file system are the same,
as in the index of git; one that changed a moment before it was checked is not remembered, because
a later change could bear the same time. The notes guard against accidents and are as trustworthy as
the cache that they lie in; a signature is never checked by them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from graphopt.config import Config

_SETTLED_NS = 1_000_000_000


def has_sha256(file: int, digest: str) -> bool:
    """Whether an open file has a SHA-256, in hex; one that had it and did not change still has."""
    status = os.fstat(file)
    note = _note(status, digest)
    if os.path.exists(note):
        return True
    if read_sha256(file) != digest:
        return False
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
        _leave(note)
    return True


def read_sha256(file: int) -> str:
    """SHA-256 of an open file, in hex, from its beginning."""
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _note(status: os.stat_result, digest: str) -> Path:
    """The empty file that says by its name that a file in this state has the digest."""
    times = status.st_mtime_ns, status.st_ctime_ns
    state = [digest, status.st_dev, status.st_ino, status.st_size, *times]
    name = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    return Config.from_environment().cache / "checked" / name


def _leave(note: Path) -> None:
    """Leaves the note, if there is a place for it."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except OSError:
        return
