"""An `ExportedProgram` of torch.export as a `Graph` of `aten.*` nodes."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import sympy
import torch
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from graphopt.errors import CaptureError
from graphopt.frontend.constants import Constants
from graphopt.frontend.data_sizes import bound_read_sizes
from graphopt.frontend.guards import Guards
from graphopt.frontend.program_sizes import ProgramSizes
from graphopt.frontend.user_lines import encodable, origin_of
from graphopt.ir import DType, Graph, Node, Ref, Value, symbolic
from graphopt.ir.ops import Aten
from graphopt.ir.scalar import Scalar, symbols_in
from graphopt.runtime.library import dense_tensor

_DTYPES = {
    torch.float32: DType.F32,
    torch.bfloat16: DType.BF16,
    torch.float16: DType.F16,
    torch.float64: DType.F64,
    torch.bool: DType.BOOL,
    torch.uint8: DType.U8,
    torch.int8: DType.I8,
    torch.int16: DType.I16,
    torch.int32: DType.I32,
    torch.int64: DType.I64,
}
TORCH_DTYPES = {ours: theirs for theirs, ours in _DTYPES.items()}

#: Ops that are in place by name, but leave the numbers as they are.
WRITES_NOTHING = {"aten::detach_"}
#: What to do about constructs that hold graphs of their own.
_NESTED = {
    "autocast": "leave torch.autocast out: precision= says what graphopt computes in",
    "cond": "optimize the branches one by one, and choose between them outside",
    "loop": "optimize the body, and loop outside",
    "grad": "leave the change of the gradient mode out: graphopt computes without gradients",
}
_STATE_WRITES = {OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION}
_GUARDS = {"_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range_for_size"}


def schema_text(schema: torch.FunctionSchema) -> str:
    """A schema without marks of aliasing; of `relu_`, say, that of `relu`."""
    text = re.sub(r"(?<=Tensor)\([a-z](?:[!| ][^)]*)?\)", "", str(schema))
    return re.sub(r"_(?=[.(])", "", text, count=1) if schema.is_mutable else text


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The tensor's elements, without a copy where possible; bf16 as uint16.

    Raises:
        OutOfMemoryError: without memory for a copy.
    """
    tensor = dense_tensor(tensor)
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    return tensor.numpy()


@dataclass(frozen=True)
class Imported:
    """The graph of an exported program.

    Attributes:
        graph: its inputs are those of the program, then states.
        leaves: for each leaf of the result ("output", index), ("size", expression of sizes) or
            ("constant", value).
        states: paths of the tensors of the model that are inputs.
        writes: (output, input) for what is written to inputs in place.
    """

    graph: Graph
    leaves: list[tuple[str, Any]]
    states: list[str]
    writes: list[tuple[int, int]]


def import_program(
    program: ExportedProgram,
    guards: Guards,
    name: str,
    input_names: Sequence[str],
    states: Collection[str] = (),
) -> Imported:
    """Builds the graph of an exported program.

    Args:
        program: what torch.export returned for a function of tensors.
        guards: of the program.
        name: name of the graph.
        input_names: a name for each tensor input.
        states: paths of tensors of the model that are inputs, beside those that it writes to.

    Raises:
        CaptureError: for dtypes and constructs that the graph cannot hold.
    """
    return _Importer(program, guards, name, input_names, states).run()


