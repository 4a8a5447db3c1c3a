"""Generated loops and views, compiled and run: equal to numpy at 1, 2 and 3 threads."""

from pathlib import Path

import numpy as np
import pytest
import sympy
from graphs import (
    BF16,
    BOOL,
    F32,
    I64,
    Maker,
    X,
    Y,
    add,
    build,
    check_native,
    emit,
    mul,
    native_levels,
    random_inputs,
)

from graphopt.errors import InputValueError
from graphopt.ir import DType, Node, Value, scalar
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Cat, Check, Expand, Gather, Matmul, Pad, Pointwise, Reduce
from graphopt.ir.ops.elements import FUNCTIONS
from graphopt.ir.scalar import COMPARISONS
from graphopt.testing import BF16_RELATIVE, FP32_RELATIVE

BTC = ("B", "T", 6)
SIZES = ({}, {"B": 1, "T": 1}, {"B": 3, "T": 17})


def times(factor: float):
    return mul(X, factor)


@pytest.mark.parametrize("level", native_levels())
def test_arithmetic_broadcasts_and_views(tmp_path: Path, level: str) -> None:
    m = Maker()
    x, row, column = m.input("x", *BTC), m.input("row", 6), m.input("column", "B", "T", 1)
    both = m.pointwise(add(), m.pointwise(mul(), x, row), column)
    turned = m.pointwise(times(2.0), m.permute(both, 2, 0, 1))
    part = m.pointwise(times(3.0), m.slice(both, 2, 1, 3, step=2))
    last = m.slice(both, 1, m.shape("T")[0] - 1, 1)
    wide = m.pointwise(add(), m.op(Expand(shape=m.shape(*BTC)), last), x)
    flat = m.pointwise(times(4.0), m.reshape(turned, 6 * m.shape("B")[0], "T"))
    check_native(m.output(turned, part, wide, flat, both), tmp_path, [level], sizes=SIZES)


def test_what_is_expanded_has_the_size_of_the_result_in_another_form(tmp_path: Path) -> None:
    m = Maker()
    x, y = m.input("x", 1, "T", 6), m.input("y", *BTC)
    (time,) = m.shape("T")
    rows = m.op(Expand(m.shape(*BTC)), m.slice(x, 1, 0, sympy.Min(time, 50)))
    m.graph.conditions.append(sympy.Le(time, 50))
    check_native(m.output(m.pointwise(add(), rows, y)), tmp_path, sizes=SIZES)


def test_large_loops_are_shared_between_threads(tmp_path: Path) -> None:
    m = Maker()
    x = m.input("x", "B", "T", 6)
    graph = m.output(m.pointwise(times(2.0), x), m.pointwise(times(2.0), m.permute(x, 2, 1, 0)))
    check_native(graph, tmp_path, sizes=({"B": 7, "T": 2003},))


def test_what_lies_across_is_computed_in_tiles(tmp_path: Path) -> None:
    """A loop before, between, behind the two; copies; sizes beside multiples of a tile."""
    m = Maker()
    x, four = m.input("x", "B", "T", 40), m.input("four", "B", 3, "T", 17)
    graph = m.output(
        m.pointwise(add(), m.permute(x, 0, 2, 1), m.constant("w", 40, 1)),
        m.pointwise(times(2.0), m.permute(x, 2, 0, 1)),
        m.pointwise(times(3.0), m.permute(four, 3, 0, 1, 2)),
        m.pointwise(times(4.0), m.permute(four, 0, 3, 2, 1)),
        m.op(Cat(1), m.permute(x, 0, 2, 1), m.permute(m.pointwise(times(5.0), x), 0, 2, 1)),
    )
    module = check_native(graph, tmp_path, sizes=(*SIZES, {"B": 2, "T": 333}, {"B": 1, "T": 32}))
    assert module.source.count("enum { LANES") >= 4


def test_few_elements_of_many_rows_are_the_outer_loop(tmp_path: Path) -> None:
    """Colours of pixels: from planes and to them, written, copied, and with their indices."""
    m = Maker()
    planes, pixels = m.input("planes", "B", 3, "T", 10), m.input("pixels", "B", "T", 3)
    colour = scalar.cast(scalar.index(3), F32)
    whole = m.op(Reduce(kind="sum", axes=(3,)), m.permute(planes, 0, 2, 3, 1))
    graph = m.output(
        m.pointwise(times(2.0), m.permute(planes, 0, 2, 3, 1)),
        m.pointwise(mul(X, colour), m.permute(planes, 0, 2, 3, 1)),
        m.pointwise(add(), m.permute(planes, 0, 2, 3, 1), m.constant("w", 3)),
        m.op(Cat(1), pixels, m.pointwise(times(5.0), pixels)),
        m.pointwise(times(3.0), m.permute(pixels, 0, 2, 1)),
        whole,
    )
    module = check_native(graph, tmp_path, sizes=(*SIZES, {"B": 2, "T": 333}, {"B": 1, "T": 16}))
    assert "TILE = 128" in module.source


