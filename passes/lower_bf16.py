"""Keeps intermediates in bf16 and multiplies float matrices with BFMMLA.

    %1 = go.linear(%x, weight=%w)           %1 = go.pack_rows(%x)                      # panels
    %2 = go.norm(%1)                 ->     %2 = go.linear(%1, weight=%w, scheme=bf16) # bf16
                                            %3 = go.norm(%2)

1. A linear that is not int8 gets `scheme=bf16` if the GEMM is to be bf16 too.
2. A result of a linear, norm, attention or depthwise convolution is stored as bf16 if all its
   readers take bf16. They compute in f32; only storage is narrow.
Left in f32: the residual stream (a sum that is added to again: rounding it at each of many layers
would add up), graph inputs and outputs, and what only f32 kernels read.
"""

from __future__ import annotations

from graphopt.ir import DType, Graph, Node, Value, scalar
from graphopt.ir.scalar import Scalar
from graphopt.passes.base import Pass
from graphopt.passes.support.product import PackedRows, require_finite

_RESIDUAL = ("residual", "residual0", "residual1")
_PRODUCERS = ("go.linear", "go.norm", "go.attention", "go.depthwise", "go.conv")
_VIEWS = ("go.permute", "go.reshape", "go.slice")
_READERS = {
    "go.quantize_rows": ("",),
    "go.pack_rows": ("",),
    "go.patches": ("",),
    "go.norm": ("x",),
    "go.softmax": ("",),
    "go.linear": ("factor", *_RESIDUAL),
    "go.attention": ("q", "k", "v"),
    "go.depthwise": ("x", "residual"),
    "go.conv": ("x", "factor", *_RESIDUAL),
    "go.pointwise": ("",),
}


class LowerBf16(Pass):
    """See the module.

    Args:
        gemm: whether linears that are still float multiply in bf16.
    """

    def __init__(self, gemm: bool) -> None:
        self._gemm = gemm

    def run(self, graph: Graph) -> bool:
        """First the multiplications, then the storage between them."""
        modified = self._gemm and self._lower_linears(graph)
        self._readers = graph.users()
        self._outputs = set(graph.outputs)
        candidates = [n for n in graph.nodes if n.op in _PRODUCERS and n.output.dtype is DType.F32]
        refusals = {node: self._refusal(node) for node in candidates}
        self._refuse_mixed_attention(graph, refusals)
        for node, refusal in refusals.items():
            if refusal is None:
                self._narrow(node.output)
                node.decide(self.name, "stored as bf16")
                modified = True
            else:
                node.decide(self.name, f"kept f32: {refusal}")
        return modified

    @staticmethod
    def _refuse_mixed_attention(graph: Graph, refusals: dict[Node, str | None]) -> None:
        """Query, key and value have one type: if one of them stays f32, all do."""
        producers = graph.producers()
        attentions = [n for n in graph.nodes if n.op == "go.attention"]
        settled = False
        while not settled:
            settled = True
            for attention in attentions:
                makers = [_maker(v, producers) for v in attention.inputs[:3]]
                narrow = [m for m in makers if m is not None and m in refusals and not refusals[m]]
                if narrow and len(narrow) < len(makers):
                    for maker in narrow:
                        refusals[maker] = "attention reads it beside an f32 tensor"
                    settled = False

    def _lower_linears(self, graph: Graph) -> bool:
        packed = PackedRows("go.pack_rows", DType.BF16, "bf16")
        nodes: list[Node] = []
        modified = False
        for node in graph.nodes:
            if node.op == "go.linear" and "scheme" not in node.attrs:
                require_finite(node.inputs[1])
                packed.give(node, nodes)
                node.attrs["scheme"] = "bf16"
                node.decide(self.name, "bf16: products in bf16, sums in f32")
                modified = True
            nodes.append(node)
        graph.nodes = nodes
        return modified

    def _refusal(self, node: Node) -> str | None:
        """Why the output must stay f32, or None."""
        value = node.output
        sums = any(node.operand(role) is not None for role in _RESIDUAL)
        if sums and any(self._adds(user, value) for user in self._readers[value]):
            return "residual stream"
        return self._unreadable(value)

    @staticmethod
    def _adds(user: Node, value: Value) -> bool:
        return any(user.operand(role) is value for role in _RESIDUAL)

    def _unreadable(self, value: Value) -> str | None:
        if value in self._outputs:
            return "output of the graph"
        for user in self._readers[value]:
            if user.op in _VIEWS:
                refusal = self._unreadable(user.output)
                if refusal is not None:
                    return refusal
                continue
            roles = user.attrs.get("roles", ("",) * len(user.inputs))
            used = {r for r, v in zip(roles, user.inputs, strict=True) if v is value}
            if not used <= set(_READERS.get(user.op, ())):
                return f"read by {user.op} in f32"
        return None

    def _narrow(self, value: Value) -> None:
        """Changes the type of a value, of views of it, and of expressions that read it."""
        value.dtype = DType.BF16
        for user in self._readers[value]:
            if user.op in _VIEWS:
                self._narrow(user.output)
            elif user.op == "go.pointwise":
                user.attrs["expr"] = _reading_bf16(user.attrs["expr"], user, value)


def _maker(value: Value, producers: dict[Value, Node]) -> Node | None:
    """The node that makes the value behind views."""
    while (node := producers.get(value)) is not None and node.op in _VIEWS:
        value = node.inputs[0]
    return node


def _reading_bf16(expr: Scalar, user: Node, value: Value) -> Scalar:
    def leaf(s: Scalar) -> Scalar:
        if s.op == "operand" and user.inputs[s.value] is value:  # type: ignore[index]
            return scalar.cast(scalar.operand(s.value, DType.BF16), DType.F32)  # type: ignore[arg-type]
        return s

    return scalar.substitute(expr, leaf)