class _Importer:
    def __init__(
        self,
        program: ExportedProgram,
        guards: Guards,
        name: str,
        input_names: Sequence[str],
        states: Collection[str],
    ) -> None:
        written = (
            _path(spec)
            for spec in program.graph_signature.output_specs
            if spec.kind in _STATE_WRITES
        )
        self.states: dict[str, Value | None] = dict.fromkeys([*written, *states])
        self.program = program
        self.graph = Graph(encodable(name))
        self.input_names = list(input_names)
        self.env: dict[torch.fx.Node, Any] = {}
        self.sizes = ProgramSizes(program, guards, self.graph, self.input_names)
        self.constants = Constants(guards.aliases)
        self.held_names: dict[torch.fx.Node, str] = {}

    def run(self) -> Imported:
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, specs[node.name])
            elif node.op == "call_function":
                self._call(node)
            elif node.op != "output":
                raise self._nested(node)
        states = {path: value for path, value in self.states.items() if value is not None}
        self.graph.inputs += states.values()
        self.graph.conditions = self.sizes.conditions()
        bound_read_sizes(self.graph)
        leaves, writes = self._outputs()
        return Imported(self.graph, leaves, list(states), writes)

    def _nested(self, node: torch.fx.Node) -> CaptureError:
        """The error of a graph within the graph, of which `node` is the body."""
        user = next(iter(node.users), node)
        construct = getattr(user.target, "__name__", str(user.target)).removeprefix("wrap_with_")
        body = getattr(self.program.graph_module, str(node.target), None)
        nodes = getattr(getattr(body, "graph", None), "nodes", ())
        places = [origin_of(n).source for n in (user, *nodes)]
        remedy = next((r for key, r in _NESTED.items() if key in construct), "write it out")
        return CaptureError(
            self.graph.name,
            next((place for place in places if place), None),
            f"{construct} holds a graph of its own; {remedy}",
        )

    def _placeholder(self, node: torch.fx.Node, spec: Any) -> None:
        if spec.kind is InputKind.USER_INPUT:
            tensor = node.meta["val"]
            name = self.input_names[len(self.graph.inputs)]
            value = Value(
                self._dtype(tensor, node, name), self.sizes.input_shape(tensor, name), name
            )
            self.graph.inputs.append(value)
            self.env[node] = value
        elif _path(spec) in self.states:
            self.env[node] = self.states[_path(spec)] = self._state(node, _path(spec))
        else:
            self.constants.hold(node, self._held(spec))
            self.held_names[node] = encodable(_path(spec))

    def _state(self, node: torch.fx.Node, path: str) -> Value:
        tensor, name = node.meta["val"], encodable(path)
        while name in self.input_names:
            name += "_"
        return Value(self._dtype(tensor, node, name), tuple(tensor.shape), name)

    def _held(self, spec: Any) -> torch.Tensor:
        """A weight or a buffer."""
        if spec.kind is InputKind.PARAMETER or (
            spec.kind is InputKind.BUFFER and spec.persistent is not False
        ):
            tensor: torch.Tensor = self.program.state_dict[spec.target]
        else:
            tensor = self.program.constants[spec.target]
        if _is_untraced(tensor):
            raise self._untraced()
        return tensor

    def _constant(self, node: torch.fx.Node) -> Any:
        """What a node is that depends on constants alone: values, or a number."""
        result = self.constants[node]
        if isinstance(result, list | tuple):
            return [self._constant_value(node, part) for part in result]
        return self._constant_value(node, result) if isinstance(result, torch.Tensor) else result

    def _constant_value(self, node: torch.fx.Node, tensor: torch.Tensor) -> Value:
        name = self.held_names.get(node, node.name)
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            raise CaptureError(
                self.graph.name,
                origin_of(node).source or None,
                f"{name} has dtype {tensor.dtype}; convert the model with .float()",
            )
        # What the model holds is read where it is; see `Numbers`.
        data = partial(to_numpy, tensor) if node in self.held_names else to_numpy(tensor)
        return Value(dtype, tuple(tensor.shape), name, data=data)

    def _read(self, node: torch.fx.Node) -> Any:
        """What a node gives to others; a constant is made a value when it is first read."""
        if node not in self.env and node in self.constants:
            self.env[node] = self._constant(node)
        return self.env.get(node)

    def _untraced(self) -> CaptureError:
        """The error of a tensor that no op of the capture has made."""
        why = "it computes a tensor where torch.export does not see it, such as in torch.vmap or "
        return CaptureError(self.graph.name, None, f"{why}torch.func; write that out")

    def _dtype(self, tensor: torch.Tensor, node: torch.fx.Node, name: str = "") -> DType:
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            origin = origin_of(node)
            raise CaptureError(
                self.graph.name,
                origin.source or None,
                f"{name or node.name} has dtype {tensor.dtype}; use float32, bfloat16, float16 or "
                "integers there",
            )
        return dtype

    def _call(self, node: torch.fx.Node) -> None:
        if self.constants.compute(node):
            return
        if node.target is operator.getitem:
            source, position = node.args
            self.env[node] = self._read(source)[position]  # type: ignore[arg-type]
            return
        if _is_symbolic(node):
            if _is_read(node):
                self.env[node] = self._symbolic(node)
            return
        assert isinstance(node.target, torch._ops.OpOverload)
        namespace, _, opname = node.target._schema.name.partition("::")
        if opname in _GUARDS:
            return
        if opname == "_has_compatible_shallow_copy_type":
            raise CaptureError(
                self.graph.name,
                origin_of(node).source or None,
                "it assigns to .data of a tensor, which torch.export loses; use the new tensor "
                "instead",
            )
        if node.target._schema.name in WRITES_NOTHING:
            self.env[node] = self._read(node.args[0])  # type: ignore[arg-type]
            return
        if node.target._schema.is_mutable:
            raise CaptureError(
                self.graph.name,
                origin_of(node).source or None,
                f"{opname} writes in place there, which torch cannot make functional; compute a "
                "new tensor instead",
            )
        if opname.startswith("as_strided") and not _owns_its_memory(node.args[0]):
            raise CaptureError(
                self.graph.name,
                origin_of(node).source or None,
                f"{opname} reads the memory behind a view there; index the tensor instead",
            )
        result = node.meta.get("val")
        if opname == "slice":
            self.sizes.learn_slice(node, *node.args)  # type: ignore[arg-type]
        inputs: list[Value] = []
        name = f"aten.{opname}" if namespace == "aten" else f"{namespace}.{opname}"
        op = Aten(name, self._arguments(node, inputs))
        op.overload, op.schema = str(node.target), schema_text(node.target._schema)
        if self._is_number_alone(node):
            self.env[node] = self._number_as_tensor(node, inputs[0])
            return
        op.dim = self.sizes.found_dim(result, node.target._schema.name)
        if isinstance(result, torch.Tensor):
            outputs = [self._value(result, node)]
            self.env[node] = outputs[0]
        elif isinstance(result, list | tuple):
            outputs = [self._value(t, node) for t in result]
            self.env[node] = outputs
        elif op.dim:
            self.env[node] = self._symbolic(node)
            outputs = [Value(DType.I64, (symbolic.found_symbol(op.dim),), f"{node.name}_below")]
        else:
            outputs = []
            self.env[node] = self._symbolic(node)
            if not inputs:
                return
            # A truth that is read is one that the model asserts: else torch cannot export it.
            op.size = 1 if isinstance(result, torch.SymBool) else self.env[node]
        operands = {f"x{i}": value for i, value in enumerate(inputs)}
        self.graph.nodes.append(Node(op, operands, outputs, origin_of(node)))

    def _is_number_alone(self, node: torch.fx.Node) -> bool:
        """Whether a node reads a number from a tensor that no size is made of."""
        result = node.meta.get("val")
        if not isinstance(result, torch.SymInt | torch.SymFloat):
            return False
        number = result.node.expr
        if not number.is_Symbol or self.sizes.is_size(number):
            return False
        return all(_is_symbolic(user) or _takes_number(user, node) for user in node.users)

    def _number_as_tensor(self, node: torch.fx.Node, source: Value) -> Value:
        """The tensor without axes that stands for a number which ops of torch take."""
        for user in node.users:
            if _is_symbolic(user) and _is_read(user):
                raise CaptureError(
                    self.graph.name,
                    origin_of(user).source or None,
                    "it computes with a number that it reads from a tensor; compute with the "
                    "tensor",
                )
        schema = "aten::reshape(Tensor self, SymInt[] shape) -> Tensor"
        op = Aten("aten.reshape", {"self": Ref(0), "shape": []}, "aten.reshape.default", schema)
        value = Value(source.dtype, (), node.name)
        self.graph.nodes.append(Node(op, {"x0": source}, [value], origin_of(node)))
        return value

    def _value(self, tensor: torch.Tensor, node: torch.fx.Node) -> Value:
        shape = tuple(self.sizes.of(extent, node) for extent in tensor.shape)
        return Value(self._dtype(tensor, node), shape, node.name)

    def _symbolic(self, node: torch.fx.Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            return self.sizes.of(value, node)
        if isinstance(value, torch.SymFloat):
            return self.sizes.of_float(value, node)
        return value

    def _arguments(self, node: torch.fx.Node, inputs: list[Value]) -> dict[str, Any]:
        """Arguments by schema name, tensors replaced by `Ref`s into `inputs`."""

        def convert(arg: Any) -> Any:
            if isinstance(arg, torch.fx.Node):
                value = self._read(arg)
                if isinstance(value, Value):
                    inputs.append(value)
                    return Ref(len(inputs) - 1)
                return value
            if isinstance(arg, list | tuple):
                return [convert(item) for item in arg]
            if isinstance(arg, torch.dtype):
                return _DTYPES.get(arg, str(arg))
            if isinstance(arg, int | float | bool | str) or arg is None:
                return arg
            return str(arg)

        schema = node.target._schema.arguments  # type: ignore[union-attr]
        arguments = {a.name: a.default_value for a in schema if a.has_default_value()}
        arguments.update({a.name: convert(v) for a, v in zip(schema, node.args, strict=False)})
        arguments.update({name: convert(v) for name, v in node.kwargs.items()})
        return arguments

    def _outputs(self) -> tuple[list[tuple[str, Any]], list[tuple[int, int]]]:
        """Leaves of the result, and writes, in the words of `Imported`."""
        (returned,) = next(n for n in self.program.graph.nodes if n.op == "output").args
        specs = self.program.graph_signature.output_specs
        given = {node.name: value for node, value in self.env.items() if node.op == "placeholder"}
        leaves: list[tuple[str, Any]] = []
        written: list[tuple[Value, Value]] = []
        for spec, node in zip(specs, returned, strict=True):
            value = self._read(node) if isinstance(node, torch.fx.Node) else node
            if spec.kind in _STATE_WRITES:
                target = self.states[_path(spec)]
                assert target is not None
                written.append((value, target))
            elif spec.kind is OutputKind.USER_INPUT_MUTATION:
                written.append((value, given[spec.target]))
            elif isinstance(value, Value):
                leaves.append(("output", len(self.graph.outputs)))
                self.graph.outputs.append(value)
            else:
                leaves.append(self._number(value))
        count = len(self.graph.outputs)
        self.graph.outputs += [value for value, _ in written]
        places = [self.graph.inputs.index(target) for _, target in written]
        return leaves, list(zip(range(count, len(self.graph.outputs)), places, strict=True))

    def _number(self, value: Any) -> tuple[str, Any]:
        """A leaf of the result that is no tensor of the graph."""
        if _is_untraced(value):
            raise self._untraced()
        if isinstance(value, torch.SymBool):
            value = self.sizes.of_truth(value)
        if isinstance(value, sympy.Basic | Scalar):
            found = {info.symbol for info in self.graph.dims.values() if not info.sources}
            if symbols_in(value) & found:
                why = f"it returns the size {value}, which tensor values decide; return a tensor"
                raise CaptureError(self.graph.name, None, why)
            return "size", value
        return "constant", value


def _path(spec: Any) -> str:
    """The path in the user's model of a tensor that it holds."""
    return str(spec.target).removeprefix("model.")


def _owns_its_memory(node: Any) -> bool:
    """Whether a tensor is the whole of its memory, in the order of its elements."""
    tensor = node.meta["val"]
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return bool(tensor.is_contiguous() and whole)


def _is_untraced(value: Any) -> bool:
    """Whether it is a tensor that stands for another, which only a tracer may hold."""
    return isinstance(value, FakeTensor) or (
        isinstance(value, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value)
    )


def _takes_number(user: torch.fx.Node, number: torch.fx.Node) -> bool:
    """Whether an op takes a number where it could take a tensor without axes."""
    schema = getattr(user.target, "_schema", None)
    if schema is None:  # a result of the model
        return False
    arguments = schema.arguments
    given = {a.name: v for a, v in zip(arguments, user.args, strict=False)} | user.kwargs
    kinds = [str(a.type) for a in arguments if given.get(a.name) is number]
    return bool(kinds) and all(kind in ("Tensor", "number") for kind in kinds)


def _name(node: torch.fx.Node) -> str:
    """The name of an op of torch without namespace and overload; empty for a function of Python."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema else ""


def _is_symbolic(node: torch.fx.Node) -> bool:
    """Whether it computes with sizes alone."""
    name = _name(node)
    return (
        node.op == "call_function"
        and (not name or name.startswith("sym_"))
        and (name not in _GUARDS)
    )


def _is_read(node: torch.fx.Node) -> bool:
    """Whether more than torch's own assertions depend on a number."""
    return any(
        _is_read(user) if _is_symbolic(user) else _name(user) not in _GUARDS for user in node.users
    )
