"""What the rule of an ONNX op works with: its inputs and attributes, and what makes nodes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import sympy
from onnx import AttributeProto

from graphopt.ir import Dim, DType, Node, Origin, Ref, Shape, Value, symbolic
from graphopt.ir.ops import Aten
from graphopt.ir.scalar import Scalar
from graphopt.onnx.assembly import Assembly, GraphBuilder
from graphopt.onnx.known import Array, Tensor, dims_of, numbers_of
from graphopt.passes.lower_aten import RULES, lower_node
from graphopt.passes.lowering.builder import Builder, Unsupported, broadcast


class Malformed(Exception):
    """A node that contradicts itself or its operands; the text says how."""


@functools.cache
def _types_of(domain: str, op: str, opset: int) -> dict[str, int]:
    """The type that the standard gives each attribute of an op; empty for ops of others."""
    try:
        schema = onnx.defs.get_schema(op, opset, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return {}
    kinds: dict[str, Any] = {name: a.type for name, a in schema.attributes.items()}
    return {name: int(kind.value) for name, kind in kinds.items()}


class Call:
    """One node of an ONNX graph.

    Attributes:
        node: the node.
        opset: version of its domain in the model.
        b: makes nodes.
    """

    def __init__(
        self,
        assembly: Assembly,
        node: onnx.NodeProto,
        opset: int,
        inputs: Sequence[Tensor | None],
        origin: Origin,
    ) -> None:
        self.node, self.opset = node, opset
        self.b = GraphBuilder(assembly, origin)
        self._assembly, self._origin, self._inputs = assembly, origin, inputs
        self._attributes = {a.name: a for a in node.attribute}
        self._read: set[str | int] = set()

    # What it was given.

    @property
    def exact(self) -> bool:
        """Whether quantized products are computed as the model says; see `compiled_graph`."""
        return self._assembly.exact

    @property
    def count(self) -> int:
        """Number of its inputs; those left out at the end do not count."""
        return len(self._inputs)

    @property
    def results(self) -> int:
        """Number of its outputs."""
        return len(self.node.output)

    def wants(self, number: int) -> bool:
        """Whether somebody may read an output."""
        return number < len(self.node.output) and bool(self.node.output[number])

    def given(self, number: int, narrow: bool = False) -> Tensor | None:
        """An input, if it is there; `narrow`: also one with elements of less than a byte."""
        self._read.add(number)
        tensor = self._inputs[number] if number < len(self._inputs) else None
        if tensor is not None and tensor.narrow and not narrow:
            raise Unsupported(f"elements of {tensor.narrow}")
        return tensor

    def narrow(self, number: int) -> Value | None:
        """The value of an input, if it is there, also one with elements of less than a byte."""
        tensor = self.given(number, narrow=True)
        return None if tensor is None else tensor.value(self.b)

    def tensor(self, number: int = 0) -> Tensor:
        """An input that must be there."""
        tensor = self.given(number)
        if tensor is None:
            raise Malformed(f"it lacks input {number}")
        return tensor

    def x(self, number: int = 0) -> Value:
        """The value of an input that must be there."""
        return self.tensor(number).value(self.b)

    def optional(self, number: int) -> Value | None:
        """The value of an input, if it is there."""
        tensor = self.given(number)
        return None if tensor is None else tensor.value(self.b)

    def all(self) -> list[Value]:
        """The values of all inputs."""
        return [self.x(number) for number in range(self.count)]

    def dims(self, number: int, what: str) -> list[Dim] | None:
        """An input as sizes; None if it is not there."""
        tensor = self.given(number)
        return None if tensor is None else dims_of(tensor, what)

    def numbers(self, number: int, what: str) -> Array | None:
        """An input that is a constant; None if it is not there."""
        tensor = self.given(number)
        return None if tensor is None else numbers_of(tensor, what)

    def number(self, place: int, what: str) -> Any:
        """An input that is one constant number; None if it is not there."""
        found = self.numbers(place, what)
        if found is None:
            return None
        if found.size != 1:
            raise Malformed(f"{what} has {found.size} elements")
        return found.reshape(()).item()

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute: a number, a text, a list of them, a tensor or a graph as ONNX has them."""
        self._read.add(name)
        attribute = self._attributes.get(name)
        if attribute is None:
            return default
        wanted = _types_of(self.node.domain, self.node.op_type, self.opset).get(name)
        if wanted is not None and attribute.type != wanted:
            kinds = (AttributeProto.AttributeType.Name(t) for t in (attribute.type, wanted))
            raise Malformed(f"its attribute {name} is of {' instead of '.join(kinds).lower()}")
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == AttributeProto.STRING:
            return value.decode(errors="replace")
        if attribute.type == AttributeProto.STRINGS:
            return [text.decode(errors="replace") for text in value]
        if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS):
            return list(value)
        return value

    def required(self, name: str) -> Any:
        """An attribute that must be there."""
        value = self.attr(name)
        if value is None:
            raise Malformed(f"it lacks the attribute {name}")
        return value

    def harmless(self, *names: str) -> None:
        """Attributes that change no number of a result."""
        self._read.update(names)

    def refuse_unread(self) -> None:
        """Raises Unsupported for an input or attribute that is there and was not read."""
        for number, tensor in enumerate(self._inputs):
            if tensor is not None and number not in self._read:
                raise Unsupported(f"input {number}, {self.node.input[number]!r}")
        for name in self._attributes:
            if name not in self._read:
                raise Unsupported(f"attribute {name}")

    # What it makes.

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The elements of a tensor that is an attribute."""
        return self._assembly.array(tensor)

    def branch(self, graph: onnx.GraphProto, given: Sequence[Tensor] = ()) -> list[Tensor]:
        """The outputs of a graph that is an attribute, whose nodes run in place of this one.

        Args:
            graph: the graph.
            given: its inputs.
        """
        return self._assembly.branch(graph, given)

    def made(self) -> tuple[list[Node], list[sympy.Basic]]:
        """The nodes that were made so far, and the conditions that calls check."""
        graph = self._assembly.graph
        return list(graph.nodes), list(graph.conditions)

    def aten(self, overload: str, /, *outs: tuple[DType, Shape], **arguments: Any) -> list[Value]:
        """The results of an operator of torch, lowered by its rule.

        Args:
            overload: as in `passes/lower_aten.py`, without `aten.` in front.
            outs: type and shape of each result.
            arguments: by name of the schema; tensors as values.

        Raises:
            Unsupported: if its rule does not take these arguments.
        """
        name = overload if overload.startswith("graphopt.") else f"aten.{overload}"
        operands: list[Value] = []

        def convert(argument: Any) -> Any:
            if isinstance(argument, list | tuple):
                return [convert(item) for item in argument]
            if not isinstance(argument, Value):
                return argument
            operands.append(argument)
            return Ref(len(operands) - 1)

        converted = {key: convert(argument) for key, argument in arguments.items()}
        target = name if name.count(".") < 2 else name.rpartition(".")[0]
        op = Aten(target, converted, name, RULES[name].schema)
        given = {f"x{i}": value for i, value in enumerate(operands)}
        outputs = [Value(dtype, shape) for dtype, shape in outs]
        builder = Builder(Node(op, given, outputs, self._origin))
        nodes, results = lower_node(builder, self._assembly.widening)
        return self._assembly.add(nodes, results)

    def unary(self, overload: str, x: Value, /, dtype: DType | None = None, **more: Any) -> Value:
        """An element-wise operator of torch of one tensor, `self`.

        Args:
            overload: as for `aten`.
            x: the tensor.
            dtype: of the result, if it is another.
            more: further arguments.
        """
        (y,) = self.aten(overload, (dtype or x.dtype, x.shape), self=x, **more)
        return y

    def binary(self, overload: str, x: Value, y: Value, dtype: DType | None = None) -> Value:
        """An element-wise operator of torch of two tensors, `self` and `other`.

        Args:
            overload: as for `aten`.
            x: first operand.
            y: second operand.
            dtype: of the result, if it is another.
        """
        out = dtype or x.dtype, self.broadcast(x, y)
        (z,) = self.aten(overload, out, self=x, other=y)
        return z

    def formula(self, of: Callable[..., Scalar], *values: Value) -> Value:
        """An element-wise expression; floats of 16 bits are computed in f32."""
        shape, dtype = self.broadcast(*values), values[0].dtype
        wide = [self.b.cast(v, DType.F32) if v.dtype.is_half else v for v in values]
        y = self.b.apply(of, *wide)
        y = y if y.shape == shape else self.b.expand(y, shape)
        return self.b.cast(y, dtype) if dtype.is_half and y.dtype is DType.F32 else y

    # Sizes.

    def broadcast(self, *values: Value) -> Shape:
        """The shape to which values broadcast; extents that must be equal become conditions."""
        return self.broadcast_shapes(*(v.shape for v in values))

    def broadcast_shapes(self, *shapes: Shape) -> Shape:
        """The shape to which shapes broadcast."""
        result = broadcast(*shapes)
        for shape in shapes:
            for mine, its in zip(shape[::-1], result[::-1], strict=False):
                if mine != 1:
                    self.require_equal(mine, its, "operands that broadcast")
        return result

    def require_equal(self, a: Dim, b: Dim, what: str) -> None:
        """Two sizes that must be equal: a condition of every call where that is not known.

        Args:
            a: a size.
            b: another.
            what: what they are of, for the error.
        """
        difference = symbolic.simplify(sympy.expand(sympy.sympify(a) - b))
        if difference == 0:
            return
        if isinstance(difference, int):
            raise Malformed(f"{what} have the sizes {a} and {b}")
        self.require(sympy.Eq(a, b))

    def require(self, condition: sympy.Basic) -> None:
        """A condition on sizes that every call checks."""
        if condition == sympy.true:
            return
        if condition == sympy.false:
            raise Malformed("sizes that contradict each other")
        known = self._assembly.graph.conditions
        turned = condition.func(*condition.args[::-1]) if condition.func is sympy.Eq else condition
        if condition not in known and turned not in known:
            known.append(condition)

    def axis(self, axis: int, rank: int) -> int:
        """An axis that is not negative."""
        if not -rank <= axis < max(rank, 1):
            raise Malformed(f"axis {axis} of a tensor of {rank} axes")
        return axis + rank if axis < 0 else axis

    def axes(self, axes: Sequence[Any], rank: int) -> list[int]:
        """Axes that are not negative."""
        found = [self.axis(int(a), rank) for a in axes]
        if len(set(found)) != len(found):
            raise Malformed(f"axes {list(axes)} name one twice")
        return found
