"""ONNX models as graphs of `go.*` nodes: each node by the rule of its op, all refusals at once.

A tensor is a value of the graph, or, where it is small and made of sizes, an array of expressions
over the dims of the inputs, of which nothing is left in the graph: the nodes that compute the shape
of a reshape vanish. Nodes of constants are computed at once. Functions, of the model or of the
standard, are imported node by node where their op has no rule; of an `If` whose condition is known
the branch that is taken. What cannot be compiled is noted, and the import goes on, so that the
error, or `graphopt doctor`, tells all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
import sympy
from onnx import AttributeProto

from graphopt.errors import GraphoptError, OnnxModelError, OnnxNodesError
from graphopt.ir import Dim, DimInfo, DType, Graph, Node, Origin, Value, symbolic
from graphopt.ir.ops import Aten
from graphopt.onnx.assembly import Assembly
from graphopt.onnx.call import Call, Malformed
from graphopt.onnx.files import Model
from graphopt.onnx.known import Array, Tensor
from graphopt.onnx.rules import RULES, nearest
from graphopt.onnx.sizes import sizes_of
from graphopt.onnx.tensors import DTYPES, array_of, type_name
from graphopt.passes.lowering.builder import Builder, Unsupported

_MOST_DEEP = 64
"""Functions and branches within each other."""


@dataclass
class Refusal:
    """A node that cannot be compiled.

    Attributes:
        node: its name.
        op: its op, with domain and opset.
        reason: why.
        nearest: the nearest form of the op that is compiled; may be empty.
        place: number of the node of the whole graph that it is, or is inside of; -1 for none.
    """

    node: str
    op: str
    reason: str
    nearest: str = ""
    place: int = -1


@dataclass
class Imported:
    """A graph and how it is called.

    Attributes:
        graph: of `go.*` nodes; nothing in it if something was refused.
        inputs: names of the inputs as the model has them.
        outputs: names of the outputs.
        refusals: what cannot be compiled.
        counts: how many nodes there are of each op.
    """

    graph: Graph
    inputs: list[str]
    outputs: list[str]
    refusals: list[Refusal] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def import_model(model: Model, exact: bool = True) -> Imported:
    """The graph of a model, or all that keeps it from being compiled.

    Args:
        model: the model.
        exact: as of `compiled_graph`.

    Raises:
        OnnxModelError: if the model is damaged or contradicts itself.
    """
    fixed: dict[str, Dim] = {}
    while True:
        imported = Importer(model, exact, fixed).run()
        found = _known_dims(imported.graph)
        if not found.keys() - fixed.keys():
            return imported
        fixed |= found


def _known_dims(graph: Graph) -> dict[str, Dim]:
    """Dims of inputs that must be a number, or another dim, in every call."""
    found: dict[str, Dim] = {}
    for condition in graph.conditions:
        if not isinstance(condition, sympy.Eq):
            continue
        one, other = sorted(condition.args, key=lambda side: (side.is_number, str(side)))
        if str(one) in graph.dims and one not in found.values():
            if other.is_Integer and int(other) > 0:
                found[str(one)] = int(other)
            elif str(other) in graph.dims and str(other) not in found:
                found[str(one)] = other
    return found


def compiled_graph(model: Model, exact: bool = True) -> Imported:
    """The graph of a model.

    Args:
        model: the model.
        exact: whether quantized products are computed as the model says, in sums of whole numbers
            with the scales that it takes; otherwise activations have a scale per row, and weights
            that came in 8 or 4 bits stay as they are.

    Raises:
        OnnxModelError: if the model is damaged or contradicts itself.
        OnnxNodesError: if nodes cannot be compiled, listing all of them.
    """
    imported = import_model(model, exact)
    if imported.refusals:
        rows = [(r.node, r.op, r.reason, r.nearest) for r in imported.refusals]
        raise OnnxNodesError(model.name, rows)
    return imported


class Importer:
    """Imports one model.

    Attributes:
        graph: what is made.

    Args:
        model: what is imported.
        exact: as of `compiled_graph`.
        fixed: dims of inputs that are known to be numbers, or other dims.
    """

    def __init__(
        self, model: Model, exact: bool = True, fixed: Mapping[str, Dim] | None = None
    ) -> None:
        self._fixed = fixed or {}
        self.graph = Graph(_plain(model.name))
        self._assembly = Assembly(self.graph, exact, self._array, self._branch)
        self._model = model
        self._functions = {(f.domain, f.name): f for f in model.proto.functions}
        self._scopes: list[dict[str, Tensor | None]] = [{}]
        self._opsets = [model.opsets]
        self._paths: list[str] = []
        self._refusals: list[Refusal] = []
        self._counts: dict[str, int] = {}
        self._place = -1

    def run(self) -> Imported:
        """Imports the graph of the model."""
        proto = self._model.proto.graph
        self._initialize(proto)
        names = self._inputs(proto)
        self._nodes(proto.node)
        self._place = -1
        outputs = [o.name for o in proto.output]
        imported = Imported(self.graph, names, outputs, self._refusals, self._counts)
        if not self._refusals:
            self._outputs(outputs)
        return imported

    # Of the whole graph.

    def _initialize(self, proto: onnx.GraphProto) -> None:
        if proto.sparse_initializer:
            raise OnnxModelError(self._model.name, "it has sparse initializers")
        for tensor in proto.initializer:
            value = self._constant(self._array(tensor), tensor)
            made = None if value is None else Tensor.of(value)
            if made is not None and tensor.data_type in _NARROW:
                made.narrow = type_name(tensor.data_type)
            self._scopes[-1][tensor.name] = made

    def _constant(self, array: Array, tensor: onnx.TensorProto) -> Value | None:
        """The constant of an initializer; None, and a refusal, for a type that graphs lack."""
        dtype = _NARROW.get(tensor.data_type) or DTYPES.get(tensor.data_type)
        if dtype is None:
            why = f"an initializer of {type_name(tensor.data_type)}"
            self._refuse(tensor.name, "initializer", why)
            return None
        return Value(dtype, array.shape, _plain(tensor.name), data=array)

    def _array(self, tensor: onnx.TensorProto) -> Array:
        """The elements of a tensor of the model."""
        return array_of(tensor, self._model.folder, self._model.name)

    def _inputs(self, proto: onnx.GraphProto) -> list[str]:
        names = []
        for info in proto.input:
            if info.name in self._scopes[-1]:  # an initializer with a default
                continue
            names.append(info.name)
            value = self._input(info)
            if value is None:
                self._scopes[-1][info.name] = None
                continue
            number = len(self.graph.inputs)
            for axis, extent in enumerate(value.shape):
                if isinstance(extent, int):
                    continue
                known = self.graph.dims.get(str(extent))
                sources = (*(known.sources if known else ()), (number, axis))
                self.graph.dims[str(extent)] = DimInfo(extent, 2, sources)
            self.graph.inputs.append(value)
            self._scopes[-1][info.name] = Tensor.of(value)
        return names

    def _input(self, info: onnx.ValueInfoProto) -> Value | None:
        kind = info.type.WhichOneof("value")
        tensor = info.type.tensor_type
        if kind != "tensor_type" or tensor.elem_type not in DTYPES:
            what = type_name(tensor.elem_type) if kind == "tensor_type" else str(kind)
            self._refuse(info.name, "input", f"an input of {what}")
            return None
        if not tensor.HasField("shape"):
            self._refuse(info.name, "input", "an input whose number of axes is not said")
            return None
        name, shape = _plain(info.name), list[Dim]()
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
                shape.append(dim.dim_value)
            else:
                text = _dim_name(dim.dim_param) or _dim_name(f"{name}_{axis}")
                extent: Dim = symbolic.symbol(text)
                while (known := self._fixed.get(str(extent))) is not None:
                    extent = known
                shape.append(extent)
        return Value(DTYPES[tensor.elem_type], tuple(shape), name)

    def _outputs(self, names: list[str]) -> None:
        builder = Builder(Node(Aten("onnx", {}), {}, [], Origin()))
        for name in names:
            tensor = self._look_up(name)
            if tensor is None:
                raise OnnxModelError(self._model.name, f"nothing computes its output {name!r}")
            try:
                value = tensor.value(builder)
            except (Unsupported, Malformed) as error:
                self._refuse(name, "output", str(error))
                continue
            if value in self.graph.inputs:
                value = builder.reshape(value, (*value.shape, 1))
                value = builder.reshape(value, value.shape[:-1])
            self.graph.outputs.append(value)
        self.graph.nodes += builder.nodes

    # Nodes.

    def _nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        pending, is_whole = list(nodes), self._place < 0
        if len(self._scopes) > _MOST_DEEP:
            raise OnnxModelError(self._model.name, f"graphs nest deeper than {_MOST_DEEP}")
        for position, node in enumerate(pending):
            if is_whole:
                self._place = position
            self._check_order(node, pending[position:])
            results = self._node(node)
            for name, result in zip(node.output, results, strict=False):
                if name:
                    self._define(name, result)

    def _define(self, name: str, result: Tensor | None) -> None:
        if name in self._scopes[-1]:
            raise OnnxModelError(self._model.name, f"{name!r} is computed twice")
        if result is not None:
            result.call(_plain(name))
        self._scopes[-1][name] = result

    def _check_order(self, node: onnx.NodeProto, later: Sequence[onnx.NodeProto]) -> None:
        """OnnxModelError for an input that nothing has computed yet."""
        for name in filter(None, node.input):
            if any(name in scope for scope in self._scopes):
                continue
            where = f"node {_name(node)!r} reads {name!r}, which"
            if any(name in other.output for other in later):
                raise OnnxModelError(self._model.name, f"{where} is computed behind it or by it")
            raise OnnxModelError(self._model.name, f"{where} nothing computes")

    def _node(self, node: onnx.NodeProto) -> Sequence[Tensor | None]:
        """The outputs of a node; None for those that cannot be compiled."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        key = f"{domain}::{node.op_type}" if domain else node.op_type
        self._counts[key] = self._counts.get(key, 0) + 1
        nothing = [None] * len(node.output)
        opset = self._opsets[-1].get(domain, 1 if domain else 0)
        op = f"{key}, opset {opset}"
        missing = any(name and self._look_up(name) is None for name in node.input)
        origin = Origin(_dotted("/".join([*self._paths, _name(node)])), "", key)
        try:
            versions = RULES.get((domain, node.op_type))
            function = self._function(domain, node, opset, missing)
            if versions is None or (domain, node.op_type) in self._functions:
                if function is None:
                    raise Unsupported("no rule for this op")
                return nothing if missing else self._expanded(node, function, opset)
            rule = next((versions[v] for v in sorted(versions, reverse=True) if v <= opset), None)
            if rule is None:
                raise Unsupported(f"its form of opset {opset}")
            if missing:
                return nothing
            given = [self._look_up(name) if name else None for name in node.input]
            while given and given[-1] is None:
                given.pop()
            call = Call(self._assembly, node, opset, given, origin)
            if (sizes := sizes_of(call, given)) is not None:
                return [sizes]
            try:
                made = rule(call)
                call.refuse_unread()
            except Unsupported:
                if function is None or self._model_has(domain, node):
                    raise
                return self._expanded(node, function, opset)
        except Unsupported as refusal:
            self._refuse(_name(node), op, str(refusal), nearest(domain, node.op_type, opset))
            return nothing
        except Malformed as error:
            raise OnnxModelError(
                self._model.name, f"node {_name(node)!r} ({op}): {error}"
            ) from None
        except GraphoptError:
            raise
        except Exception as error:
            why = f"node {_name(node)!r} ({op}) cannot be understood: {error!r}"
            raise OnnxModelError(self._model.name, why) from error
        made = made if isinstance(made, list) else [made]
        return [Tensor.of(m) if isinstance(m, Value) else m for m in made]

    def _model_has(self, domain: str, node: onnx.NodeProto) -> bool:
        return (domain, node.op_type) in self._functions

    def _function(
        self, domain: str, node: onnx.NodeProto, opset: int, missing: bool
    ) -> onnx.FunctionProto | None:
        """The function that an op is, of the model or of the standard."""
        function = self._functions.get((domain, node.op_type))
        if function is not None or missing or domain not in ("", "ai.onnx.preview.training"):
            return function
        try:
            schema: Any = onnx.defs.get_schema(node.op_type, opset, domain)
        except onnx.defs.SchemaError:
            return None
        if schema.has_function:
            content = schema.get_function_with_opset_version(schema.since_version)
        elif schema.has_context_dependent_function:
            types = [self._type_of(name) for name in node.input]
            content = schema.get_context_dependent_function(node.SerializeToString(), types)
        else:
            return None
        return onnx.FunctionProto.FromString(content) if content else None

    def _type_of(self, name: str) -> bytes:
        tensor = self._look_up(name) if name else None
        if tensor is None:
            return bytes(onnx.TypeProto().SerializeToString())
        if tensor.narrow:
            raise Unsupported(f"elements of {tensor.narrow}")
        element = next(e for e, dtype in DTYPES.items() if dtype is tensor.dtype)
        made = onnx.helper.make_tensor_type_proto(element, None)
        return bytes(made.SerializeToString())

    def _expanded(
        self, node: onnx.NodeProto, function: onnx.FunctionProto, opset: int
    ) -> list[Tensor | None]:
        """The outputs of a function, whose nodes are imported in place of the node."""
        given: dict[str, Tensor | None] = {}
        for name, its in zip(function.input, node.input, strict=False):
            if its:
                given[name] = self._look_up(its)
        opsets = {o.domain if o.domain != "ai.onnx" else "": o.version
                  for o in function.opset_import}  # fmt: skip
        absent = [name for name in function.input if name not in given]
        attributes = {a.name: a for a in function.attribute_proto}
        attributes |= _defaults(node.op_type, opset, function)
        attributes |= {a.name: a for a in node.attribute}
        scopes = self._scopes
        self._scopes = [given]
        self._opsets.append({**self._opsets[0], **opsets} if opsets else self._opsets[-1])
        self._paths.append(_name(node))
        try:
            self._nodes(_specialized(n, attributes, absent) for n in function.node)
            return [self._look_up(name) for name in function.output]
        finally:
            self._scopes = scopes
            self._opsets.pop()
            self._paths.pop()

    def _branch(self, graph: onnx.GraphProto, given: Sequence[Tensor] = ()) -> list[Tensor]:
        """The outputs of the graph of a branch, which may read whatever is around it.

        Args:
            graph: of the branch.
            given: its inputs.
        """
        self._scopes.append({i.name: t for i, t in zip(graph.input, given, strict=False)})
        try:
            self._initialize(graph)
            self._nodes(graph.node)
            found = [self._look_up(o.name) for o in graph.output]
        finally:
            self._scopes.pop()
        if any(f is None for f in found):
            raise Unsupported("something in its branches is not compiled")
        return [f for f in found if f is not None]

    def _look_up(self, name: str) -> Tensor | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return None

    def _refuse(self, node: str, op: str, reason: str, near: str = "") -> None:
        path = "/".join([*self._paths, node])
        self._refusals.append(Refusal(path, op, reason, near, self._place))


