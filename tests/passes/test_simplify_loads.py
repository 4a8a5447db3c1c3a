"""Loads at plain indices become views, and checks go that cannot fail; what is computed stays."""

import numpy as np
from graphs import BOOL, F32, I64, Maker, X, add, check_left_alone, check_pass, mul, ops

from graphopt.ir import Value, scalar
from graphopt.ir.indices import (
    affine,
    bounds,
    larger,
    minus,
    place,
    plus,
    quotient,
    remainder,
    smaller,
    times,
)
from graphopt.ir.ops import Expand, Gather, Pointwise
from graphopt.ir.ops.elements import evaluate_scalar
from graphopt.ir.scalar import Scalar
from graphopt.ir.symbolic import evaluate
from graphopt.passes.simplify_loads import SimplifyLoads

A0, A1, A2 = (scalar.index(axis) for axis in range(3))
SHAPE = ("B", "T", 4)


def load(m: Maker, x: Value, shape: tuple[int | str, ...], *indices: Scalar, others: tuple = ()):
    expr = scalar.load(0, x.dtype, indices)
    return m.op(Pointwise(expr, m.shape(*shape)), x, *others)


def given(number: int, extent) -> Scalar:
    return scalar.check(scalar.wrap(scalar.operand(number, I64), extent), extent)


def test_1_a_mask_read_at_ranges_is_a_view(golden) -> None:
    m = Maker()
    mask, (b, t) = m.input("mask", "B", "T", dtype=BOOL), m.shape("B", "T")
    rows = m.reshape(m.pointwise(A0, shape=("B",)), "B", 1, 1, 1)
    columns = m.pointwise(plus(A0, 0), shape=("T",))
    shape = ("B", 1, 1, "T")
    read = load(m, mask, shape, given(1, b), given(2, t), others=(rows, columns))
    golden("simplify_loads", check_pass(SimplifyLoads(), m.output(read)))
    assert ops(m.graph)[-1] == "reshape"


def test_1_constants_that_count_and_views_of_ranges() -> None:
    m = Maker()
    x = m.input("x", 6, "T")
    (t,) = m.shape("T")
    odd = m.constant("odd", data=np.arange(1, 6, 2)[:, None])
    later = m.slice(m.op(Expand(m.shape(3, "T")), m.pointwise(A0, shape=("T",))), 1, 1, t - 1)
    read = load(m, x, (3, t - 1), given(1, 6), given(2, t), others=(odd, later))
    check_pass(SimplifyLoads(), m.output(read))
    assert not any(isinstance(n.op, Pointwise) and n.inputs for n in m.graph.nodes)


def test_2_checks_that_cannot_fail_are_left_out() -> None:
    m = Maker()
    x, (t,) = m.input("x", "T"), m.shape("T")
    last = scalar.check(scalar.wrap(minus(t - 1, A0), t), t)
    text = check_pass(SimplifyLoads(), m.output(load(m, x, ("T",), last)))
    assert "expr=x0[sub(T - 1, i0)])" in text


def test_3_steps_along_different_axes_are_slices_in_another_order() -> None:
    m = Maker()
    x = m.input("x", 9, "T", 5)
    read = load(m, x, ("T", 4), plus(times(A1, 2), 1), A0, place(3))
    graph = m.output(m.op(Pointwise(add(X, X), read.shape), read))
    check_pass(SimplifyLoads(), graph)
    assert ops(graph) == ["slice", "slice", "permute", "reshape", "pointwise"]


def test_4_rows_that_follow_each_other_are_a_slice() -> None:
    m = Maker()
    table, x = m.constant("table", 9, 4), m.input("x", "B", 7)
    rows = m.pointwise(plus(A0, 2), shape=(7,))
    some = m.op(Gather(), table, rows)
    check_pass(SimplifyLoads(), m.output(m.pointwise(add(), some, m.reshape(x, "B", 7, 1))))
    assert "gather" not in ops(m.graph)


def test_guarded_and_backward_loads_are_left_alone() -> None:
    m = Maker()
    x, words = m.input("x", *SHAPE), m.input("words", "T", 1, dtype=I64)
    (t,) = m.shape("T")
    before = scalar.load(0, F32, (A0, minus(A1, 1), A2))
    edge = scalar.apply("where", scalar.apply("ge", A1, place(1)), before, scalar.const(0, F32))
    beyond = scalar.load(0, F32, (A0, plus(A1, 1), A2))
    end = scalar.apply("where", scalar.apply("lt", A1, place(t - 1)), beyond, scalar.const(0, F32))
    values = [m.op(Pointwise(expr, x.shape), x) for expr in (edge, end)]
    values += [load(m, x, ("T", 4), place(0), minus(t - 1, A0), A1)]
    values += [
        load(m, x, ("T", 4), place(0), scalar.check(scalar.operand(1, I64), t), A1, others=(words,))
    ]
    values += [load(m, x, (2,), place(0), scalar.check(plus(A0, t - 1), t), A0)]
    values += [m.pointwise(mul(X, 2.0), x)]
    check_left_alone(SimplifyLoads(), m.output(*values))


def test_bounds_hold_for_every_index() -> None:
    (t,) = Maker().shape("T")
    exprs = [
        minus(times(A0, 3), plus(A1, 2)),
        quotient(minus(times(A0, -2), 1), 3),
        remainder(minus(A0, A1), 4),
        smaller(larger(minus(A0, A1), -1), 2),
        scalar.wrap(minus(A0, 5), 5),
        scalar.apply("where", scalar.apply("lt", A0, A1), times(A0, t), minus(0, A1)),
    ]
    for expr in exprs:
        found = bounds(expr, (5, t))
        assert found is not None
        low, high = (evaluate(end, {t: 7}) for end in found)
        values = evaluate_scalar(expr, [], (5, 7), {t: 7})
        assert low <= values.min() and values.max() <= high
    assert affine(minus(times(A0, 3), plus(A1, 2))).steps == {0: 3, 1: -1}
    assert affine(times(A0, A1)) is None and affine(quotient(A0, 2)) is None
