"""Sealed folders: what is checked is what is used, and whatever is wrong is named."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from graphopt.errors import PackageCorruptError, PackageError
from graphopt.runtime import sealed
from graphopt.runtime.sealed import SealedFolder, open_sealed, seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "a.gopt"
    (path / "inner" / "lib").mkdir(parents=True)
    (path / "about.json").write_text('{"format": 1}')
    (path / "inner" / "weights").write_bytes(b"weights")
    (path / "inner" / "lib" / "x.so").write_bytes(b"library")
    seal(path)
    return path


def opened(path: Path) -> SealedFolder:
    return open_sealed(path, "about.json", "package of a test")


def test_files_and_folders_within(folder: Path, tmp_path: Path) -> None:
    found = opened(folder)
    assert found.data("inner/weights") == b"weights" and "weights" not in found
    inner = found.folder("inner")
    assert inner.text("lib/x.so") == "library" and str(inner.path) == str(folder / "inner")
    with pytest.raises(PackageCorruptError, match=r"inner is damaged: y\.so is missing"):
        inner.data("y.so")
    (tmp_path / "current").symlink_to(folder)  # the name of a package may be a link
    assert opened(tmp_path / "current").data("inner/weights") == b"weights"


@pytest.mark.parametrize("copied", [True, False], ids=["in memory", "mapped"])
def test_files_stay_what_they_were(
    folder: Path, copied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not copied:
        monkeypatch.setattr(sealed, "COPIED_BYTES", 0)
        os.utime(folder / "inner" / "weights", (1, 1))
    file = opened(folder).file("inner/weights")
    name = folder / "inner" / "weights"
    assert str(file) == str(name) and Path(file).read_bytes() == b"weights" and file.is_unchanged()
    name.rename(folder / "elsewhere")
    assert Path(file).read_bytes() == b"weights" and file.is_unchanged()
    os.truncate(folder / "elsewhere", 0)
    assert file.is_unchanged() == copied and (Path(file).read_bytes() == b"weights") == copied
    if copied:
        with pytest.raises(PermissionError), open(file, "r+b") as stream:
            stream.write(b"x")


def test_equal_files_share_one_copy(folder: Path) -> None:
    first, second = opened(folder).file("inner/weights"), opened(folder).file("inner/weights")
    assert os.fspath(first) == os.fspath(second)
    number = os.path.basename(first)
    del first, second
    assert not os.path.exists(f"/proc/self/fd/{number}")


def replace(path: Path, make: object) -> None:
    path.unlink()
    make(path)  # type: ignore[operator]


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def sums(text: str) -> object:
    return lambda p: (p / "SHA256SUMS").write_text(text)


WEIGHTS = "inner/weights"
OUTSIDE = "0" * 64
DAMAGE = {
    "altered": (lambda p: (p / WEIGHTS).write_bytes(b"Weights"), f"{WEIGHTS} is truncated or alt"),
    "grown": (lambda p: (p / WEIGHTS).write_bytes(b"weights."), f"{WEIGHTS} is truncated or alter"),
    "a hole": (
        lambda p: os.truncate(p / WEIGHTS, 2**42),
        f"{WEIGHTS} is truncated or altered: {2**42} bytes, not 7",
    ),
    "missing": (lambda p: (p / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "folder missing": (lambda p: shutil.rmtree(p / "inner"), "inner/lib/x.so is missing"),
    "file": (lambda p: (p / "inner" / "new").write_text(""), "inner/new is not listed"),
    "empty folder": (lambda p: (p / "new").mkdir(), "new is not listed"),
    "bytes": (lambda p: (p / os.fsdecode(b"\xff")).touch(), r"\\udcff is not listed"),
    "link": (lambda p: replace(p / WEIGHTS, lambda f: f.symlink_to("/bin/sh")), "is a link"),
    "link inside": (lambda p: replace(p / WEIGHTS, lambda f: f.symlink_to("lib/x.so")), "a link"),
    "link to a folder": (
        lambda p: ((p / "inner").rename(p.with_name("i")), (p / "inner").symlink_to("../i")),
        "inner is a link",
    ),
    "pipe": (lambda p: replace(p / WEIGHTS, os.mkfifo), f"{WEIGHTS} is not a plain file"),
    "socket": (lambda p: replace(p / "about.json", listen), "about.json is not a plain file"),
    "folder for file": (lambda p: replace(p / WEIGHTS, Path.mkdir), f"{WEIGHTS} is a folder, not"),
    "file for folder": (
        lambda p: (shutil.rmtree(p / "inner"), (p / "inner").write_text("")),
        "inner is a file, not a folder",
    ),
    "sums a pipe": (lambda p: replace(p / "SHA256SUMS", os.mkfifo), "SHA256SUMS is not a plain"),
    "sums a link": (
        lambda p: (
            (p / "SHA256SUMS").rename(p.with_name("s")),
            (p / "SHA256SUMS").symlink_to("../s"),
        ),
        "SHA256SUMS is a link",
    ),
    "no sums": (lambda p: (p / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
    "empty sums": (sums(""), "about.json is not listed"),
    "huge sums": (lambda p: os.truncate(p / "SHA256SUMS", 2**40), "SHA256SUMS is larger"),
    "binary sums": (lambda p: (p / "SHA256SUMS").write_bytes(b"\xff\xfe"), "is not in UTF-8"),
    "a way out": (sums(f"{OUTSIDE}  ../x\n"), "has the line '0*  ../x'"),
    "absolute": (sums(f"{OUTSIDE}  /etc/passwd\n"), "has the line"),
    "hidden way out": (sums(f"{OUTSIDE}  inner/../../x\n"), "has the line"),
    "short digest": (sums("0  about.json\n"), "has the line"),
    "a name twice": (sums(f"{OUTSIDE}  x\n" * 2), "names x twice"),
    "sizes alone": (sums("# 7 bytes\n"), "ends with a size of nothing"),
    "a size twice": (sums(f"# 7 bytes\n# 7 bytes\n{OUTSIDE}  x\n"), "has the line '# 7 bytes'"),
    "a size that is none": (sums(f"# -7 bytes\n{OUTSIDE}  x\n"), "has the line '# -7 bytes'"),
    "a long name": (sums(f"{OUTSIDE}  {'x' * 999}\n"), "about.json is not listed"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(folder: Path, damage: object, message: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(PackageCorruptError, match=message) as caught:
        opened(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_of_an_older_version_has_no_sizes(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    assert lines[-2] == "# 7 bytes\n" and lines[-1].endswith("inner/weights\n")
    (folder / "SHA256SUMS").write_text("".join(line for line in lines if line[0] != "#"))
    assert opened(folder).data(WEIGHTS) == b"weights"
    (folder / WEIGHTS).write_bytes(b"weights.")
    with pytest.raises(PackageCorruptError, match=f"{WEIGHTS} is truncated or altered;"):
        opened(folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "no package of a test: there is no such folder"),
        ("a.gopt/about.json", "there is no such folder"),
        ("a.gopt/inner", "it has no about.json"),
        ("x" * 300, "File name too long"),
        ("a\0b", "is no path"),
        ("", "is no path"),
        (None, "is no path"),
        (3, "is no path"),
    ],
)
def test_paths_that_are_none(
    folder: Path, path: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(PackageError, match=message) as caught:
        open_sealed(path, "about.json", "package of a test")  # type: ignore[arg-type]
    assert not isinstance(caught.value, PackageCorruptError)


def test_what_the_system_refuses_is_no_damage(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(24, "Too many open files")

    found = opened(folder)
    monkeypatch.setattr(sealed.os, "memfd_create", full)
    with pytest.raises(PackageError, match=r"inner/weights: Too many open files") as caught:
        found.file(WEIGHTS)
    assert not isinstance(caught.value, PackageCorruptError)
