"""`optimize`, and the drop-in module that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sympy
import torch
import torch.utils._pytree as pytree

from graphopt import structure
from graphopt._version import VERSION
from graphopt.capture import CallSpec, Output, call_key, capture
from graphopt.codegen.link_torch import evaluate_symbolic, register, sizes_of, to_torch
from graphopt.config import Config
from graphopt.errors import InputCountError, PackageError, TrainingModeError, UnsupportedNodesError
from graphopt.import_torch import TORCH_DTYPES, to_numpy
from graphopt.ir import DType, Graph, Node, Ref, Value
from graphopt.kernels import registry
from graphopt.package import FORMAT, Manifest, Port, write_package
from graphopt.partition import CompiledPart, TorchPart, partition
from graphopt.pipeline import PassManager, lowering_passes
from graphopt.printer import print_graph
from graphopt.program import Program
from graphopt.progress import announce
from graphopt.report import NodeReport, Report, node_reports
from graphopt.target import Target, find_target


def optimize(
    model: torch.nn.Module,
    target: str | Target = "native",
    example_inputs: tuple[Any, ...] | dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    precision: str = "auto",
    num_threads: int | None = None,
    strict: bool = False,
) -> OptimizedModule:
    """Compiles a model for a target and returns a module that is called like it.

    Args:
        model: any module in eval mode. It keeps its weights; the result does not follow changes.
        target: `native`, `neoverse-n2`, ... (`graphopt targets` lists them).
        example_inputs: positional arguments (tuple) or keyword arguments (dict); the model is
            captured at once. Without them it is captured at the first call, and again for a call of
            another structure.
        dynamic_shapes: sizes that vary, in the format of torch.export. By default the first axis of
            every tensor and every other one that the model leaves open.
        precision: `fp32`, `bf16`, `int8`, `int8+bf16`, or `auto`: the fastest that the target has
            matrix instructions for.
        num_threads: threads of a run; all CPUs that this process may use if None.
        strict: refuse a model of which a node would stay in torch.

    Raises:
        TrainingModeError, UnknownTargetError, UnknownPrecisionError: naming what is wrong.
        CaptureError: if the model cannot be captured; names the line.
        UnsupportedNodesError: with `strict`, listing the nodes and the reasons.
    """
    if model.training:
        raise TrainingModeError(type(model).__name__)
    found = find_target(target)
    options = Options(found, found.precision(precision), num_threads, strict, dynamic_shapes)
    module = OptimizedModule(model, options)
    if isinstance(example_inputs, dict):
        module.prepare(**example_inputs)
    elif example_inputs is not None:
        module.prepare(*example_inputs)
    return module


@dataclass(frozen=True)
class Options:
    """What `optimize` was asked for, resolved."""

    target: Target
    precision: str
    num_threads: int | None
    strict: bool
    dynamic_shapes: Any


class OptimizedModule(torch.nn.Module):
    """A compiled model: the signature, structure and dtypes of the original.

    Attributes:
        options: what it was compiled with.
    """

    def __init__(self, model: torch.nn.Module, options: Options) -> None:
        super().__init__()
        # In a tuple, so that the model's parameters are not parameters of this module too.
        self._model = (model,)
        self.options = options
        self._forms: dict[tuple[Any, ...], _Form] = {}
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the compiled model.

        Raises:
            InputError: if an argument does not fit what was compiled.
        """
        return self._form(args, kwargs).run(args, kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Captures and builds for calls of the form of these arguments."""
        self._form(args, kwargs).build()

    def report(self) -> Report:
        """Every node: compiled or not, kernel, reasons."""
        rows = [row for form in self._captured() for row in form.reports()]
        options = self.options
        name = type(self._model[0]).__name__
        return Report(name, options.target.name, options.precision, options.target.levels, tuple(rows))

    def profile(self, *args: Any, repeats: int = 5, **kwargs: Any) -> list[dict[str, Any]]:
        """Median milliseconds, multiply-adds and bytes of every compiled step on this machine.

        Returns:
            One dict a step: `node`, `op`, `kernel`, `module`, `ms`, `macs`, `bytes`.
        """
        return self._form(args, kwargs).profile(args, kwargs, repeats)

    def emulate(self, *args: Any, sve_bits: int = 128, level: str = "", **kwargs: Any) -> Any:
        """Runs the code built for the target, under qemu where this machine differs.

        Args:
            *args: arguments of the model.
            sve_bits: length of an SVE vector.
            level: ISA level; the most capable of the target if empty.
            **kwargs: arguments of the model.

        Raises:
            MissingEmulatorError: if qemu is not installed.
        """
        return self._form(args, kwargs).emulate(args, kwargs, level, sve_bits)

    def save(self, path: str | Path) -> None:
        """Writes a package that `graphopt.load` runs without torch and compiler.

        Raises:
            PackageError: if nothing, or more than one call form, was captured.
            UnsupportedNodesError: if a node needs torch.
        """
        forms = self._captured()
        if len(forms) != 1:
            raise PackageError(
                f"{len(forms)} call forms were captured and a package holds one; optimize with "
                "example_inputs= and save before other calls"
            )
        forms[0].save(Path(path))

    def dump(self) -> str:
        """The planned graphs as text, with reasons."""
        return "\n".join(text for form in self._captured() for text in form.dumps())

    def _captured(self) -> list[_Form]:
        return list(self._forms.values())

    def _form(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Form:
        key = call_key(args, kwargs)
        if key not in self._forms:
            self._refuse_near_miss(args, kwargs)
            self._forms[key] = _Form(self._model[0], args, kwargs, self.options)
        return self._forms[key]

    def _refuse_near_miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call of a known structure with another dtype or rank is a mistake, not a new form."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        for form in self._captured():
            if form.call.in_spec == spec:
                form.check(leaves)


class _Form:
    """One structure of arguments: captured, partitioned, planned, built."""

    def __init__(
        self,
        model: torch.nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
    ) -> None:
        config = Config.from_environment()
        manager = PassManager(config)
        announce(f"{type(model).__name__}: capture")
        captured = capture(model, args, kwargs, options.dynamic_shapes)
        self.call: CallSpec = captured.call
        self.graph: Graph = captured.graph
        self._texts = {"captured": print_graph(self.graph)}
        manager.run(self.graph, lowering_passes())
        self._texts["lowered"] = print_graph(self.graph)
        self._options = options
        if options.strict:
            self._require_compiled()
        self._inputs, self._outputs = list(self.graph.inputs), list(self.graph.outputs)
        self._parts: list[tuple[CompiledPart, Program, int] | TorchPart] = []
        for part in partition(self.graph):
            if isinstance(part, TorchPart):
                self._parts.append(part)
                continue
            program = Program(
                part.graph,
                options.target,
                options.precision,
                options.num_threads,
                config,
                manager,
            )
            program.plan()
            self._parts.append((part, program, register(program)))

    def _require_compiled(self) -> None:
        left = [row for row in node_reports(self.graph) if not row.compiled]
        if left:
            raise UnsupportedNodesError(
                [(r.op, r.source or r.module, r.reasons[-1] if r.reasons else "") for r in left]
            )

    def check(self, leaves: Sequence[Any]) -> None:
        """Raises the error of the first leaf that does not fit; other sizes are the runtime's."""
        from graphopt.errors import InputDtypeError, InputRankError

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

    def build(self) -> None:
        """Compiles everything that this machine runs now instead of at the first call."""
        for _, program, _ in self._programs():
            _ = program.library

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tensors = self.call.flatten(args, kwargs)
        if len(self._parts) == 1 and not isinstance(self._parts[0], TorchPart):
            outputs = torch.ops.graphopt.run(self._parts[0][2], tensors)
        else:
            outputs = self._run_parts(tensors, None)
        return self.call.unflatten(list(outputs), args, kwargs)

    def _run_parts(self, tensors: list[torch.Tensor], times: dict[int, Any] | None) -> list[Any]:
        env: dict[Value, torch.Tensor] = dict(zip(self._inputs, tensors, strict=True))
        sizes = sizes_of(self.graph, tensors)
        for part in self._parts:
            if isinstance(part, TorchPart):
                results = run_in_torch(part.node, env, sizes)
                env.update(zip(part.node.outputs, results, strict=True))
                continue
            compiled, program, number = part
            inputs = [_of(env, v) for v in compiled.inputs]
            if times is not None:
                times[number] = program.profile([to_numpy(t) for t in inputs], times["repeats"])  # type: ignore[index]
            results = torch.ops.graphopt.run(number, inputs)
            env.update(zip(compiled.outputs, results, strict=True))
        return [_of(env, v) for v in self._outputs]

    def profile(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int
    ) -> list[dict[str, Any]]:
        times: dict[Any, Any] = {"repeats": repeats}
        self._run_parts(self.call.flatten(args, kwargs), times)
        return [row for _, _, number in self._programs() for row in times[number]]

    def emulate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], level: str, sve_bits: int
    ) -> Any:
        self._require_compiled()
        (_, program, _), = self._programs()
        arrays = [to_numpy(t) for t in self.call.flatten(args, kwargs)]
        made = program.emulate(arrays, level, sve_bits)
        outputs = [
            to_torch(array.copy(), value.dtype)
            for array, value in zip(made, self._outputs, strict=True)
        ]
        return self.call.unflatten(outputs, args, kwargs)

    def reports(self) -> list[NodeReport]:
        rows: list[NodeReport] = []
        for part in self._parts:
            if isinstance(part, TorchPart):
                rows += node_reports(Graph("", nodes=[part.node]))
            else:
                rows += node_reports(part[1].graph)
        return rows

    def dumps(self) -> list[str]:
        return [print_graph(program.graph, reasons=True) for _, program, _ in self._programs()]

    def _programs(self) -> list[tuple[CompiledPart, Program, int]]:
        return [part for part in self._parts if not isinstance(part, TorchPart)]

    def save(self, path: Path) -> None:
        self._require_compiled()
        (_, program, _), = self._programs()
        module = program.module
        files: dict[str, Path | str] = {
            "module.c": module.source,
            "weights.bin": program.weights_file(module),
            "passes/1_captured.txt": self._texts["captured"],
            "passes/2_lowered.txt": self._texts["lowered"],
            "passes/3_planned.txt": print_graph(program.graph, reasons=True),
        }
        target = self._options.target
        for name in target.levels:
            level = registry.level(target.arch, name)
            files[f"lib/{name}.so"] = program.builder.library(module.source, level)
        announce(f"{self.graph.name}: write {path.name}")
        write_package(path, self._manifest(program), files)

    def _manifest(self, program: Program) -> Manifest:
        target = self._options.target
        count = self.call.in_spec.num_leaves
        leaves: list[Any] = []
        for i in range(count):
            constant = i in self.call.constants
            tensors_before = sum(not isinstance(x, _Constant) for x in leaves)
            leaves.append(
                _Constant(self.call.constants[i]) if constant else structure.Leaf(tensors_before)
            )
        leaves = [x.value if isinstance(x, _Constant) else x for x in leaves]
        results = [
            structure.Leaf(leaf.index) if isinstance(leaf, Output) else leaf
            for leaf in self.call.out_leaves
        ]
        steps = tuple(
            {
                "node": step.comment.partition(" = ")[0],
                "op": step.node.op,
                "kernel": step.node.attrs.get("kernel", ""),
                "module": step.node.origin.module,
            }
            for step in program.module.steps
        )
        return Manifest(
            format=FORMAT,
            version=VERSION,
            name=self.graph.name,
            target=target.name,
            arch=target.arch,
            precision=self._options.precision,
            levels=target.levels,
            inputs=tuple(_port(v, v.name) for v in self._inputs),
            outputs=tuple(_port(v, f"output{i}") for i, v in enumerate(self._outputs)),
            call=structure.describe(pytree.tree_unflatten(leaves, self.call.in_spec)),
            result=structure.describe(pytree.tree_unflatten(results, self.call.out_spec)),
            changes_arguments=self.call.changes_arguments,
            steps=steps,
        )


