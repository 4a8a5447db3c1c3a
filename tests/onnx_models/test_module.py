"""Compiled ONNX models: how they are called, saved and checked, and the command line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import graphopt
from graphopt.cli import app
from graphopt.errors import (
    ExampleMismatchError,
    GraphoptError,
    InputDtypeError,
    InputError,
    OnnxModelError,
    OptionError,
)
from graphopt.onnx import example
from tests.onnx_models.made import model

RNG = np.random.default_rng(0)
BODY = """m (float[B, T, 8] x, int64[B] lengths) => (float[B, T, 4] y, int64[B] doubled) {
    h = MatMul(x, w)
    y = Relu(h)
    doubled = Add(lengths, lengths)
}"""


def feeds(batch: int, time: int) -> tuple[Any, Any]:
    return RNG.standard_normal((batch, time, 8), np.float32), np.arange(batch)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("onnx") / "m.onnx"
    onnx.save(model(BODY, w=RNG.standard_normal((8, 4), np.float32)), place)
    return place


@pytest.fixture(scope="module")
def fast(path: Path) -> Any:
    return graphopt.optimize(path, precision="fp32", example_inputs=feeds(2, 3))


def test_is_called_by_order_and_by_name_for_any_size(path: Path, fast: Any) -> None:
    weight = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    for batch, time in ((1, 1), (3, 7)):
        x, lengths = feeds(batch, time)
        y, doubled = fast(x, lengths)
        assert np.allclose(y, np.maximum(x @ weight, 0), atol=1e-5)
        assert np.array_equal(doubled, 2 * lengths)
        assert all(map(np.array_equal, fast(lengths=lengths, x=x), (y, doubled)))
        assert np.allclose(fast.interpret(x, lengths)[0], y, atol=1e-5)


def test_tensors_give_tensors(fast: Any) -> None:
    torch = pytest.importorskip("torch")
    x, lengths = feeds(2, 3)
    y, _ = fast(torch.from_numpy(x), torch.from_numpy(lengths))
    assert np.array_equal(y.numpy(), fast(x, lengths)[0])


def test_a_package_gives_the_same(fast: Any, tmp_path: Path) -> None:
    fast.save(tmp_path / "m.gopt")
    x, lengths = feeds(2, 5)
    loaded = graphopt.load(tmp_path / "m.gopt")(x, lengths=lengths)
    assert all(map(np.array_equal, loaded, fast(x, lengths)))


def test_onnxruntime_gives_the_same(fast: Any, path: Path, tmp_path: Path) -> None:
    ort, written = pytest.importorskip("onnxruntime"), tmp_path / "out.onnx"
    fast.to_onnx(written, plain=True)
    first, second = (onnx.load(place).graph for place in (written, path))
    assert [*first.input, *first.output] == [*second.input, *second.output]
    net = ort.InferenceSession(str(written), graphopt.ort_session_options(written))
    x, lengths = feeds(2, 5)
    made = net.run(None, {"x": x, "lengths": lengths})
    assert all(map(np.array_equal, made, fast(x, lengths)))
    with pytest.raises(GraphoptError, match="is no path"):
        fast.to_onnx(3)


def test_inputs_that_are_outputs_and_names_beyond_64_letters(tmp_path: Path) -> None:
    ort, written = pytest.importorskip("onnxruntime"), tmp_path / "out.onnx"
    long, other = "n" * 90 + "1", "n" * 90 + "2"
    body = f"m (float[{long}, 3] x, float[{other}] z) => (float[N, 3] y, float[{long}, 3] x) {{"
    fast = graphopt.optimize(model(body + " a = Neg(z) y = Concat <axis = 0> (x, x) }"))
    fast.to_onnx(written)
    net = ort.InferenceSession(str(written), graphopt.ort_session_options(written))
    x, z = RNG.standard_normal((2, 3), np.float32), np.zeros(5, np.float32)
    made = net.run(None, {"x": x, "z": z})
    assert np.array_equal(made[0], np.concatenate([x, x])) and np.array_equal(made[1], x)


def test_wrong_inputs_are_named(fast: Any) -> None:
    x, lengths = feeds(2, 3)
    with pytest.raises(InputDtypeError, match="'lengths' has dtype int32"):
        fast(x, lengths.astype(np.int32))
    with pytest.raises(InputError, match="'lengths'"):
        fast(x, lengths[:1])
    with pytest.raises(InputError):
        fast(x)


def test_the_example_is_compared(path: Path, fast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "example: as onnx" in fast.report().title
    reference = example._reference

    def shifted(*given: Any) -> Any:
        engine, wanted = reference(*given)
        return engine, [wanted[0] + 1, wanted[1]]

    monkeypatch.setattr(example, "_reference", shifted)
    with pytest.raises(ExampleMismatchError, match="off by"):
        graphopt.optimize(path, precision="fp32", example_inputs=feeds(2, 3))


def test_options_that_it_does_not_use_are_refused(path: Path) -> None:
    with pytest.raises(OptionError, match="dynamic_shapes"):
        graphopt.optimize(path, dynamic_shapes={})
    with pytest.raises(OptionError, match="context"):
        graphopt.optimize(path, context=8)


def test_needs_no_torch(path: Path) -> None:
    code = (
        "import graphopt, numpy, sys; "
        f"fast = graphopt.optimize({str(path)!r}, precision='fp32'); "
        "fast(numpy.zeros((1, 2, 8), 'f'), numpy.zeros(1, int)); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_doctor_lists_what_is_not_compiled(path: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["doctor", str(path)])
    assert done.exit_code == 0 and "all 3 nodes of 3 ops are compiled" in done.stdout
    other = tmp_path / "other.onnx"
    onnx.save(model("m (float[2] x) => (float[2] y) { a = NonZero(x) y = Unique(x) }"), other)
    done = runner.invoke(app, ["doctor", str(other)])
    assert done.exit_code == 1 and "2 of 2 nodes cannot be compiled" in done.stdout
    assert all(name in done.stdout for name in ("NonZero", "Unique", "opset 18"))


def test_the_command_line_compiles_and_runs(path: Path, tmp_path: Path) -> None:
    package, runner = tmp_path / "m.gopt", CliRunner()
    done = runner.invoke(app, ["optimize", str(path), "--precision", "fp32", "--out", str(package)])
    assert done.exit_code == 0, done.output
    x, lengths = feeds(1, 2)
    names = []
    for name, array in (("x", x), ("lengths", lengths)):
        np.save(tmp_path / f"{name}.npy", array)
        names += ["--input", str(tmp_path / f"{name}.npy")]
    for given in (package, path):
        done = runner.invoke(app, ["run", str(given), *names])
        assert done.exit_code == 0 and "[1, 2, 4]" in done.stdout


@pytest.mark.parametrize("command", ["doctor", "run", "optimize"])
def test_the_command_line_names_what_is_wrong_with_a_file(command: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    np.save(tmp_path / "x.npy", np.zeros(2, np.float32))
    more = ["--input", str(tmp_path / "x.npy")] if command == "run" else []
    for content, why in ((None, "No such file"), (b"nothing", "protobuf"), (b"", "no graph")):
        if content is not None:
            path.write_bytes(content)
        done = CliRunner().invoke(app, [command, str(path), *more])
        assert isinstance(done.exception, OnnxModelError) and why in str(done.exception)
