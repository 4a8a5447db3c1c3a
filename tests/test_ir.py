"""The graph: dtypes, users, constants, replacement."""

import copy

import numpy as np
import pytest
from graphs import Maker, X, add, mul

from graphopt.ir import DType, Node, Value, constant
from graphopt.ir.ops import Check


def test_dtypes_agree_with_numpy_and_c() -> None:
    sizes = {"float": 4, "double": 8, "uint8_t": 1, "int8_t": 1, "uint16_t": 2, "int16_t": 2,
             "int32_t": 4, "int64_t": 8}  # fmt: skip
    for i, dtype in enumerate(DType):
        assert dtype.code == i and dtype.numpy.itemsize == dtype.itemsize == sizes[dtype.c_type]
        if dtype is not DType.BF16:  # stored as its bits
            assert DType.of(np.zeros(1, dtype.numpy)) is dtype
    assert [d for d in DType if d.is_float] == [DType.F32, DType.BF16, DType.F64, DType.F16]
    with pytest.raises(KeyError):
        DType.of(np.zeros(1, np.complex64))


def test_users_list_a_node_once_and_no_outputs() -> None:
    m = Maker()
    x = m.input("x", 4)
    y = m.pointwise(add(), x, x)
    graph = m.output(y)
    assert graph.users()[x] == graph.nodes and not graph.users()[y]
    assert graph.producers() == {y: graph.nodes[0]}


def test_constants_in_order_of_first_use() -> None:
    m = Maker()
    x, a, b = m.input("x", 4), m.constant("a", 4), m.constant("b", 4)
    y = m.pointwise(add(), m.pointwise(add(), x, b), b)
    assert [v.name for v in m.output(y, a).constants()] == ["b", "a"]


def test_replace_follows_chains() -> None:
    m = Maker()
    x = m.input("x", 4)
    a, b = m.pointwise(mul(X, 2.0), x), m.pointwise(mul(X, 3.0), x)
    c = m.pointwise(add(), a, b)
    graph = m.output(c, a)
    graph.replace({a: b, b: x})
    assert graph.nodes[2].inputs == [x, x] and graph.outputs == [c, x]


def test_operands_by_role_and_reasons_once() -> None:
    m = Maker()
    y = m.linear(m.input("x", 4), 3)
    (node,) = m.output(y).nodes
    assert (
        list(node.operands) == ["x", "weight", "bias"] and node.inputs[2] is node.operands["bias"]
    )
    assert node.output is y
    node.decide("pass", "why")
    node.decide("pass", "why")
    assert node.reasons == ["pass: why"]


def test_constant_copies_strided_arrays_and_keeps_scalars() -> None:
    strided = np.arange(6).reshape(2, 3).T
    value = constant(strided, "c")
    assert value.data.flags.c_contiguous and value.shape == (3, 2) and value.is_constant
    assert constant(np.float32(2)).shape == ()


def test_numbers_may_be_computed_for_each_reader() -> None:
    made = []

    def numbers() -> np.ndarray:
        made.append(np.arange(3, dtype=np.int32))
        return made[-1]

    value = Value(DType.I32, (3,), data=numbers)
    same = copy.copy(value)
    assert value.is_constant and same.is_constant and not made
    assert value.data is not value.data and same.data.tolist() == [0, 1, 2] and len(made) == 3
    value.data = None
    assert not value.is_constant and same.is_constant and Value(DType.I32, (3,)).data is None


def test_output_of_a_node_with_two_is_refused() -> None:
    node = Node(Check(1), {}, [Value(DType.F32, (1,)), Value(DType.F32, (1,))])
    with pytest.raises(ValueError):
        _ = node.output
