"""The command line: help that explains itself, one-line errors, files in and out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphopt.arrays import flatten, read_arguments, unflatten, write_arrays
from graphopt.errors import InputFileError


def graphopt(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphopt", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = graphopt("--help", cwd=tmp_path).stdout
    assert all(name in shown for name in ("demo", "optimize", "run", "targets", "bench"))


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = "import graphopt.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_unknown_model_is_one_line(tmp_path: Path) -> None:
    done = graphopt("optimize", "no-such-model", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: no model 'no-such-model'" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr + done.stdout


def test_arguments_survive_a_file(tmp_path: Path) -> None:
    x, state = np.ones((2, 3), np.float32), np.arange(4, dtype=np.int32)
    write_arrays(tmp_path / "a.npz", (x, {"b": state, "a": (x, state)}))
    got = read_arguments(tmp_path / "a.npz")
    assert isinstance(got, tuple) and len(got) == 2
    np.testing.assert_array_equal(got[0], x)
    np.testing.assert_array_equal(got[1]["b"], state)
    assert isinstance(got[1]["a"], tuple) and got[1]["a"][1].dtype == np.int32


def test_order_of_many_arguments(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.npz", [np.array(i) for i in range(12)])
    assert [int(v) for v in read_arguments(tmp_path / "a.npz")] == list(range(12))


def test_npy_is_one_argument(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert len(read_arguments(tmp_path / "x.npy")) == 1


@pytest.mark.parametrize("content", [b"", b"not numpy", b"PK\x03\x04broken", None])
def test_unreadable_file_is_a_typed_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"x\.npz"):
        read_arguments(path)


def test_flatten_names() -> None:
    assert set(flatten([1, {"a": 2, "b": [3]}])) == {"0", "1/a", "1/b/0"}
    assert unflatten({"a": np.array(1)})["a"] == 1


def test_targets_list_this_machine_and_neoverse(tmp_path: Path) -> None:
    shown = graphopt("targets", cwd=tmp_path).stdout
    assert "native" in shown and "neoverse-n2" in shown and "sve2" in shown
