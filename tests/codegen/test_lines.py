"""Scans, sorts, stores at indices and pooling, compiled: equal to numpy at 1, 2 and 3 threads."""

from pathlib import Path

import numpy as np
import pytest
from graphs import F32, I64, Maker, build, check_native, emit, native_levels

from graphopt.errors import InputValueError
from graphopt.ir import DType, Node, Value
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Pool, Scan, Scatter, Sort
from graphopt.ir.ops.lines import SCANS, STORES
from graphopt.testing import FP32_RELATIVE

BTC = ("B", "T", 6)
SIZES = ({}, {"B": 1, "T": 1}, {"B": 3, "T": 17})


def sort(m: Maker, value: Value, axis: int, descending: bool) -> list[Value]:
    m.graph.nodes.append(Node.of(Sort(axis, descending), value))
    return m.graph.nodes[-1].outputs


@pytest.mark.parametrize("level", native_levels()[:: max(len(native_levels()) - 1, 1)])
def test_scans_and_sorts(tmp_path: Path, level: str) -> None:
    m = Maker()
    x, n = m.input("x", *BTC), m.input("n", *BTC, dtype=I64)
    turned = m.permute(x, 2, 0, 1)
    outputs = []
    for kind in SCANS:
        outputs += [m.op(Scan(kind, 1), x), m.op(Scan(kind, 2), turned)]
        if kind != "logsumexp":
            outputs.append(m.op(Scan(kind, 0), n))
    for value, axis, descending in ((x, 2, False), (turned, 2, True), (n, 1, False), (n, 1, True)):
        outputs += sort(m, value, axis, descending)
    check_native(m.output(*outputs), tmp_path, [level], FP32_RELATIVE, SIZES)


def test_special_values_of_scans_and_sorts(tmp_path: Path) -> None:
    m = Maker()
    x = m.input("x", 8)
    outputs = [m.op(Scan(kind, 0), x) for kind in SCANS]
    for descending in (False, True):
        outputs += sort(m, x, 0, descending)
    graph = m.output(*outputs)
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    inf, nan = np.inf, np.nan
    for line in ([-inf, -inf, 0, 2, 2, inf, inf, 1], [1, nan, 3, nan, 2, -inf, inf, 0], [1.0] * 8):
        data = np.array(line, np.float32)
        for got, wanted in zip(context.run([data]), run_graph(graph, [data]), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", [F32, I64])
def test_stores_at_indices(tmp_path: Path, dtype: DType) -> None:
    m = Maker()
    x, src = m.input("x", "B", 6, dtype=dtype), m.input("src", "B", 4, dtype=dtype)
    at = m.input("at", "B", 4, dtype=I64)  # 0 .. 3: some more than once
    outputs = [m.op(Scatter(kind), x, at, src) for kind in STORES]
    outputs.append(
        m.op(Scatter("sum"), m.permute(m.input("y", 6, "B", dtype=dtype), 1, 0), at, src)
    )
    graph = m.output(*outputs)
    check_native(graph, tmp_path, bound=FP32_RELATIVE, sizes=({}, {"B": 5}))


def test_an_index_outside_the_tensor_is_an_error(tmp_path: Path) -> None:
    m = Maker()
    graph = m.output(
        m.op(Scatter("last"), m.input("x", 3), m.input("at", 2, dtype=I64), m.input("src", 2))
    )
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    x, src = np.zeros(3, np.float32), np.ones(2, np.float32)
    for bad in (3, -1):
        with pytest.raises(InputValueError, match="outside the tensor"):
            context.run([x, np.array([0, bad]), src])
        with pytest.raises(InputValueError, match="outside the tensor"):
            run_graph(graph, [x, np.array([0, bad]), src])


IMAGE = ("B", 5, 9, "T")
POOLS = [
    ({"window": (3, 2), "stride": (2, 1), "padding": (1, 1), "dilation": (1, 1)}, (5, 1)),
    ({"window": (2, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (3, 1)}, (6, -1)),
    ({"window": (3, 3), "stride": (4, 2), "padding": (1, 1), "dilation": (1, 1)}, (3, None)),
    ({}, (4, 3)),
]


@pytest.mark.parametrize("level", native_levels()[:: max(len(native_levels()) - 1, 1)])
def test_pooling(tmp_path: Path, level: str) -> None:
    m = Maker()
    image = m.input("image", *IMAGE)
    inner = m.permute(m.input("inner", "B", 9, "T", 5), 0, 3, 1, 2)
    whole = m.input("whole", *IMAGE, dtype=I64)
    batch, time = m.shape("B", "T")
    outputs = []
    for windows, (height, width) in POOLS:
        extent = 3 if not windows else (time + 1) // 2 if width is None else time + width
        shape = (batch, 5, height, extent)
        for x in (image, inner):
            outputs += [m.op(Pool(kind, shape, **windows), x) for kind in ("max", "mean", "argmax")]
        outputs.append(m.op(Pool("mean", shape, **windows, padding_counts=bool(windows)), inner))
        outputs.append(m.op(Pool("mean", shape, **windows, divisor=7), image))
        outputs.append(m.op(Pool("max", shape, **windows), whole))
    line = m.input("line", "B", 3, "T")
    outputs.append(m.op(Pool("max", (batch, 3, 2)), line))
    sizes = ({}, {"B": 1, "T": 3}, {"B": 3, "T": 17})
    check_native(m.output(*outputs), tmp_path, [level], FP32_RELATIVE, sizes)


def test_a_nan_is_the_largest_of_its_window(tmp_path: Path) -> None:
    m = Maker()
    windows = {"window": (3,), "stride": (1,), "padding": (1,), "dilation": (1,)}
    x = m.input("x", 1, 1, 7)
    graph = m.output(*(m.op(Pool(kind, (1, 1, 7), **windows), x) for kind in ("max", "argmax")))
    data = np.array([[[np.nan, 1, 2, np.nan, np.nan, -np.inf, -np.inf]]], np.float32)
    context = build(emit(graph), native_levels()[-1], tmp_path).context(1)
    for got, wanted in zip(context.run([data]), run_graph(graph, [data]), strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(run_graph(graph, [data])[1].reshape(-1), [0, 0, 3, 4, 4, 4, 5])
