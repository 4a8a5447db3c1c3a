"""Compiled programs as one torch custom op: torch.compile and torch.export see through them.

`graphopt::run(int program, Tensor[] inputs) -> Tensor[]`: `program` is a number that `register`
gave, which no other program has in this process or another: graphs of torch.export outlive it. The
fake implementation computes the shapes of the results from those of the inputs.
"""

from __future__ import annotations

import secrets
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import sympy
import torch

from graphopt.errors import ProgramError
from graphopt.frontend.import_torch import TORCH_DTYPES, to_numpy
from graphopt.ir import Dim, DType, Graph
from graphopt.ir.symbolic import compute, ratio

_programs: weakref.WeakValueDictionary[int, Runnable] = weakref.WeakValueDictionary()


class Runnable(Protocol):
    """What is compiled of a graph, and runs.

    Attributes:
        graph: says dtypes and shapes of results.
    """

    graph: Graph

    def run(self, inputs: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """The graph's outputs for stored arrays (bf16 as uint16), one for each of its inputs."""


def register(program: Runnable) -> int:
    """Makes a program callable as `torch.ops.graphopt.run(number, inputs)` while it lives."""
    number = secrets.randbits(62)
    _programs[number] = program
    return number


def is_watched() -> bool:
    """Whether anything sees or changes what operators do: a trace, a mode, vmap, a profiler."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._autograd._profiler_enabled()
    )


def run_program(program: int, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """`torch.ops.graphopt.run`, past torch's dispatcher where nobody can tell.

    A custom op in Python costs many times what the call of a compiled program does.
    """
    tracked = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if tracked or is_watched() or any(type(t) is not torch.Tensor for t in inputs):
        results: Sequence[torch.Tensor] = torch.ops.graphopt.run(program, inputs)
        return results
    return _run(program, inputs)


def _program(number: int) -> Runnable:
    found = _programs.get(number)
    if found is None:
        raise ProgramError()
    return found


def _run(program: int, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    compiled = _program(program)
    arrays = compiled.run([to_numpy(t) for t in inputs])
    return [
        to_torch(array, value.dtype)
        for array, value in zip(arrays, compiled.graph.outputs, strict=True)
    ]


# Without a device: a part that depends on sizes and constants alone has no tensor to tell it from.
@torch.library.custom_op("graphopt::run", mutates_args=())
def run(program: int, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Runs a registered program on dense CPU tensors."""
    return _run(program, inputs)


@run.register_fake
def _run_fake(program: int, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    graph = _program(program).graph
    sizes = sizes_of(graph, inputs)
    for info in graph.dims.values():
        if info.bound is not None:
            sizes[info.symbol] = torch.library.get_ctx().new_dynamic_size()
    device = inputs[0].device if inputs else "cpu"
    return [
        torch.empty(
            [evaluate_symbolic(e, sizes) for e in value.shape],
            dtype=TORCH_DTYPES[value.dtype],
            device=device,
        )
        for value in graph.outputs
    ]


def to_torch(array: np.ndarray[Any, Any], dtype: DType) -> torch.Tensor:
    """An array of the runtime as a tensor, without a copy."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype is DType.BF16 else tensor


def sizes_of(graph: Graph, inputs: Sequence[torch.Tensor]) -> dict[sympy.Symbol, Any]:
    """The dims of a graph that its inputs have; symbolic while torch traces."""
    return graph.sizes([tensor.shape for tensor in inputs])


def evaluate_symbolic(size: Dim, sizes: dict[sympy.Symbol, Any]) -> Any:
    """A size of the graph with torch's sizes, which may be symbolic, in place of its dims."""
    if isinstance(size, int):
        return size
    numerator, denominator = (
        compute(part, sizes, torch.sym_max, torch.sym_min) for part in ratio(size)
    )
    return numerator if denominator == 1 else numerator // denominator
