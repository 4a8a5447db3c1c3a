"""Digests of large files: remembered while a file stays the same, and no longer."""

import hashlib
import os

import pytest

from graphopt import checked


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHOPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checked, "_LARGE", 4)
    path = tmp_path / "weights.bin"
    path.write_bytes(b"first")
    return path


def read_count(monkeypatch):
    reads = []
    whole = checked._read
    monkeypatch.setattr(checked, "_read", lambda path: reads.append(path) or whole(path))
    return reads


def test_an_unchanged_file_is_read_once(file, monkeypatch):
    monkeypatch.setattr(checked, "_SETTLED_NS", 0)
    reads = read_count(monkeypatch)
    digest = hashlib.sha256(b"first").hexdigest()
    assert [checked.sha256_of(file) for _ in range(3)] == [digest] * 3 and len(reads) == 1
    file.write_bytes(b"other")
    os.utime(file, ns=(1, 1))
    assert checked.sha256_of(file) == hashlib.sha256(b"other").hexdigest() and len(reads) == 2


def test_a_file_of_this_moment_is_not_trusted(file, monkeypatch):
    reads = read_count(monkeypatch)
    assert checked.sha256_of(file) == checked.sha256_of(file) and len(reads) == 2


def test_without_a_place_for_notes_files_are_read(file, monkeypatch):
    monkeypatch.setattr(checked, "_SETTLED_NS", 0)
    monkeypatch.setenv("GRAPHOPT_CACHE", str(file))
    reads = read_count(monkeypatch)
    assert checked.sha256_of(file) == checked.sha256_of(file) and len(reads) == 2
