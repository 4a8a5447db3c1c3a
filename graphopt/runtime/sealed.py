"""Folders whose files are all under checksums, opened once and used as they were checked.

`SHA256SUMS` has a line per file, as sha256sum writes them, and before it a comment with the size,
so that a file that grew is refused before anything of it is read. Opening a folder walks it through
descriptors, follows no link, and refuses by name what is missing, altered, not listed, or no
plain file. What is used afterwards are the very bytes that were checked: of a small file a copy in
memory, which a later change of the folder cannot reach; of a large one (weights that processes
share as mapped pages) its descriptor, with which `OpenFile.is_unchanged` notices such a change.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import stat
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, TypeVar

from graphopt._version import VERSION
from graphopt.errors import PackageCorruptError, PackageError
from graphopt.plain_files import read_plain
from graphopt.runtime.checked import has_sha256, read_sha256
from graphopt.runtime.fields import FieldError, parse_json, read_fields
from graphopt.runtime.signing import SIGNATURE, PublicKey, check_signature, signed
from graphopt.scratch_folder import ScratchFolder

SUMS = "SHA256SUMS"
#: Larger files are mapped where they are; copying them would double what they take of memory.
COPIED_BYTES = 1 << 25
_SUMS_BYTES = 1 << 20
_DEPTH = 16
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_SIZE = re.compile(r"# ([0-9]{1,18}) bytes")  # folders of older versions have no sizes
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_EXECUTABLE = 0x10  # MFD_EXEC, from Linux 6.3 on

T = TypeVar("T")


class _Descriptor:
    """A descriptor that is closed with its last user."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number)


class OpenFile:
    """A file that is open, to be mapped or loaded.

    `os.fspath` gives a path that opens this very file, wherever its name leads by now; `str` gives
    the name to show.
    """

    def __init__(self, descriptor: _Descriptor, name: str) -> None:
        self._descriptor, self._name = descriptor, name
        self._state = _state(descriptor)

    def __fspath__(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._descriptor.number}"

    def __str__(self) -> str:
        return self._name

    def is_unchanged(self) -> bool:
        """Whether nobody wrote to it or cut it since it was opened; takes a microsecond."""
        return _state(self._descriptor) == self._state


@dataclass(frozen=True)
class _Checked:
    """A file that has its digest: the content of a small one, the descriptor of a large one."""

    digest: str
    content: bytes | OpenFile


class SealedFolder:
    """A checked folder, or a folder within one; see `open_sealed`.

    Attributes:
        path: where it is, for errors.
        sums: content of SHA256SUMS; of a folder within another one nothing.
    """

    def __init__(self, path: Path, files: Mapping[str, _Checked], sums: bytes = b"") -> None:
        self.path, self._files, self.sums = path, files, sums

    def __contains__(self, name: str) -> bool:
        return name in self._files

    @property
    def names(self) -> list[str]:
        """Of all files but SHA256SUMS and its signatures."""
        return list(self._files)

    def data(self, name: str) -> bytes:
        """The content of a small file.

        Raises:
            PackageCorruptError: if there is no such file, or a large one.
        """
        content = self._file(name).content
        if isinstance(content, OpenFile):
            raise PackageCorruptError(self.path, f"{name} is larger than {COPIED_BYTES} bytes")
        return content

    def text(self, name: str) -> str:
        """The content of a small file in UTF-8.

        Raises:
            PackageCorruptError: if there is no such file, a large one, or one that is no text.
        """
        try:
            return self.data(name).decode()
        except UnicodeDecodeError as error:
            raise PackageCorruptError(self.path, f"{name} is not in UTF-8 ({error})") from None

    def file(self, name: str) -> OpenFile:
        """A descriptor to map or to load a file by.

        Raises:
            PackageCorruptError: if there is no such file.
            PackageError: if there is no memory for its copy.
        """
        found = self._file(name)
        if isinstance(found.content, OpenFile):
            return found.content
        with _reading(self.path, name):
            return OpenFile(_copy(found.digest, found.content), str(self.path / name))

    def folder(self, name: str) -> SealedFolder:
        """A folder within this one, such as a package in a package, under the same checksums."""
        inside = f"{name}/"
        files = {
            key.removeprefix(inside): file
            for key, file in self._files.items()
            if key.startswith(inside)
        }
        return SealedFolder(self.path / name, files)

    def read(self, name: str, kind: type[T], form: int) -> T:
        """The description in a JSON file, checked field by field.

        Args:
            name: of the file.
            kind: dataclass that declares the fields (`fields.py`), among them `format`.
            form: the only `format` that is read.

        Raises:
            PackageError: if it has another format.
            PackageCorruptError: if a field is missing, unknown, or of a wrong type or range.
        """
        try:
            described = parse_json(self.data(name))
            found = described.get("format") if isinstance(described, dict) else None
            if isinstance(described, dict) and (type(found) is not int or found != form):
                raise PackageError(
                    f"package {self.path} has format {found!r:.60}, this graphopt {VERSION} reads "
                    f"{form}; upgrade graphopt or make the package again"
                )
            return read_fields(kind, described)
        except FieldError as error:
            reason = f"{name} makes no sense: {error}"
            raise PackageCorruptError(self.path, reason) from None

    def _file(self, name: str) -> _Checked:
        if name not in self._files:
            raise PackageCorruptError(self.path, f"{name} is missing")
        return self._files[name]


