"""Text of graphs."""

from graphs import Maker, X, add

from graphopt.ir import Node, Origin, Ref
from graphopt.ir.ops import Aten, Check, QuantizeRows
from graphopt.ir.printer import print_graph, shape_text


def test_everything_that_a_line_holds(golden) -> None:
    m = Maker("model")
    x = m.input("x", "B", "T", 8)
    y = m.linear(x, 4)
    node = m.graph.nodes[0]
    node.origin = Origin("encoder.0.linear", "model.py:3", "y = self.linear(x)")
    node.decide("some_pass", "because")
    thing = Aten("aten.thing", {"self": Ref(0), "also": [Ref(0), 2], "eps": 1e-5})
    checks = Check(m.shape("T")[0] + 1)
    m.op(QuantizeRows(), y)
    m.graph.nodes += [Node(thing, {"x0": x}, []), Node.of(checks, x)]
    graph = m.output(m.pointwise(add(X, X), y), m.constant("c", 2))
    golden("printer", print_graph(graph, reasons=True))
    assert "because" not in print_graph(graph)


def test_shapes() -> None:
    m = Maker()
    assert shape_text(m.shape("B", m.shape("T")[0] + 1, 3)) == "[B, T+1, 3]"
    assert shape_text(()) == "[]"


def test_equal_graphs_print_alike() -> None:
    def make() -> str:
        m = Maker()
        return print_graph(m.output(m.linear(m.input("x", "B", 4), 3)))

    assert make() == make()
