"""Runs the node tests of the onnx package through imported graphs, in numpy: `make onnx-node`.

Prints how many are right, refused by name, or wrong, and why: nothing may be wrong, and nothing may
end with an error that is not graphopt's own.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

from graphopt.dtype import DType
from graphopt.errors import GraphoptError
from graphopt.ir.interpret import check_sizes, run_graph
from graphopt.ir.numbers import widen
from graphopt.ir.verify import verify
from graphopt.onnx.files import Model
from graphopt.onnx.importer import compiled_graph
from graphopt.onnx.tensors import array_of

RANDOM = re.compile(r"bernoulli|random|dropout.*(train|zero_ratio)|training_dropout")


KINDS = ("right", "right with constants", "refused", "wrong")


@dataclass
class Outcome:
    """What became of a test: right, refused or wrong, and why."""

    name: str
    kind: str
    why: str = ""


def cases(pattern: str = "") -> list[Any]:
    """The tests whose names match, one for each name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    return [case for case in found if re.search(pattern, case.name)]


def outcome(case: Any) -> Outcome:
    """Runs a test: as it is, and if that is refused with some of the inputs as constants."""
    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    data = list(_data(case, model))
    found = _run(case, model, data)
    if found.kind != "refused":
        return found
    (tensors, _), *_ = case.data_sets or list(_stored(Path(case.model_dir)))
    inputs = list(zip(model.graph.input, tensors, strict=False))
    whole = [pair for pair in inputs if pair[0].type.tensor_type.elem_type in _WHOLE]
    for chosen in (inputs[1:], whole, inputs):
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        fixed.graph.initializer.extend(_tensor(array, info.name) for info, array in chosen)
        again = _run(case, fixed, data[:1])
        if again.kind == "right":
            return Outcome(case.name, "right with constants")
        if again.kind == "wrong":
            return again
        found = again
    return found


_WHOLE = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def _tensor(array: Any, name: str) -> onnx.TensorProto:
    made = onnx.TensorProto()
    if isinstance(array, onnx.TensorProto):
        made.CopyFrom(array)
    elif isinstance(array, np.ndarray | np.generic):
        made = onnx.numpy_helper.from_array(np.asarray(array))
    made.name = name
    return made


def _run(case: Any, model: onnx.ModelProto, data: list[Any]) -> Outcome:
    try:
        imported = compiled_graph(Model(model, case.name, None))
    except GraphoptError as error:
        lines = str(error).splitlines()
        if "cannot be understood" in lines[0]:  # an error of Python's
            return Outcome(case.name, "wrong", lines[0])
        return Outcome(case.name, "refused", lines[1].strip() if len(lines) > 1 else lines[0])
    except Exception as error:
        return Outcome(case.name, "wrong", f"import: {error!r}")
    graph = imported.graph
    try:
        verify(graph, "import")
        for given, wanted in data:
            arrays = [np.ascontiguousarray(given[name]).reshape(given[name].shape)
                      for name in imported.inputs]  # fmt: skip
            check_sizes(graph, [a.shape for a in arrays])
            made = run_graph(graph, arrays)
            for name, value, array in zip(imported.outputs, graph.outputs, made, strict=True):
                if problem := _differs(widen(array, value.dtype), wanted[name], case, value.dtype):
                    return Outcome(case.name, "wrong", f"{name}: {problem}")
    except GraphoptError as error:
        return Outcome(case.name, "refused", f"at run time: {str(error).splitlines()[0]}")
    except Exception as error:
        return Outcome(case.name, "wrong", f"run: {error!r}")
    return Outcome(case.name, "right")


def _data(case: Any, model: onnx.ModelProto) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs and outputs by name, bf16 as bits in inputs and as numbers in outputs."""
    initializers = {t.name for t in model.graph.initializer}
    inputs = [i.name for i in model.graph.input if i.name not in initializers]
    outputs = [o.name for o in model.graph.output]
    for given, wanted in case.data_sets or _stored(Path(case.model_dir)):
        yield (
            {n: _array(a) for n, a in zip(inputs, given, strict=False)},
            {n: _number(_array(a)) for n, a in zip(outputs, wanted, strict=False)},
        )


def _stored(folder: Path) -> Iterator[tuple[list[Any], list[Any]]]:
    for place in sorted(folder.glob("test_data_set_*")):
        yield tuple(  # type: ignore[misc]
            [onnx.TensorProto.FromString(p.read_bytes())
             for p in sorted(place.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))]
            for kind in ("input", "output")
        )  # fmt: skip


def _array(thing: Any) -> Any:
    if isinstance(thing, onnx.TensorProto):
        return array_of(thing, None, "a test")
    if not isinstance(thing, np.ndarray | np.generic):  # a sequence, or nothing
        return np.zeros(0)
    array = np.asarray(thing)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def _number(array: Any) -> Any:
    return widen(array, DType.BF16) if array.dtype == np.uint16 else array


#: Of two roundings in another order, relative to the number.
_ROUNDINGS = {DType.BF16: 2**-6, DType.F16: 2**-9}


def _differs(made: Any, wanted: Any, case: Any, dtype: DType) -> str:
    """How two arrays differ; empty if they do not."""
    if made.shape != wanted.shape:
        return f"has the shape {made.shape}, not {wanted.shape}"
    if made.dtype.kind != wanted.dtype.kind:
        return f"is of {made.dtype}, not {wanted.dtype}"
    rtol = max(case.rtol, _ROUNDINGS.get(dtype, 0.0))
    atol = max(case.atol, 1e-7, _ROUNDINGS.get(dtype, 0.0))
    near = np.isclose(made.astype(np.float64), wanted.astype(np.float64), rtol, atol, True)
    return "" if near.all() else f"{int((~near).sum())} of {near.size} elements differ"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="regular expression of names")
    parser.add_argument("--show", default="wrong", help="wrong, refused or right, or all of them")
    options = parser.parse_args()
    found = [outcome(case) for case in cases(options.only) if not RANDOM.search(case.name)]
    for one in found:
        if one.kind in options.show.split(","):
            print(f"{one.kind}: {one.name}: {one.why}")
    counts = Counter(one.kind for one in found)
    print(", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
    sys.exit(bool(counts["wrong"]))


if __name__ == "__main__":
    main()