def test_indices_and_sizes(tmp_path: Path) -> None:
    m = Maker()
    x = m.input("x", *BTC)
    expr = X
    for axis, weight in enumerate((100.0, 10.0, 1.0)):
        expr = add(expr, mul(scalar.cast(scalar.index(axis), F32), weight))
    expr = add(expr, scalar.cast(scalar.size(m.shape("T")[0]), F32))
    graph = m.output(m.pointwise(expr, x), m.pointwise(expr, m.permute(x, 2, 0, 1)))
    check_native(graph, tmp_path, sizes=SIZES)


OF_TWO = {"add", "sub", "mul", "div", "max", "min", "pow", "atan2", "copysign", "rest"}
OF_TWO |= {*COMPARISONS, "bit_and", "bit_or", "bit_xor", "quotient"}
POSITIVE = {"log", "log2", "log10", "log1p", "sqrt", "rsqrt", "pow", "acosh"}
BELOW_ONE = {"asin", "acos", "atanh"}


def every_function_of_floats(m: Maker, dtype: DType) -> list[Value]:
    """A node for each function that is computable, of arguments that it is defined for."""
    x, y = m.input("x", *BTC, dtype=dtype), m.input("y", *BTC, dtype=dtype)
    one, other = scalar.operand(0, dtype), scalar.operand(1, dtype)
    outputs = [m.pointwise(scalar.apply("where", one < other, one, other), x, y)]
    for name in set(FUNCTIONS) - {"and", "or", "not", "where"}:
        inner = scalar.apply("abs", one) + 1 if name in POSITIVE else one
        inner = scalar.apply("sin", one) if name in BELOW_ONE and dtype is F32 else inner
        expr = scalar.apply(name, inner, *([other] if name in OF_TWO else []))
        if scalar.not_computable(expr) is None:
            outputs.append(m.pointwise(expr, x, *([y] if name in OF_TWO else [])))
    return outputs


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("level", native_levels())
def test_every_function_of_f32(tmp_path: Path, level: str) -> None:
    m = Maker()
    outputs = every_function_of_floats(m, F32)
    assert len(outputs) > 45
    check_native(m.output(*outputs), tmp_path, [level], FP32_RELATIVE)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_function_of_f64(tmp_path: Path) -> None:
    m = Maker()
    outputs = every_function_of_floats(m, DType.F64)
    assert len(outputs) > 40
    check_native(m.output(*outputs), tmp_path, bound=1e-12)


