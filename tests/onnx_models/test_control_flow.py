"""Branches, loops and sequences: imported where their way is known, or run by region."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

ort = pytest.importorskip("onnxruntime")

import graphopt  # noqa: E402
from graphopt.errors import OnnxNodesError, UnsupportedNodesError  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE, relative_error  # noqa: E402
from tests.onnx_models.made import imported, model  # noqa: E402

RNG = np.random.default_rng(0)


def in_onnxruntime(made: onnx.ModelProto, **feeds: Any) -> list[Any]:
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)  # type: ignore[no-any-return]


def round_trip(fast: Any, folder: Path, calls: list[dict[str, Any]]) -> list[str]:
    """Written and run in onnxruntime, the bits of a call; without the library nearly.

    Args:
        fast: compiled from ONNX.
        folder: to write into.
        calls: inputs by name.

    Returns:
        The ops of the file.
    """
    path = folder / "out.onnx"
    fast.to_onnx(path, plain=True)
    written = onnx.load(path)
    onnx.checker.check_model(written)
    native = ort.InferenceSession(str(path), graphopt.ort_session_options(path))
    plain = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for feeds in calls:
        made = fast(**feeds)
        made = made if isinstance(made, tuple) else (made,)
        for got, its in zip(native.run(None, feeds), made, strict=True):
            assert got.dtype == its.dtype and np.array_equal(got, its)
        for got, its in zip(plain.run(None, feeds), made, strict=True):
            assert np.allclose(got, its, rtol=1e-5, atol=1e-5)
    # Onnxruntime 1.17 does not learn types from the op.
    typed = {info.name for info in (*written.graph.value_info, *written.graph.output)}
    assert typed >= {n for node in written.graph.node if node.domain for n in node.output}
    return [node.op_type for node in written.graph.node]


def agrees(body: str, **feeds: Any) -> None:
    """Imported, it has nothing but compiled nodes and gives what onnxruntime gives."""
    made = run_graph(imported(body).graph, list(feeds.values()))
    wanted = in_onnxruntime(model(body), **feeds)
    for got, its in zip(made, wanted, strict=True):
        assert np.shape(got) == its.shape and np.allclose(got, its, rtol=1e-6)


CHOICE = """m (float[B, 3] x, float t) => (float[B, 3] y, float[B, 3] z) {
    zero = Constant <value = float {0.0}> ()
    up = Greater(t, zero)
    y, z = If (up) <
        then_branch = a () => (float[B, 3] p, float[B, 3] q) { p = Neg(x) q = Add(x, t) },
        else_branch = b () => (float[B, 3] p, float[B, 3] q) { p = Exp(x) q = Identity(x) }
    >
}"""


def test_both_branches_of_a_condition_on_data() -> None:
    x = RNG.standard_normal((4, 3), np.float32)
    for t in (-1.0, 2.0):
        agrees(CHOICE, x=x, t=np.array(t, np.float32))


def test_both_branches_of_a_condition_on_sizes() -> None:
    body = """m (float[B, 3] x) => (float[B, 3] y) {
        s = Shape <end = 1> (x)
        two = Constant <value = int64[1] {2}> ()
        few = Less(s, two)
        y = If (few) <
            then_branch = a () => (float[B, 3] p) { p = Neg(x) },
            else_branch = b () => (float[B, 3] p) { p = Exp(x) }
        >
    }"""
    for batch in (1, 3):
        agrees(body, x=RNG.standard_normal((batch, 3), np.float32))


@pytest.mark.parametrize(
    ("branch", "why"),
    [
        ("{ p = Constant <value = float[2] {1.0, 2.0}> () }", "different shapes"),
        ("{ p = MatMul(x, x) }", "with products"),
        ("{ i = Cast <to = 7> (x) p = GatherElements <axis = 1> (x, i) }", "may fail"),
        ("{ p = Foo.bar(x) }", "not compiled"),
    ],
)
def test_branches_that_cannot_both_run_are_refused(branch: str, why: str) -> None:
    body = f"""m (float[3, 3] x, bool t) => (float[3, 3] y) {{
        y = If (t) <
            then_branch = a () => (float[3, 3] p) {branch},
            else_branch = b () => (float[3, 3] p) {{ p = Exp(x) }}
        >
    }}"""
    with pytest.raises(OnnxNodesError, match=why):
        imported(body)


def test_loops_of_known_turns_with_results_and_an_end() -> None:
    """Scan outputs, a carried value, an end that the number of the turn decides."""
    agrees(
        """m (float[B, 3] x) => (float[B, 3] y, float[N, B, 3] all) {
            most = Constant <value = int64 {10}> ()
            on = Constant <value = bool {1}> ()
            y, all = Loop (most, on, x) <
                body = b (int64 i, bool c, float[B, 3] v)
                    => (bool d, float[B, 3] w, float[B, 3] u) {
                    three = Constant <value = int64 {3}> ()
                    d = Less(i, three)
                    f = Cast <to = 1> (i)
                    w = Add(v, f)
                    u = Mul(v, x)
                }
            >
        }""",
        x=RNG.standard_normal((2, 3), np.float32),
    )


def test_loops_that_are_not_known_are_refused() -> None:
    def body(count: str) -> str:
        return f"""m (float[3] x, int64 n) => (float[3] y) {{
            on = Constant <value = bool {{1}}> ()
            many = Constant <value = int64 {{100000}}> ()
            y = Loop ({count}, on, x) <
                body = b (int64 i, bool c, float[3] v) => (bool d, float[3] w) {{
                    d = Identity(c)
                    w = Add(v, x)
                }}
            >
        }}"""

    for count, why in (("n", "data decide"), ("many", "100000 turns"), ("", "unknown number")):
        with pytest.raises(OnnxNodesError, match=why):
            imported(body(count))


def test_scans_forward_and_backward() -> None:
    agrees(
        """m (float[2] s, float[3, 2] x) => (float[2] y, float[2, 3] all) {
            y, all = Scan <num_scan_inputs = 1, scan_input_directions = [1],
                           scan_output_axes = [1], scan_output_directions = [1],
                body = b (float[2] v, float[2] e) => (float[2] w, float[2] u) {
                    w = Add(v, e)
                    u = Mul(w, e)
                }
            > (s, x)
        }""",
        s=np.ones(2, np.float32),
        x=RNG.standard_normal((3, 2), np.float32),
    )


def test_sequences_that_a_loop_fills() -> None:
    """As torch's exporter writes a list that grows."""
    agrees(
        """m (float[B, 3] x) => (float[N, B, 3] y, float[B, M] z, float[B, 3] last, int64 n) {
            most = Constant <value = int64 {4}> ()
            on = Constant <value = bool {1}> ()
            none = SequenceEmpty()
            list = Loop (most, on, none) <
                body = b (int64 i, bool c, seq(float[B, 3]) v) => (bool d, seq(float[B, 3]) w) {
                    d = Identity(c)
                    f = Cast <to = 1> (i)
                    e = Mul(x, f)
                    w = SequenceInsert(v, e)
                }
            >
            y = ConcatFromSequence <axis = 0, new_axis = 1> (list)
            z = ConcatFromSequence <axis = 1> (list)
            end = Constant <value = int64 {-1}> ()
            last = SequenceAt(list, end)
            fewer = SequenceErase(list)
            n = SequenceLength(fewer)
        }""",
        x=RNG.standard_normal((2, 3), np.float32),
    )