def open_sealed(
    path: str | os.PathLike[str],
    description: str,
    kind: str,
    trusted_keys: Sequence[PublicKey] | None = None,
) -> SealedFolder:
    """Opens a folder after checking every file in it.

    Args:
        path: the folder; may be a link to one, but nothing in it may be a link.
        description: the file that folders of this kind have.
        kind: what such a folder is, for errors.
        trusted_keys: public keys of ed25519, PEM files or their content as bytes, one of which must
            have signed the folder; then large files are copied too, out of reach of whoever may
            write to it. None: any folder is taken.

    Raises:
        PackageError: if there is no such folder, or if the system refuses to read it.
        PackageCorruptError: naming what is missing, altered, not listed, or no plain file.
        UntrustedPackageError: if none of the keys signed it as it is.
        SigningKeyError: if a trusted key is none.
        MissingDependencyError: for trusted keys without the package `cryptography`.
    """
    path = as_path(path)
    with _reading(path, ""):
        if not path.is_dir():
            raise PackageError(f"{path} is no {kind}: there is no such folder")
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if description not in os.listdir(root):
                raise PackageError(f"{path} is no {kind}: it has no {description}")
            sums = _read_small(path, root, SUMS)
            if trusted_keys is not None:
                check_signature(path, sums, _read_signatures(path, root), trusted_keys)
            listed = _parse(path, sums)
            folders = {str(parent) for name in listed for parent in PurePath(name).parents}
            copies_all = trusted_keys is not None
            found = dict(_Walk(path, listed, folders, copies_all).files(root))
        finally:
            os.close(root)
    for name in listed:
        if name not in found:
            raise PackageCorruptError(path, f"{name} is missing")
    return SealedFolder(path, found, sums)


def copy_of(path: Path) -> OpenFile:
    """A file as it is now, in memory that nobody can change.

    Raises:
        PackageError: if it cannot be read.
    """
    with _reading(path.parent, path.name):
        content = path.read_bytes()
        return OpenFile(_copy(hashlib.sha256(content).hexdigest(), content), str(path))


