"""An ONNX model of which onnxruntime runs what is not compiled, region by region."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.compiler.options import Options, in_rows
from graphopt.compiler.report import NodeReport, Report
from graphopt.errors import EmptyInputError, OnnxModelError, OnnxNodesError, UnsupportedNodesError
from graphopt.ir import DType, Shape
from graphopt.onnx.example import check_example, session
from graphopt.onnx.files import Model
from graphopt.onnx.importer import Refusal
from graphopt.onnx.module import OptimizedOnnx, input_arrays, match_inputs
from graphopt.onnx.regions import Region, cut
from graphopt.onnx.tensors import DTYPES
from graphopt.printable import printable
from graphopt.runtime import process
from graphopt.runtime.loaded import like_given

Array = np.ndarray[Any, Any]
Run = Callable[["_Part", list[Array]], list[Array]]


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
        regions = cut(model, exact=not in_rows(options.precision))
        if not regions:
            raise refusal from None
        return OptimizedParts(model, options, regions)


class _Part:
    """A region, built.

    Args:
        region: of the model.
        options: of the whole.
    """

    def __init__(self, region: Region, options: Options) -> None:
        self.region = region
        self._threads = options.num_threads or 0
        self._session: Any = None
        self.compiled: OptimizedOnnx | None = None
        if region.is_compiled:
            self.compiled = OptimizedOnnx(
                region.model, dataclasses.replace(options, example_inputs=None)
            )
        else:
            self._open()

    def _open(self) -> Any:
        if self._session is None:
            try:
                self._session = session(self.region.whole().SerializeToString(), self._threads)
            except OnnxModelError:
                raise
            except Exception as error:  # its types are of pybind
                name = self.region.model.name
                raise OnnxModelError(name, f"onnxruntime refuses its nodes: {error}") from error
        return self._session

    def in_onnxruntime(self, arrays: list[Array]) -> list[Array]:
        """The outputs, by onnxruntime."""
        feeds = dict(zip(self.region.inputs, arrays, strict=True))
        try:
            made: list[Array] = self._open().run(self.region.outputs, feeds)
        except OnnxModelError:
            raise
        except Exception as error:  # its types are of pybind
            name = self.region.model.name
            raise OnnxModelError(name, f"onnxruntime cannot run it: {error}") from error
        return made


def _by_code(part: _Part, arrays: list[Array]) -> list[Array]:
    """What compiled code gives; of tensors without elements, which it does not take, the same."""
    if part.compiled is None or any(a.size == 0 for a in arrays):
        return part.in_onnxruntime(arrays)
    made = part.compiled(*arrays)
    return list(made) if isinstance(made, tuple) else [made]


def _in_numpy(part: _Part, arrays: list[Array]) -> list[Array]:
    if part.compiled is None or any(a.size == 0 for a in arrays):
        return part.in_onnxruntime(arrays)
    made = part.compiled.interpret(*arrays)
    return list(made) if isinstance(made, tuple) else [made]


class OptimizedParts:
    """A model whose regions compiled code and onnxruntime run by turns; see `OptimizedOnnx`.

    Attributes:
        options: what it was compiled with.
        inputs: names of the inputs, as in the model.
        outputs: names of the outputs.
    """

    def __init__(self, model: Model, options: Options, regions: list[Region]) -> None:
        self.options, self._model = options, model
        graph = model.proto.graph
        self._ports = _inputs(model)
        self.inputs = tuple(self._ports)
        self.outputs = tuple(o.name for o in graph.output)
        with process.changes:
            self._parts = [_Part(region, options) for region in regions]
        self._checked = ""
        if (given := options.example_inputs) is not None:
            args, kwargs = ((), given) if isinstance(given, dict) else (tuple(given), {})
            arrays = self._arrays(match_inputs(self.inputs, args, kwargs))
            if options.check:
                feeds = dict(zip(self.inputs, arrays, strict=True))
                types = [DTYPES.get(o.type.tensor_type.elem_type, DType.F32) for o in graph.output]
                named = list(zip(self.outputs, types, strict=True))
                self._checked = check_example(
                    model, options.precision, feeds, named, lambda: self._results(arrays, _by_code)
                )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of the model, or a tuple of them if there are several.

        Args:
            args: inputs in order: arrays, or tensors of torch, which are given back then.
            kwargs: inputs by name.

        Raises:
            InputError: if an input does not fit what was compiled.
            OnnxModelError: if onnxruntime cannot run its part.
        """
        with process.calls:
            return self._run(args, kwargs, _by_code)

    def interpret(self, *args: Any, **kwargs: Any) -> Any:
        """The same with compiled regions in numpy, op by op; see `OptimizedOnnx.interpret`."""
        return self._run(args, kwargs, _in_numpy)

    def report(self) -> Report:
        """Every node that onnxruntime runs and why, and every compiled one."""
        options, rows = self.options, list[NodeReport]()
        for part in self._parts:
            rows += [_row(refusal) for refusal in part.region.refusals]
            if part.compiled is not None:
                rows += list(part.compiled.report())
        checked = self._checked or "example: not compared"
        target = options.target
        return Report(
            self._model.name, target.name, options.precision, target.levels, tuple(rows), (checked,)
        )

    def dump(self, format: str = "text") -> str:
        """The planned graphs of the compiled regions; see `OptimizedOnnx.dump`."""
        parts = [p.compiled.dump(format) for p in self._parts if p.compiled is not None]
        return "\n".join(parts)

    def save(self, path: str | Path) -> None:
        """Raises UnsupportedNodesError: a package holds no nodes that onnxruntime runs.

        Args:
            path: as of `OptimizedOnnx.save`.
        """
        rows = [row for row in self.report() if not row.compiled]
        raise UnsupportedNodesError([(r.op, r.module, r.reasons[-1]) for r in rows])

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], run: Run) -> Any:
        given = match_inputs(self.inputs, args, kwargs)
        made = self._results(self._arrays(given), run)
        dtypes = [a.dtype.name for a in made]
        results = like_given(made, dtypes, given)
        return results[0] if len(results) == 1 else tuple(results)

    def _results(self, arrays: list[Array], run: Run) -> list[Array]:
        held = dict(zip(self.inputs, arrays, strict=True))
        for part in self._parts:
            read = [held[name] for name in part.region.inputs]
            held |= zip(part.region.outputs, map(np.asarray, run(part, read)), strict=True)
        return [held[name] for name in self.outputs]

    def _arrays(self, given: list[Any]) -> list[Array]:
        shapes = [
            np.shape(a) if shape is None else shape
            for a, (_, shape) in zip(given, self._ports.values(), strict=True)
        ]
        ports = [(dtype, s) for (dtype, _), s in zip(self._ports.values(), shapes, strict=True)]
        arrays = input_arrays(self.inputs, ports, given)
        for array, name in zip(arrays, self.inputs, strict=True):
            if 0 in array.shape:
                raise EmptyInputError(name, array.shape.index(0))
        return arrays


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