REGIONS = """m (float[B, T, 8] x, int64[K] lengths) => (float[N, 4] y, float[B, T, 4] z) {
    h = MatMul(x, w)
    s = Shape(h)
    flat = Constant <value = int64[2] {-1, 4}> ()
    f = Reshape(h, flat)
    total = ReduceSum <keepdims = 0> (f, one)
    g = Greater(total, zero)
    found = Compress <axis = 0> (f, g)
    y = Sigmoid(found)
    most = ReduceMax <keepdims = 0> (lengths)
    start = Constant <value = int64 {0}> ()
    step = Constant <value = int64 {1}> ()
    r = Range(start, most, step)
    count = Cast <to = 1> (r)
    sum = ReduceSum <keepdims = 0> (count)
    scaled = Mul(f, sum)
    z = Reshape(scaled, s)
}"""


@pytest.fixture(scope="module")
def regions() -> onnx.ModelProto:
    weight = RNG.standard_normal((8, 4), np.float32)
    return model(REGIONS, w=weight, one=np.array([1]), zero=np.zeros((), np.float32))


def test_what_is_not_compiled_runs_in_onnxruntime(regions: onnx.ModelProto, tmp_path: Path) -> None:
    x, lengths = RNG.standard_normal((2, 5, 8), np.float32), np.array([3, 4])
    fast = graphopt.optimize(regions, precision="fp32", example_inputs=(x, lengths))
    rows = {row.op: row for row in fast.report() if not row.compiled}
    assert rows["Compress"].kernel == "onnxruntime"
    assert "example: as onnxruntime" in fast.report().title
    assert any(row.op == "go.linear" for row in fast.report())
    for given in (x, -np.abs(x), x[:1, :2]):
        wanted = in_onnxruntime(regions, x=given, lengths=lengths)
        for run in (fast, fast.interpret):
            made = run(given, lengths=lengths)
            assert all(m.shape == w.shape for m, w in zip(made, wanted, strict=True))
            assert all(
                m.size == 0 or relative_error(m, w) < FP32_RELATIVE
                for m, w in zip(made, wanted, strict=True)
            )
    with pytest.raises(UnsupportedNodesError, match=r"(?s)Compress.*, or write it with \.to_onnx"):
        fast.save("never")
    kinds = round_trip(fast, tmp_path, [{"x": x, "lengths": lengths}])
    assert {"Run", "Run1", "Compress", "Range"} <= set(kinds) and "MatMul" not in kinds
    options = graphopt.ort_session_options(tmp_path / "out.onnx")
    options.log_severity_level = 4
    for package in [p for p in (tmp_path / "out.graphopt").iterdir() if p.is_dir()]:
        package.rename(tmp_path / "aside")
        with pytest.raises(Exception, match="is missing: it is not in"):
            ort.InferenceSession(str(tmp_path / "out.onnx"), options)
        (tmp_path / "aside").rename(package)


