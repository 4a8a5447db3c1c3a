"""Compiled ONNX models as ONNX files: nodes `graphopt::Run`, with the rest of the model as it was.

Each compiled region becomes a node, and a function of the file says what it was; nodes that are
left to onnxruntime stay, an `If` whose branches are compiled too. Names of tensors stay those of
the model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import onnx
from onnx import helper

from graphopt.compiler.program import Program
from graphopt.errors import OnnxExportError
from graphopt.hosts.onnx_file import IR_VERSION, MOST_PLAIN, OnnxFile, signature_of, type_info
from graphopt.hosts.onnx_file import Region as RunRegion
from graphopt.hosts.onnxruntime import (
    MOST_BYTES,
    add_library,
    add_package,
    packages_folder,
    plain_form,
)
from graphopt.onnx.files import Model
from graphopt.onnx.tensors import array_of
from graphopt.target import Target


class Compiled(Protocol):
    """What a node runs."""

    @property
    def model(self) -> Model:
        """What it was compiled from."""

    @property
    def program(self) -> Program:
        """What was compiled."""

    def write_package(self, folder: Path) -> None:
        """Writes the package into a new folder."""


@dataclass
class _Scope:
    """A graph in the making.

    Attributes:
        own: names that its nodes make; None for all that are of no graph inside of it.
        made: names that there are by now.
        nodes: in the order in which they run.
        types: of what nodes `graphopt::Run` make.
    """

    own: set[str] | None
    made: set[str] = field(default_factory=set)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    types: list[onnx.ValueInfoProto] = field(default_factory=list)


class OnnxWriter:
    """Writes one file, and the packages that its nodes run.

    Args:
        model: the whole model.
        target: what it is compiled for.
        path: of the file.
        regions: how many nodes `graphopt::Run` there will be.
        plain: as of `OptimizedOnnx.to_onnx`.

    Raises:
        OnnxExportError: with `plain`, for a model without a plain form.
    """

    def __init__(
        self,
        model: Model,
        target: Target,
        path: str | os.PathLike[str],
        regions: int,
        plain: bool | None,
    ) -> None:
        self._folder = packages_folder(path)
        self._model, self._target, self._path = model, target, Path(path)
        self._has_bodies = plain_form(lambda: _check_plain(model, regions), plain) is not None
        newest = max(IR_VERSION, model.proto.ir_version)
        self._file = OnnxFile(model.name, self._folder.name, model.opsets, newest)
        self._file.add_functions(model.proto.functions)
        held = {tensor.name for tensor in model.proto.graph.initializer}
        self._inputs = [i for i in model.proto.graph.input if i.name not in held]
        self._constants: dict[str, onnx.TensorProto] = {}
        self._scopes = [_Scope(None, {port.name for port in self._inputs})]

    def write(self) -> None:
        """Writes the file, and the library of the op.

        Raises:
            StorageError: if it cannot be written.
        """
        add_library(self._folder, self._target.arch)
        whole, outputs = self._scopes[0], list(self._model.proto.graph.output)
        ports = {port.name for port in outputs}
        self._file.write(
            self._path,
            whole.nodes,
            self._inputs,
            outputs,
            list(self._constants.values()),
            [made for made in whole.types if made.name not in ports],
        )

    def run(self, compiled: Compiled, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Adds a node, and writes its package.

        Args:
            compiled: what it runs.
            inputs: names of tensors.
            outputs: names of tensors; those that there are already are made once more.
        """
        model, program = compiled.model, compiled.program
        name = _digest(model)
        add_package(self._folder, name, self._target, compiled.write_package)
        said = signature_of(
            list(zip(inputs, program.graph.inputs, strict=True)),
            list(zip(outputs, program.graph.outputs, strict=True)),
        )
        body = model.whole() if self._has_bodies else None
        made = list(map(self._name, outputs))
        scope = self._scopes[-1]
        scope.nodes.append(self._file.node(RunRegion(name, inputs, made, said, body)))
        scope.types += map(type_info, made, program.graph.outputs)

    def leave(self, model: Model, nodes: Iterable[onnx.NodeProto] | None = None) -> None:
        """Adds nodes as they are, each once.

        Args:
            model: of which they are, for its constants.
            nodes: of it; None for all.
        """
        whole = model.whole().graph
        for node in whole.node if nodes is None else nodes:
            outputs = [name for name in node.output if name]
            if outputs and all(map(self._is_made, outputs)):
                continue
            scope = next(s for s in reversed(self._scopes) if s.own is None or s.own & {*outputs})
            kept = onnx.NodeProto()
            kept.CopyFrom(node)
            kept.output[:] = [name and self._name(name, scope) for name in node.output]
            scope.nodes.append(kept)
        self._constants.update((tensor.name, tensor) for tensor in whole.initializer)

    def begin_branch(self, graph: onnx.GraphProto) -> None:
        """What is added from now on is of a branch.

        Args:
            graph: of the branch, as it was.
        """
        own = {name for node in graph.node for name in node.output}
        self._scopes.append(_Scope(own | {tensor.name for tensor in graph.initializer}))

    def end_branch(self, graph: onnx.GraphProto) -> onnx.GraphProto:
        """The graph of the branch, whose outputs nodes of its own make."""
        scope, outputs = self._scopes.pop(), []
        assert scope.own is not None
        for port in graph.output:
            made = onnx.ValueInfoProto()
            made.CopyFrom(port)
            if port.name not in scope.own:
                made.name = f"{port.name}_of_{graph.name or 'branch'}"
                scope.nodes.append(helper.make_node("Identity", [port.name], [made.name]))
            outputs.append(made)
        ports = {port.name for port in outputs}
        types = [made for made in scope.types if made.name not in ports]
        return helper.make_graph(scope.nodes, graph.name or "branch", [], outputs, value_info=types)

    def choose(self, node: onnx.NodeProto, branches: dict[str, onnx.GraphProto]) -> None:
        """Adds an `If` with other branches.

        Args:
            node: as it was.
            branches: by the names of its attributes.
        """
        outputs = list(map(self._name, node.output))
        made = helper.make_node("If", list(node.input), outputs, node.name, **branches)
        self._scopes[-1].nodes.append(made)

    def _name(self, name: str, scope: _Scope | None = None) -> str:
        """The name for something that a node makes: another one if there is that name already."""
        made, count = name, 0
        while self._is_made(made):
            count += 1
            made = f"{name}_again{count}"
        (scope or self._scopes[-1]).made.add(made)
        return made

    def _is_made(self, name: str) -> bool:
        return any(name in scope.made for scope in self._scopes)


def _check_plain(model: Model, regions: int) -> bool:
    """True; raises OnnxExportError for a model that has no plain form beside its nodes."""
    held = sum(
        array_of(tensor, model.folder, model.name).nbytes
        for tensor in model.proto.graph.initializer
    )
    if held > MOST_BYTES:
        why = f"its weights have {held} bytes, too many for one ONNX file"
        raise OnnxExportError(model.name, why)
    if regions > MOST_PLAIN:
        why = f"{regions} regions are compiled, and a file may hold that of {MOST_PLAIN}"
        raise OnnxExportError(model.name, why)
    return True


def _digest(model: Model) -> str:
    """What is computed, whatever it is compiled for."""
    proto = model.proto.graph
    digest = hashlib.sha256(repr(sorted(model.opsets.items())).encode())
    for message in (*proto.input, *proto.output, *proto.node, *model.proto.functions):
        digest.update(message.SerializeToString(deterministic=True))
    for tensor in proto.initializer:
        digest.update(tensor.name.encode())
        digest.update(array_of(tensor, model.folder, model.name).tobytes())
    return digest.hexdigest()[:32]
