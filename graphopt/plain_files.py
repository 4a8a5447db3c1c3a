"""Files that a user names: nothing but a regular file is opened, so that nothing can block.

What is wrong with one is an `OSError` whose `strerror` says it, as for what the system refuses.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 28  # of texts: ten times the largest tokenizer


def open_plain(path: str | os.PathLike[str]) -> io.BufferedReader:
    """A regular file, open for reading.

    Raises:
        OSError: if there is none, such as a folder, a pipe or a device.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is no plain file", os.fspath(path))
    return open(path, "rb")


def read_plain(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """The content of a regular file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: if there is none, if it is larger, or without memory for it.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            reason = f"it has {size} bytes, more than the {most} that are read"
            raise OSError(errno.EFBIG, reason, os.fspath(path))
        try:
            return file.read()
        except MemoryError as error:
            raise OSError(errno.ENOMEM, "out of memory", os.fspath(path)) from error


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """A text in UTF-8, with or without a byte order mark, its lines ended as they are anywhere.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: as :func:`read_plain`, or if it is no text in UTF-8.
    """
    try:
        text = read_plain(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"it is not in UTF-8 ({error})"
        raise OSError(errno.EILSEQ, reason, os.fspath(path)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
