"""The arena: sharing that is right for every size of the inputs."""

from dataclasses import replace

from graphs import Maker, X, mul
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.codegen.memory import bytes_of
from graphopt.codegen.plan_memory import MemoryPlan, plan_memory
from graphopt.ir.layout import layout_of
from graphopt.ir.ops import Cat, Expand, Linear
from graphopt.ir.symbolic import THREADS, evaluate
from graphopt.passes.assign_layouts import AssignLayouts


def plan(m: Maker, scratch=lambda node: 0) -> MemoryPlan:
    AssignLayouts().run(m.graph)
    return plan_memory(m.graph, lambda v: bytes_of(v, "x86_64"), scratch)


def chain(length: int, *shape) -> Maker:
    m = Maker()
    x = m.input("x", *shape)
    for _ in range(length):
        x = m.pointwise(mul(X, 2.0), x)
    m.output(x)
    return m


def test_a_chain_needs_two_slots() -> None:
    m = chain(6, "B", "T", 8)
    made = plan(m)
    assert len(made.slots) == 2
    assert made.unshared_bytes == 5 * 2 * 5 * 8 * 4  # the last of the six is the output
    assert made.bytes(m.graph.hints()) == 2 * 2 * 5 * 8 * 4


def test_inputs_outputs_and_constants_have_no_slot() -> None:
    m = Maker()
    x = m.input("x", "B", 4)
    y = m.linear(x, 4)
    m.output(y)
    assert not plan(m).slots


def test_a_view_keeps_its_source_alive() -> None:
    m = Maker()
    x = m.input("x", "B", 8)
    base = m.pointwise(mul(X, 2.0), x)
    view = m.slice(base, 1, 2, 4)
    other = m.pointwise(mul(X, 3.0), x)
    last = m.pointwise(mul(X, 3.0), other)
    m.output(m.op(Cat(axis=1), view, last))
    made = plan(m)
    assert len({made.slot_of[v] for v in (base, other, last)}) == 3


def test_a_slot_holds_its_largest_value_at_every_size() -> None:
    m = Maker()
    x = m.input("x", "B", "T")
    small = m.pointwise(mul(X, 2.0), m.slice(x, 1, 0, 1))
    wide = m.op(Expand(shape=m.shape("B", "T")), small)
    big = m.pointwise(mul(X, 2.0), wide)
    y = m.pointwise(mul(X, 2.0), big)
    z = m.pointwise(mul(X, 2.0), y)
    m.output(m.pointwise(mul(X, 2.0), z))
    made = plan(m)
    for sizes in ((1, 1), (3, 1), (2, 100)):
        dims = dict(zip(m.graph.hints(), sizes, strict=True))
        for value, slot in made.slot_of.items():
            size = evaluate(bytes_of(value, "x86_64"), dims)
            assert made.slots[slot].bytes(dims) >= size


def test_scratch_lives_for_its_node_alone() -> None:
    m = chain(4, "B", 8)
    made = plan(m, lambda node: 64 * THREADS)
    scratch = {made.slot_of[n] for n in m.graph.nodes}
    values = {s for item, s in made.slot_of.items() if item not in m.graph.nodes}
    assert len(scratch) == 1 and len(made.slots) == 3
    assert made.slots[scratch.pop()].bytes({**m.graph.hints(), THREADS: 3}) >= 192
    assert len(values) == 2


@st.composite
def graphs(draw: st.DrawFn) -> Maker:
    """Arithmetic and views on values of different sizes, some of them outputs."""
    m = Maker()
    values = [m.input("x", "B", "T", 4)]
    for _ in range(draw(st.integers(1, 14))):
        x = values[draw(st.integers(max(0, len(values) - 5), len(values) - 1))]
        kind = draw(st.sampled_from(["pointwise", "cat", "slice", "permute", "linear", "wide"]))
        if kind == "pointwise":
            y = m.pointwise(mul(X, 2.0), x)
        elif kind == "cat":
            other = draw(st.sampled_from([v for v in values if v.shape == x.shape]))
            y = m.op(Cat(axis=1), x, other)
        elif kind == "slice":
            y = m.slice(x, 1, 0, x.shape[1], step=1)
        elif kind == "permute":
            y = m.permute(x, 1, 0, 2)
        else:
            y = m.linear(x, draw(st.sampled_from([4, 16])) if kind == "wide" else 4)
        values.append(y)
    outputs = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3, unique=True))
    m.output(*outputs)
    return m


@settings(max_examples=60)
@given(graphs(), st.integers(1, 4), st.integers(1, 40))
def test_values_alive_at_once_never_share(m: Maker, batch: int, time: int) -> None:
    made = plan(m, lambda n: 128 if isinstance(n.op, Linear) else 0)
    graph = m.graph
    elsewhere = {*graph.inputs, *graph.outputs}
    born = {v: i for i, n in enumerate(graph.nodes) for v in n.outputs}
    dies: dict = {}
    for i, node in enumerate(graph.nodes):
        for value in (*node.inputs, *node.outputs):
            dies[layout_of(value).storage] = i
    owners = [v for v in born if layout_of(v).storage is v and v not in elsewhere]
    assert set(owners) == {v for v in made.slot_of if v in born}
    spans = [(made.slot_of[v], born[v], dies[v]) for v in owners]
    position = {n: i for i, n in enumerate(graph.nodes)}
    spans += [(s, position[n], position[n]) for n, s in made.slot_of.items() if n in position]
    for i, (slot, start, end) in enumerate(spans):
        for other, begin, stop in spans[:i]:
            assert slot != other or end < begin or stop < start
    names = list(graph.dims)
    graph.dims = {
        n: replace(graph.dims[n], hint=h) for n, h in zip(names, (batch, time), strict=True)
    }
    scratch = 128 * sum(isinstance(n.op, Linear) for n in graph.nodes)
    unshared = sum(evaluate(bytes_of(v, "x86_64"), graph.hints()) for v in owners) + scratch
    assert made.bytes(graph.hints()) <= unshared
