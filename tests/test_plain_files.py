"""Files that a user names, and places to write to: what is none is named, and nothing blocks."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphopt import errors
from graphopt.compiler.options import Options
from graphopt.errors import GraphoptError, StorageError
from graphopt.flags import output_file
from graphopt.funasr.directory import read_directory
from graphopt.funasr.package import compile_directories
from graphopt.funasr.text.hotwords import read_hotwords
from graphopt.inspection.models import named_models
from graphopt.inspection.package_info import inspect_package
from graphopt.llm.commands import _calibration
from graphopt.llm.generate.tokenizer import read_tokenizer
from graphopt.llm.package import compile_llm
from graphopt.llm.readers.meta_tokenizer import read_meta_tokenizer
from graphopt.onnx.files import open_model
from graphopt.plain_files import read_plain, read_text
from graphopt.runtime.arrays import read_arguments, write_arrays
from graphopt.runtime.sealed import SUMS, seal, sign_folder
from graphopt.runtime.signing import check_signature, make_keys, signed
from graphopt.zoo.catalog import build_model

HUGE = 1 << 36  # bytes, more than there is memory


def pipe(path: Path) -> None:
    os.mkfifo(path)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(HUGE)


def dangling(path: Path) -> None:
    """As a hub's cache has it whose blob is gone."""
    path.symlink_to(path.with_name("nowhere"))


WHERE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "public key": ("key.pub", lambda path: check_signature("package", b"", b"", [path])),
    "private key": ("key", lambda path: signed(b"", b"", path)),
    "hotwords": ("words.txt", lambda path: read_hotwords(str(path))),
    "arrays": ("x.npz", read_arguments),
    "ONNX": ("x.onnx", open_model),
    "calibration": ("text", _calibration),
    "configuration": ("config.yaml", lambda path: read_directory(path.parent)),
    "tokenizer": ("tokenizer.json", lambda path: read_tokenizer(path.parent)),
    "its settings": ("tokenizer_config.json", lambda path: read_tokenizer(path.parent)),
    "its template": ("chat_template.jinja", lambda path: read_tokenizer(path.parent)),
    "Meta's tokenizer": ("tokenizer.model", lambda path: read_meta_tokenizer(path.parent)),
}


@pytest.mark.parametrize("make", [pipe, huge, dangling])
@pytest.mark.parametrize(("name", "read"), WHERE.values(), ids=WHERE)
def test_files_that_are_none(
    tmp_path: Path, name: str, read: Callable[[Path], object], make: Callable[[Path], None]
) -> None:
    if name != "tokenizer.json":
        model = '{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}'
        (tmp_path / "tokenizer.json").write_text(f'{{"version": "1.0", "model": {model}}}')
    make(tmp_path / name)
    with pytest.raises(GraphoptError, match=re.escape(name)) as caught:
        read(tmp_path / name)
    assert str(caught.value).count("cannot read the model") < 2


def test_signing_opens_no_pipe(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "x").write_text("x")
    seal(package)
    make_keys(tmp_path / "key")
    os.mkfifo(package / f"{SUMS}.sig")
    with pytest.raises(errors.PackageError, match="no plain file"):
        sign_folder(package, tmp_path / "key")


def test_texts_are_of_any_system_and_of_bounded_size(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "x") == "a\nb\nc\n"
    assert len(read_plain(tmp_path / "x", most=10)) == 10
    with pytest.raises(OSError, match="more than the 5") as caught:
        read_plain(tmp_path / "x", most=5)
    assert caught.value.errno == errno.EFBIG


DAMAGED: dict[str, bytes] = {
    "a huge shape": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117)
    + b"\n",
    "a count of items": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-5,), }".ljust(117)
    + b"\n",
    "no end": b"\x93NUMPY\x01\x00v\x00{'descr': ",
    "a deep header": b"\x93NUMPY\x01\x00v\x00" + b"[" * 117 + b"\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_arrays_that_are_damaged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(errors.InputFileError, match=r"x\.npy"):
        read_arguments(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "open_named",
    [
        lambda name: compile_directories([name], "native", "fp32", "x.gopt"),
        lambda name: compile_llm(name, "x.gopt", Options.of(precision="int4")),
        lambda name: named_models(name),
        lambda name: inspect_package(Path(name)),
        lambda name: build_model(f"{name}.py:f"),
    ],
)
def test_names_that_no_file_can_have(open_named: Callable[[str], object]) -> None:
    with pytest.raises(GraphoptError, match="n" * 300):
        open_named("n" * 300)


def test_a_full_standard_output_is_one_line() -> None:
    command = [sys.executable, "-m", "graphopt", "--version"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "error: cannot write to standard output: No space left" in ended.stderr


@pytest.mark.parametrize("place", ["file/x", "file/x/y", "folder", "n" * 300])
def test_places_that_are_none(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=re.escape(place[:4])):
        output_file(tmp_path / place)
    with pytest.raises(StorageError, match=re.escape(place[:4])):
        write_arrays(tmp_path / place, [np.zeros(1)])