@dataclass(frozen=True)
class _Constant:
    value: Any


def _port(value: Value, name: str) -> Port:
    return Port(name, value.dtype.value, tuple(e if isinstance(e, int) else str(e) for e in value.shape))


def _of(env: dict[Value, torch.Tensor], value: Value) -> torch.Tensor:
    if value.data is not None:
        return to_torch(value.data, value.dtype)
    return env[value]


def run_in_torch(
    node: Node, env: dict[Value, torch.Tensor], sizes: dict[sympy.Symbol, Any]
) -> Sequence[torch.Tensor]:
    """Runs an `aten.*` node that was not lowered."""

    def convert(value: Any) -> Any:
        if isinstance(value, Ref):
            return _of(env, node.inputs[value.index])
        if isinstance(value, list):
            return [convert(item) for item in value]
        if isinstance(value, DType):
            return TORCH_DTYPES[value]
        if isinstance(value, sympy.Expr):
            return evaluate_symbolic(value, sizes)
        return value

    namespace, name, overload = node.attrs["target"].split(".")
    op = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    placement = {"target", "size", "device", "layout", "pin_memory", "memory_format"}
    schema = {a.name for a in op._schema.arguments}
    kwargs = {
        key: convert(value)
        for key, value in node.attrs.items()
        if key in schema and (key not in placement or (key == "size" and "size" in schema))
    }
    result = op(**kwargs)
    return list(result) if isinstance(result, tuple | list) else [result]
