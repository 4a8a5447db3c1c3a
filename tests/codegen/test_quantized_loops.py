"""Loops whose rows a kernel quantizes: the bits of a loop and a quantization after it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import (
    BF16,
    CACHE,
    F32,
    I64,
    Maker,
    X,
    add,
    build,
    mul,
    native_levels,
    place,
    random_inputs,
)

from graphopt.codegen.emit import Module, emit_module
from graphopt.ir import Value, scalar
from graphopt.ir.ops import Pointwise
from graphopt.passes.fuse_quantize import FuseQuantize
from graphopt.passes.quantize_weights import QuantizeWeights
from graphopt.runtime.emulate import Emulation
from graphopt.target import find_target
from graphopt.toolchain.build import Builder

SILU = scalar.apply("silu", X)


def gate(m: Maker) -> Value:
    """Halves of one row."""
    both = m.input("x", "B", "T", 192)
    return m.pointwise(mul(SILU), m.slice(both, 2, 0, 96), m.slice(both, 2, 96, 96))


def wide_gate(m: Maker) -> Value:
    """Rows of which threads compute parts where there are few."""
    both = m.input("x", "B", 2 * 1450)
    return m.pointwise(mul(SILU), m.slice(both, 1, 0, 1450), m.slice(both, 1, 1450, 1450))


def broadcast(m: Maker) -> Value:
    """Operands of every shape that broadcasts."""
    shapes = [("B", "T", 40), (40,), ("B", 1, 40), ("T", 1), ("B", "T", 1)]
    operands = [m.input(f"x{i}", *shape) for i, shape in enumerate(shapes)]
    expr = X
    for i in range(1, len(operands)):
        expr = add(expr, scalar.operand(i, F32))
    return m.pointwise(expr, *operands)


def indices(m: Maker) -> Value:
    """The index of every axis, a size, and an operand in bf16."""
    x = m.input("x", "B", 1, "T", 24, dtype=BF16)
    expr = scalar.cast(scalar.operand(0, BF16), F32)
    for number in (*map(scalar.index, range(4)), scalar.size(m.shape("T")[0])):
        expr = add(mul(expr, 3.0), scalar.cast(number, F32))
    return m.pointwise(expr, x)


def loads(m: Maker) -> Value:
    """Rows in an order that data says, each backwards, of an operand whose last axis has gaps."""
    x = m.permute(m.input("x", "B", 24, "T"), 0, 2, 1)
    words = m.input("words", "B", 3, 1, dtype=I64)
    (t,) = m.shape("T")
    row = scalar.check(scalar.apply("remainder", scalar.operand(1, I64), scalar.size(t)), t)
    back = scalar.apply("sub", scalar.const(23, I64), scalar.index(2))
    at = scalar.load(0, F32, (scalar.index(0), row, back))
    return m.op(Pointwise(at, m.shape("B", 3, 24)), x, words)


def transposed(m: Maker) -> Value:
    """An operand whose last axis has gaps."""
    x, y = m.input("x", "B", 32, "T"), m.input("y", "B", "T", 32)
    return m.pointwise(mul(), m.permute(x, 0, 2, 1), y)


def repeated(m: Maker) -> Value:
    """The same row everywhere."""
    return m.pointwise(mul(X, 2.0), m.input("x", 32), shape=("B", 32))


def single(m: Maker) -> Value:
    """One row without an axis for rows."""
    return m.pointwise(mul(X, 2.0), m.input("x", 32))


def module_of(fused: bool, arch: str) -> Module:
    """Rows of every kind times int8 weights, each an output."""
    m = Maker("rows")
    made = (gate, wide_gate, broadcast, indices, loads, transposed, repeated, single)
    graph = m.output(*(m.linear(rows(m), 16) for rows in made))
    QuantizeWeights().run(graph)
    loops = [n for n in graph.nodes if isinstance(n.op, Pointwise)]
    if fused:
        assert FuseQuantize().run(graph)
        assert len(loops) == len(made) and all(n.output.packed for n in loops)
    return emit_module(place(graph), arch)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[Any], list[Any]]]:
    """Inputs of three sizes, and what follows if rows are stored before they are quantized."""
    arch = find_target("native").arch
    module = module_of(False, arch)
    context = build(module, native_levels()[0], tmp_path_factory.mktemp("stored")).context(1)
    sizes = ({}, {"B": 1, "T": 1}, {"B": 13, "T": 17})
    inputs = [random_inputs(module.graph, **s) for s in sizes]
    return [(given, context.run(given)) for given in inputs]


def assert_same(got: list[Any], wanted: list[Any]) -> None:
    for number, (one, two) in enumerate(zip(got, wanted, strict=True)):
        np.testing.assert_array_equal(one, two, f"output {number}")


@pytest.mark.parametrize("level", native_levels())
def test_bits_are_those_of_stored_rows(tmp_path: Path, calls: Any, level: str) -> None:
    library = build(module_of(True, find_target("native").arch), level, tmp_path)
    for threads in (1, 2, 5):
        context = library.context(threads)
        for inputs, wanted in calls:
            assert_same(context.run(inputs), wanted)


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize(
    ("level", "bits"), [("neon_dotprod", 128), ("neon_i8mm", 128), ("sve2", 256)]
)
def test_and_on_arm(tmp_path: Path, calls: Any, level: str, bits: int) -> None:
    module = module_of(True, "aarch64")
    weights, names = tmp_path / "weights.bin", [v.name for v in module.graph.inputs]
    module.weights(1).tofile(weights)
    shapes = [v.shape for v in module.graph.inputs]
    program = Emulation(Builder(CACHE, 2), module.source, "aarch64", names, shapes)
    for inputs, wanted in calls:
        assert_same(program.run(weights, inputs, level, bits), wanted)


def test_a_loop_hands_its_rows_to_the_kernel() -> None:
    source = module_of(True, "x86_64").source
    text = source[source.index("typedef struct {") : source.index("static void linear_")]
    assert text == GATE


#: Of the first kind of rows.
GATE = """\
typedef struct {
    const float *x0;
    const float *x1;
} pointwise_mul_quantize_operands;

static void pointwise_mul_quantize_values(const void *operands, int64_t row, int64_t first, \
int64_t end, float *restrict y) {
    const pointwise_mul_quantize_operands *given = operands;
    const float *x0 = given->x0;
    const float *x1 = given->x1;
    const int64_t i0 = row;
    const float *a0 = x0 + i0 * 192;
    const float *a1 = x1 + i0 * 192;
    (void)row, (void)i0;
    for (int64_t i1 = first; i1 < end; i1++) {
        y[i1] = (go_siluf(a0[i1]) * a1[i1]);
    }
}

static void pointwise_mul_quantize(go_team *team, const float *x0, const float *x1, int64_t n0, \
void *restrict dst, void *restrict scratch) {
    const pointwise_mul_quantize_operands operands = {x0, x1};
    const go_pack_lhs_args args = {
        .m = n0,
        .k = 96,
        .dst = dst,
        .values = pointwise_mul_quantize_values,
        .operands = &operands,
        .scratch = scratch,
    };
    go_quantize_rows(team, &args);
}

"""
