"""Cuts an ONNX model into regions that are compiled and regions that onnxruntime runs.

Each region is a model of its own. Nodes are gathered greedily, as `compiler/partition.py` does it:
a region takes every node whose operands are there before the other kind gets its turn. Nodes that
only compute with sizes (`Shape` and what follows it), and constants, are copied into every region
that reads them, so that sizes stay expressions there. What a compiled region refuses, because it
does not know what another one computes, goes to onnxruntime too, until nothing is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx

from graphopt.errors import OnnxModelError
from graphopt.onnx.files import Model
from graphopt.onnx.importer import Refusal, import_model
from graphopt.onnx.sizes import FOLLOWED

_SIZES = ("Shape", "Size")
_PRODUCTS = {
    *("Conv", "ConvInteger", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "MatMulInteger"),
    *("QLinearConv", "QLinearMatMul", "RNN"),
}
_NOT_COPIED = ("If", "Loop", "Scan", "RandomNormal", "RandomUniform")


@dataclass(eq=False)
class Region:
    """A part of a model.

    Attributes:
        model: of its nodes.
        inputs: names of tensors that others make.
        outputs: names of tensors that others read, or the model returns.
        places: numbers of its nodes in the whole graph.
        refusals: why they are not compiled; empty if they are.
    """

    model: Model
    inputs: list[str]
    outputs: list[str]
    places: list[int]
    refusals: list[Refusal]

    @property
    def is_compiled(self) -> bool:
        """Whether nothing in it needs onnxruntime."""
        return not self.refusals

    @property
    def choice(self) -> onnx.NodeProto | None:
        """The `If` that is all that is left in it; None for other regions."""
        if self.is_compiled:
            return None
        return next((n for n in self.model.proto.graph.node if is_choice(n)), None)

    def branch(self, graph: onnx.GraphProto) -> Region:
        """One branch of `choice` as a region: of the graph, and of what it reads.

        Args:
            graph: of the branch.
        """
        return self._part(graph.node, graph.initializer, list(graph.output), set(_free(graph)))

    def condition(self) -> Region:
        """What computes the condition of `choice`, which nobody else does."""
        assert self.choice is not None
        name = self.choice.input[0]
        return self._part((), (), [onnx.ValueInfoProto(name=name)], {name})

    def _part(
        self,
        nodes: Sequence[onnx.NodeProto],
        constants: Sequence[onnx.TensorProto],
        outputs: list[onnx.ValueInfoProto],
        read: set[str],
    ) -> Region:
        """A region of nodes, and of those of this one that make what they read."""
        whole = self.model.proto
        before: list[onnx.NodeProto] = []
        for node in reversed(whole.graph.node):
            if read & set(node.output) and not is_choice(node):
                before.insert(0, node)
                read |= set(_read(node))
        proto = onnx.ModelProto()
        proto.CopyFrom(whole)
        for field in ("node", "initializer", "input", "output"):
            proto.graph.ClearField(field)
        proto.graph.node.extend([*before, *nodes])
        proto.graph.initializer.extend(t for t in whole.graph.initializer if t.name in read)
        proto.graph.initializer.extend(constants)
        proto.graph.input.extend(i for i in whole.graph.input if i.name in read)
        proto.graph.output.extend(outputs)
        inputs = [name for name in self.inputs if name in read]
        model = Model(proto, self.model.name, self.model.path)
        return Region(model, inputs, [o.name for o in outputs], [], [])


Ranks = Callable[[list[str]], dict[str, tuple[int, int]]]
"""Learns the element type and number of axes of tensors; of some of them, or none."""


def cut(model: Model, exact: bool, ranks: Ranks = lambda names: {}) -> list[Region]:
    """The regions of a model in the order in which they run; none if nothing can be compiled.

    Args:
        model: of which some nodes are refused.
        exact: as of `importer.compiled_graph`.
        ranks: learns what onnx does not infer of tensors.

    Raises:
        OnnxModelError: if the model is damaged or contradicts itself.
    """
    cutter = _Cutter(model, ranks)
    left: dict[int, Refusal] = {}
    cutter.note(import_model(model, exact).refusals, range(len(cutter.nodes)), left)
    while True:
        regions = cutter.regions(left)
        before = len(left)
        for region in regions:
            if region.is_compiled:
                found = import_model(region.model, exact).refusals
                cutter.note(found, region.places, left)
        if len(left) == before:
            return regions if any(r.is_compiled or r.choice for r in regions) else []


class _Cutter:
    def __init__(self, model: Model, ranks: Ranks) -> None:
        self._model, proto = model, model.proto
        self.nodes = list(proto.graph.node)
        self._reads = [list(dict.fromkeys(_read(node))) for node in self.nodes]
        self._maker = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self._stored = {t.name: t for t in proto.graph.initializer}
        self._infos = _infos(model)
        unknown = [name for name in self._maker if not _has_rank(self._infos.get(name))]
        for name, (element, rank) in (ranks(unknown) if unknown else {}).items():
            made = onnx.helper.make_tensor_value_info(name, element, [None] * rank)
            self._infos[name] = made
        self._copied = self._cheap()

    def _cheap(self) -> set[int]:
        """Nodes that compute with constants alone, or with sizes."""
        fixed, found = set[int](), set[int]()
        for i, node in enumerate(self.nodes):
            if node.domain not in ("", "ai.onnx") or node.op_type in _NOT_COPIED:
                continue
            read = [(name in self._stored, self._maker.get(name)) for name in self._reads[i]]
            if all(stored or maker in fixed for stored, maker in read):
                fixed.add(i)
            elif node.op_type in _SIZES or (
                node.op_type in FOLLOWED
                and all(stored or maker in fixed or maker in found for stored, maker in read)
            ):
                found.add(i)
        return fixed | found

    def note(
        self, refusals: Sequence[Refusal], places: Sequence[int], left: dict[int, Refusal]
    ) -> None:
        """Takes note of what a region refuses.

        Args:
            refusals: of it.
            places: of its nodes.
            left: by place, what onnxruntime runs; added to.

        Raises:
            OnnxModelError: if there is no node to leave to onnxruntime.
        """
        for refusal in refusals:
            if refusal.place >= 0:
                left.setdefault(places[refusal.place], refusal)
                continue
            readers = [i for i in places if refusal.node in self._reads[i]]
            readers = readers or [m for n, m in self._maker.items() if n == refusal.node]
            if not readers:
                raise OnnxModelError(self._model.name, f"{refusal.node}: {refusal.reason}")
            for i in readers:
                left.setdefault(i, refusal)

    def regions(self, left: dict[int, Refusal]) -> list[Region]:
        """Regions in the order in which they run."""
        turns: list[int] = []
        for i in range(len(self.nodes)):
            makers = [m for n in self._reads[i] if (m := self._maker.get(n)) is not None and m < i]
            turns.append(max((turns[m] + (m in left and i not in left) for m in makers), default=0))
        returned = {o.name for o in self._model.proto.graph.output}
        groups = [
            group
            for number in range(max(turns, default=-1) + 1)
            for is_left in (False, True)
            for group in self._apart(
                [i for i, turn in enumerate(turns) if turn == number and (i in left) == is_left],
                is_left,
            )
            if set(group) - self._copied or returned & self._made(group)
        ]
        whole = [self._with_copies(group) for group in groups]
        inputs = [self._inputs(group) for group in whole]
        wanted = {*returned, *(name for names in inputs for name in names)}
        made: set[str] = set()
        regions = []
        for number, (group, names) in enumerate(zip(whole, inputs, strict=True)):
            chosen = [i for i in group if i in left and is_choice(self.nodes[i])]
            own = [
                n
                for i in chosen or group
                for n in self.nodes[i].output
                if n in wanted and n not in made
            ]
            made.update(own)
            if own:
                why = [left[i] for i in group if i in left]
                regions.append(self._region(number, group, names, own, why))
        return regions

    def _apart(self, group: list[int], is_left: bool) -> list[list[int]]:
        """Branches on products, of which a call computes one, by themselves."""
        if not is_left:
            return [group]
        found: list[list[int]] = [[]]
        for i in group:
            if is_choice(self.nodes[i]):
                found += [[i], []]
            else:
                found[-1].append(i)
        return [part for part in found if part]

    def _made(self, group: list[int]) -> set[str]:
        return {name for i in group for name in self.nodes[i].output}

    def _with_copies(self, group: list[int]) -> list[int]:
        found, pending = set(group), list(group)
        while pending:
            for name in self._reads[pending.pop()]:
                maker = self._maker.get(name)
                if maker in self._copied and maker not in found:
                    found.add(maker)
                    pending.append(maker)
        return sorted(found)

    def _inputs(self, group: list[int]) -> list[str]:
        made = self._made(group)
        read = dict.fromkeys(name for i in group for name in self._reads[i])
        return [name for name in read if name not in made and name not in self._stored]

    def _region(
        self,
        number: int,
        group: list[int],
        inputs: list[str],
        outputs: list[str],
        why: list[Refusal],
    ) -> Region:
        proto = onnx.ModelProto()
        source = self._model.proto
        proto.ir_version = source.ir_version
        proto.opset_import.extend(source.opset_import)
        proto.functions.extend(source.functions)
        graph = proto.graph
        graph.name = f"{self._model.name}_{number}"
        graph.node.extend(self.nodes[i] for i in group)
        read = dict.fromkeys(name for i in group for name in self._reads[i])
        graph.initializer.extend(self._stored[name] for name in read if name in self._stored)
        for names, ports in ((inputs, graph.input), (outputs, graph.output)):
            for name in names:
                known = self._infos.get(name)
                ports.append(known or onnx.ValueInfoProto(name=name))
        model = Model(proto, graph.name, self._model.path)
        return Region(model, inputs, outputs, group, why)


def is_choice(node: onnx.NodeProto) -> bool:
    """Whether a node is an `If` with products in a branch."""
    return node.op_type == "If" and any(
        inner.op_type in _PRODUCTS or is_choice(inner)
        for attribute in node.attribute
        for inner in attribute.g.node
    )


def _infos(model: Model) -> dict[str, onnx.ValueInfoProto]:
    """Types and shapes of tensors, as far as onnx infers them."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model.proto, data_prop=True).graph
    except Exception as error:  # its types are of pybind
        raise OnnxModelError(model.name, f"its shapes contradict each other: {error}") from error
    given = model.proto.graph
    return {i.name: i for ports in (inferred.value_info, given.output, given.input) for i in ports}


def _has_rank(info: onnx.ValueInfoProto | None) -> bool:
    """Whether the number of axes is known, or it is no tensor."""
    if info is None or info.type.WhichOneof("value") not in (None, "tensor_type"):
        return info is not None
    return bool(info.type.tensor_type.HasField("shape"))


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, also inside of its graphs."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
        for graph in graphs:
            yield from _free(graph)


def _free(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that a graph reads from what is around it."""
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        yield from (name for name in _read(node) if name not in own)
    yield from (o.name for o in graph.output if o.name not in own)