def test_without_onnxruntime_or_strictly_it_is_refused(
    regions: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OnnxNodesError, match="Compress"):
        graphopt.optimize(regions, precision="fp32", strict=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OnnxNodesError, match="onnxruntime"):
        graphopt.optimize(regions, precision="fp32")


def test_external_data_reaches_onnxruntime(regions: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    copy = onnx.ModelProto.FromString(regions.SerializeToString())
    onnx.save(copy, path, save_as_external_data=True, size_threshold=0, location="m.bin")
    fast = graphopt.optimize(path, precision="fp32")
    x, lengths = RNG.standard_normal((1, 3, 8), np.float32), np.array([2])
    wanted = in_onnxruntime(regions, x=x, lengths=lengths)
    assert np.allclose(fast(x, lengths)[1], wanted[1], atol=1e-5)


def test_of_branches_with_products_a_call_runs_one(tmp_path: Path) -> None:
    """Also where sizes of a result depend on the branch, and with branches within branches."""
    made = model(
        """m (float[B, 8] x, int64 rate) => (float[N, M] y) {
            fast = Constant <value = int64 {16}> ()
            up = Equal(rate, fast)
            h = Exp(x)
            y = If (up) <
                then_branch = a () => (float[B, 4] p) { q = MatMul(h, w) p = Relu(q) },
                else_branch = b () => (float[B, 8] p) {
                    s = Shape <end = 1> (h)
                    one = Constant <value = int64[1] {1}> ()
                    lone = Equal(s, one)
                    p = If (lone) <
                        then_branch = c () => (float[B, 8] r) { r = MatMul(h, v) },
                        else_branch = d () => (float[B, 8] r) { r = Neg(h) }
                    >
                }
            >
        }""",
        w=RNG.standard_normal((8, 4), np.float32),
        v=RNG.standard_normal((8, 8), np.float32),
    )
    fast = graphopt.optimize(made, precision="fp32")
    kinds = [row.kernel for row in fast.report() if row.op == "If"]
    assert kinds == ["python", "python"]
    calls: list[dict[str, Any]] = []
    for batch, rate in ((2, 16), (1, 8), (3, 8)):
        feeds = {"x": RNG.standard_normal((batch, 8), np.float32), "rate": np.array(rate)}
        (wanted,) = in_onnxruntime(made, **feeds)
        assert np.allclose(fast(**feeds), wanted, rtol=1e-5, atol=1e-5)
        calls.append(feeds)
    assert round_trip(fast, tmp_path, calls)[-1] == "If"
