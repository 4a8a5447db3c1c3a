"""The example inputs of `optimize`, through the compiled module and through the model.

Results must have the structure, dtypes and shapes of the model's own, NaN and infinity in the same
places, integers that are equal and floats within the bound of the precision. What is further away
gets a second look: where the model's own results move as much when its ops round as the precision
does (`rounding_noise.py`), the model amplifies rounding and the compiler is not to blame. Nor is it
where narrower numbers only decide otherwise (another largest class, another count of tokens), as
long as the same plan in f32 decides as the model does and the code agrees with the plan. All else
is an error, which names the first node whose values depart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from graphopt.compiler.bounds import BOUNDS, bound_of
from graphopt.compiler.pipeline import PassManager, lowering_passes
from graphopt.compiler.rounding_noise import RoundingNoise, rounding_of
from graphopt.compiler.stable_sorts import StableSorts
from graphopt.config import Config
from graphopt.errors import (
    CaptureError,
    ExampleMismatchError,
    GraphoptError,
    NondeterministicModelError,
)
from graphopt.frontend import nesting
from graphopt.frontend.arguments import Call, copied
from graphopt.frontend.call_spec import State
from graphopt.frontend.capture import capture
from graphopt.frontend.held import Held
from graphopt.frontend.import_torch import to_numpy
from graphopt.hosts.torch_ops import sizes_of, to_torch
from graphopt.ir import DType, Graph, Node, Value, learn_sizes
from graphopt.ir.interpret import run_node
from graphopt.ir.numbers import QUANTIZED, narrow, widen
from graphopt.testing import relative_error

if TYPE_CHECKING:
    from graphopt.compiler.options import Options
    from graphopt.compiler.pieces import Pieces
    from graphopt.compiler.specialization import Specialization

_OF_TYPES = {DType.BF16: BOUNDS["bf16"], DType.F16: BOUNDS["bf16"] / 8}
"""The same for models that compute in these types, whatever the precision: f16 has three bits more.
Their results are rounded as in torch, but sums in another order round the other way."""


_TIMES = 8
"""How often what noise makes an error may be: the largest of three runs is a few standard
deviations, and so is the error of one run of a model with as many elements."""

Results = tuple[list[Any], pytree.TreeSpec]


@dataclass(frozen=True)
class _Departure:
    """Where two results differ.

    Attributes:
        what: the leaf and how it differs.
        error: `relative_error`; of whole numbers the share that differs; infinite for what is no
            matter of size.
        size: the largest difference of floats; of all else as `error`.
        decides: whether it is a decision: other whole numbers, or another number of elements.
    """

    what: str
    error: float
    size: float
    decides: bool = False

    def fits(self, bound: float) -> bool:
        """Whether it is within a bound for floats; decisions have to be the same."""
        return self.error <= (0.0 if self.decides else bound)


def check_example(
    model: torch.nn.Module,
    specialization: Specialization,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> str:
    """Runs the example through both.

    One for another architecture runs in numpy: the same plan, without the code for the target.

    Args:
        model: as the user gave it; it is left as it was.
        specialization: captured from these arguments.
        args: positional arguments.
        kwargs: keyword arguments.

    Returns:
        What was compared and found, for the report.

    Raises:
        CaptureError: if the model does not take its example.
        ExampleMismatchError: if the results differ, naming the first node that departs.
        NondeterministicModelError: if the model does not agree with itself.
    """
    options, call = specialization.options, (args, kwargs)
    run = _Runs(model, specialization.call.states)
    narrowest = _bound_of_types(specialization.graph)
    bound, host = max(bound_of(options.precision), narrowest), options.target.is_host
    try:
        wanted = run.model(call)
    except Exception as error:
        why = f"the model itself fails with the example inputs: {error}; give such as it takes"
        raise CaptureError(type(model).__name__, None, why) from error
    got = run(specialization.run if host else specialization.interpret, call)
    departures = _compare(got, wanted)
    how = "compiled" if host else "in numpy, by the plan for another machine"
    if all(d.fits(bound) for d in departures):
        return f"example, {how}: as the model, within {bound:g} of the largest magnitude"
    worst = max(departures, key=lambda d: d.error)
    for again in _compare(run.model(call), wanted):
        if again.error > 0:
            raise NondeterministicModelError(type(model).__name__, again.what)
    interpreted = run(specialization.interpret, call)
    amplified = _amplified(run, call, wanted, options.precision)
    planned = _compare(got, interpreted)  # which round in another order, and so to other numbers
    if _within(planned, bound, amplified) and _within(departures, bound, amplified):
        return (
            f"example, {how}: {worst.what}; the model amplifies rounding: its own "
            f"{max(amplified, key=lambda d: d.error).what} when its ops round as "
            f"{options.precision} does"
        )
    if (
        (options.precision != "fp32" or narrowest)
        and _mostly(planned)
        and _within(_values(planned), bound, amplified)
        and _within(_values(departures), bound, amplified)
    ):
        lowered = _compare(run(lambda *a: _run_lowered(model, specialization, *a), call), wanted)
        if _within(lowered, max(BOUNDS["fp32"], narrowest), _amplified(run, call, wanted, "fp32")):
            return f"example, {how}: {worst.what}; the same plan in f32 decides as the model"
    if _within(_compare(interpreted, wanted), bound, amplified):
        culprit = "the plan in numpy agrees, so that generated code or a kernel is wrong"
    else:
        culprit = _first_departure(model, specialization, call, bound)
    raise ExampleMismatchError(type(model).__name__, worst.what, bound, culprit)


def _bound_of_types(graph: Graph) -> float:
    """The bound of the narrowest float that a model computes in; 0 for f32."""
    values = (v for node in graph.nodes for v in (*node.inputs, *node.outputs))
    return max((_OF_TYPES.get(value.dtype, 0.0) for value in values), default=0.0)


def check_pieces(
    model: torch.nn.Module,
    pieces: Pieces,
    options: Options,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> str | None:
    """Runs the example through a model of which submodules are compiled, each with a check.

    Without narrower numbers, by which its Python may decide otherwise, the whole is compared too.

    Args:
        model: as the user gave it; it is left as it was.
        pieces: runs the model's Python; so is its copy.
        options: with which it is compiled.
        args: positional arguments.
        kwargs: keyword arguments.

    Returns:
        What was compared and found, for the report; None if the model does not take its example.

    Raises:
        ExampleMismatchError: if the results differ.
        NondeterministicModelError: if the model does not agree with itself.
    """
    call = (args, kwargs)
    states = [
        State(f"{path}.{name}".strip("."), owner)
        for path, owner in model.named_modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    run = _Runs(model, states)
    try:
        with Held(pieces.model):
            got = run(pieces.run if options.target.is_host else pieces.interpret, call)
    except GraphoptError:
        raise
    except Exception:  # the model's own
        return None
    if not options.check:
        return ""
    if options.precision != "fp32":
        return "example: in Python around compiled submodules, each as it is in the model"
    narrowest = max(
        (_bound_of_types(specialization.graph) for specialization in pieces.specializations()),
        default=0.0,
    )
    wanted, bound = run.model(call), max(BOUNDS["fp32"], narrowest)
    departures = _compare(got, wanted)
    if not all(d.fits(bound) for d in departures):
        for again in _compare(run.model(call), wanted):
            if again.error > 0:
                raise NondeterministicModelError(type(model).__name__, again.what)
        if not _within(departures, bound, _amplified(run, call, wanted, "fp32")):
            worst = max(departures, key=lambda d: d.error)
            culprit = "its submodules agree with theirs, so that something between them differs"
            raise ExampleMismatchError(type(model).__name__, worst.what, bound, culprit)
    return f"example, in Python around compiled submodules: as the model, within {bound:g}"


def _within(departures: list[_Departure], bound: float, amplified: list[_Departure]) -> bool:
    """Whether no result is further away than the bound, or than noise explains."""
    return len(departures) == len(amplified) and all(
        d.fits(bound) or d.size <= _TIMES * moved.size
        for d, moved in zip(departures, amplified, strict=True)
    )


def _values(departures: list[_Departure]) -> list[_Departure]:
    """The departures without those of decisions, which no bound is for."""
    return [replace(d, error=0.0, size=0.0) if d.decides else d for d in departures]


def _mostly(departures: list[_Departure]) -> bool:
    """Whether values can be judged, or else most decisions agree: rounding decides ties alone."""
    return any(not d.decides for d in departures) or all(d.error < 0.5 for d in departures)


class _Runs:
    """Runs of a model and of what was compiled of it, from one state of the model.

    Args:
        model: as the user gave it; it is left as it was.
        states: tensors of it that a call may change.
    """

    def __init__(self, model: torch.nn.Module, states: Sequence[State]) -> None:
        self._model, self._states = model, states

    def __call__(self, run: Any, call: Call) -> Results:
        """Leaves and structure of the result, of the arguments and of states after a call."""
        args, kwargs = copied(*nesting.flatten(call))
        with (
            Held(self._model),
            torch.no_grad(),
            torch.random.fork_rng(devices=()),
            StableSorts(),
        ):
            result = run(args, kwargs)
            after = [state.tensor for state in self._states]
            leaves, spec = nesting.flatten((result, args, kwargs, after))
            if self._states:  # a result may be one of them
                leaves = [x.clone() if isinstance(x, torch.Tensor) else x for x in leaves]
            return leaves, spec

    def model(self, call: Call) -> Results:
        """The model's own result, by the code of its modules.

        Torch's fast path of `nn.TransformerEncoder` gives other numbers where a mask hides a token.
        """
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return self(lambda args, kwargs: self._model(*args, **kwargs), call)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _compare(got: Results, wanted: Results) -> list[_Departure]:
    """How every leaf departs; one departure for all if the structures differ."""
    (leaves, spec), (expected, expected_spec) = got, wanted
    if spec != expected_spec:
        what = f"the result is a {spec}, the model's a {expected_spec}"
        return [_Departure(what, math.inf, math.inf)]
    return [
        _compare_leaf(f"result {i}", mine, its)
        for i, (mine, its) in enumerate(zip(leaves, expected, strict=True))
    ]


def _compare_leaf(name: str, got: Any, wanted: Any) -> _Departure:
    if isinstance(got, torch.Tensor) and isinstance(wanted, torch.Tensor):
        return _compare_tensors(name, got, wanted)
    if not isinstance(wanted, nesting.VALUES):
        remedy = "return the tensors that it holds, in tuples, lists and dicts"
        raise CaptureError(name, None, f"it is a {type(wanted).__name__}; {remedy}")
    if type(got) is type(wanted) is float:  # of sizes, in doubles
        mine, its = (torch.tensor([number], dtype=torch.float64) for number in (got, wanted))
        return _compare_tensors(name, mine, its)
    same = type(got) is type(wanted) and bool(got == wanted)
    error = 0.0 if same else math.inf
    return _Departure(f"{name} is {got!r}, not {wanted!r}", error, error)


def _compare_tensors(name: str, got: torch.Tensor, wanted: torch.Tensor) -> _Departure:
    if got.dtype is not wanted.dtype or got.shape != wanted.shape:
        mine, its = (f"{str(t.dtype)[6:]}{list(t.shape)}" for t in (got, wanted))
        decides = got.dtype is wanted.dtype and got.dim() == wanted.dim()
        return _Departure(f"{name} is {mine}, the model's {its}", math.inf, math.inf, decides)
    if not wanted.is_floating_point():
        count = int((got != wanted).sum())
        what = f"{name} has {count} of {wanted.numel()} other elements"
        share = count / max(1, wanted.numel())
        return _Departure(what, share, share, decides=True)
    numbers, its_own = _numbers(got), _numbers(wanted)
    error = relative_error(numbers, its_own)
    if math.isinf(error) and not its_own.any() and np.isfinite(numbers).all():
        size = float(np.abs(numbers).max())
        return _Departure(f"{name} is off by {size:.2g} from zeros", error, size)
    size = error * float(np.abs(its_own[np.isfinite(its_own)]).max(initial=0))
    return _Departure(f"{name} is off by {error:.2g} of its largest magnitude", error, size)


def _numbers(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    numbers: np.ndarray[Any, Any] = tensor.detach().double().numpy()
    return numbers


def _amplified(run: _Runs, call: Call, wanted: Results, precision: str) -> list[_Departure]:
    """How far each of the model's own results moves when its ops round as a precision does."""
    moved = []
    for seed in range(3):
        with RoundingNoise(rounding_of(precision), seed):
            moved.append(run.model(call))
    departures = (_compare(noisy, wanted) for noisy in moved)
    return [max(leaf, key=lambda d: d.size) for leaf in zip(*departures, strict=True)]