@pytest.mark.parametrize("dtype", [I64, DType.I32, DType.I16, DType.I8, DType.U8])
def test_every_function_of_whole_numbers(tmp_path: Path, dtype: DType) -> None:
    m = Maker()
    n, d = m.input("n", 6, dtype=dtype), m.input("d", 6, dtype=dtype)
    one, other = scalar.operand(0, dtype), scalar.operand(1, dtype)
    divisor, few = scalar.apply("nonzero", other), scalar.const(3, dtype)
    exprs = [scalar.apply(name, one, other) for name in ("bit_and", "bit_or", "bit_xor", "pow")]
    exprs += [scalar.apply(name, one, divisor) for name in ("quotient", "rest")]
    exprs += [scalar.apply(name, one, few) for name in ("shift_left", "shift_right", "quotient")]
    exprs += [scalar.apply("bit_not", one), scalar.apply("max", one, other) * one]
    used = [(n, d) if any(s.value == 1 and s.op == "operand" for s in e.walk()) else (n,)
            for e in exprs]  # fmt: skip
    graph = m.output(*(m.pointwise(e, *x) for e, x in zip(exprs, used, strict=True)))
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
    a = np.array([low, high, 7, low // 2, 100, high], dtype.numpy)
    b = np.array([-1 if low else 255, 3, 2, 5, 1, 2], dtype.numpy)
    with np.errstate(all="ignore"):
        wanted = run_graph(graph, [a, b])
    for got, right in zip(context.run([a, b]), wanted, strict=True):
        np.testing.assert_array_equal(got, right)
    b[2] = 0
    with pytest.raises(InputValueError, match="divided by 0"):
        context.run([a, b])
    with pytest.raises(InputValueError, match="divided by 0"):
        run_graph(graph, [a, b])


def test_special_values_follow_numpy(tmp_path: Path) -> None:
    m = Maker()
    x, y = m.input("x", 5), m.input("y", 5)
    exprs = [scalar.apply(f, X, Y) for f in ("max", "min", "lt", "eq", "ne")]
    graph = m.output(
        *(m.pointwise(e, x, y) for e in exprs), m.pointwise(scalar.apply("relu", X), x)
    )
    library = build(emit(graph), native_levels()[-1], tmp_path)
    a = np.array([np.nan, 1, np.inf, -np.inf, -0.0], np.float32)
    b = np.array([1, np.nan, 2, 2, np.nan], np.float32)
    got = library.context(1).run([a, b])
    wanted = [np.maximum(a, b), np.minimum(a, b), a < b, a == b, a != b, np.maximum(a, 0)]
    for left, right in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(left, right)


def test_integers_and_booleans(tmp_path: Path) -> None:
    m = Maker()
    n, flag = m.input("n", *BTC, dtype=I64), m.input("flag", *BTC, dtype=BOOL)
    byte = m.input("byte", *BTC, dtype=DType.U8)
    number, truth, small = (
        scalar.operand(0, I64),
        scalar.operand(0, BOOL),
        scalar.operand(0, DType.U8),
    )
    far = scalar.const(2**40, I64)
    above = scalar.apply("gt", scalar.operand(1, I64), scalar.const(1, I64))
    outputs = [
        m.pointwise(add(scalar.apply("mul", number, far), scalar.const(-3, I64)), n),
        m.pointwise(scalar.apply("min", number, scalar.const(2, I64)), n),
        m.pointwise(scalar.apply("not", truth), flag),
        m.pointwise(scalar.apply("or", truth, above), flag, n),
        m.pointwise(scalar.cast(truth, F32), flag),
        m.pointwise(scalar.cast(number, BOOL), n),
        m.pointwise(scalar.cast(scalar.apply("sub", small, scalar.const(2, DType.U8)), F32), byte),
        m.pointwise(scalar.cast(number, DType.I16), n),
    ]  # fmt: skip
    check_native(m.output(*outputs), tmp_path, sizes=SIZES)


def test_what_looks_like_a_slip_to_a_compiler(tmp_path: Path) -> None:
    m = Maker()
    values = []
    for number, dtype in enumerate((BOOL, DType.U8, I64, F32)):
        x, own = m.input(f"x{number}", "B", dtype=dtype), scalar.operand(0, dtype)
        values += [
            m.pointwise(scalar.apply(name, own, other), x)
            for name in COMPARISONS
            for other in (own, scalar.const(dtype is not BOOL and 100, dtype))
        ]
    check_native(m.output(*values), tmp_path)


def test_bf16(tmp_path: Path) -> None:
    m = Maker()
    x = m.input("x", *BTC, dtype=BF16)
    wide = scalar.cast(scalar.operand(0, BF16), F32)
    doubled = m.pointwise(scalar.cast(mul(wide, 3.0), BF16), x)
    padded = m.op(Pad((0, 1, 0), 0.5, m.shape("B", m.shape("T")[0] + 2, 6)), x)
    joined = m.op(Cat(axis=2), x, doubled)
    graph = m.output(doubled, padded, joined, m.pointwise(wide, m.permute(x, 0, 2, 1)))
    check_native(graph, tmp_path, bound=BF16_RELATIVE, sizes=SIZES)


@pytest.mark.parametrize("dtype", [F32, I64, BOOL])
def test_cat_and_pad(tmp_path: Path, dtype: DType) -> None:
    m = Maker()
    x, y = m.input("x", *BTC, dtype=dtype), m.input("y", "B", "N", 6, dtype=dtype)
    t, _n = m.shape("T", "N")
    views = [m.permute(x, 0, 2, 1), m.permute(y, 0, 2, 1), m.slice(m.permute(x, 0, 2, 1), 2, 0, 1)]
    outputs = [
        m.op(Cat(axis=1), x, y, x),
        m.op(Cat(axis=2), *views),
        m.op(Pad(before=(0, 3, 1), value=1.0, shape=m.shape("B", t + 3, 8)), x),
        m.op(Pad(before=(0, 0, 0), value=0.0, shape=m.shape("B", 7, t)), views[0]),
    ]
    check_native(m.output(*outputs), tmp_path, sizes=SIZES)


def test_gather_from_views(tmp_path: Path) -> None:
    m = Maker()
    table = m.constant("table", 9, 6)
    words = m.input("words", "B", 8, dtype=I64)
    rows = m.slice(m.input("rows", 9, 6), 1, 2, 3)
    outputs = [
        m.op(Gather(), table, words),
        m.op(Gather(), table, m.slice(words, 1, 1, 3, step=2)),
        m.op(Gather(), rows, words),
        m.op(Gather(), m.permute(rows, 1, 0), m.slice(words, 1, 0, 1)),
    ]
    graph = m.output(*outputs)
    inputs = random_inputs(graph)
    assert inputs[0].max() == 3
    for node in graph.nodes:
        if isinstance(node.op, Gather) and node.operands["table"].shape[0] == 3:
            node.operands["table"] = m.constant("four", 4, 9)
    check_native(graph, tmp_path, sizes=({}, {"B": 1}))


def test_gather_refuses_an_index_outside_the_table(tmp_path: Path) -> None:
    m = Maker()
    words = m.input("words", "B", dtype=I64)
    graph = m.output(m.op(Gather(), m.constant("table", 9, 6), words))
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    for bad in (9, -1):
        with pytest.raises(InputValueError, match="outside the table"):
            context.run([np.array([0, bad, 3])])
    context.run([np.array([0, 8, 3])])


def test_loads_at_computed_indices(tmp_path: Path) -> None:
    """Backwards, repeated, transposed, guarded at the edge, through data, of views and of bf16."""
    m = Maker()
    x, n, words = m.input("x", *BTC), m.input("n", "T", 6, dtype=I64), m.input("w", "T", dtype=I64)
    narrow, t = m.input("narrow", *BTC, dtype=BF16), m.shape("T")[0]
    i, j, k = (scalar.index(a) for a in range(3))
    one = scalar.const(1, I64)
    last = scalar.apply("sub", scalar.size(t), add(j, one))
    before = scalar.load(0, F32, (i, scalar.apply("sub", j, one), k))
    edge = scalar.apply("where", scalar.apply("ge", j, one), before, scalar.const(0.5, F32))
    word = scalar.check(scalar.wrap(scalar.operand(0, I64), 6), 6)
    half = scalar.apply("floor_divide", j, scalar.const(2, I64))
    wide = scalar.cast(scalar.load(0, BF16, (i, half, k)), F32)
    zero = scalar.const(0, I64)
    inner = scalar.load(0, F32, (zero, scalar.load(1, I64, (j, k)), k))
    turned = m.permute(x, 2, 0, 1)
    outputs = [
        m.op(Pointwise(add(scalar.load(0, F32, (i, last, k)), X), x.shape), x),
        m.op(Pointwise(edge, x.shape), m.permute(m.permute(x, 0, 2, 1), 0, 2, 1)),
        m.op(Pointwise(scalar.load(1, F32, (word, i, j)), m.shape("B", "T", "T")), words, turned),
        m.op(Pointwise(scalar.cast(mul(wide, 2.0), BF16), x.shape), narrow),
        m.op(Pointwise(inner, m.shape("B", 4, 6)), x, n),
        m.op(Pointwise(scalar.load(0, F32, (zero, last, k)), m.shape(1, "T", 6)), x),
        m.op(Pointwise(scalar.load(0, F32, ()), m.shape("B")), m.constant("number")),
    ]  # fmt: skip
    check_native(m.output(*outputs), tmp_path, sizes=({}, {"B": 1, "T": 4}, {"B": 3, "T": 17}))


def test_loads_refuse_an_index_outside(tmp_path: Path) -> None:
    m = Maker()
    words, x = m.input("words", "B", dtype=I64), m.input("x", "T")
    (t,) = m.shape("T")
    at = scalar.check(scalar.wrap(scalar.operand(0, I64), t), t)
    graph = m.output(m.op(Pointwise(scalar.load(1, F32, (at,)), m.shape("B")), words, x))
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    row = np.arange(4, dtype=np.float32)
    for indices, wrong in (([0, 4], "got 4"), ([-5, 3], "got -1")):
        for run in (context.run, lambda given: run_graph(graph, given)):
            with pytest.raises(InputValueError, match=rf"outside the table.*expected 4, {wrong}"):
                run([np.array(indices), row])
    np.testing.assert_array_equal(context.run([np.array([-1, -4]), row])[0], [3, 0])


@pytest.mark.parametrize("kind", ["sum", "mean", "prod", "max", "min"])
def test_reduce(tmp_path: Path, kind: str) -> None:
    m = Maker()
    x, n = m.input("x", *BTC), m.input("n", *BTC, dtype=I64)
    turned = m.permute(x, 2, 0, 1)
    outputs = [
        m.op(Reduce(kind=kind, axes=(2,)), x),
        m.op(Reduce(kind=kind, axes=(0, 2)), x),
        m.op(Reduce(kind=kind, axes=(0, 1, 2)), x),
        m.op(Reduce(kind=kind, axes=(1,)), turned),
    ]
    if kind != "mean":
        outputs.append(m.op(Reduce(kind=kind, axes=(1,)), n))
        number = m.reshape(m.slice(m.slice(n, 1, 0, 1), 2, 0, 1), "B")
        single = m.reshape(m.slice(number, 0, 0, 1))
        outputs.append(m.op(Reduce(kind=kind, axes=()), single))
    if kind in ("max", "min"):
        outputs += [m.op(Reduce(f"arg{kind}", (2,)), x), m.op(Reduce(f"arg{kind}", (0,)), n)]
    check_native(m.output(*outputs), tmp_path, sizes=SIZES)


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_reduce_where_results_lie_side_by_side(tmp_path: Path, kind: str) -> None:
    m = Maker()
    wide, lines = m.input("wide", "B", "T", 37), m.input("lines", "B", 3, "T", 2)
    turned = m.permute(m.permute(wide, 0, 2, 1), 2, 0, 1)
    outputs = [
        m.op(Reduce(kind=kind, axes=(1,)), wide),
        m.op(Reduce(kind=kind, axes=(0, 1)), wide),
        m.op(Reduce(kind=kind, axes=(0,)), turned),
        m.op(Reduce(kind=kind, axes=(1, 3)), lines),
        m.op(Reduce(kind=kind, axes=(1,)), m.reshape(lines, "B", 6, "T")),
    ]
    sizes = (*SIZES, {"B": 2, "T": 16}, {"B": 1, "T": 33})
    check_native(m.output(*outputs), tmp_path, sizes=sizes)


def test_reduce_keeps_nan(tmp_path: Path) -> None:
    m = Maker()
    x, wide = m.input("x", "B", 4), m.input("wide", "B", 19)
    kinds = ("max", "min", "sum")
    rowwise = [m.op(Reduce(kind=k, axes=(1,)), x) for k in kinds]
    side_by_side = [m.op(Reduce(kind=k, axes=(0,)), wide) for k in kinds]
    graph = m.output(*rowwise, *side_by_side)
    context = build(emit(graph), native_levels()[-1], tmp_path).context(1)
    rows = np.array([[np.nan, 1, 2, 3], [1, np.nan, 0, 2], [3, 2, 1, np.nan]], np.float32)
    lines = np.ones((3, 19), np.float32)
    lines[np.arange(19) % 3, np.arange(19)] = np.nan
    assert all(np.isnan(y).all() for y in context.run([rows, lines]))


def test_check(tmp_path: Path) -> None:
    m = Maker()
    lengths, x = m.input("lengths", "B", dtype=I64), m.input("x", "B", "T")
    longest = m.op(Reduce(kind="max", axes=(0,)), lengths)
    m.graph.nodes.append(Node.of(Check(m.shape("T")[0]), longest))
    graph = m.output(m.pointwise(times(2.0), x))
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    x_ = np.ones((2, 5), np.float32)
    np.testing.assert_array_equal(context.run([np.array([5, 3]), x_])[0], 2 * x_)
    with pytest.raises(InputValueError, match=r"(?s)5.*4|4.*5"):
        context.run([np.array([4, 3]), x_])


@pytest.mark.parametrize("level", native_levels())
def test_matmul(tmp_path: Path, level: str) -> None:
    m = Maker()
    x, y = m.input("x", "B", 2, "T", 6), m.input("y", "B", 2, "N", 6)
    keys = m.permute(y, 0, 1, 3, 2)
    head = m.reshape(m.slice(x, 1, 1, 1), "B", "T", 6)
    repeated = m.op(Expand(shape=m.shape("B", 6, 19)), m.constant("c", 1, 6, 19))
    outputs = [
        m.op(Matmul(), x, keys),
        m.op(Matmul(), head, repeated),
    ]
    sizes = ({}, {"B": 1, "T": 1, "N": 1}, {"B": 3, "T": 33, "N": 18})
    check_native(m.output(*outputs), tmp_path, [level], FP32_RELATIVE, sizes)


def test_reading_an_output_of_the_graph(tmp_path: Path) -> None:
    m = Maker()
    y = m.pointwise(times(2.0), m.input("x", *BTC))
    part = m.pointwise(times(3.0), m.slice(y, 2, 2, 3))
    check_native(m.output(y, part, m.linear(y, 4)), tmp_path, bound=FP32_RELATIVE, sizes=SIZES)
