"""Addresses of values, and an arena that the compiled module really needs no more of."""

from pathlib import Path

import numpy as np
from graphs import CACHE, F32, Maker, X, add, build, emit, mul, native_levels, random_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.codegen.memory import bytes_of, scratch_of
from graphopt.ir import DType, Value
from graphopt.ir.interpret import run_graph
from graphopt.ir.ops import Attention, Cat, Softmax
from graphopt.ir.symbolic import THREADS, evaluate, symbol
from graphopt.testing import FP32_RELATIVE, relative_error


def test_addresses_of_every_kind() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 8)
    gain = m.constant("gain", 8)
    base = m.pointwise(mul(), x, gain)
    parts = [m.slice(v, 2, 2, 3) for v in (x, base)]
    y = m.pointwise(add(), *parts)
    z = m.pointwise(mul(X, 2.0), m.slice(y, 2, 1, 1))
    module = emit(m.output(y, z))
    memory = module.memory
    assert memory.address(x) == "INPUT(0, 0)"
    assert memory.address(parts[0]) == "INPUT(0, 8)"
    assert memory.address(base) == "ARENA(slot0)"
    assert memory.address(parts[1]) == "ARENA(slot0 + 8)"
    assert memory.address(gain) == "WEIGHT(0)"
    assert memory.address(y) == "OUTPUT(0, 0)"
    assert memory.address(m.graph.nodes[-2].output) == "OUTPUT(0, 4)"
    assert memory.address(z) == "OUTPUT(1, 0)"


def test_a_constant_is_in_the_weights_once() -> None:
    m = Maker()
    x, gain = m.input("x", "B", 8), m.constant("gain", 8)
    module = emit(m.output(m.pointwise(mul(), x, gain), m.pointwise(add(), x, gain)))
    assert module.weights(1).nbytes == 64
    np.testing.assert_array_equal(module.weights(1)[:32].view(np.float32), gain.data)


def test_sizes_of_packed_values() -> None:
    dense, packed = Value(F32, (3, 20)), Value(DType.I8, (3, 20), packed="qa8r")
    assert bytes_of(dense, "x86_64") == 240
    # 20 is padded to 32 on both; x86 packs row by row, Arm in panels of 8 rows.
    assert bytes_of(packed, "x86_64") < bytes_of(packed, "aarch64")
    assert bytes_of(packed, "aarch64") >= 8 * 32


def test_scratch_of_a_product_that_quantizes_is_no_more_than_its_result() -> None:
    m = Maker()
    m.linear(m.input("x", "B", "T", 32), 40)
    m.graph.nodes[-1].output.packed = "qa8r"
    size = scratch_of(m.graph.nodes[0], "x86_64")
    few, many = (evaluate(size, {symbol("B"): 2, symbol("T"): t, THREADS: 2}) for t in (9, 999))
    assert (few, many) == (18 * 48 * 4, 2 * 128 * 48 * 4)


def test_scratch_grows_with_the_threads() -> None:
    m = Maker()
    q = m.input("q", "B", 2, "T", 8)
    m.output(m.op(Attention(1.0), q, q, q))
    size = scratch_of(m.graph.nodes[0], "x86_64")
    one, two = (evaluate(size, {**m.graph.hints(), THREADS: n}) for n in (1, 2))
    assert 0 < one < two


@settings(max_examples=12)
@given(st.lists(st.tuples(st.sampled_from("plcs"), st.integers(0, 3)), min_size=2, max_size=8))
def test_shared_memory_gives_the_numbers_of_unshared(steps: list[tuple[str, int]]) -> None:
    m = Maker()
    values = [m.input("x", "B", "T", 8)]
    for kind, back in steps:
        x = values[max(0, len(values) - 1 - back)]
        y = values[-1]
        if kind == "p":
            values.append(m.pointwise(add(mul(X, 0.5)), x, y))
        elif kind == "l":
            values.append(m.linear(x, 8))
        elif kind == "c":
            wide = m.op(Cat(axis=2), x, y)
            values.append(m.slice(wide, 2, 3, 8))
        else:
            values.append(m.op(Softmax(log=False), y))
    graph = m.output(values[-1], values[len(values) // 2 or 1])
    cases = [random_inputs(graph, **s) for s in ({}, {"B": 3, "T": 70})]
    wanted = [run_graph(graph, c) for c in cases]
    module = emit(graph)
    plan = module.memory.plan
    assert plan.bytes({**graph.hints(), THREADS: 4}) <= plan.unshared_bytes
    folder = Path(CACHE)
    folder.mkdir(exist_ok=True)
    context = build(module, native_levels()[-1], folder).context(2)
    for inputs, reference in zip(cases, wanted, strict=True):
        for a, b in zip(context.run(inputs), reference, strict=True):
            assert relative_error(a, b) < FP32_RELATIVE