def _run_lowered(
    model: torch.nn.Module,
    specialization: Specialization,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """The result of the graph before numbers become narrower, in numpy."""
    captured = capture(model, args, kwargs, specialization.options.dynamic_shapes)
    graph = PassManager(Config()).run(captured.graph, lowering_passes())
    tensors = captured.call.flatten(args, kwargs)
    known: dict[Value, torch.Tensor] = dict(zip(graph.inputs, tensors, strict=True))
    for _, made in execute(graph, tensors):
        known.update(made)
    outputs = [to_torch(v.data, v.dtype) if v.data is not None else known[v] for v in graph.outputs]
    return captured.call.unflatten(outputs, args, kwargs)


def _first_departure(
    model: torch.nn.Module, specialization: Specialization, call: Call, bound: float
) -> str:
    """Names the first node whose values are not those of torch, and the pass that made it so.

    The captured graph runs in torch, node by node; the graph after each lowering pass, and the
    planned one, in numpy. Values keep their names on the way.
    """
    args, kwargs = copied(*nesting.flatten(call))
    graph = capture(model, args, kwargs, specialization.options.dynamic_shapes).graph
    tensors = specialization.call.flatten(args, kwargs)
    known: dict[str, torch.Tensor] = {}
    for _, made in execute(graph, tensors):
        known.update({v.name: t for v, t in made.items() if v.name})
    manager = PassManager(Config())
    for step in lowering_passes():
        manager.run(graph, [step])
        if step.name == "eliminate_dead_code":
            continue
        place = _departing_node(graph, tensors, known, bound)
        if place is not None:
            return f"{place}, after the pass {step.name}"
    for part_graph, inputs in specialization.planned(tensors):
        place = _departing_node(part_graph, inputs, known, bound)
        if place is not None:
            return f"{place}, in the plan for {specialization.options.precision}"
    return "no single node departs: its errors add up, or capture left something out"


def _departing_node(
    graph: Graph, tensors: Sequence[torch.Tensor], known: dict[str, torch.Tensor], bound: float
) -> str | None:
    for node, made in execute(graph, tensors):
        for value, tensor in made.items():
            its = known.get(value.name)
            if its is None or its.shape != tensor.shape or its.dtype is not tensor.dtype:
                continue
            departure = _compare_tensors(f"%{value.name}", tensor, its)
            if not departure.fits(bound):
                origin = node.origin
                where = ", ".join(filter(None, (origin.module, origin.source, origin.code)))
                return f"{node.op} is the first: {departure.what} ({where or 'no line known'})"
    return None


def execute(
    graph: Graph, tensors: Sequence[torch.Tensor]
) -> Iterator[tuple[Node, dict[Value, torch.Tensor]]]:
    """Runs a graph at any stage: `go.*` nodes in numpy, others in torch; yields what each makes."""
    from graphopt.compiler.specialization import run_in_torch

    sizes = sizes_of(graph, tensors)
    env: dict[Value, torch.Tensor] = dict(zip(graph.inputs, tensors, strict=True))
    rows: dict[Value, np.ndarray[Any, Any]] = {}  # quantized, as the numbers that they stand for

    def get(value: Value) -> np.ndarray[Any, Any]:
        if value in rows:
            return rows[value]
        data = value.data
        return widen(to_numpy(env[value]) if data is None else data, value.dtype)

    for node in graph.nodes:
        made: dict[Value, torch.Tensor] = {}
        if not node.is_lowered:
            made.update(zip(node.outputs, run_in_torch(node, env, sizes), strict=True))
        else:
            arrays = run_node(node, [get(v) for v in node.inputs], sizes)
            for value, array in zip(node.outputs, arrays, strict=True):
                if value.packed == QUANTIZED:
                    rows[value] = array
                else:
                    made[value] = to_torch(np.array(narrow(array, value.dtype)), value.dtype)
        env.update(made)
        for value, tensor in made.items():
            if node.op.computes:
                learn_sizes(sizes, value, tensor.shape)
        yield node, made
