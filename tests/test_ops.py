"""Definitions of ops: none is missing anywhere, and what is not as defined is found."""

import copy
import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from graphs import (
    BF16,
    F32,
    I64,
    Maker,
    add,
    assert_close,
    build,
    emit,
    native_levels,
    random_inputs,
)

from graphopt.codegen.emit import EMITTERS
from graphopt.ir import DimInfo, DType, Graph, Node, Value, scalar, symbolic
from graphopt.ir.interpret import run_graph
from graphopt.ir.op import Op
from graphopt.ir.ops import (
    OPS,
    Aten,
    Attention,
    CachedAttention,
    Cat,
    Check,
    Cif,
    Expand,
    Gather,
    GroupedMatmul,
    Im2col,
    Linear,
    Matmul,
    PackRows,
    Pad,
    Pointwise,
    Pool,
    Recurrent,
    Reduce,
    Rope,
    Scan,
    Scatter,
    Softmax,
    Sort,
    SplitRows,
)
from graphopt.ir.verify import VerificationError, verify
from graphopt.kernels import formats
from graphopt.passes.fuse_im2col import FuseIm2col
from graphopt.testing import BF16_RELATIVE


def every_op() -> Graph:
    """A graph with a node of each op."""
    m = Maker()
    x, lengths = m.input("x", "B", "T", 8), m.input("lengths", "B", dtype=I64)
    image, heads = m.input("image", "B", 4, 6, 5), m.input("heads", "B", 2, "T", 4)
    alphas = m.input("alphas", "B", "T")
    cache = m.input("cache", 1, 2, "B", 16, 2, 4)
    cache.is_state = True
    y = m.pointwise(add(), x, m.constant("c", 8))
    values = [
        m.quantized(m.norm(y), 16),
        m.linear(m.op(PackRows(), y), 16, name="v", op=Linear(format=formats.BF16)),
        m.linear(y, 8, name="u", op=Linear(activation="relu")),
        m.op(SplitRows(), y),
        m.op(Softmax(False), m.permute(y, 0, 2, 1)),
        m.op(Matmul(), y, m.permute(x, 0, 2, 1)),
        m.conv(image, m.constant("k", 4, 2, 3, 3), "B", 4, 4, 3, groups=2),
        m.depthwise(y, identity=1),
        m.quantized(m.op(Im2col((1, 3), (1, 1), (0, 1), (1, 1)), y), 16, name="p"),
        m.op(Attention(0.5), heads, heads, heads),
        m.op(Cat(2), y, x, m.slice(y, 2, 0, 4)),
        m.op(Pad((0, 0, 1), 0.0, (*y.shape[:2], 10)), y),
        m.op(Expand((*y.shape[:2], 8)), m.reshape(m.slice(y, 2, 0, 1), "B", "T", 1)),
        m.op(Gather(), m.constant("table", 9, 4), lengths),
        m.op(Reduce("sum", (1,)), y),
        m.op(
            GroupedMatmul(),
            m.reshape(y, symbolic.product(m.shape("B", "T")), 8),
            m.constant("experts", 2, 5, 8),
            m.constant("ends", data=np.array([1, 2])),
        ),
        m.op(Pool("mean", (*image.shape[:2], 3, 2)), image),
        m.op(Scan("sum", 1), y),
        m.op(Scatter("sum"), y, m.input("places", "B", dtype=I64), m.input("stored", "B")),
    ]
    row = scalar.load(0, F32, (scalar.check(scalar.operand(1, I64), 9), scalar.index(1)))
    values.append(
        m.op(Pointwise(row, m.shape("B", 4)), m.constant("table", 9, 4), m.reshape(lengths, "B", 1))
    )
    m.graph.nodes.append(Node.of(Check(1), m.op(Reduce("max", (0,)), lengths)))
    m.graph.nodes.append(Node.of(Sort(1, False), y))
    values += m.graph.nodes[-1].outputs
    q = m.permute(heads, 0, 2, 1, 3)
    angles = m.slice(q, 3, 0, 2)
    kept = {"past": lengths, "start": lengths, "cache": cache}
    turned = m.reshape(m.slice(angles, 2, 0, 1), "B", "T", 2)
    rotated = m.op(Rope(0), q, q, q, turned, turned, **kept)
    values.append(m.op(CachedAttention(0, 0.5), rotated, **kept))
    m.graph.nodes.append(Node.of(Cif(1.0, "integrate", "floor", "N"), y, alphas))
    state, weight = m.input("state", 2, "B", 5), m.constant("r", 96, 5)
    layer = Recurrent("gru", 2, batch_first=True)
    m.graph.nodes.append(Node.of(layer, m.linear(y, 96), weight, state, lengths=lengths))
    values += m.graph.nodes[-1].outputs
    tokens, time = m.shape("N", "T")
    m.graph.dims["N"] = DimInfo(tokens, 3, (), bound=time)
    return m.output(*values)


