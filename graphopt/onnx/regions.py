"""Cuts an ONNX model into regions that are compiled and regions that onnxruntime runs.

Each region is a model of its own. Nodes are gathered greedily, as `compiler/partition.py` does it:
a region takes every node whose operands are there before the other kind gets its turn. Nodes that
only compute with sizes (`Shape` and what follows it), and constants, are copied into every region
that reads them, so that sizes stay expressions there. What a compiled region refuses, because it
does not know what another one computes, goes to onnxruntime too, until nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import external_data_helper

from graphopt.errors import OnnxModelError
from graphopt.onnx.files import Model
from graphopt.onnx.importer import Importer, Refusal, import_model
from graphopt.onnx.sizes import FOLLOWED
from graphopt.onnx.tensors import array_of

_SIZES = ("Shape", "Size")
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

    def whole(self) -> onnx.ModelProto:
        """The model, with the elements that lie in files.

        Raises:
            OnnxModelError: if they cannot be read.
        """
        proto, folder = onnx.ModelProto(), self.model.folder
        proto.CopyFrom(self.model.proto)
        for tensor in proto.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                array_of(tensor, folder, self.model.name)  # refuses what lies elsewhere
                external_data_helper.load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
        return proto


def cut(model: Model, exact: bool) -> list[Region]:
    """The regions of a model in the order in which they run; none if nothing can be compiled.

    Args:
        model: of which some nodes are refused.
        exact: as of `importer.compiled_graph`.

    Raises:
        OnnxModelError: if the model is damaged or contradicts itself.
    """
    cutter = _Cutter(model)
    left: dict[int, Refusal] = {}
    cutter.note(import_model(model, exact).refusals, range(len(cutter.nodes)), left)
    while True:
        regions = cutter.regions(left)
        before = len(left)
        for region in regions:
            if region.is_compiled:
                found = Importer(region.model, exact).run().refusals
                cutter.note(found, region.places, left)
        if len(left) == before:
            return regions if any(r.is_compiled for r in regions) else []


class _Cutter:
    def __init__(self, model: Model) -> None:
        self._model, proto = model, model.proto
        self.nodes = list(proto.graph.node)
        self._reads = [list(dict.fromkeys(_read(node))) for node in self.nodes]
        self._maker = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self._stored = {t.name: t for t in proto.graph.initializer}
        self._infos = _infos(model)
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
        groups = [
            [i for i, turn in enumerate(turns) if turn == number and (i in left) == is_left]
            for number in range(max(turns, default=-1) + 1)
            for is_left in (False, True)
        ]
        groups = [group for group in groups if set(group) - self._copied]
        whole = [self._with_copies(group) for group in groups]
        returned = [o.name for o in self._model.proto.graph.output]
        inputs = [self._inputs(group) for group in whole]
        wanted = {*returned, *(name for names in inputs for name in names)}
        made: set[str] = set()
        regions = []
        for number, (group, names) in enumerate(zip(whole, inputs, strict=True)):
            own = [n for i in group for n in self.nodes[i].output if n in wanted and n not in made]
            made.update(own)
            if own:
                why = [left[i] for i in group if i in left]
                regions.append(self._region(number, group, names, own, why))
        return regions

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
        made = {name for i in group for name in self.nodes[i].output}
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


def _infos(model: Model) -> dict[str, onnx.ValueInfoProto]:
    """Types and shapes of tensors, as far as onnx infers them."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model.proto, data_prop=True).graph
    except Exception as error:  # its types are of pybind
        raise OnnxModelError(model.name, f"its shapes contradict each other: {error}") from error
    given = model.proto.graph
    return {i.name: i for ports in (inferred.value_info, given.output, given.input) for i in ports}


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
