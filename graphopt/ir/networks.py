"""Graphs as networks of networkx: questions of order and length, and files for other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO

import networkx as nx
import sympy

from graphopt.ir.graph import Graph, Node, Value
from graphopt.ir.printer import name_values, print_node, shape_text
from graphopt.ir.scalar import symbols_in
from graphopt.printable import printable


def network(nodes: Iterable[Node]) -> nx.DiGraph:
    """Nodes, with an edge from the one that makes a value to each that reads it.

    What has a dim that a node finds comes behind that node.
    What reads or writes a state comes behind the write before it, and a write behind the reads.

    Args:
        nodes: of a graph, in its order; edges begin at nodes among them.

    Returns:
        A graph of positions in `nodes`, acyclic if the order of the nodes is legal.
    """
    nodes = list(nodes)
    makers = {value: i for i, node in enumerate(nodes) for value in node.outputs}
    found = nx.DiGraph()
    found.add_nodes_from(range(len(nodes)))
    writers: dict[Value, int] = {}
    readers: dict[Value, list[int]] = {}
    for i, node in enumerate(nodes):
        found.add_edges_from((makers[v], i) for v in node.operands.values() if v in makers)
        written = set(node.written)
        for value in node.operands.values():
            if not value.is_state:
                continue
            if value in writers:
                found.add_edge(writers[value], i)
            if value in written:
                found.add_edges_from((reader, i) for reader in readers.pop(value, ()))
                writers[value] = i
            else:
                readers.setdefault(value, []).append(i)
    for dim, maker in {n.op.computes: i for i, n in enumerate(nodes) if n.op.computes}.items():
        readers_of = (i for i, n in enumerate(nodes) if i > maker and _mentions(n, dim))
        found.add_edges_from((maker, i) for i in readers_of)
    found.remove_edges_from(list(nx.selfloop_edges(found)))
    return found


def symbols(nodes: Iterable[Node], inputs: Iterable[Value]) -> set[sympy.Symbol]:
    """The dims in the shapes of values, and in whatever else nodes compute with."""
    shapes = [v.shape for v in (*inputs, *(v for n in nodes for v in n.outputs))]
    return symbols_in([*shapes, *(list(vars(n.op).values()) for n in nodes)])


def _mentions(node: Node, dim: str) -> bool:
    return any(symbol.name == dim for symbol in symbols([node], ()))


def cycle(nodes: Sequence[Node]) -> list[Node]:
    """Nodes that wait for each other in a ring; none if there is an order for all."""
    try:
        edges = nx.find_cycle(network(nodes))
    except nx.NetworkXNoCycle:
        return []
    return [nodes[i] for i, _ in edges]


def ranks(nodes: Sequence[Node], step: Callable[[Node, Node], int]) -> list[int]:
    """For each node the largest sum of steps along the ways to it, from 0 on.

    Args:
        nodes: in a legal order.
        step: what lies between a node and one that reads it.
    """
    rank = [0] * len(nodes)
    ways = network(nodes)
    for i in nx.topological_sort(ways):
        before = ((rank[j] + step(nodes[j], nodes[i])) for j in ways.predecessors(i))
        rank[i] = max(before, default=0)
    return rank


def critical_path(nodes: Sequence[Node], cost: Mapping[Node, float]) -> list[Node]:
    """The nodes that wait for each other for longest: no order, and no number of cores, is faster.

    Args:
        nodes: in a legal order.
        cost: of each node, such as seconds; 0 where it is missing.
    """
    ways = network(nodes)
    for before, after in ways.edges:
        ways.edges[before, after]["cost"] = cost.get(nodes[before], 0.0)
    # An end behind every node, so that the last one of a way counts too.
    end = len(nodes)
    ways.add_weighted_edges_from(
        ((i, end, cost.get(node, 0.0)) for i, node in enumerate(nodes)), weight="cost"
    )
    return [nodes[i] for i in nx.dag_longest_path(ways, weight="cost") if i != end]


def to_network(graph: Graph, names: Mapping[Value, str] | None = None) -> nx.MultiDiGraph:
    """A graph with its inputs and outputs, every attribute a text: what `write` writes.

    Args:
        graph: what is shown.
        names: of its values; those of `name_values` if None.
    """
    names = name_values(graph) if names is None else names
    shown = nx.MultiDiGraph(name=printable(graph.name))
    at: dict[Value, str] = {}

    def connect(value: Value, to: str, role: str) -> None:
        if value in at:
            kind = f"{value.packed or value.dtype.value}{shape_text(value.shape)}"
            shown.add_edge(at[value], to, role=role, value=names[value], type=kind)

    for i, value in enumerate(graph.inputs):
        at[value] = f"input{i}"
        shown.add_node(at[value], label=names[value], op="input", module="", reasons="")
    for i, node in enumerate(graph.nodes):
        name = f"node{i}"
        shown.add_node(
            name,
            label=node.op.name,
            op=node.op.name,
            kernel=node.kernel,
            module=printable(node.origin.module),
            source=printable(node.origin.source),
            text=print_node(node, names),
            constants=", ".join(names[v] for v in node.inputs if v.is_constant),
            reasons="; ".join(map(printable, node.reasons)),
        )
        for role, value in node.operands.items():
            connect(value, name, role)
        at.update(dict.fromkeys(node.outputs, name))
    for i, value in enumerate(graph.outputs):
        name = f"output{i}"
        shown.add_node(name, label=names[value], op="output", module="", reasons="")
        connect(value, name, "")
    return shown


def graphml(graph: Graph, names: Mapping[Value, str] | None = None) -> str:
    """The graph as GraphML (http://graphml.graphdrawing.org), for yEd, Gephi or networkx."""
    file = BytesIO()
    nx.write_graphml(to_network(graph, names), file, infer_numeric_types=False)
    return file.getvalue().decode()


def dot(graph: Graph, names: Mapping[Value, str] | None = None) -> str:
    """The graph in the language of Graphviz, in which `dot -Tsvg` draws it."""
    shown = to_network(graph, names)
    lines = [f"digraph {_quoted(shown.graph['name'])} {{", "    node [shape=box];"]
    for name, data in shown.nodes(data=True):
        label = "\n".join(filter(None, (data["label"], data["module"])))
        lines.append(f"    {name} [label={_quoted(label)}, tooltip={_quoted(data['reasons'])}];")
    for before, after, data in shown.edges(data=True):
        label = " ".join(filter(None, (data["role"], data["type"])))
        lines.append(f"    {before} -> {after} [label={_quoted(label)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    """A string of Graphviz."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
