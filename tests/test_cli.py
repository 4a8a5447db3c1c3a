"""The command line: help that explains itself, one-line errors, files in and out."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from graphopt import cli
from graphopt._version import VERSION
from graphopt.errors import InputFileError
from graphopt.runtime.arrays import flatten, read_arguments, unflatten, write_arrays


def graphopt(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphopt", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = graphopt("--help", cwd=tmp_path).stdout
    assert all(name in shown for name in ("demo", "optimize", "run", "targets", "bench"))


def test_short_help_version_and_completion(tmp_path: Path) -> None:
    assert graphopt("-h", cwd=tmp_path).stdout == graphopt("--help", cwd=tmp_path).stdout
    assert graphopt("bench", "kernels", "-h", cwd=tmp_path).returncode == 0
    assert graphopt("--version", cwd=tmp_path).stdout == f"{VERSION}\n"
    assert "--install-completion" in graphopt("-h", cwd=tmp_path).stdout


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


MODEL = """
import torch

def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.ReLU(), torch.nn.Linear(48, 8))
    return model.eval(), (torch.randn(3, 32),)

def bessel():
    class Bessel(torch.nn.Module):
        def forward(self, x):
            return torch.special.i0e(x * 2) + 1
    return Bessel().eval(), (torch.randn(3, 32),)
"""


def torch_outputs(folder: Path) -> np.ndarray:
    code = "import small, numpy; m, x = small.build(); numpy.save('y.npy', m(*x).detach().numpy())"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return np.load(folder / "y.npy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    (tmp_path / "small.py").write_text(MODEL)
    return tmp_path


def test_optimize_then_run(folder: Path) -> None:
    words = "optimize small:build --precision fp32 --strict --out m.gopt --save-inputs x.npz"
    made = graphopt(*words.split(), cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "nodes compiled for native" in made.stdout and "wrote m.gopt" in made.stdout
    ran = graphopt(*["run", "m.gopt", "-i", "x.npz", "--output", "y.npz", "--profile"], cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert "gemm_f32" in ran.stdout and "100.0 %" in ran.stdout
    (y,) = read_arguments(folder / "y.npz")
    np.testing.assert_allclose(y, torch_outputs(folder), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
def test_run_arm_code(folder: Path) -> None:
    words = "optimize small:build --target neoverse-n2 --precision fp32 --out a.gopt"
    made = graphopt(*words.split(), "--save-inputs", "x.npz", cwd=folder)
    assert made.returncode == 0, made.stderr
    ran = graphopt(*["run", "a.gopt", "-i", "x.npz", "--output", "y.npz", "--emulate"], cwd=folder)
    assert ran.returncode == 0, ran.stderr
    (y,) = read_arguments(folder / "y.npz")
    np.testing.assert_allclose(y, torch_outputs(folder), rtol=1e-4, atol=1e-5)
    refused = graphopt(*["run", "a.gopt", "-i", "x.npz", "--emulate", "--profile"], cwd=folder)
    assert refused.returncode == 2 and "leave out --emulate" in refused.stderr


def test_what_no_output_can_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    made = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(made, "utf-8", write_through=True))
    monkeypatch.setattr(cli, "app", lambda: print(json.dumps("\udcff \u6c34", ensure_ascii=False)))
    cli.main()
    assert made.getvalue() == '"\\udcff \u6c34"\n'.encode()


def test_strict_refuses_and_lists(folder: Path) -> None:
    done = graphopt("optimize", "small:bessel", "--strict", cwd=folder)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "aten.special_i0e" in done.stderr and "small.py:12" in done.stderr.replace("\n", "")


def test_unknown_target_is_one_line(folder: Path) -> None:
    done = graphopt("optimize", "small:build", "--target", "neoverse-n3", cwd=folder)
    assert done.returncode == 1
    assert "did you mean 'neoverse-n2'?" in done.stderr.replace("\n", " ")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


EVERY = dict(commands(typer.main.get_command(cli.app)))


def test_every_command_can_print_json() -> None:
    without = [name for name, c in EVERY.items() if not any("--json" in p.opts for p in c.params)]
    assert not without and "bench kernels" in EVERY


@pytest.mark.parametrize("name", sorted(EVERY))
def test_help_fits_a_terminal(name: str) -> None:
    shown = CliRunner().invoke(cli.app, [*name.split(), "--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80


def test_targets_read_at_80_columns_and_as_json() -> None:
    shown = CliRunner().invoke(cli.app, ["targets"], env={"COLUMNS": "80"})
    assert max(map(len, shown.output.splitlines())) <= 80
    rows = json.loads(CliRunner().invoke(cli.app, ["targets", "--json"]).stdout)
    assert {row["target"] for row in rows} >= {"native", "neoverse-n2"}