def _defaults(op: str, opset: int, function: onnx.FunctionProto) -> dict[str, AttributeProto]:
    """Attributes of an op of the standard that have defaults, where its function reads them."""
    try:
        schema = onnx.defs.get_schema(op, opset, function.domain)
    except onnx.defs.SchemaError:
        return {}
    read = set(function.attribute)
    return {
        name: attribute.default_value
        for name, attribute in schema.attributes.items()
        if name in read and attribute.default_value.type
    }


#: Elements of less than a byte, of which graphs have constants with one in each byte.
_NARROW: dict[int, DType] = {
    onnx.TensorProto.INT4: DType.I8,
    onnx.TensorProto.UINT4: DType.U8,
    onnx.TensorProto.INT2: DType.I8,
    onnx.TensorProto.UINT2: DType.U8,
}


def _specialized(
    node: onnx.NodeProto, attributes: Mapping[str, AttributeProto], absent: Sequence[str]
) -> onnx.NodeProto:
    """A node of a function with the attributes of the call in place of references to them.

    Args:
        node: of the function.
        attributes: of the call, by name.
        absent: inputs that the call does not give.
    """
    made = onnx.NodeProto()
    made.CopyFrom(node)
    made.input[:] = ["" if name in absent else name for name in node.input]
    del made.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if (given := attributes.get(attribute.ref_attr_name)) is None:
                continue
            its = made.attribute.add()
            its.CopyFrom(given)
            its.name = attribute.name
            continue
        its = made.attribute.add()
        its.CopyFrom(attribute)
        for graph in [its.g, *its.graphs] if its.HasField("g") or its.graphs else []:
            inside = [_specialized(n, attributes, absent) for n in graph.node]
            del graph.node[:]
            graph.node.extend(inside)
    return made


def _name(node: onnx.NodeProto) -> str:
    """A node's name; without one that of its first output."""
    return node.name or next(filter(None, node.output), node.op_type)


def _plain(name: str) -> str:
    """A name that dumps and generated code can hold."""
    return re.sub(r"[^0-9A-Za-z_.]+", "_", name).strip("_") or "x"


def _dotted(path: str) -> str:
    """The path of a node as that of a module."""
    return re.sub(r"[^0-9A-Za-z_.]+", ".", path).strip(".")


def _dim_name(name: str) -> str:
    """The name of a dim, which no other variable of generated code has; empty for none."""
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return text and f"d_{text}"