def seal(folder: Path) -> None:
    """Writes the checksums of all files of a folder, those of the folders in it included."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    lines = []
    for name in names:
        if name not in (SUMS, SIGNATURE):
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
            lines.append(f"# {size} bytes\n{digest}  {name}\n")
    (folder / SUMS).write_text("".join(lines))


def sign_folder(path: str | os.PathLike[str], key: Path) -> int:
    """Checks every file of a folder and adds a signature; returns how many files it covers.

    Args:
        path: the folder.
        key: file of a private key of ed25519, PEM.

    Raises:
        PackageError: as `open_sealed`, or if the signature cannot be written.
        SigningKeyError: if it is no such key.
        MissingDependencyError: without the package `cryptography`.
    """
    folder = open_sealed(path, SUMS, "package")
    place = folder.path / SIGNATURE
    try:
        before = read_plain(place, _SUMS_BYTES) if place.exists() else b""
        with ScratchFolder(folder.path.absolute().parent) as scratch:
            (scratch / SIGNATURE).write_bytes(signed(folder.sums, before, key))
            os.replace(scratch / SIGNATURE, place)
    except OSError as error:
        raise PackageError(f"cannot write {place}: {error.strerror}") from error
    return len(folder.names)


def as_path(path: object) -> Path:
    """The path that a caller gave.

    Raises:
        PackageError: if it is none.
    """
    try:
        if isinstance(path, str | os.PathLike) and b"\0" not in (os.fsencode(path) or b"\0"):
            return Path(path)
    except (TypeError, UnicodeEncodeError):
        pass
    raise PackageError(f"{path!a:.200} is no path; give the name of a folder")


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    """What the system refuses while a file is read, typed."""
    try:
        yield
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "out of memory"
        raise PackageError(f"cannot read package {path / name}: {reason}") from error


def _read_small(path: Path, root: int, name: str) -> bytes:
    """SHA256SUMS, or its signatures."""
    with _opened(path, root, name, name) as file:
        size = os.fstat(file).st_size
        if size > _SUMS_BYTES:
            raise PackageCorruptError(path, f"{name} is larger than {_SUMS_BYTES} bytes")
        return _content(path, file, name, size)


def _read_signatures(path: Path, root: int) -> bytes:
    return _read_small(path, root, SIGNATURE) if SIGNATURE in os.listdir(root) else b""


@dataclass(frozen=True)
class _Listed:
    """What SHA256SUMS says of a file; no size in folders of older versions."""

    digest: str
    size: int | None


def _parse(path: Path, text: bytes) -> dict[str, _Listed]:
    """What SHA256SUMS says, by name."""
    listed: dict[str, _Listed] = {}
    size: int | None = None
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError as error:
        raise PackageCorruptError(path, f"{SUMS} is not in UTF-8 ({error})") from None
    for line in lines:
        if size is None and (comment := _SIZE.fullmatch(line)):
            size = int(comment[1])
            continue
        match = _LINE.fullmatch(line)
        parts = match[2].split("/") if match else []
        if match is None or not set(parts).isdisjoint({"", ".", ".."}) or len(parts) > _DEPTH:
            raise PackageCorruptError(path, f"{SUMS} has the line {line!a:.200}")
        if match[2] in listed:
            raise PackageCorruptError(path, f"{SUMS} names {match[2]} twice")
        listed[match[2]], size = _Listed(match[1], size), None
    if size is not None:
        raise PackageCorruptError(path, f"{SUMS} ends with a size of nothing")
    return listed


@dataclass(frozen=True)
class _Walk:
    """Checks the files of a folder.

    Attributes:
        path: where it is, for errors.
        listed: what SHA256SUMS says, by name.
        folders: names of the folders that listed files are in.
        copies_all: whether large files are copied too.
    """

    path: Path
    listed: Mapping[str, _Listed]
    folders: Collection[str]
    copies_all: bool

    def files(self, folder: int, prefix: str = "") -> Iterator[tuple[str, _Checked]]:
        """Every file of a folder, under its name from the root on."""
        for entry in sorted(os.listdir(folder)):
            name = f"{prefix}{entry}"
            with _reading(self.path, name):
                if name in self.listed:
                    with _opened(self.path, folder, entry, name) as file:
                        yield name, self._check(file, name)
                elif name in self.folders:
                    with _opened(self.path, folder, entry, name, os.O_DIRECTORY) as inner:
                        yield from self.files(inner, f"{name}/")
                elif name not in (SUMS, SIGNATURE):
                    shown = ascii(name)[1:-1]
                    raise PackageCorruptError(self.path, f"{shown} is not listed in {SUMS}")

    def _check(self, file: int, name: str) -> _Checked:
        size, listed = os.fstat(file).st_size, self.listed[name]
        if listed.size not in (None, size):
            reason = f"{name} is truncated or altered: {size} bytes, not {listed.size}"
            raise PackageCorruptError(self.path, reason)
        digest = listed.digest
        content: bytes | OpenFile
        if size <= COPIED_BYTES:
            content = _content(self.path, file, name, size)
            is_whole = hashlib.sha256(content).hexdigest() == digest
        elif self.copies_all:
            descriptor = _Descriptor(_memory_file())
            with open(file, "rb", closefd=False) as source:
                _fill(descriptor, source)
            content = OpenFile(descriptor, str(self.path / name))
            is_whole = read_sha256(descriptor.number) == digest
        else:
            descriptor = _Descriptor(os.dup(file))
            content = OpenFile(descriptor, str(self.path / name))
            is_whole = has_sha256(descriptor.number, digest)
            if not content.is_unchanged():
                raise PackageCorruptError(self.path, f"{name} is being written to")
        if not is_whole:
            raise PackageCorruptError(self.path, f"{name} is truncated or altered")
        return _Checked(digest, content)


@contextmanager
def _opened(path: Path, folder: int, entry: str, name: str, flags: int = 0) -> Iterator[int]:
    """A plain file, or a folder if the flags say so, open while the block lasts.

    A link is not followed; a pipe or a device neither blocks nor acts.
    """
    expected = stat.S_ISDIR if flags & os.O_DIRECTORY else stat.S_ISREG
    quiet = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        mode = os.stat(entry, dir_fd=folder, follow_symlinks=False).st_mode
        file = os.open(entry, quiet | flags, dir_fd=folder) if expected(mode) else -1
    except FileNotFoundError:
        raise PackageCorruptError(path, f"{name} is missing") from None
    try:
        if file < 0 or not expected(os.fstat(file).st_mode):
            raise PackageCorruptError(path, f"{name} is {_called(mode)}")
        yield file
    finally:
        if file >= 0:
            os.close(file)


def _called(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link, which could lead anywhere"
    if stat.S_ISDIR(mode):
        return "a folder, not a file"
    return "a file, not a folder" if stat.S_ISREG(mode) else "not a plain file"


def _content(path: Path, file: int, name: str, size: int) -> bytes:
    with open(file, "rb", closefd=False) as stream:
        content = stream.read(size + 1)
    if len(content) != size:
        raise PackageCorruptError(path, f"{name} is being written to")
    return content


def _state(descriptor: _Descriptor) -> tuple[int, int]:
    """What a write changes; the other times also change with the names of a file."""
    status = os.fstat(descriptor.number)
    return status.st_size, status.st_mtime_ns


_copies: weakref.WeakValueDictionary[str, _Descriptor] = weakref.WeakValueDictionary()


def _copy(digest: str, content: bytes) -> _Descriptor:
    """A file in memory that nobody can change; one for equal contents."""
    known = _copies.get(digest)
    if known is not None:
        return known
    made = _Descriptor(_memory_file())
    _fill(made, io.BytesIO(content))
    return _copies.setdefault(digest, made)


def _fill(file: _Descriptor, source: BinaryIO) -> None:
    """Copies everything into a new memory file, which nobody can change afterwards."""
    with open(file.number, "wb", closefd=False) as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
    fcntl.fcntl(file.number, fcntl.F_ADD_SEALS, _SEALS)


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("graphopt", flags | _EXECUTABLE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("graphopt", flags)
