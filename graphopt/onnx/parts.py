"""An ONNX model of which onnxruntime runs what is not compiled, region by region."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from graphopt.compiler.options import Options, call_of, in_rows
from graphopt.compiler.profile import Run
from graphopt.compiler.program import Program
from graphopt.compiler.report import NodeReport
from graphopt.compiler.schedule import StepBalance
from graphopt.errors import EmptyInputError, OnnxModelError, OnnxNodesError, UnsupportedNodesError
from graphopt.ir import DType, Shape
from graphopt.onnx.calls import OnnxCallable, input_arrays, match_inputs
from graphopt.onnx.example import check_example, ranks_of, session
from graphopt.onnx.files import Model
from graphopt.onnx.importer import Refusal
from graphopt.onnx.module import OptimizedOnnx
from graphopt.onnx.regions import Region, cut
from graphopt.onnx.tensors import DTYPES
from graphopt.printable import printable
from graphopt.runtime import process
from graphopt.runtime.loaded import like_given

if TYPE_CHECKING:
    from graphopt.onnx.export import OnnxWriter

Array = np.ndarray[Any, Any]
Call = Callable[["OptimizedOnnx | OptimizedParts", list[Array]], Any]


def optimized(model: Model, options: Options) -> OptimizedOnnx | OptimizedParts:
    """A compiled model; one in parts if some of its nodes are not compiled.

    Args:
        model: the model.
        options: what it is compiled for.

    Raises:
        OnnxNodesError: if nodes are not compiled and onnxruntime is missing, `strict` asks for all
            of them, or nothing is left.
        OnnxModelError: if the model is damaged or contradicts itself.
    """
    try:
        return OptimizedOnnx(model, options)
    except OnnxNodesError as refusal:
        if options.strict or importlib.util.find_spec("onnxruntime") is None:
            raise
        regions = cut(
            model,
            not in_rows(options.precision),
            lambda names: ranks_of(model, names, options.example_inputs),
        )
        parts = OptimizedParts(model, options, regions) if regions else None
        if parts is None or not any(row.compiled for row in parts.report()):
            raise refusal from None
        return parts


class _Part:
    """A region that is built, or runs in onnxruntime.

    Args:
        region: of the model.
        options: of the whole.
        compiled: what runs it; None for onnxruntime.
    """

    def __init__(
        self, region: Region, options: Options, compiled: OptimizedOnnx | OptimizedParts | None
    ) -> None:
        self.region, self._compiled = region, compiled
        self._threads = options.num_threads or 0
        self._session: Any = None
        if compiled is None:
            self._open()

    def run(self, arrays: list[Array], call: Call) -> list[Array]:
        """The outputs; by onnxruntime where compiled code takes no tensors without elements.

        Args:
            arrays: the inputs.
            call: of what is compiled.
        """
        if self._compiled is None or any(a.size == 0 for a in arrays):
            return self._in_onnxruntime(arrays)
        made = call(self._compiled, arrays)
        return list(made) if isinstance(made, tuple) else [made]

    def rows(self) -> list[NodeReport]:
        """Rows of the report."""
        left = [_row(refusal) for refusal in self.region.refusals]
        return left + ([] if self._compiled is None else list(self._compiled.report()))

    def programs(self) -> list[Program]:
        """What is compiled."""
        captured = [] if self._compiled is None else self._compiled._captured()
        return [program for serving in captured for program in serving.programs()]

    def dumps(self, format: str) -> list[str]:
        """The planned graphs."""
        return [] if self._compiled is None else [self._compiled.dump(format)]

    def add_to(self, writer: OnnxWriter) -> None:
        """Adds its nodes to a file."""
        match self._compiled:
            case None:
                writer.leave(self.region.model)
            case OptimizedOnnx() as whole:
                writer.run(whole, self.region.inputs, self.region.outputs)
            case parts:
                parts.add_to(writer)

    def add_branch(self, writer: OnnxWriter, graph: onnx.GraphProto) -> onnx.GraphProto:
        """Adds what a branch reads to a file, and returns its graph.

        Args:
            writer: of the file.
            graph: of the branch, as it was.
        """
        if self._compiled is None:
            own = {name for node in graph.node for name in node.output}
            nodes = self.region.model.proto.graph.node
            writer.leave(self.region.model, [n for n in nodes if not own & set(n.output)])
            return graph
        writer.begin_branch(graph)
        self.add_to(writer)
        return writer.end_branch(graph)

    def _open(self) -> Any:
        if self._session is None:
            try:
                self._session = session(
                    self.region.model.whole().SerializeToString(), self._threads
                )
            except OnnxModelError:
                raise
            except Exception as error:  # its types are of pybind
                name = self.region.model.name
                raise OnnxModelError(name, f"onnxruntime refuses its nodes: {error}") from error
        return self._session

    def _in_onnxruntime(self, arrays: list[Array]) -> list[Array]:
        feeds = dict(zip(self.region.inputs, arrays, strict=True))
        try:
            made: list[Array] = self._open().run(self.region.outputs, feeds)
        except OnnxModelError:
            raise
        except Exception as error:  # its types are of pybind
            name = self.region.model.name
            raise OnnxModelError(name, f"onnxruntime cannot run it: {error}") from error
        return made


class _Choice:
    """An `If` of which a call runs one branch, each a model of its own.

    Args:
        region: of the model.
        options: of the whole.
    """

    def __init__(self, region: Region, options: Options) -> None:
        assert region.choice is not None
        self.region, self._node = region, region.choice
        graphs = {a.name: a.g for a in self._node.attribute}
        self._graphs = {name: graphs[name] for name in ("then_branch", "else_branch")}
        self._branches = [_branch(region.branch(g), options) for g in self._graphs.values()]
        self._condition: _Part | None = None
        if self._node.input[0] not in region.inputs:
            self._condition = _Part(region.condition(), options, None)

    def run(self, arrays: list[Array], call: Call) -> list[Array]:
        """The outputs of the branch that is taken.

        Args:
            arrays: the inputs.
            call: of what is compiled.
        """
        held = dict(zip(self.region.inputs, arrays, strict=True))

        def run(part: _Part) -> list[Array]:
            return part.run([held[name] for name in part.region.inputs], call)

        name = self._node.input[0]
        truth = held[name] if self._condition is None else run(self._condition)[0]
        made = run(self._branches[0 if bool(truth.reshape(-1)[0]) else 1])
        results = dict(zip(self._node.output, made, strict=True))
        return [results[name] for name in self.region.outputs]

    def rows(self) -> list[NodeReport]:
        """Rows of the report: the choice, and both branches."""
        rows = [dataclasses.replace(_row(r), kernel="python") for r in self.region.refusals[:1]]
        return rows + [row for part in self._branches for row in part.rows()]

    def add_to(self, writer: OnnxWriter) -> None:
        """Adds its nodes to a file."""
        if self._condition is not None:
            self._condition.add_to(writer)
        pairs = zip(self._branches, self._graphs.items(), strict=True)
        made = {name: part.add_branch(writer, graph) for part, (name, graph) in pairs}
        writer.choose(self._node, made)

    def programs(self) -> list[Program]:
        """What is compiled of both branches."""
        return [program for part in self._branches for program in part.programs()]

    def dumps(self, format: str) -> list[str]:
        """The planned graphs."""
        return [text for part in self._branches for text in part.dumps(format)]


def _branch(region: Region, options: Options) -> _Part:
    """A branch, by onnxruntime if nothing of it can be compiled."""
    try:
        return _Part(region, options, optimized(region.model, options))
    except OnnxNodesError as error:
        region.refusals = [Refusal(*row) for row in error.nodes]
        return _Part(region, options, None)


def _part(region: Region, options: Options) -> _Part | _Choice:
    if region.choice is not None:
        return _Choice(region, options)
    return _Part(
        region, options, OptimizedOnnx(region.model, options) if region.is_compiled else None
    )


def _by_code(compiled: OptimizedOnnx | OptimizedParts, arrays: list[Array]) -> Any:
    return compiled(*arrays)


def _in_numpy(compiled: OptimizedOnnx | OptimizedParts, arrays: list[Array]) -> Any:
    return compiled.interpret(*arrays)


class _PartsCalls:
    """Serves every call of a model in parts; see `Serving`.

    Args:
        model: the model.
        parts: of it, in the order in which they run.

    Attributes:
        parts: as given.
        checked: what the check of the example found; empty without one.
    """

    def __init__(self, model: Model, parts: list[_Part | _Choice]) -> None:
        self.checked = ""
        self.parts, self._ports = parts, _inputs(model)
        self._inputs = tuple(self._ports)
        self._outputs = tuple(o.name for o in model.proto.graph.output)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The output of the model, or a tuple of them if there are several."""
        return self._run_by(_by_code, args, kwargs)

    def interpret(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same with compiled regions in numpy."""
        return self._run_by(_in_numpy, args, kwargs)

    def profile(self, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int) -> list[Run]:
        """Times of every step of the compiled regions that the call runs."""
        found: list[Run] = []

        def call(compiled: OptimizedOnnx | OptimizedParts, arrays: list[Array]) -> Any:
            found.extend(compiled.profile(*arrays, repeats=repeats).runs)
            return compiled(*arrays)

        self._run_by(call, args, kwargs)
        return found

    def balance(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cores: int, repeats: int
    ) -> list[StepBalance]:
        """Raises UnsupportedNodesError: there is no one graph; see `Serving`."""
        raise self.error()

    def emulate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], level: str, sve_bits: int
    ) -> Any:
        """Raises UnsupportedNodesError: this is not the whole model; see `Serving`."""
        raise self.error()

    def error(self) -> UnsupportedNodesError:
        """Names what is not compiled."""
        rows = [row for row in self.reports() if not row.compiled]
        return UnsupportedNodesError(
            [(r.op, r.module, r.reasons[-1]) for r in rows],
            "write it with .to_onnx(path), which onnxruntime runs",
        )

    def programs(self) -> list[Program]:
        """Of all compiled regions."""
        return [program for part in self.parts for program in part.programs()]

    def reports(self) -> list[NodeReport]:
        """Every node that onnxruntime runs and why, and every compiled one."""
        return [row for part in self.parts for row in part.rows()]

    def dumps(self, format: str) -> list[str]:
        """The planned graphs of the compiled regions."""
        return [text for part in self.parts for text in part.dumps(format)]

    def match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The inputs in order."""
        return match_inputs(self._inputs, args, kwargs)

    def arrays(self, given: list[Any]) -> list[Array]:
        """Stored arrays of the types and numbers of axes that the model says."""
        ports = [
            (dtype, np.shape(a) if shape is None else shape)
            for a, (dtype, shape) in zip(given, self._ports.values(), strict=True)
        ]
        arrays = input_arrays(self._inputs, ports, given)
        for array, name in zip(arrays, self._inputs, strict=True):
            if 0 in array.shape:
                raise EmptyInputError(name, array.shape.index(0))
        return arrays

    def results(self, arrays: list[Array], call: Call) -> list[Array]:
        """The outputs, as stored.

        Args:
            arrays: the inputs.
            call: of what is compiled.
        """
        held = dict(zip(self._inputs, arrays, strict=True))
        for part in self.parts:
            read = [held[name] for name in part.region.inputs]
            made = map(np.asarray, part.run(read, call))
            held |= zip(part.region.outputs, made, strict=True)
        return [held[name] for name in self._outputs]

    def _run_by(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = self.match(args, kwargs)
        made = self.results(self.arrays(given), call)
        results = like_given(made, [a.dtype.name for a in made], given)
        return results[0] if len(results) == 1 else tuple(results)


class OptimizedParts(OnnxCallable):
    """A model whose regions compiled code and onnxruntime run by turns; see `OptimizedOnnx`.

    Attributes:
        options: what it was compiled with.
        inputs: names of the inputs, as in the model.
        outputs: names of the outputs.
    """

    _calls: _PartsCalls

    def __init__(self, model: Model, options: Options, regions: list[Region]) -> None:
        self.options, self._model = options, model
        graph = model.proto.graph
        self.inputs = tuple(_inputs(model))
        self.outputs = tuple(o.name for o in graph.output)
        inner = dataclasses.replace(options, example_inputs=None)
        with process.changes:
            self._calls = _PartsCalls(model, [_part(region, inner) for region in regions])
        if (given := options.example_inputs) is not None:
            args, kwargs = call_of(given)
            arrays = self._calls.arrays(self._calls.match(args, kwargs))
            if options.check:
                feeds = dict(zip(self.inputs, arrays, strict=True))
                types = [DTYPES.get(o.type.tensor_type.elem_type, DType.F32) for o in graph.output]
                self._calls.checked = check_example(
                    model,
                    options.precision,
                    feeds,
                    list(zip(self.outputs, types, strict=True)),
                    lambda: self._calls.results(arrays, _by_code),
                )

    def save(self, path: str | Path) -> None:
        """Raises UnsupportedNodesError: a package holds no nodes that onnxruntime runs.

        Args:
            path: as of `OptimizedOnnx.save`.
        """
        raise self._calls.error()

    def to_onnx(self, path: str | Path, plain: bool | None = None) -> None:
        """Writes an ONNX file with a node `graphopt::Run` for each compiled region.

        The rest of the model stays as it is. A tensor without elements that reaches such a node is
        an error of the run.

        Args:
            path: as of `OptimizedOnnx.to_onnx`.
            plain: as there.

        Raises:
            PackageError, OnnxExportError, StorageError: as there.
        """
        from graphopt.onnx.export import OnnxWriter

        with process.changes:
            regions = len(self._calls.programs())
            writer = OnnxWriter(self._model, self.options.target, path, regions, plain)
            self.add_to(writer)
            writer.write()

    def add_to(self, writer: OnnxWriter) -> None:
        """Adds all of its nodes to a file."""
        for part in self._calls.parts:
            part.add_to(writer)

    def _name(self) -> str:
        return self._model.name


def _inputs(model: Model) -> dict[str, tuple[DType, Shape | None]]:
    """Types and shapes of the inputs of a model; None for one whose number of axes is not said.

    Raises:
        OnnxModelError: if there is one that is no tensor of numbers.
    """
    graph = model.proto.graph
    constants = {t.name for t in graph.initializer}
    found: dict[str, tuple[DType, Shape | None]] = {}
    for info in graph.input:
        tensor = info.type.tensor_type
        if info.name in constants:
            continue
        if (dtype := DTYPES.get(tensor.elem_type)) is None:
            raise OnnxModelError(model.name, f"its input {info.name!r} is no tensor of numbers")
        known = tensor.HasField("shape")
        found[info.name] = dtype, tuple(1 for _ in tensor.shape.dim) if known else None
    return found


def _row(refusal: Refusal) -> NodeReport:
    return NodeReport(
        node="_",
        op=printable(refusal.op.partition(",")[0]),
        compiled=False,
        kernel="onnxruntime",
        result="",
        module=printable(refusal.node),
        source="",
        reasons=(printable(refusal.reason),),
    )
