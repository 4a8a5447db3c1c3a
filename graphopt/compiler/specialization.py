"""One specialization of a model: captured, cut into parts, planned, built and run."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sympy
import torch
import torch.utils._pytree as pytree

from graphopt.compiler.onnx_export import Exported, weights_of, write_onnx
from graphopt.compiler.onnx_parts import Parts, run_as_node, write_parts
from graphopt.compiler.options import Options
from graphopt.compiler.partition import CompiledPart, TorchPart, partition
from graphopt.compiler.pipeline import PassManager, export, lowering_passes
from graphopt.compiler.profile import Run
from graphopt.compiler.program import Program, Signature
from graphopt.compiler.report import NodeReport, node_reports
from graphopt.compiler.schedule import StepBalance
from graphopt.compiler.stages import Stages
from graphopt.config import Config
from graphopt.errors import (
    InputCountError,
    InputDtypeError,
    InputError,
    InputRankError,
    InputValueError,
    PackageError,
    TorchNodeError,
    UnsupportedNodesError,
)
from graphopt.frontend.call_spec import CallSpec, Output
from graphopt.frontend.capture import capture
from graphopt.frontend.import_torch import TORCH_DTYPES, to_numpy
from graphopt.frontend.size_gate import SizeGate, SizeOf
from graphopt.hosts.torch_ops import (
    evaluate_symbolic,
    register,
    run_program,
    sizes_of,
    to_torch,
)
from graphopt.ir import DType, Graph, Node, Ref, Value, learn_sizes
from graphopt.ir.interpret import check_found, check_sizes, run_graph
from graphopt.ir.ops import Aten
from graphopt.ir.ops.elements import evaluate_scalar
from graphopt.ir.printer import print_graph
from graphopt.ir.scalar import Scalar
from graphopt.progress import announce
from graphopt.runtime import process, structure
from graphopt.runtime.package import MARKS
from graphopt.runtime.staging import replaced_folder

#: Runs a program, of which it also gets the number, on its inputs.
RunPart = Callable[[Program, int, list[torch.Tensor]], Sequence[torch.Tensor]]


class Specialization:
    """One structure of arguments: captured, cut into parts, planned, built.

    The steps from a call of a model to a library, and where they are listed:

    1. `capture` (frontend): torch.export, and what it took for granted as conditions.
    2. `lowering_passes` (pipeline.py): fused `go.*` nodes, the same for every target. Each of them
       but `lower_aten` may be left out (`GRAPHOPT_SKIP`).
    3. `partition`: what no rule lowered stays in torch, between compiled parts.
    4. `precision_passes`, for each part: numbers become narrower; all but `fuse_im2col` optional.
    5. `placement_passes`: strides, tasks, kernels. This tail is never left out.
    6. `plan_memory`, C and packed weights (`Program.module`), then a library for each ISA level
       (`Program.library`, `Program.write`).

    Attributes:
        call: how arguments and results map to tensors.
        graph: the lowered graph.
        options: what it is planned with.
        checked: what the check of the example found (`example_check.py`); empty without one.
        stages: the graph after each pass, if they are kept.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        states: Collection[str] = (),
    ) -> None:
        manager = PassManager(Config.from_environment(), keep=True)
        announce(f"{type(model).__name__}: capture")
        self._weights = weights_of(model)
        captured = capture(model, args, kwargs, options.dynamic_shapes, states)
        self.call: CallSpec = captured.call
        self._parameters = _positional_names(model, len(args))
        self.graph: Graph = captured.graph
        self._texts = {"captured": print_graph(self.graph)}
        manager.run(self.graph, lowering_passes())
        self._texts["lowered"] = print_graph(self.graph)
        self.options = options
        self.checked = ""
        if options.strict:
            self._require_compiled()
        self._inputs, self._outputs = list(self.graph.inputs), list(self.graph.outputs)
        self._gate = SizeGate(self.graph)
        self._parts: list[tuple[CompiledPart, Program, int] | TorchPart] = []
        for part in partition(self.graph):
            if isinstance(part, TorchPart):
                self._parts.append(part)
                continue
            program = Program(part.graph, options, manager)
            program.plan()
            self._parts.append((part, program, register(program)))
        self.stages = manager.stages

    def has_weights_of(self, model: torch.nn.Module) -> bool:
        """Whether the weights of a model are still those that were compiled."""
        return weights_of(model) == self._weights

    def _require_compiled(self) -> None:
        left = [row for row in node_reports(self.graph) if not row.compiled]
        if left:
            raise UnsupportedNodesError(
                [(r.op, r.source or r.module, r.reasons[-1] if r.reasons else "") for r in left]
            )

    def check(self, leaves: Sequence[Any]) -> None:
        """Raises the error of the first leaf that does not fit; other sizes are the runtime's."""
        inputs = iter(self._inputs)
        for i, leaf in enumerate(leaves):
            if i in self.call.constants:
                continue
            value = next(inputs)
            if not isinstance(leaf, torch.Tensor):
                raise InputCountError(f"a tensor as {value.name}", type(leaf).__name__)
            if leaf.dtype is not TORCH_DTYPES[value.dtype]:
                expected = str(TORCH_DTYPES[value.dtype]).removeprefix("torch.")
                raise InputDtypeError(value.name, expected, str(leaf.dtype).removeprefix("torch."))
            if leaf.dim() != value.rank:
                raise InputRankError(value.name, value.shape, leaf.shape)

    @property
    def states(self) -> set[str]:
        """Names of the tensors of the model that a call may change."""
        return {state.name for state in self.call.states}

    def misfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> InputError | None:
        """What is wrong with the sizes of a call of the captured structure; None for nothing."""
        return self.misfit_of(self.call.flatten(args, kwargs))

    def misfit_of(self, tensors: Sequence[torch.Tensor]) -> InputError | None:
        """The same for the tensors of a call."""
        return self._gate.misfit([tensor.shape for tensor in tensors])

    def build(self) -> None:
        """Compiles now what the first call would, unless it is meant for other machines."""
        for _, program, _ in self._programs():
            _ = program.library if self.options.target.is_host else program.module

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls the compiled parts, and torch between them; the result is the model's own."""
        if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
            made = self._run_parts(self.call.flatten(args, kwargs), _run_as_node)
            return self.call.unflatten(made, args, kwargs)
        if torch.compiler.is_compiling():  # a traced call has no process
            return self._run(args, kwargs)
        with process.calls:
            return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outputs = self._outputs_of(self.call.flatten(args, kwargs))
        return self.call.unflatten(list(outputs), args, kwargs)

    def run_tensors(self, tensors: list[torch.Tensor]) -> Any:
        """`run` for the tensors of a call that nobody traces, if `call.is_plain`."""
        with process.calls:
            return self.call.result_of(self._outputs_of(tensors))

    def _outputs_of(self, tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        if len(self._parts) == 1 and not isinstance(self._parts[0], TorchPart):
            return run_program(self._parts[0][2], tensors)
        return self._run_parts(tensors, _run_compiled)

    def interpret(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of the planned graphs in numpy; see `OptimizedModule.interpret`."""
        tensors = self.call.flatten(args, kwargs)
        check_sizes(self.graph, [tuple(t.shape) for t in tensors])
        return self.call.unflatten(self._run_parts(tensors, _run_in_numpy), args, kwargs)

    def planned(self, tensors: list[torch.Tensor]) -> list[tuple[Graph, list[torch.Tensor]]]:
        """The planned graph of every compiled part, with its inputs as numpy computes them."""
        found: list[tuple[Graph, list[torch.Tensor]]] = []

        def run(
            program: Program, number: int, inputs: list[torch.Tensor]
        ) -> Sequence[torch.Tensor]:
            found.append((program.graph, inputs))
            return _run_in_numpy(program, number, inputs)

        self._run_parts(tensors, run)
        return found

    def _run_parts(self, tensors: list[torch.Tensor], run: RunPart) -> list[torch.Tensor]:
        """Runs compiled parts in some way, and torch between them."""
        env: dict[Value, torch.Tensor] = dict(zip(self._inputs, tensors, strict=True))
        sizes = sizes_of(self.graph, tensors)
        for part in self._parts:
            if isinstance(part, TorchPart):
                results = run_in_torch(part.node, env, sizes)
                env.update(zip(part.node.outputs, results, strict=True))
                for value, tensor in zip(part.node.outputs, results, strict=True):
                    learn_sizes(sizes, value, tensor.shape)
                self._check_found([part.node], sizes)
                continue
            compiled, program, number = part
            results = run(program, number, [_of(env, v) for v in compiled.inputs])
            env.update(zip(compiled.outputs, results, strict=True))
            for value, tensor in zip(compiled.outputs, results, strict=True):
                learn_sizes(sizes, value, tensor.shape)
            self._check_found(compiled.graph.nodes, sizes)
        # The caller may write to a result: constants stay what they are.
        return [_of(env, v).clone() if v.is_constant else env[v] for v in self._outputs]

    def _check_found(self, nodes: Sequence[Node], sizes: dict[sympy.Symbol, Any]) -> None:
        """Raises InputConditionError for sizes that nodes found, and that do not fit together."""
        if not torch.compiler.is_compiling():
            for node in nodes:
                if node.op.computes:
                    check_found(self.graph, node.op.computes, sizes)

    def profile(self, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int) -> list[Run]:
        """Times of the compiled parts; see `OptimizedModule.profile`.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            repeats: timed runs of each compiled part.
        """
        found: list[Run] = []

        def run(
            program: Program, number: int, inputs: list[torch.Tensor]
        ) -> Sequence[torch.Tensor]:
            found.append(program.profile([to_numpy(t) for t in inputs], repeats))
            return _run_compiled(program, number, inputs)

        self._run_parts(self.call.flatten(args, kwargs), run)
        return found

    def balance(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cores: int, repeats: int
    ) -> list[StepBalance]:
        """Rows of `OptimizedModule.balance`.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            cores: number of cores on which the tasks fall.
            repeats: runs; of each task the shortest time counts.

        Raises:
            UnsupportedNodesError: if a node stays in torch.
        """
        self._require_compiled()
        ((_, program, _),) = self._programs()
        arrays = [to_numpy(t) for t in self.call.flatten(args, kwargs)]
        return program.balance(arrays, cores, repeats)

    def emulate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], level: str, sve_bits: int
    ) -> Any:
        """The result of the target's own code under an emulator.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            level: ISA level; the most capable of the target if empty.
            sve_bits: length of an SVE vector.

        Raises:
            UnsupportedNodesError: if a node stays in torch.
            MissingEmulatorError: if qemu is not installed.
        """
        self._require_compiled()
        ((_, program, _),) = self._programs()
        arrays = [to_numpy(t) for t in self.call.flatten(args, kwargs)]
        made = program.emulate(arrays, level, sve_bits)
        outputs = [
            to_torch(array.copy(), value.dtype)
            for array, value in zip(made, self._outputs, strict=True)
        ]
        return self.call.unflatten(outputs, args, kwargs)

    def reports(self) -> list[NodeReport]:
        """Rows of the report, part by part."""
        rows: list[NodeReport] = []
        for part in self._parts:
            if isinstance(part, TorchPart):
                rows += node_reports(Graph("", nodes=[part.node]))
            else:
                rows += node_reports(part[1].graph)
        return rows

    def kept_stages(self) -> list[Stages | None]:
        """The graph after each pass, if it was kept."""
        return [self.stages]

    def dumps(self, format: str) -> list[str]:
        """The planned graph of every compiled part; see `export`."""
        return [export(program.graph, format) for program in self.programs()]

    def programs(self) -> list[Program]:
        """What is compiled, part by part."""
        return [program for _, program, _ in self._programs()]

    def _programs(self) -> list[tuple[CompiledPart, Program, int]]:
        return [part for part in self._parts if not isinstance(part, TorchPart)]

    def save(self, path: str | Path) -> None:
        """Writes the package; see `OptimizedModule.save`."""
        self._require_compiled()
        self._require_pure()
        ((_, program, _),) = self._programs()
        texts = {
            "passes/1_captured.txt": self._texts["captured"],
            "passes/2_lowered.txt": self._texts["lowered"],
        }
        with replaced_folder(path, MARKS) as staging:
            program.write(staging, self._signature(), texts)

    def write_onnx(self, path: str | Path, model: torch.nn.Module, plain: bool | None) -> None:
        """Writes an ONNX file and its package; see `OptimizedModule.to_onnx`.

        Args:
            path: of the file.
            model: what was captured, for its plain form.
            plain: whether with that.
        """
        self._require_pure()
        if not self.has_weights_of(model):
            raise PackageError(
                f"the weights of {self.graph.name} are others than those that were compiled; "
                "optimize the model again"
            )
        signature, programs = self._signature(), self._programs()
        left = [part.node.op.name for part in self._parts if isinstance(part, TorchPart)]
        if not programs:
            self._require_compiled()
        exported = Exported(
            model,
            self.call,
            self.graph if left else programs[0][1].graph,
            signature.outputs,
            self._texts["captured"],
            self.options.target,
        )
        if left:
            numbers = {number: program for _, program, number in programs}
            write_parts(path, Parts(exported, left, numbers, self._traced), plain)
        else:
            program = programs[0][1]
            write_onnx(path, exported, lambda folder: program.write(folder, signature), plain)

    def _traced(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs by compiled parts and torch, for a trace."""
        return self._run_parts(tensors, _run_compiled)

    def _signature(self) -> Signature:
        call, tensors = self.call, itertools.count()
        leaves = [
            call.constants[i] if i in call.constants else structure.Leaf(next(tensors))
            for i in range(call.in_spec.num_leaves)
        ]
        results = [
            structure.Leaf(leaf.index) if isinstance(leaf, Output) else leaf
            for leaf in call.out_leaves
        ]
        return Signature(
            pytree.tree_unflatten(leaves, call.in_spec),
            pytree.tree_unflatten(results, call.out_spec),
            self._parameters,
            tuple(f"output{i}" for i in range(len(self._outputs))),
            call.changes_arguments,
        )

    def _require_pure(self) -> None:
        """Raises PackageError for what tensors of the model, or of the caller, have to do with."""
        for write in self.call.writes:
            name = self._inputs[write.target].name
            what = (
                f"its buffer {name!r}" if name in self.states else f"the caller's tensor {name!r}"
            )
            raise PackageError(
                f"{self.graph.name} writes in place to {what}, which a package cannot; return the "
                "new value, and take the old one as an argument"
            )
        if sizes := [leaf for leaf in self.call.out_leaves if isinstance(leaf, SizeOf)]:
            raise PackageError(
                f"{self.graph.name} returns the size {sizes[0]}, which a package cannot; return a "
                "tensor, or read the size of one"
            )


def _positional_names(model: torch.nn.Module, count: int) -> tuple[str, ...]:
    """Names of the first `count` positional parameters, which a caller may use as keywords."""
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = list(inspect.signature(model.forward).parameters.values())[:count]
    return tuple(p.name for p in itertools.takewhile(lambda p: p.kind is kinds, parameters))


def _run_compiled(
    program: Program, number: int, inputs: list[torch.Tensor]
) -> Sequence[torch.Tensor]:
    return run_program(number, inputs)


def _run_as_node(
    program: Program, number: int, inputs: list[torch.Tensor]
) -> Sequence[torch.Tensor]:
    return run_as_node(program, inputs)


def _run_in_numpy(
    program: Program, number: int, inputs: list[torch.Tensor]
) -> Sequence[torch.Tensor]:
    made = run_graph(program.graph, [to_numpy(t) for t in inputs])
    return [
        to_torch(np.array(array), value.dtype)
        for array, value in zip(made, program.graph.outputs, strict=True)
    ]


def _of(env: dict[Value, torch.Tensor], value: Value) -> torch.Tensor:
    if value.data is not None:
        return to_torch(value.data, value.dtype)
    return env[value]


#: Where tensors are and how they lie, which a graph knows without: given only where it must be.
_PLACEMENT = {"device", "layout", "pin_memory", "memory_format"}


def _call(op: Callable[..., Any], given: dict[str, Any]) -> Any:
    return op(**given)


def run_in_torch(
    node: Node,
    env: dict[Value, torch.Tensor],
    sizes: dict[sympy.Symbol, Any],
    is_dense: bool = True,
    call: Callable[[Callable[..., Any], dict[str, Any]], Any] = _call,
) -> Sequence[torch.Tensor]:
    """Runs an `aten.*` node that was not lowered.

    Its tensors are dense, as they were in the capture: a graph knows no strides.

    Args:
        node: an `aten.*` node.
        env: tensors of the values that are known so far; constants need none.
        sizes: of the dims that its arguments name.
        is_dense: whether operands are made dense first.
        call: calls the op with its arguments.

    Returns:
        One tensor for each output.

    Raises:
        TorchNodeError: if torch raises an error.
    """
    operands, aten = node.inputs, node.as_op(Aten)

    def convert(value: Any) -> Any:
        if isinstance(value, Ref):
            tensor = _of(env, operands[value.index])
            return tensor.contiguous() if is_dense else tensor
        if isinstance(value, list):
            return [convert(item) for item in value]
        if isinstance(value, DType):
            return TORCH_DTYPES[value]
        if isinstance(value, sympy.Expr):
            return evaluate_symbolic(value, sizes)
        if isinstance(value, Scalar):
            return float(evaluate_scalar(value, [], (), sizes))
        return value

    namespace, name, overload = aten.overload.split(".")
    op = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    required = {a.name for a in op._schema.arguments if not a.has_default_value()}
    passed = {k: v for k, v in aten.arguments.items() if k in required or k not in _PLACEMENT}
    kwargs = {k: convert(v) for k, v in passed.items()}
    try:
        result = call(op, kwargs)
    except Exception as error:
        if torch.compiler.is_compiling():  # which asks for other sizes by errors
            raise
        where = node.origin.source or node.origin.module
        raise TorchNodeError(node.op.name, where, error) from error
    if aten.dim and isinstance(result, int | torch.SymInt):
        if not torch.compiler.is_compiling() and result < 0:
            what = f"a size that {node.origin.code or node.op.name} computes is negative"
            raise InputValueError(what, 0, int(result))
        result = torch.arange(result)  # type: ignore[arg-type]
    if not node.outputs:  # a number that the graph knows
        return []
    return list(result) if isinstance(result, tuple | list) else [result]
