"""Attention: which arithmetic between two matmuls becomes one node."""

import numpy as np
import pytest
from graphs import BOOL, F32, Maker, X, add, check_left_alone, check_pass, mul, random_inputs

from graphopt.ir import scalar
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Attention, Matmul, Softmax
from graphopt.ir.printer import print_graph
from graphopt.passes.fuse_attention import FuseAttention
from graphopt.passes.simplify_views import SimplifyViews
from graphopt.testing import FP32_RELATIVE, relative_error

HEADS = ("B", 2, "T", 4)


class Written(Maker):
    """softmax(middle(q @ k^T)) @ v."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (self.input(n, *HEADS) for n in "qkv")

    def scores(self, q=None):
        keys = self.permute(self.k, 0, 1, 3, 2)
        return self.op(Matmul(), q or self.q, keys)

    def weighted(self, scores):
        weights = self.op(Softmax(log=False), scores)
        return self.op(Matmul(), weights, self.v)


def divided(by: float):
    return scalar.apply("div", X, scalar.const(by, F32))


def test_1_scaled_scores_and_2_added_mask(golden) -> None:
    m = Written()
    mask = m.input("mask", "B", 1, 1, "T")
    scaled = m.pointwise(divided(2.0), m.scores())
    graph = m.output(m.weighted(m.pointwise(add(), scaled, mask)))
    inputs = random_inputs(graph)
    before = run_graph(graph, inputs)
    assert FuseAttention().run(graph)
    SimplifyViews().run(graph)  # removes the second transposition of the keys
    graph.nodes = [n for n in graph.nodes if n.output in graph.outputs]
    golden("fuse_attention", print_graph(graph))
    assert relative_error(run_graph(graph, inputs)[0], before[0]) < FP32_RELATIVE


def test_1_scaled_query_behind_a_permute() -> None:
    m = Written()
    raw = m.input("raw", "B", "T", 2, 4)
    q = m.permute(m.pointwise(mul(X, 0.5), raw), 0, 2, 1, 3)
    graph = m.output(m.weighted(m.pointwise(mul(X, 3.0), m.scores(q))))
    check_pass(FuseAttention(), graph, FP32_RELATIVE)
    (node,) = (n for n in graph.nodes if isinstance(n.op, Attention))
    assert node.op.scale == 1.5


@pytest.mark.parametrize("swapped", [False, True])
def test_2_mask_on_either_side(swapped: bool) -> None:
    m = Written()
    mask, scores = m.input("mask", "T", "T"), m.scores()
    operands = (mask, scores) if swapped else (scores, mask)
    graph = m.output(m.weighted(m.pointwise(add(), *operands, shape=scores.shape)))
    check_pass(FuseAttention(), graph, FP32_RELATIVE)
    assert graph.nodes[-1].operands.get("mask") is mask


def filled(m: Attention, fill: float):
    hide = m.input("hide", "B", 1, 1, "T", dtype=BOOL)
    scores = m.scores()
    expr = scalar.apply(
        "where", scalar.operand(1, BOOL), scalar.const(fill, F32), scalar.operand(0, F32)
    )
    return m.output(m.weighted(m.pointwise(expr, scores, hide)))


@pytest.mark.parametrize("fill", [-7.0, -1e30, float(np.finfo(np.float32).min), -np.inf])
def test_2_masked_fill(fill: float) -> None:
    graph = filled(Written(), fill)
    inputs = random_inputs(graph)
    inputs[3][0] = True  # every key hidden: all weights equal, or NaN
    inputs[3][1] = False
    inputs[3][1, ..., 0] = True
    inputs[1][1, 0, 0] = np.nan  # a hidden score that is NaN does not count
    inputs[1][1, 1, 1] = np.nan  # one that is seen does
    before = run_graph(graph, inputs)
    holes = np.isnan(before[0][..., 0]).all(-1)
    assert holes.tolist()[:2] == [[fill == -np.inf] * 2, [False, True]]
    assert FuseAttention().run(graph)
    assert relative_error(run_graph(graph, inputs)[0], before[0]) < FP32_RELATIVE


def test_fills_of_0_and_factors_without_an_inverse_are_left_alone() -> None:
    check_left_alone(FuseAttention(), filled(Written(), 0.0))
    for by in (0.0, np.inf):
        m = Written()
        y = m.weighted(m.pointwise(divided(by), m.scores()))
        check_left_alone(FuseAttention(), m.output(y))


def test_weights_on_the_right_are_left_alone() -> None:
    m = Written()
    weights = m.op(Softmax(log=False), m.scores())
    check_left_alone(FuseAttention(), m.output(m.op(Matmul(), m.scores(), weights)))


def test_scores_that_something_else_reads_are_left_alone() -> None:
    m = Written()
    scores = m.scores()
    check_left_alone(FuseAttention(), m.output(m.weighted(scores), scores))


def test_weights_that_something_else_reads_are_left_alone() -> None:
    m = Written()
    y = m.weighted(m.scores())
    weights = next(n.output for n in m.graph.nodes if isinstance(n.op, Softmax))
    check_left_alone(FuseAttention(), m.output(y, weights))


def test_dropout_is_left_alone() -> None:
    m = Written()
    scores = m.scores()
    weights = m.op(Softmax(log=False), scores)
    dropped = m.torch("dropout", weights)
    y = m.op(Matmul(), dropped, m.v)
    check_left_alone(FuseAttention(), m.output(y))


def test_scaling_after_the_mask_is_left_alone() -> None:
    m = Written()
    mask = m.input("mask", "B", 1, 1, "T")
    masked = m.pointwise(add(), m.scores(), mask)
    check_left_alone(FuseAttention(), m.output(m.weighted(m.pointwise(mul(X, 2.0), masked))))


def test_a_second_mask_is_left_alone() -> None:
    m = Written()
    masks = [m.input(n, "B", 1, 1, "T") for n in ("m1", "m2")]
    y = m.pointwise(add(), m.pointwise(add(), m.scores(), masks[0]), masks[1])
    check_left_alone(FuseAttention(), m.output(m.weighted(y)))


def test_other_ranks_are_left_alone() -> None:
    m = Maker()
    q, v = m.input("q", "B", "T", 4), m.input("v", "B", "T", 4)
    scores = m.op(Matmul(), q, m.permute(q, 0, 2, 1))
    weights = m.op(Softmax(log=False), scores)
    graph = m.output(m.op(Matmul(), weights, v))
    check_left_alone(FuseAttention(), graph)


def test_a_mask_that_widens_the_scores_is_left_alone() -> None:
    m = Maker()
    q, k = m.input("q", 1, 2, "T", 4), m.input("k", 1, 2, 4, "T")
    mask, v = m.input("mask", "B", 1, 1, "T"), m.input("v", "B", 2, "T", 4)
    scores = m.op(Matmul(), q, k)
    masked = m.pointwise(add(), scores, mask, shape=("B", 2, "T", "T"))
    weights = m.op(Softmax(log=False), masked)
    y = m.op(Matmul(), weights, v)
    check_left_alone(FuseAttention(), m.output(y))


def test_log_softmax_is_left_alone() -> None:
    m = Written()
    scores = m.scores()
    weights = m.op(Softmax(log=True), scores)
    y = m.op(Matmul(), weights, m.v)
    check_left_alone(FuseAttention(), m.output(y))
