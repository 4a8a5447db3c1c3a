"""Computes once what several nodes compute alike.

    %1 = go.slice(%0, start=0)          %1 = go.slice(%0, start=0)
    %2 = go.slice(%0, start=0)    ->    %3 = go.linear(%1, %w)
    %3 = go.linear(%2, %w)

Two nodes are alike if op, inputs and attributes are equal; constants of at most 64 KiB are equal if
their contents are. `aten.*` nodes are left alone: some of them draw random numbers. So are nodes
that write to a state, and two that read one are alike only if none writes to it between them.
"""

from __future__ import annotations

from collections.abc import Hashable

from graphopt.ir import Graph, Node, Value
from graphopt.passes.base import Pass

_SMALL = 65536


class EliminateCommonSubexpressions(Pass):
    """See the module."""

    def run(self, graph: Graph) -> bool:
        """One sweep in topological order."""
        mapping: dict[Value, Value] = {}
        contents: dict[Hashable, Value] = {}
        for value in graph.constants():
            if value.data is not None and value.data.nbytes <= _SMALL:
                content = (value.dtype, value.shape, value.data.tobytes())
                original = contents.setdefault(content, value)
                if original is not value:
                    mapping[value] = original
        modified = bool(mapping)
        graph.replace(mapping)
        mapping.clear()
        seen: dict[Hashable, Node] = {}
        writers: dict[Value, Node] = {}
        kept: list[Node] = []
        for node in graph.nodes:
            node.replace_operands(mapping)
            written = node.written
            if not node.is_lowered or node.op.is_check or written:
                kept.append(node)
                writers.update(dict.fromkeys(written, node))
                continue
            key = self._key(node), tuple(id(writers.get(v)) for v in node.inputs)
            first = seen.setdefault(key, node)
            if first is node:
                kept.append(node)
            else:
                mapping.update(zip(node.outputs, first.outputs, strict=True))
        modified |= len(kept) != len(graph.nodes)
        graph.nodes = kept
        graph.replace(mapping)
        return modified

    @staticmethod
    def _key(node: Node) -> Hashable:
        # As text, because 0.0 and -0.0 are equal numbers, and True and 1.
        operands = tuple((role, id(value)) for role, value in node.operands.items())
        result = tuple((v.dtype, v.shape) for v in node.outputs)
        return (repr(node.op), operands, result)
