"""Definitions of ops: none is missing anywhere, and what is not as defined is found."""

import copy
import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from every_op import every_op
from graphs import BF16, F32, assert_close, build, emit, native_levels, random_inputs

from graphopt.codegen.emit import EMITTERS
from graphopt.ir import DType, Graph, Node, Value
from graphopt.ir.cost import Call
from graphopt.ir.interpret import run_graph
from graphopt.ir.op import Op
from graphopt.ir.ops import OPS, Aten, Cif, GroupedMatmul, Recurrent
from graphopt.ir.verify import VerificationError, verify
from graphopt.passes.fuse_im2col import FuseIm2col
from graphopt.testing import BF16_RELATIVE


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


def test_operands_fit_each_other() -> None:
    """Ends of as many experts as there are; scales of weights where the format has some."""
    ends, scales = np.ones(3, np.int64), np.ones(96, np.float32)
    for kind, role, data in ((GroupedMatmul, "ends", ends), (Recurrent, "scale", scales)):
        graph = every_op()
        node = next(n for n in graph.nodes if isinstance(n.op, kind))
        node.operands[role] = Value(DType.of(data), data.shape, data=data)
        with pytest.raises(VerificationError, match=r"ends \(3,\)|with scales"):
            verify(graph, "the test")
    assert node.op.operand_bytes(node, "scale", Call({}, "x86_64")) == 0  # with the weights


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
