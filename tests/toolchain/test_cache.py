"""The cache of compiled files: heals itself, is shared, and is missed rather than misused."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from graphopt.errors import CompilerError, StorageError
from graphopt.toolchain import cache
from graphopt.toolchain.cache import Cache, CacheWarning


class Compiler:
    """Writes a text, and counts."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, folder: Path) -> Path:
        self.runs += 1
        (folder / "made").write_text("machine code")
        return folder / "made"


@pytest.fixture(autouse=True)
def forget() -> None:
    cache._warn.cache_clear()
    cache._temporary_folder.cache_clear()


def damage(change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda shelf: change(next(shelf.iterdir()))


DAMAGES = {
    "none": lambda shelf: None,
    "cut": damage(lambda file: os.truncate(file, 3)),
    "empty": damage(lambda file: os.truncate(file, 0)),
    "altered": damage(lambda file: file.write_text("Machine code")),
    "another name": damage(lambda file: file.rename(file.with_name("0.o"))),
    "missing": damage(Path.unlink),
    "a file more": lambda shelf: (shelf / "0.o").write_text("half"),
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_again(tmp_path: Path, change: Callable[[Path], object]) -> None:
    compiler = Compiler()
    made = Cache(tmp_path).file("objects/k", ".o", compiler)
    change(made.parent)
    for _ in range(2):
        found = Cache(tmp_path).file("objects/k", ".o", compiler)
        assert found == made and found.read_text() == "machine code"
    whole = change in (DAMAGES["none"], DAMAGES["a file more"])
    assert compiler.runs == (1 if whole else 2)
    assert os.listdir(tmp_path) == ["objects"]


def in_the_way(place: Path) -> Path:
    place.write_text("")
    return place


def of_others(place: Path) -> Path:
    place.mkdir()
    place.chmod(0o777)
    return place


UNUSABLE = {
    "a file in the way": in_the_way,
    "below a file": lambda place: in_the_way(place) / "cache",
    "read-only": lambda place: Path("/proc/graphopt"),
    "a long name": lambda place: place / ("x" * 300),
    "open to others": of_others,
}


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_folder_is_named_and_not_used(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    folder, compiler = make(tmp_path / "cache"), Compiler()
    with pytest.warns(CacheWarning, match=r"(?s)no cache in .*GRAPHOPT_CACHE names another") as got:
        first = Cache(folder).file("objects/k", ".o", compiler)
    assert str(folder) in str(got[0].message) and not first.is_relative_to(tmp_path)
    with warnings.catch_warnings(action="error"):
        assert Cache(folder).file("objects/k", ".o", compiler) == first
        assert Cache(folder).file("objects/l", ".o", compiler) != first
    assert compiler.runs == 2


def test_a_full_disk_is_no_fault_of_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> Path:
        raise CompilerError(["cc"], "write error", "module.c")

    with pytest.raises(CompilerError):
        Cache(tmp_path).file("objects/k", ".o", fail)
    monkeypatch.setattr(cache, "_FULL", 1 << 62)
    with pytest.raises(StorageError, match=r"the disk is full; make room there.*GRAPHOPT_CACHE"):
        Cache(tmp_path).file("objects/k", ".o", fail)

    def write(folder: Path) -> Path:
        (folder / "made").symlink_to("/dev/full")
        (folder / "made").write_text("x")
        return folder / "made"

    with pytest.raises(StorageError, match="No space left on device"):
        Cache(tmp_path).file("objects/k", ".o", write)
    assert os.listdir(tmp_path) == []


def test_without_a_home(tmp_path: Path) -> None:
    code = "from graphopt.config import Config; print(Config.from_environment().cache)"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    code = f"import os, pwd; pwd.getpwuid = lambda uid: {{}}[uid]; {code}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{tmp_path}/graphopt-cache-{os.getuid()}\n", done.stderr
