"""Folders appear whole or not at all, and what a killed process left is swept."""

import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from graphopt.errors import PackageError, StorageError
from graphopt.runtime import staging
from graphopt.runtime.staging import replaced_folder
from graphopt.scratch_folder import ScratchFolder

MARKS = ["mark"]


def write(place: Path | str, text: str) -> None:
    with replaced_folder(place, MARKS) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(text)
        (folder / "mark").write_text("")


def found(place: Path) -> str:
    return (place / "inner" / "file").read_text()


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])
def test_a_folder_takes_the_place_of_another(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    place = tmp_path / "above" / "a"
    for text in ("first", "second"):
        write(place, text)
        assert found(place) == text and os.listdir(place.parent) == ["a"]


def test_after_an_error_everything_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", "first")
    for error in (RuntimeError("mine"), StorageError("/elsewhere", "full", "GRAPHOPT_CACHE")):
        with pytest.raises(type(error)), replaced_folder(tmp_path / "a", MARKS) as folder:
            (folder / "file").write_text("half")
            raise error
    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    rename = os.rename

    reasons = [(errno.EIO, "Input/output error"), (errno.ENOTEMPTY, "Directory not empty")]

    def refuse(one: Path, two: Path) -> None:
        if Path(one).name == "new":
            raise OSError(*reasons.pop(), str(one))
        rename(one, two)

    monkeypatch.setattr(staging.os, "rename", refuse)
    with pytest.raises(PackageError, match=r"cannot write .*Input/output error"):
        write(tmp_path / "a", "second")
    assert not reasons
    assert found(tmp_path / "a") == "first" and os.listdir(tmp_path) == ["a"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", "first")
    for content in (None, OSError(errno.ENOSPC, "No space left on device")):
        with (
            pytest.raises(PackageError, match=r"cannot write .*/a: No space left.*make room"),
            replaced_folder(tmp_path / "a", MARKS) as folder,
        ):
            (folder / "file").symlink_to("/dev/full")
            if content:
                raise content
            (folder / "file").write_text("x")
    assert found(tmp_path / "a") == "first" and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("taken", "exists and is no package; remove it"),
        ("taken/below", "exists and is no package|cannot write .*taken/below: "),
        ("folder", "exists and is no package"),
        ("link", "exists and is no package"),
        ("/proc/a", "cannot write /proc/a"),
        ("x" * 300, "File name too long"),
        ("a\0b", "is no path"),
        ("\ud800", "is no path"),
        ("", "is no path"),
        (7, "is no path"),
    ],
)
def test_places_that_are_none(
    tmp_path: Path, place: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("real", "first")
    Path("link").symlink_to("real")
    Path("taken").write_text("mine")
    Path("folder").mkdir()
    with pytest.raises(PackageError, match=message):
        write(place, "second")
    assert Path("taken").read_text() == "mine" and found(Path("link")) == "first"


LEAVE = """
import os, sys
from pathlib import Path
from graphopt.scratch_folder import ScratchFolder
folder = ScratchFolder(Path(sys.argv[1]), "left-")
(folder.path / "file").write_text("x")
if len(sys.argv) > 2 and os.fork() == 0:
    sys.exit()  # runs the finalizers of the parent
os.waitpid(-1, 0) if len(sys.argv) > 2 else None
print(folder.path.exists(), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("forks", [[], ["fork"]], ids=["killed", "forked"])
def test_what_a_killed_process_left_is_swept(tmp_path: Path, forks: list[str]) -> None:
    mine = ScratchFolder(tmp_path)
    command = [sys.executable, "-c", LEAVE, str(tmp_path), *forks]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -9 and done.stdout == "True\n", done.stderr
    left = [path for path in tmp_path.iterdir() if path.name.startswith("left-")]
    assert len(left) == 1 and (left[0] / "file").exists()
    write(tmp_path / "a", "first")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a", mine.path])
    mine.close()
    assert os.listdir(tmp_path) == ["a"]


def test_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "graphopt-mine").mkdir()
    (tmp_path / "link.graphopt-scratch").symlink_to(tmp_path / "graphopt-mine")
    ScratchFolder(tmp_path).close()
    assert len(os.listdir(tmp_path)) == 2
    shutil.rmtree(tmp_path / "graphopt-mine")


def test_a_place_that_is_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another process, between the look at it and the move."""
    exchange = staging._exchange

    def too_early(one: Path, two: Path) -> bool:
        done = exchange(one, two)
        monkeypatch.setattr(staging, "_exchange", exchange)
        if not done:
            write(tmp_path / "a", "other")
        return done

    monkeypatch.setattr(staging, "_exchange", too_early)
    write(tmp_path / "a", "mine")
    assert found(tmp_path / "a") == "mine" and os.listdir(tmp_path) == ["a"]


def test_many_at_once(tmp_path: Path) -> None:
    def use(number: int) -> bool:
        with ScratchFolder(tmp_path) as folder:
            (folder / "file").write_text(str(number))
            return (folder / "file").read_text() == str(number)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(400)))
    assert os.listdir(tmp_path) == []
