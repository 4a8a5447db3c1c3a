"""An `ExportedProgram` of torch.export as a `Graph` of `aten.*` nodes."""

from __future__ import annotations

import operator
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy
import torch
from torch._subclasses import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from graphopt.errors import CaptureError, SizeError
from graphopt.frontend.constants import Constants
from graphopt.frontend.data_sizes import sizes_of_inputs
from graphopt.frontend.guards import Guards
from graphopt.frontend.torch_sizes import translate, translate_float
from graphopt.ir import Dim, DimInfo, DType, Graph, Node, Origin, Ref, Shape, Value, symbolic
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

#: Ops of graphopt's own that compute a size from data, and the largest that it can be.
_COMPUTES: dict[str, Callable[[Sequence[Value]], Dim]] = {"cif": lambda inputs: inputs[0].shape[1]}
_FRAMES_PER_TOKEN = 4  # about 0.24 s of speech, for the hint
#: Ops that are in place by name, but leave the numbers as they are.
WRITES_NOTHING = {"aten::detach_"}
#: What to do about constructs that hold graphs of their own.
_NESTED = {
    "autocast": "leave torch.autocast out: precision= says what graphopt computes in",
    "cond": "optimize the branches one by one, and choose between them outside",
    "loop": "optimize the body, and loop outside",
    "grad": "leave the change of the gradient mode out: graphopt computes without gradients",
}
#: The file that calls the model, of which no line is the user's.
_CALLER = os.path.join(os.path.dirname(__file__), "exporting.py")
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
        self.graph = Graph(_encodable(name))
        self.input_names = list(input_names)
        self.env: dict[torch.fx.Node, Any] = {}
        self.symbols: dict[sympy.Symbol, sympy.Symbol] = {}
        self.guards = guards
        self.known: dict[Dim, Dim] = {}
        self.constants = Constants(guards.aliases)
        self.held_names: dict[torch.fx.Node, str] = {}

    def run(self) -> Imported:
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        self._declare_dims(specs)
        self._learn_extents()
        self._learn_read_sizes()
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, specs[node.name])
            elif node.op == "call_function":
                self._call(node)
            elif node.op != "output":
                raise self._nested(node)
        states = {path: value for path, value in self.states.items() if value is not None}
        self.graph.inputs += states.values()
        # Some are about sizes that a node computes.
        known = (c.xreplace(self.guards.aliases) for c in self.guards.conditions)
        conditions = [self._condition(c) for c in known]
        read = (a.xreplace(self.guards.aliases) for a in self.guards.asserts)
        conditions += [self._translate(a) for a in read if a.free_symbols <= set(self.symbols)]
        self.graph.conditions = self._checkable([*conditions, *self.graph.conditions])
        leaves, writes = self._outputs()
        return Imported(self.graph, leaves, list(states), writes)

    def _nested(self, node: torch.fx.Node) -> CaptureError:
        """The error of a graph within the graph, of which `node` is the body."""
        user = next(iter(node.users), node)
        construct = getattr(user.target, "__name__", str(user.target)).removeprefix("wrap_with_")
        body = getattr(self.program.graph_module, str(node.target), None)
        nodes = getattr(getattr(body, "graph", None), "nodes", ())
        places = [self._origin(n).source for n in (user, *nodes)]
        remedy = next((r for key, r in _NESTED.items() if key in construct), "write it out")
        return CaptureError(
            self.graph.name,
            next((place for place in places if place), None),
            f"{construct} holds a graph of its own; {remedy}",
        )

    def _checkable(self, conditions: list[sympy.Basic]) -> list[sympy.Basic]:
        """Those that do not always hold; CaptureError for one that a call cannot know."""
        found = [c for c in dict.fromkeys(conditions) if c != sympy.true]
        computed = {self.graph.dims[name].symbol for name in self.graph.computed_dims()}
        for condition in found:
            if condition.free_symbols & computed:
                raise CaptureError(
                    self.graph.name,
                    None,
                    f"it depends on whether {condition}, a size that tensor values decide; name "
                    "the axes that it squeezes",
                )
        return found

    def _declare_dims(self, specs: dict[str, Any]) -> None:
        """Names every size that some input has as it is; others may be expressions of those."""
        for node in self.program.graph.nodes:
            if node.op != "placeholder" or specs[node.name].kind is not InputKind.USER_INPUT:
                continue
            for axis, extent in enumerate(node.meta["val"].shape):
                expr = None if isinstance(extent, int) else extent.node.expr
                if expr in self.guards.aliases or expr in self.symbols:
                    continue
                if isinstance(expr, sympy.Symbol):
                    ours = symbolic.symbol(self._dim_name("B" if axis == 0 else "T"))
                    self.symbols[expr] = ours
                    self.graph.dims[str(ours)] = DimInfo(ours, int(extent.node.hint), ())

    def _learn_extents(self) -> None:
        """Notes which expressions of sizes must be a number, such as the rows of a linear.

        A size that must be one has been replaced already; of `T // 2`, say, it does not follow.
        """
        for condition in self.guards.conditions:
            if not isinstance(condition, sympy.Eq) or condition.free_symbols - set(self.symbols):
                continue
            for expr, number in (condition.args, condition.args[::-1]):
                if number.is_Integer:
                    self.known[symbolic.simplify(self._translate(expr))] = int(number)

    def _learn_read_sizes(self) -> None:
        """Notes which numbers read from tensors must be sizes of inputs, and of what follows."""
        hints = {theirs: self.graph.dims[str(ours)].hint for theirs, ours in self.symbols.items()}
        found = sizes_of_inputs(self.guards.asserts, hints)
        self.guards.aliases.update(found)
        for asserted in self.guards.asserts:
            if isinstance(asserted, sympy.Eq) and asserted.free_symbols & set(found):
                sides = [self._translate(side.xreplace(found)) for side in asserted.args]
                read = int(bool(asserted.rhs.free_symbols & set(found)))
                extent, other = (symbolic.simplify(sides[i]) for i in (read, 1 - read))
                if not isinstance(extent, sympy.Symbol):  # which an input has, whatever it equals
                    self.known[extent] = other

    def _placeholder(self, node: torch.fx.Node, spec: Any) -> None:
        if spec.kind is InputKind.USER_INPUT:
            tensor = node.meta["val"]
            name = self.input_names[len(self.graph.inputs)]
            value = Value(self._dtype(tensor, node, name), self._input_shape(tensor, name), name)
            self.graph.inputs.append(value)
            self.env[node] = value
        elif _path(spec) in self.states:
            self.env[node] = self.states[_path(spec)] = self._state(node, _path(spec))
        else:
            self.constants.hold(node, self._held(spec))
            self.held_names[node] = _encodable(_path(spec))

    def _state(self, node: torch.fx.Node, path: str) -> Value:
        tensor, name = node.meta["val"], _encodable(path)
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
                self._origin(node).source or None,
                f"{name} has dtype {tensor.dtype}; convert the model with .float()",
            )
        data = to_numpy(tensor)
        return Value(dtype, tuple(data.shape), name, data=data)

    def _read(self, node: torch.fx.Node) -> Any:
        """What a node gives to others; a constant is made a value when it is first read."""
        if node not in self.env and node in self.constants:
            self.env[node] = self._constant(node)
        return self.env.get(node)

    def _untraced(self) -> CaptureError:
        """The error of a tensor that no op of the capture has made."""
        why = "it computes a tensor where torch.export does not see it, such as in torch.vmap or "
        return CaptureError(self.graph.name, None, f"{why}torch.func; write that out")

    def _input_shape(self, tensor: torch.Tensor, name: str) -> Shape:
        position = len(self.graph.inputs)
        shape: list[Dim] = []
        for axis, extent in enumerate(tensor.shape):
            if isinstance(extent, int):
                shape.append(extent)
                continue
            expr = self._expr(extent)
            if expr.free_symbols - set(self.symbols):
                raise CaptureError(
                    self.graph.name,
                    None,
                    f"the size of axis {axis} of {name} is made of one that no input has; give "
                    "that axis Dim.AUTO in dynamic_shapes, or its size",
                )
            size = self._size(extent)
            if isinstance(size, sympy.Symbol):
                info = self.graph.dims[str(size)]
                sources = (*info.sources, (position, axis))
                self.graph.dims[str(size)] = DimInfo(info.symbol, info.hint, sources)
            shape.append(size)
        return tuple(shape)

    def _computed_dim(self, results: Any, bound: Dim) -> str:
        """Names the one size of the results that depends on data; returns the name."""
        sizes: list[Any] = [e for t in results for e in t.shape if not isinstance(e, int)]
        extents = [self._expr(e) for e in sizes]
        (size,) = {e for e in extents if isinstance(e, sympy.Symbol)} - set(self.symbols)
        name = self._dim_name("N")
        self.symbols[size] = symbolic.symbol(name)
        hint = max(1, symbolic.evaluate(bound, self.graph.hints()) // _FRAMES_PER_TOKEN)
        self.graph.dims[name] = DimInfo(self.symbols[size], hint, (), bound)
        return name

    def _found_dim(self, result: Any) -> str:
        """Names the sizes that a node finds in data; returns the name of the first, or nothing."""
        results = result if isinstance(result, list | tuple) else [result]
        extents = [e for t in results for e in getattr(t, "shape", ())]
        numbers = [e.node.expr for e in (*extents, *results) if isinstance(e, torch.SymInt)]
        known = {*self.symbols, *self.guards.aliases}
        found = list(dict.fromkeys(n for n in numbers if n.is_Symbol and n not in known))
        names = []
        for number in found:
            names.append(self._dim_name("N"))
            self.symbols[number] = symbolic.symbol(names[-1])
            hint = max(self.graph.hints().values(), default=_FRAMES_PER_TOKEN)
            self.graph.dims[names[-1]] = DimInfo(self.symbols[number], hint, (), found=True)
        return names[0] if names else ""

    def _dim_name(self, base: str) -> str:
        count = sum(re.fullmatch(rf"{base}\d*", name) is not None for name in self.graph.dims)
        return base if count == 0 else f"{base}{count}"

    def _size(self, value: Any, node: torch.fx.Node | None = None) -> Dim:
        """A torch size as ours; raises CaptureError if it depends on data."""
        if isinstance(value, int):
            return value
        size = symbolic.simplify(self._translate(self._known(value, node)))
        return self.known.get(size, size)

    def _float(self, value: torch.SymFloat, node: torch.fx.Node) -> Scalar | float:
        """A float that torch computes from sizes; raises CaptureError if it depends on data."""
        number = self._translate(self._known(value, node), translate_float)
        return float(number.value) if number.op == "const" else number

    def _expr(self, value: Any) -> sympy.Expr:
        """The expression of a number of torch's, in sizes that are no other's name."""
        if isinstance(value, int):
            return sympy.Integer(value)
        return value.node.expr.xreplace(self.guards.aliases)

    def _known(self, value: Any, node: torch.fx.Node | None) -> sympy.Expr:
        """The expression of a number of torch's; raises CaptureError if it depends on data."""
        expr = self._expr(value)
        unknown = expr.free_symbols - set(self.symbols)
        if unknown:
            raise CaptureError(
                self.graph.name,
                (self._origin(node).source if node else "") or None,
                "a number depends on tensor values; compute it outside the model and pass "
                "a tensor of that size, or optimize the parts before and after it",
            )
        return expr

    def _condition(self, expr: sympy.Basic) -> sympy.Basic:
        """A condition on sizes.

        A float that torch took as it was in the example fixes the sizes that it is made of.
        """
        fixed = isinstance(expr, sympy.Eq) and any(arg.is_Float for arg in expr.args)
        if fixed and expr.free_symbols <= set(self.symbols):
            sizes = [self.symbols[s] for s in sorted(expr.free_symbols, key=str)]
            hints = self.graph.hints()
            return sympy.And(*(sympy.Eq(size, hints[size]) for size in sizes))
        return self._translate(expr)

    def _translate(self, expr: sympy.Basic, to: Callable[..., Any] = translate) -> Any:
        """A size, or a condition on sizes, of torch in ours."""
        try:
            return to(expr, self.symbols)
        except SizeError as error:
            text = str(error)
            for theirs, ours in self.symbols.items():
                sources = self.graph.dims[str(ours)].sources
                places = [f"axis {axis} of {self.input_names[n]}" for n, axis in sources]
                text = re.sub(rf"\b{theirs}\b", f"({(places or [ours])[0]})", text)
            raise CaptureError(self.graph.name, None, text) from None

    def _dtype(self, tensor: torch.Tensor, node: torch.fx.Node, name: str = "") -> DType:
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            origin = self._origin(node)
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
                self._origin(node).source or None,
                "it assigns to .data of a tensor, which torch.export loses; use the new tensor "
                "instead",
            )
        if node.target._schema.name in WRITES_NOTHING:
            self.env[node] = self._read(node.args[0])  # type: ignore[arg-type]
            return
        if node.target._schema.is_mutable:
            raise CaptureError(
                self.graph.name,
                self._origin(node).source or None,
                f"{opname} writes in place there, which torch cannot make functional; compute a "
                "new tensor instead",
            )
        if opname.startswith("as_strided") and not _owns_its_memory(node.args[0]):
            raise CaptureError(
                self.graph.name,
                self._origin(node).source or None,
                f"{opname} reads the memory behind a view there; index the tensor instead",
            )
        result = node.meta.get("val")
        if opname == "slice":
            self._learn_extent(node, *node.args)  # type: ignore[arg-type]
        inputs: list[Value] = []
        name = f"aten.{opname}" if namespace == "aten" else f"{namespace}.{opname}"
        op = Aten(name, self._arguments(node, inputs))
        op.overload, op.schema = str(node.target), schema_text(node.target._schema)
        if opname in _COMPUTES and namespace == "graphopt":
            op.dim = self._computed_dim(result, _COMPUTES[opname](inputs))
        if self._is_number_alone(node):
            self.env[node] = self._number_as_tensor(node, inputs[0])
            return
        op.dim = op.dim or self._found_dim(result)
        if isinstance(result, torch.Tensor):
            outputs = [self._value(result, node)]
            self.env[node] = outputs[0]
        elif isinstance(result, list | tuple):
            outputs = [self._value(t, node) for t in result]
            self.env[node] = outputs
        elif op.dim:
            self.env[node] = self._symbolic(node)
            outputs = [Value(DType.I64, (symbolic.symbol(op.dim),), f"{node.name}_below")]
        else:
            outputs = []
            self.env[node] = self._symbolic(node)
            if not inputs:
                return
            # A truth that is read is one that the model asserts: else torch cannot export it.
            op.size = 1 if isinstance(result, torch.SymBool) else self.env[node]
        operands = {f"x{i}": value for i, value in enumerate(inputs)}
        self.graph.nodes.append(Node(op, operands, outputs, self._origin(node)))

    def _is_number_alone(self, node: torch.fx.Node) -> bool:
        """Whether a node reads a number from a tensor that no size is made of."""
        result = node.meta.get("val")
        if not isinstance(result, torch.SymInt | torch.SymFloat):
            return False
        number = result.node.expr
        known = {*self.symbols, *self.guards.aliases, *self._sizes}
        if not number.is_Symbol or number in known:
            return False
        return all(_is_symbolic(user) or _takes_number(user, node) for user in node.users)

    @cached_property
    def _sizes(self) -> set[sympy.Symbol]:
        """The symbols of torch in the shapes of whatever the program computes."""
        tensors = (
            tensor
            for node in self.program.graph.nodes
            for tensor in torch.utils._pytree.tree_leaves(node.meta.get("val"))
            if isinstance(tensor, torch.Tensor)
        )
        sizes: Iterator[Any] = (extent for tensor in tensors for extent in tensor.shape)
        extents = (size for size in sizes if isinstance(size, torch.SymInt))
        return {symbol for extent in extents for symbol in extent.node.expr.free_symbols}

    def _number_as_tensor(self, node: torch.fx.Node, source: Value) -> Value:
        """The tensor without axes that stands for a number which ops of torch take."""
        for user in node.users:
            if _is_symbolic(user) and _is_read(user):
                raise CaptureError(
                    self.graph.name,
                    self._origin(user).source or None,
                    "it computes with a number that it reads from a tensor; compute with the "
                    "tensor",
                )
        schema = "aten::reshape(Tensor self, SymInt[] shape) -> Tensor"
        op = Aten("aten.reshape", {"self": Ref(0), "shape": []}, "aten.reshape.default", schema)
        value = Value(source.dtype, (), node.name)
        self.graph.nodes.append(Node(op, {"x0": source}, [value], self._origin(node)))
        return value

    def _learn_extent(
        self,
        node: torch.fx.Node,
        source: torch.fx.Node,
        axis: int = 0,
        start: Any = None,
        end: Any = None,
        step: int = 1,
    ) -> None:
        """How long a part is that torch gave a size of its own, not knowing the sign of an end."""
        size, whole = node.meta["val"].shape[axis], source.meta["val"].shape[axis]
        own = self._expr(size)
        if not own.free_symbols - set(self.symbols):
            return
        whole = self._expr(whole)

        def bound(given: Any, default: Any) -> Any:
            number = given.meta["val"] if isinstance(given, torch.fx.Node) else given
            if number is None:
                return default
            if isinstance(number, int):
                if number == sys.maxsize:
                    return default
                return sympy.Min(whole, number) if number >= 0 else sympy.Max(0, whole + number)
            expr, hint = self._expr(number), number.node.hint
            is_negative = hint is not None and hint < 0  # a size that is read is none below 0
            sign = sympy.Lt(expr, 0) if is_negative else sympy.Ge(expr, 0)
            self.graph.conditions.append(self._translate(sign))
            return sympy.Max(0, whole + expr) if is_negative else sympy.Min(whole, expr)

        first, last = bound(start, 0), bound(end, whole)
        extent = last if first == 0 else sympy.Max(0, last - first)
        self.guards.aliases[own] = sympy.ceiling(extent / step)

    def _value(self, tensor: torch.Tensor, node: torch.fx.Node) -> Value:
        shape = tuple(self._size(extent, node) for extent in tensor.shape)
        return Value(self._dtype(tensor, node), shape, node.name)

    def _symbolic(self, node: torch.fx.Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            return self._size(value, node)
        if isinstance(value, torch.SymFloat):
            return self._float(value, node)
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

    def _origin(self, node: torch.fx.Node) -> Origin:
        stack = node.meta.get("nn_module_stack") or {}
        paths = [path for path, _ in stack.values() if not path.startswith("_empty")]
        path = re.sub(r"^(L\['self'\]\.)?model\.?", "", paths[-1]) if paths else ""
        module = _encodable(path)
        frames = re.findall(r'File "([^"]+)", line (\d+)[^\n]*\n\s*([^\n]*)', str(node.stack_trace))
        inside = re.compile(r"/torch/(nn|_|fx|utils|export)|^<")
        frames = [f for f in frames if f[0] != _CALLER]
        users = [f for f in frames if not inside.search(f[0])] or frames
        if not users:
            return Origin(module)
        file, line, code = users[-1]
        return Origin(module, f"{file}:{line}", code.strip())

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
            value = self._condition(self._known(value, None))
        if isinstance(value, sympy.Basic | Scalar):
            computed = {self.graph.dims[name].symbol for name in self.graph.computed_dims()}
            if symbols_in(value) & computed:
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


def _encodable(name: str) -> str:
    """A name that files may hold: what UTF-8 has no bytes for is written as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def _is_untraced(value: Any) -> bool:
    """Whether it is a tensor that stands for another, which only a tracer may hold."""
    return isinstance(value, FakeTensor) or (
        isinstance(value, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(value)
    )


def _takes_number(user: torch.fx.Node, number: torch.fx.Node) -> bool:
    """Whether an op takes a number where it could take a tensor without axes."""
    arguments = user.target._schema.arguments  # type: ignore[union-attr]
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