def test_every_op_is_listed_and_has_code() -> None:
    defined = {kind for kind in Op.__subclasses__() if kind is not Aten}
    assert defined == set(OPS)
    assert {op for op in OPS if op.KERNEL != "view"} == set(EMITTERS)
    assert len({op.NAME for op in OPS}) == len(OPS)
    assert {type(n.op) for n in every_op().nodes} == set(OPS), "one is not tried below"


def test_every_op_is_legal_as_its_builder_makes_it() -> None:
    verify(every_op(), "the test")


def test_code_of_every_op_computes_what_the_op_says(tmp_path: Path) -> None:
    graph = every_op()
    given = dict(zip((v.name for v in graph.inputs), random_inputs(graph), strict=True))
    given |= {"lengths": np.ones_like(given["lengths"]), "alphas": np.abs(given["alphas"])}
    expected = run_graph(graph, [array.copy() for array in given.values()])
    FuseIm2col().run(graph)  # windows are gathered as packed rows alone
    library = build(emit(graph), native_levels()[-1], tmp_path)
    got = library.context(2).run(list(given.values()))
    assert_close(got, expected, BF16_RELATIVE, [v.dtype for v in graph.outputs])


Edit = Callable[[Node, random.Random], bool]


def drop_operand(node: Node, chance: random.Random) -> bool:
    """One that must be there, or of numbered ones not the last."""
    names = [r for r in node.operands if (o := node.op.operand(r)) and not o.optional]
    if node.op.REST is not None:
        names = names[:-1]
    if names:
        del node.operands[chance.choice(names)]
    return bool(names)


def rename_operand(node: Node, chance: random.Random) -> bool:
    role = chance.choice(list(node.operands))
    node.operands["something"] = node.operands.pop(role)
    return True


def other_attribute_type(node: Node, chance: random.Random) -> bool:
    fields = dataclasses.fields(node.op)
    if fields:
        setattr(node.op, chance.choice(fields).name, object())
    return bool(fields)


def longer_result(node: Node, chance: random.Random) -> bool:
    for value in node.outputs:
        value.shape = (*value.shape, 3)
    return bool(node.outputs)


def larger_result(node: Node, chance: random.Random) -> bool:
    shaped = [v for v in node.outputs if v.shape]
    if not shaped:
        return False
    value = chance.choice(shaped)
    axis = chance.randrange(value.rank)
    value.shape = (*value.shape[:axis], value.shape[axis] + 1, *value.shape[axis + 1 :])
    return not isinstance(node.op, Cif)


def other_result_type(node: Node, chance: random.Random) -> bool:
    for value in node.outputs:
        value.dtype = DType.U8
    return bool(node.outputs)


def one_result_more(node: Node, chance: random.Random) -> bool:
    node.outputs = [*node.outputs, Value(F32, (1,))]
    return True


def stored_as_it_cannot_be(node: Node, chance: random.Random) -> bool:
    if not node.outputs or node.op.STORES_BF16 or node.outputs[0].dtype is not F32:
        return False
    node.outputs[0].dtype = BF16
    return True


def packed_as_it_cannot_be(node: Node, chance: random.Random) -> bool:
    if len(node.outputs) != 1 or node.op.PACKS or node.output.packed:
        return False
    node.output.packed, node.output.dtype = "qa8r", DType.I8
    return True


EDITS = [
    drop_operand,
    rename_operand,
    other_attribute_type,
    longer_result,
    larger_result,
    other_result_type,
    one_result_more,
    stored_as_it_cannot_be,
    packed_as_it_cannot_be,
]


def edits() -> Iterator[tuple[Graph, str]]:
    """Graphs with one node that is not as it was made, and what was done to it."""
    chance = random.Random(0)
    for position in range(len(every_op().nodes)):
        for edit in EDITS:
            graph = copy.deepcopy(every_op())
            if edit(graph.nodes[position], chance):
                yield graph, f"{graph.nodes[position].op}: {edit.__name__}"


def test_every_random_edit_is_found() -> None:
    tried, missed = 0, []
    for graph, what in edits():
        tried += 1
        try:
            verify(graph, "the test")
        except VerificationError:
            continue
        missed.append(what)
    assert not missed and tried > 200
