"""Views: chains become canonical, cancel, and sink below arithmetic."""

from graphs import (
    Maker,
    X,
    Y,
    add,
    assert_close,
    check_left_alone,
    check_pass,
    mul,
    ops,
    random_inputs,
)

from graphopt.ir import scalar
from graphopt.ir.interpret import run_graph
from graphopt.passes.simplify_views import SimplifyViews
from graphopt.testing import FP32_RELATIVE


def test_opposite_permutes_cancel() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    back = m.permute(m.permute(x, 0, 2, 1), 0, 2, 1)
    graph = m.output(m.pointwise(mul(X, 2.0), back))
    check_pass(SimplifyViews(), graph)
    assert ops(graph) == ["pointwise"] and graph.nodes[0].inputs == [x]


def test_common_permute_moves_behind_arithmetic(golden) -> None:
    m = Maker()
    a, b = m.input("a", "B", "T", 4), m.input("b", "B", "T", 4)
    moved = [m.permute(v, 0, 2, 1) for v in (a, b)]
    golden("simplify_views", check_pass(SimplifyViews(), m.output(m.pointwise(add(), *moved))))


def test_a_constant_is_turned_the_other_way() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    gain = m.constant("gain", 1, 4, 1)
    graph = m.output(m.pointwise(mul(), m.permute(x, 0, 2, 1), gain))
    check_pass(SimplifyViews(), graph)
    assert ops(graph) == ["pointwise", "permute"]
    assert graph.nodes[0].inputs[1].shape == (1, 1, 4)


def test_what_is_added_to_a_product_is_turned_its_way() -> None:
    """The kernel of a linear adds rows as it makes them; elsewhere a mix stays as it is."""
    m = Maker()
    x, r = m.input("x", "B", "T", 4), m.input("r", "B", 4, "T")
    y = m.pointwise(mul(), m.linear(x, 4), m.constant("gain", 4))
    y = m.pointwise(add(), m.permute(y, 0, 2, 1), r)
    graph = m.output(m.pointwise(add(), y, m.permute(m.linear(x, 4), 0, 2, 1)))
    check_pass(SimplifyViews(), graph, FP32_RELATIVE)
    assert ops(graph) == ["linear", "pointwise", "permute", "pointwise", "linear", "pointwise",
                          "permute"]  # fmt: skip
    assert graph.outputs[0] is graph.nodes[-1].output


def test_a_constant_of_fewer_axes_is_turned_too() -> None:
    m = Maker()
    x = m.permute(m.input("x", "B", "T", 3, 4), 0, 3, 1, 2)
    graph = m.output(m.pointwise(mul(), x, m.constant("gain", 4, 1, 1)))
    check_pass(SimplifyViews(), graph)
    assert ops(graph) == ["pointwise", "permute"]


def test_a_number_gets_no_more_axes_than_what_it_meets() -> None:
    m = Maker()
    x = m.input("x", 1)
    graph = m.output(m.pointwise(mul(), m.reshape(x, 1, 1), m.constant("gain", 1, 1)))
    check_pass(SimplifyViews(), graph)
    assert ops(graph) == ["pointwise", "reshape"]


def test_unit_reshapes_and_permutes_join() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    four = m.reshape(x, "B", "T", 4, 1)
    moved = m.permute(four, 0, 2, 1, 3)
    three = m.reshape(moved, "B", 4, "T")
    graph = m.output(m.pointwise(mul(X, 2.0), m.permute(three, 0, 2, 1)))
    check_pass(SimplifyViews(), graph)
    assert ops(graph) == ["pointwise"]


def test_equal_views_are_made_once() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    graph = m.output(*(m.linear(m.permute(x, 1, 0, 2), 3, name=n) for n in "pq"))
    check_pass(SimplifyViews(), graph)
    assert ops(graph) == ["permute", "linear", "linear"]


def test_reshape_that_merges_axes_ends_a_chain() -> None:
    m = Maker()
    x = m.input("x", "B", 3, 4)
    graph = m.output(m.pointwise(mul(X, 2.0), m.reshape(m.permute(x, 0, 2, 1), "B", 12)))
    check_left_alone(SimplifyViews(), graph)


def test_arithmetic_on_an_index_is_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    moved = m.permute(x, 0, 2, 1)
    numbered = add(X, scalar.cast(scalar.index(1), X.dtype))
    check_left_alone(SimplifyViews(), m.output(m.pointwise(numbered, moved)))


def test_a_mix_of_views_is_left_alone() -> None:
    m = Maker()
    a, b = m.input("a", "B", 4, 4), m.input("b", "B", 4, 4)
    graph = m.output(m.pointwise(add(X, Y), m.permute(a, 0, 2, 1), b))
    check_left_alone(SimplifyViews(), graph)


def test_a_product_that_lost_an_axis_is_added_where_it_is() -> None:
    m = Maker()
    x, other = m.input("x", "B", 1, "T", 5), m.input("other", "B", 4, "T")
    turned = m.permute(m.reshape(m.linear(x, 4), "B", "T", 4), 0, 2, 1)
    graph = m.output(m.pointwise(add(), turned, m.pointwise(mul(X, 2.0), other)))
    inputs = random_inputs(graph)
    before = run_graph(graph, inputs)
    SimplifyViews().run(graph)
    assert_close(run_graph(graph, inputs), before)
