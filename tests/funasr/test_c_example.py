"""The program of examples/c beside Python, on this machine and as Arm code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.kernels import registry
from graphopt.zoo.recognizer import MODEL

pytest.importorskip("torch")
pytest.importorskip("funasr")
pytest.importorskip("kaldi_native_fbank")

from graphopt.funasr.audio.features import features
from graphopt.funasr.audio.recordings import read_recording
from graphopt.funasr.directory import read_directory
from graphopt.funasr.package import compile_directories
from graphopt.zoo.recognizer import RECORDINGS

SOURCE = Path(__file__).parents[2] / "examples" / "c"
ARM_LIBRARIES = Path("/usr/aarch64-linux-gnu")  # of Debian's libc6-arm64-cross


def build(folder: Path, target: str) -> Path:
    """The program, made by its own Makefile."""
    shutil.copytree(SOURCE, folder)
    (folder / "token_ids").unlink(missing_ok=True)
    make = ["make", "-s", f"TARGET={target}", f"KERNELS={registry.ROOT}"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        make, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "token_ids"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def host_package(int8_package: Path) -> Path:
    return int8_package / "asr"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    directory = read_directory(MODEL)
    wav = min(RECORDINGS.glob("*.wav"), key=lambda path: path.stat().st_size)
    return features(read_recording(wav, directory.frontend.fs), directory.frontend, directory.cmvn)


@pytest.fixture(scope="module")
def expected(host_package: Path, speech: np.ndarray) -> list[int]:
    lengths = np.array([len(speech)], np.int32)
    ids, counts, *_ = graphopt.load(host_package)(speech[None], lengths)
    return [int(i) for i in ids[0, : int(counts[0])]]


def test_same_tokens_as_python(
    host_package: Path, speech: np.ndarray, expected: list[int], tmp_path: Path
) -> None:
    program = build(tmp_path / "c", "")
    np.save(tmp_path / "x.npy", speech)
    for threads in ((), (1,), (2,)):
        done = run(program, host_package, tmp_path / "x.npy", *threads)
        assert done.returncode == 0, done.stderr
        assert [int(word) for word in done.stdout.split()] == expected and len(expected) > 2
        assert done.stderr == f"level {registry.host_levels()[-1].name}\n"


def test_refuses_what_it_cannot_read(
    host_package: Path, speech: np.ndarray, tmp_path: Path
) -> None:
    program = build(tmp_path / "c", "")
    files = {
        "narrow": (speech[:, 1:], "refused: input 0 has size"),
        "double": (speech.astype(np.float64), "no f32 matrix"),
        "fortran": (np.asfortranarray(speech), "no f32 matrix"),
        "cube": (speech[None], "no f32 matrix"),
        "empty": (speech[:0], "refused: input 0 has size 0"),
    }
    for name, (array, message) in files.items():
        np.save(tmp_path / f"{name}.npy", array)
        done = run(program, host_package, tmp_path / f"{name}.npy")
        assert (done.returncode, message in done.stderr) == (1, True), (name, done)
    whole = (tmp_path / "narrow.npy").read_bytes()
    for size in (0, 9, 60, len(whole) - 1):
        (tmp_path / "cut.npy").write_bytes(whole[:size])
        assert "no f32 matrix" in run(program, host_package, tmp_path / "cut.npy").stderr
    assert "no package" in run(program, tmp_path, tmp_path / "narrow.npy").stderr


def test_same_tokens_on_neoverse_n2(speech: np.ndarray, tmp_path: Path) -> None:
    """The package's own libraries, loaded under qemu by the libraries of an Arm system."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None or not ARM_LIBRARIES.is_dir():
        pytest.skip("needs qemu-aarch64 and libc6-arm64-cross")
    compile_directories([MODEL], "neoverse-n2", "int8", tmp_path / "asr.gopt")
    asr = tmp_path / "asr.gopt" / "asr"
    program = build(tmp_path / "c", "aarch64-linux-gnu")
    np.save(tmp_path / "x.npy", speech)
    ids, counts, *_ = graphopt.load(asr).emulate(speech[None], np.array([len(speech)], np.int32))
    cpu = "max,sve128=on"
    done = run(emulator, "-cpu", cpu, "-L", ARM_LIBRARIES, program, asr, tmp_path / "x.npy", 2)
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == ids[0, : int(counts[0])].tolist()
    assert done.stderr == "level sve2\n"
