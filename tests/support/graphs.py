"""Tiny graphs: written by hand or captured, run in numpy, through a pass, or compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.codegen.emit import Module, emit_module
from graphopt.compiler.pipeline import placement_passes
from graphopt.config import Config
from graphopt.ir import Dim, DimInfo, DType, Graph, Node, Shape, Value, scalar, symbolic
from graphopt.ir.interpret import run_graph
from graphopt.ir.numbers import narrow, widen
from graphopt.ir.op import Op
from graphopt.ir.ops import (
    Aten,
    Conv,
    Depthwise,
    Gather,
    Linear,
    Norm,
    Permute,
    Pointwise,
    QuantizeRows,
    Reshape,
    Slice,
)
from graphopt.ir.ops.contractions import RESIDUALS
from graphopt.ir.printer import print_graph
from graphopt.ir.scalar import Scalar
from graphopt.ir.verify import verify
from graphopt.kernels import reference, registry
from graphopt.kernels.formats import INT8
from graphopt.passes.base import Pass
from graphopt.runtime.library import Library
from graphopt.target import find_target
from graphopt.testing import FP32_SAME, relative_error
from graphopt.toolchain.build import Builder

F32, BF16, I64, BOOL = DType.F32, DType.BF16, DType.I64, DType.BOOL
CACHE = Config.from_environment().cache
X = scalar.operand(0, F32)
Y = scalar.operand(1, F32)
Array = np.ndarray[Any, Any]


class Maker:
    """Writes a graph: `m.input(...)`, `m.op(...)`, `m.output(...)`; dims are named by strings.

    `B` is 2 and `T` 5 in the example inputs; other names are 3.
    """

    def __init__(self, name: str = "tiny") -> None:
        self.graph = Graph(name)
        self._random = np.random.default_rng(0)

    def shape(self, *extents: int | str | Dim) -> Shape:
        """Extents with names replaced by symbols."""
        return tuple(symbolic.symbol(e) if isinstance(e, str) else e for e in extents)

    def input(self, name: str, *extents: int | str, dtype: DType = F32) -> Value:
        value = Value(dtype, self.shape(*extents), name)
        position = len(self.graph.inputs)
        for axis, extent in enumerate(extents):
            if isinstance(extent, str):
                info = self.graph.dims.get(extent)
                sources = (*(info.sources if info else ()), (position, axis))
                hint = {"B": 2, "T": 5}.get(extent, 3)
                self.graph.dims[extent] = DimInfo(symbolic.symbol(extent), hint, sources)
        self.graph.inputs.append(value)
        return value

    def constant(self, name: str, *extents: int, data: Array | None = None) -> Value:
        if data is None:
            data = self._random.standard_normal(extents).astype(np.float32)
        return Value(DType.of(data), data.shape, name, data=data)

    def op(self, op: Op, *operands: Value, shape: Shape | None = None, **named: Value) -> Value:
        """A node with one output; see `Node.of`."""
        self.graph.nodes.append(Node.of(op, *operands, shape=shape, **named))
        return self.graph.nodes[-1].output

    def torch(self, name: str, *operands: Value, dtype: DType = F32, **arguments: Any) -> Value:
        """A node that stays in torch, with a result of the shape of its first operand."""
        given = {f"x{i}": v for i, v in enumerate(operands)}
        value = Value(dtype, operands[0].shape if operands else (4,))
        self.graph.nodes.append(Node(Aten(f"aten.{name}", arguments), given, [value]))
        return value

    def pointwise(self, expr: Scalar, *inputs: Value, shape: Sequence[int | str] = ()) -> Value:
        rank = max((v.rank for v in inputs), default=0)
        padded = [(1,) * (rank - v.rank) + v.shape for v in inputs]
        broadcast = [next((e for e in axis if e != 1), 1) for axis in zip(*padded, strict=True)]
        return self.op(Pointwise(expr, self.shape(*(shape or broadcast))), *inputs)

    def linear(
        self, x: Value, out: int, bias: bool = True, name: str = "w", op: Linear | None = None
    ) -> Value:
        weight = self.constant(name, out, int(x.shape[-1]))
        added = {"bias": self.constant(f"{name}_bias", out)} if bias else {}
        return self.op(op or Linear(), x, weight, **added)

    def quantized(self, x: Value, out: int, name: str = "w") -> Value:
        """A linear in int8 of rows that are quantized for it."""
        rows, k = self.op(QuantizeRows(), x), int(x.shape[-1])
        channels = reference.quantize_channels(self._random.standard_normal((out, k)))
        scale = self.constant(f"{name}.scale", data=channels.scale)
        weight = self.constant(name, data=channels.q)
        bias = self.constant(f"{name}_bias", out)
        return self.op(Linear(format=INT8), rows, weight, scale, bias=bias)

    def norm(self, x: Value) -> Value:
        c = int(x.shape[-1])
        return self.op(Norm(1e-5, False), x, self.constant("gain", c), self.constant("shift", c))

    def permute(self, x: Value, *axes: int) -> Value:
        return self.op(Permute(axes), x)

    def reshape(self, x: Value, *extents: int | str | Dim) -> Value:
        return self.op(Reshape(self.shape(*extents)), x)

    def slice(self, x: Value, axis: int, start: Dim, extent: Dim, step: int = 1) -> Value:
        return self.op(Slice(axis, start, extent, step), x)

    def depthwise(self, x: Value, taps: int = 3, left: int = 1, **attributes: Any) -> Value:
        weight = self.constant("taps", taps, int(x.shape[2]))
        return self.op(Depthwise(1, 1, left, x.shape[1], **attributes), x, weight)

    def conv(self, x: Value, weight: Value, *extents: int | str | Dim, **given: Any) -> Value:
        """A convolution of one tap's reach, unless said otherwise; `extents` are the result's."""
        operands = {k: given.pop(k) for k in ("bias", *RESIDUALS, "factor") if k in given}
        still = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        return self.op(
            Conv(**{**still, **given}), x, weight, shape=self.shape(*extents), **operands
        )

    def output(self, *values: Value) -> Graph:
        self.graph.outputs = list(values)
        return self.graph


def tied(width: int = 40, rows: int = 37) -> Graph:
    """A lookup in a table, and a linear by it."""
    m = Maker()
    table = m.constant("w", rows, width)
    tokens = m.input("tokens", "B", "T", dtype=I64)
    x = m.input("x", "B", width)
    return m.output(m.op(Gather(), table, tokens), m.op(Linear(), x, table))


def add(a: Scalar = X, b: Scalar = Y) -> Scalar:
    return scalar.apply("add", a, b)


def mul(a: Scalar = X, b: Scalar | float = Y) -> Scalar:
    return scalar.apply("mul", a, b if isinstance(b, Scalar) else scalar.const(b, F32))


def random_inputs(graph: Graph, seed: int = 1, **sizes: int) -> list[Array]:
    """Stored arrays for the inputs; dims not named have the size of their hint."""
    random = np.random.default_rng(seed)
    dims = {i.symbol: sizes.get(name, i.hint) for name, i in graph.dims.items()}
    arrays = []
    for value in graph.inputs:
        shape = tuple(symbolic.evaluate(e, dims) for e in value.shape)
        if value.dtype.is_float:
            arrays.append(narrow(random.standard_normal(shape).astype(np.float32), value.dtype))
        elif value.dtype is BOOL:
            arrays.append(random.integers(0, 2, shape).astype(bool))
        else:
            arrays.append(random.integers(0, 4, shape).astype(value.dtype.numpy))
    return arrays


def assert_close(
    got: Sequence[Array],
    wanted: Sequence[Array],
    bound: float = FP32_SAME,
    dtypes: Sequence[DType] = (),
) -> None:
    """Floats within the bound, everything else equal; bf16 (by `dtypes`) is compared as numbers."""
    assert len(got) == len(wanted)
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape
        if dtypes and dtypes[i] is BF16:
            a, b = widen(a, BF16), widen(b, BF16)
        if a.dtype.kind == "f":
            error = relative_error(a, b)
            assert error <= bound, f"output {i}: relative error {error:.3g} above {bound:.3g}"
        else:
            np.testing.assert_array_equal(a, b)


def check_pass(
    step: Pass, graph: Graph, bound: float = FP32_SAME, numbers: bool = True, **sizes: int
) -> str:
    """Runs a pass that must change the graph, once; returns the new text.

    The verifier must be content, the numbers (in numpy) the same, and a second run without effect.
    """
    inputs = random_inputs(graph, **sizes)
    before = run_graph(graph, inputs) if numbers else []
    text = print_graph(graph)
    verify(graph, "the test")
    assert step.run(graph), f"{step.name} did not change:\n{text}"
    verify(graph, step.name)
    after = print_graph(graph)
    assert after != text or step.name == "lower_aten"
    if numbers:
        assert_close(run_graph(graph, inputs), before, bound)
    reasons = print_graph(graph, reasons=True)
    assert not step.run(graph), f"{step.name} changed its own result:\n{after}"
    assert print_graph(graph, reasons=True) == reasons
    return after


def check_left_alone(step: Pass, graph: Graph) -> None:
    """Runs a pass that must not change the graph."""
    verify(graph, "the test")
    before = print_graph(graph)
    modified = step.run(graph)
    assert print_graph(graph) == before
    assert not modified


def ops(graph: Graph) -> list[str]:
    """The op of every node, without prefix."""
    return [n.op.name.removeprefix("go.") for n in graph.nodes]


def native_levels() -> list[str]:
    """Names of the ISA levels of this machine."""
    return [level.name for level in registry.host_levels()]


def place(graph: Graph) -> Graph:
    """Layouts, tasks and kernels."""
    target = find_target("native")
    for step in placement_passes(target):
        step.run(graph)
        verify(graph, step.name)
    return graph


def emit(graph: Graph) -> Module:
    """The C module of a graph that has no layouts yet, for this machine."""
    return emit_module(place(graph), find_target("native").arch)


def build(module: Module, level: str, folder: Path) -> Library:
    """The compiled module."""
    target = find_target("native")
    library = Builder(CACHE, 2).library(module.source, registry.level(target.arch, level))
    weights = folder / "weights.bin"
    module.weights(1).tofile(weights)
    inputs = module.graph.inputs
    return Library(library, weights, [v.name for v in inputs], [v.shape for v in inputs])


def check_native(
    graph: Graph,
    folder: Path,
    levels: Sequence[str] | None = None,
    bound: float = FP32_SAME,
    sizes: Sequence[dict[str, int]] = ({},),
    wanted: Callable[[list[Array]], list[Array]] | None = None,
) -> Module:
    """Compiles a graph and compares it with numpy (or `wanted`) at 1, 2 and 3 threads."""
    cases = [random_inputs(graph, **s) for s in sizes]
    references = [wanted(c) if wanted else run_graph(graph, c) for c in cases]
    module = emit(graph)
    for level in levels or native_levels()[-1:]:
        library = build(module, level, folder)
        for threads in (1, 2, 3):
            context = library.context(threads)
            for inputs, expected in zip(cases, references, strict=True):
                got = context.run(inputs)
                assert_close(got, expected, bound, [v.dtype for v in graph.outputs])
    return module
