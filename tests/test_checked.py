"""Digests of large files: remembered while a file stays the same, and no longer."""

import hashlib
import os

import pytest

from graphopt.runtime import checked

FIRST, OTHER = (hashlib.sha256(data).hexdigest() for data in (b"first", b"other"))


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHOPT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights.bin"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def reads(monkeypatch):
    made = []
    whole = checked.read_sha256
    monkeypatch.setattr(checked, "read_sha256", lambda file: made.append(file) or whole(file))
    return made


def has(path, digest):
    with path.open("rb") as stream:
        return checked.has_sha256(stream.fileno(), digest)


def test_an_unchanged_file_is_read_once(file, reads, monkeypatch):
    monkeypatch.setattr(checked, "_SETTLED_NS", 0)
    assert all(has(file, FIRST) for _ in range(3)) and len(reads) == 1
    file.write_bytes(b"other")
    os.utime(file, ns=(1, 1))
    assert not has(file, FIRST) and has(file, OTHER) and len(reads) == 3


def test_a_file_of_this_moment_is_not_trusted(file, reads):
    assert has(file, FIRST) and has(file, FIRST) and len(reads) == 2


def test_what_was_wrong_is_not_remembered(file, reads, monkeypatch):
    monkeypatch.setattr(checked, "_SETTLED_NS", 0)
    assert not has(file, OTHER) and not has(file, OTHER) and len(reads) == 2


def test_without_a_place_for_notes_files_are_read(file, reads, monkeypatch):
    monkeypatch.setattr(checked, "_SETTLED_NS", 0)
    monkeypatch.setenv("GRAPHOPT_CACHE", str(file))
    assert has(file, FIRST) and has(file, FIRST) and len(reads) == 2
