"""Graphs as networks: order, cycles, the longest way, and files for other tools."""

import shutil
import subprocess
from io import StringIO
from pathlib import Path

import networkx as nx
import pytest
from graphs import Maker, X, add, mul

from graphopt.compiler.partition import CompiledPart, partition
from graphopt.compiler.pipeline import PassManager, export
from graphopt.config import Config
from graphopt.errors import OptionError
from graphopt.ir import Graph
from graphopt.ir.networks import critical_path, cycle, dot, graphml, ranks
from graphopt.ir.ops import CachedAttention, Rope
from graphopt.ir.verify import VerificationError, verify
from graphopt.passes.eliminate_dead_code import EliminateDeadCode


def diamond() -> Graph:
    """Two ways from an input to a sum, one of them a node longer."""
    m = Maker()
    x = m.input("x", "B", 4)
    short = m.pointwise(mul(X, 2.0), x)
    long = m.pointwise(mul(X, 4.0), m.pointwise(mul(X, 3.0), x))
    return m.output(m.pointwise(add(), short, long))


def test_the_critical_path_is_the_dearest() -> None:
    graph = diamond()
    short, first, second, last = graph.nodes
    assert critical_path(graph.nodes, dict.fromkeys(graph.nodes, 1.0)) == [first, second, last]
    assert critical_path(graph.nodes, {short: 9.0, first: 1.0, last: 1.0}) == [short, last]


def test_ranks_add_up_along_the_longest_way() -> None:
    assert ranks(diamond().nodes, lambda before, after: 1) == [0, 0, 1, 2]


def test_a_cycle_is_named() -> None:
    graph = diamond()
    assert cycle(graph.nodes) == []
    _, first, second, _ = graph.nodes
    first.operands["x0"] = second.output
    assert set(cycle(graph.nodes)) == {first, second}
    with pytest.raises(VerificationError, match=r"a cycle of go\.pointwise, go\.pointwise"):
        verify(graph, "the test")


def test_reads_of_a_state_stay_around_its_writes() -> None:
    m = Maker()
    q, angles = m.input("q", "B", "T", 2, 4), m.input("a", "B", "T", 2)
    past, cache = m.input("past", "B"), m.input("cache", 1, 2, "B", 8, 2, 4)
    cache.is_state = True
    kept = {"past": past, "start": past, "cache": cache}
    before = m.op(CachedAttention(0, 1.0), q, **kept)
    m.op(Rope(0), q, q, q, angles, angles, **kept)
    m.output(before, m.op(CachedAttention(0, 1.0), q, **kept))
    assert ranks(m.graph.nodes, lambda before, after: 1) == [0, 1, 2]


def test_parts_of_a_long_graph_alternate() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    for _ in range(300):
        x = m.torch("cumsum", m.pointwise(mul(X, 2.0), x))
    parts = partition(m.output(x))
    assert [isinstance(p, CompiledPart) for p in parts] == [True, False] * 300
    assert all(len(p.graph.nodes) == 1 for p in parts if isinstance(p, CompiledPart))


def test_graphml_holds_every_node_and_edge() -> None:
    graph = diamond()
    graph.nodes[0].decide("a_pass", 'said "so" & more')
    read = nx.parse_graphml(graphml(graph))
    assert len(read) == 1 + 4 + 1 and read.number_of_edges() == 2 + 1 + 2 + 1
    ops = [data["op"] for _, data in read.nodes(data=True)]
    assert ops == ["input", *["go.pointwise"] * 4, "output"]
    assert read.nodes["node0"]["reasons"] == 'a_pass: said "so" & more'
    assert {data["type"] for *_, data in read.edges(data=True)} == {"f32[B, 4]"}


def test_dot_is_drawn(tmp_path: Path) -> None:
    text = dot(diamond())
    assert text.count("->") == 6 and StringIO(text).readline() == 'digraph "tiny" {\n'
    if shutil.which("dot") is None:
        pytest.skip("graphviz is not installed")
    command = ["dot", "-Tsvg", "-o", str(tmp_path / "graph.svg")]
    subprocess.run(command, input=text, text=True, check=True)
    assert (tmp_path / "graph.svg").read_text().count("go.pointwise") >= 4


def test_any_stage_is_dumped_as_a_network(tmp_path: Path) -> None:
    for kind in ("graphml", "dot"):
        config = Config(dump=tmp_path, dump_format=kind)
        PassManager(config).run(diamond(), [EliminateDeadCode()])
        stages = sorted(p.name for p in (tmp_path / "tiny").glob(f"*.{kind}"))
        assert stages == [f"00_capture.{kind}"]  # where a pass changed something
    with pytest.raises(OptionError, match="text, graphml, dot"):
        export(diamond(), "svg")
