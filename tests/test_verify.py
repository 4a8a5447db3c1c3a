"""The verifier: every rule has a graph that breaks it."""

import pytest
import sympy
from graphs import I64, Maker, X, add, mul

from graphopt.codegen.emit import emit_module
from graphopt.ir import DType, scalar, symbolic
from graphopt.ir.ops import Pad
from graphopt.ir.verify import REQUIRED, VerificationError, verify
from graphopt.passes.assign_layouts import AssignLayouts


def legal() -> Maker:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    m.output(m.pointwise(mul(X, 2.0), m.pointwise(add(), x, m.constant("c", 4))))
    return m


def refused(m: Maker, problem: str) -> None:
    with pytest.raises(VerificationError, match=problem) as raised:
        verify(m.graph, "some_pass")
    assert "after some_pass" in str(raised.value) and "GRAPHOPT_SKIP=some_pass" in str(raised.value)


def test_no_advice_to_skip_what_cannot_be_skipped() -> None:
    m = legal()
    m.graph.nodes.reverse()
    for name in REQUIRED:
        with pytest.raises(VerificationError, match="report it") as raised:
            verify(m.graph, name)
        assert "GRAPHOPT_SKIP" not in str(raised.value)


def test_legal() -> None:
    verify(legal().graph, "some_pass")


def test_1_uses_before_definitions() -> None:
    m = legal()
    m.graph.nodes.reverse()
    refused(m, "reads an undefined value")


def test_1_defined_twice() -> None:
    m = legal()
    m.graph.nodes.append(m.graph.nodes[0])
    refused(m, "defines a value twice")


def test_1_constants_are_not_computed() -> None:
    m = legal()
    m.permute(m.graph.inputs[0], 0, 1, 2)
    m.graph.nodes[-1].outputs = [m.constant("k", 2)]
    refused(m, "defines a constant")


def test_1_undefined_output() -> None:
    m = legal()
    m.graph.nodes.pop()
    refused(m, "an output is not defined")


def test_2_roles() -> None:
    m = Maker()
    m.output(m.linear(m.input("x", "B", 4), 3))
    node = m.graph.nodes[0]
    node.operands["shift"] = node.operands.pop("bias")
    refused(m, "it has an operand 'shift'")
    del node.operands["shift"], node.operands["weight"]
    refused(m, "it has no operand 'weight'")


@pytest.mark.parametrize("shape", [(3,), ("T", 1, 4), (2, "B", "T", 4)])
def test_2_operands_that_do_not_broadcast(shape) -> None:
    m = legal()
    m.graph.nodes[0].operands["x1"] = m.input("y", *shape)
    refused(m, "does not broadcast")


def test_2_two_forms_of_one_size_are_equal() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 4)
    t = m.shape("T")[0]
    last = symbolic.maximum((0, t - symbolic.maximum((0, t - 3))))
    a = m.slice(x, 1, 0, symbolic.simplify(sympy.Min(3, t)))
    b = m.slice(x, 1, symbolic.maximum((0, t - 3)), last)
    verify(m.output(m.pointwise(add(), a, b)), "some_pass")


def test_2_sizes_that_a_condition_makes_equal() -> None:
    m = Maker()
    x = m.input("x", "T")
    (t,) = m.shape("T")
    even = symbolic.simplify(2 * sympy.floor((t + 1) / 2))
    m.output(
        m.pointwise(
            add(), m.constant("c", 6), m.op(Pad((0,), 0.0, m.shape(even)), x), shape=(even,)
        )
    )
    refused(m, "does not broadcast")
    m.graph.conditions = [sympy.Eq(even, 6)]
    verify(m.graph, "some_pass")


def test_3_operands_and_types() -> None:
    m = legal()
    del m.graph.nodes[0].operands["x1"]
    refused(m, "names operand 1")
    m = legal()
    m.graph.nodes[0].op.expr = add(scalar.operand(0, I64), scalar.operand(0, I64))
    refused(m, "operand 0 is not i64")
    m = legal()
    m.graph.nodes[0].op.expr = scalar.apply("lt", X, X)
    refused(m, "it makes bool, its output is f32")


def test_3_quantized_rows_are_computed_in_f32() -> None:
    m = legal()
    m.graph.nodes[1].output.packed, m.graph.nodes[1].output.dtype = "qa8r", DType.I8
    verify(m.graph, "some_pass")
    m.graph.nodes[1].op.expr = scalar.cast(X, DType.I8)
    refused(m, "it makes i8, its output is qa8r")


def test_4_unknown_dims() -> None:
    m = legal()
    m.slice(m.graph.outputs[0], 1, 0, symbolic.symbol("N"))
    refused(m, "unknown dims {N}")


def test_5_outputs_without_a_writer() -> None:
    m = legal()
    AssignLayouts().run(m.graph)
    verify(m.graph, "assign_layouts")
    written = m.graph.outputs[0]
    for shared in (m.graph.inputs[0], m.constant("k", 4), written):
        m.graph.outputs = [written, shared]
        refused(m, "not written by a node")


def test_5_no_code_for_outputs_without_a_writer() -> None:
    m = Maker()
    m.output(m.input("x", "B", 4))
    with pytest.raises(VerificationError, match="not written by a node"):
        emit_module(m.graph, "x86_64")
