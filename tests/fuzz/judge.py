"""Compiles a random model and compares what it computes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from plan_noise import deviations
from program import Program, Sizes, double
from reference import deviation, difference, wide

from graphopt.compiler.module import OptimizedModule
from graphopt.compiler.options import Options
from graphopt.errors import CaptureError, GraphoptError, GroupSizeError, InputError
from graphopt.target import find_target
from graphopt.testing import FP32_RELATIVE

#: How often the deviation that noise makes an error may be: noise is the largest of three runs, and
#: a sum of errors is a few of its standard deviations now and then.
TIMES = 8
#: The same for compiled code beside its plan, where noise is hundreds of times a last bit: a number
#: that falls to the other side may weigh more than any that did in runs with noise.
TIMES_OF_PLAN = 2
#: Runs with noise before compiled code that is not what its plan says is called wrong.
RUNS = 32
#: What f32 flushes to zero is no error.
SMALLEST = torch.finfo(torch.float32).tiny
#: Beyond it, a model says nothing about the roundings of its precision.
MEANINGLESS = 0.3


class Wrong(AssertionError):
    """A model that is compiled wrongly.

    Attributes:
        fault: what is wrong, in a word or two, the same for smaller models with the same fault.
    """

    def __init__(self, fault: str, text: str) -> None:
        super().__init__(f"{fault}: {text}")
        self.fault = fault


@dataclass
class Judgement:
    """What was tried of a model, as counts of `right`, and of refusals by name."""

    counts: Counter[str] = field(default_factory=Counter)
    ops: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Case:
    """What a call must give.

    Attributes:
        inputs: of the call.
        wanted: float64 results, and the dtypes of the model's own.
        bounds: largest error of each result.
    """

    sizes: Sizes
    inputs: tuple[torch.Tensor, ...]
    wanted: list[torch.Tensor]
    dtypes: list[torch.dtype]
    bounds: list[float]


def judge(program: Program, compiled: bool = True) -> Judgement:
    """Compares a model with float64 at all its sizes.

    Args:
        program: the model.
        compiled: whether to build it, and compare it with its graph in numpy too.

    Raises:
        Wrong: if it is not right, and not refused with an error that names the reason.
    """
    found = Judgement()
    cases = [case for sizes in program.sizes if (case := case_of(program, sizes)) is not None]
    if not cases or cases[0].sizes != program.sizes[0]:
        found.counts["says nothing"] += 1
        return found
    module = optimized(program)
    for case in cases:
        outcome = _outcome(module, program, case, compiled)
        found.counts[outcome] += 1
        if outcome == "refused at capture":
            break
    return found


def optimized(program: Program) -> OptimizedModule:
    """A model that is compiled when it is called."""
    options = Options(find_target("native"), program.precision, num_threads=2)
    return OptimizedModule(program.load().model, options)


def case_of(program: Program, sizes: Sizes) -> Case | None:
    """None where the model itself fails, or says nothing."""
    loaded, wider = program.load(), program.load(wide=True)
    try:
        with torch.no_grad():
            own = list(loaded.model(*loaded.inputs(*sizes)))
        inputs = [double(x) for x in loaded.inputs(*sizes)]

        def run() -> list[torch.Tensor]:
            return [y.clone() for y in wider.model(*[x.clone() for x in inputs])]

        with wide():
            wanted = run()
        deviations = deviation(run, program.precision)
    except Exception:
        return None
    bounds = []
    for value, exact, deviated in zip(own, wanted, deviations, strict=True):
        scale = _scale(exact)
        if deviated > MEANINGLESS * scale and deviated > 1e-6:
            return None
        own_error = difference(value.double() if value.is_floating_point() else value, exact)
        if value.dtype is torch.float32 and own_error == float("inf"):
            return None  # f32 itself overflows
        rounded = FP32_RELATIVE * scale + TIMES * deviated + _stored(value.dtype) * scale
        bounds.append(max(rounded, SMALLEST))
    return Case(sizes, loaded.inputs(*sizes), wanted, [y.dtype for y in own], bounds)


def _scale(tensor: torch.Tensor) -> float:
    """The largest magnitude."""
    if not tensor.is_floating_point():
        return 0.0
    finite = tensor[torch.isfinite(tensor)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _stored(dtype: torch.dtype) -> float:
    return {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}.get(dtype, 0.0)


def _outcome(module: OptimizedModule, program: Program, case: Case, compiled: bool) -> str:
    """`right`, or how the call is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreted = list(module.interpret(*_copies(case.inputs)))
            results = list(module(*_copies(case.inputs))) if compiled else interpreted
    except CaptureError as error:
        return f"refused at capture: {_reason(error)}"
    except (InputError, GroupSizeError) as error:
        return f"refused: {type(error).__name__}"
    except GraphoptError as error:
        raise Wrong(type(error).__name__, f"{case.sizes}: {error}") from error
    except Exception as error:
        raise Wrong(f"raw {type(error).__name__}", f"{case.sizes}: {error}") from error
    compare(interpreted, case, "the graph in numpy", case.bounds)
    if compiled:
        compare(results, case, "the compiled model", case.bounds)
        compare_code(module, case, results, interpreted)
    return "right"


def compare_code(
    module: OptimizedModule, case: Case, results: list[Any], interpreted: list[Any]
) -> None:
    """Raises Wrong if what compiled code gives is not what its plan does, but for last bits."""
    errors = [difference(a, b) for a, b in zip(results, interpreted, strict=True)]
    same = [(FP32_RELATIVE + _stored(y.dtype)) * _scale(y) for y in interpreted]
    for moved in deviations(lambda: list(module.interpret(*_copies(case.inputs))), RUNS):
        allowed = (s + TIMES_OF_PLAN * m for s, m in zip(same, moved, strict=True))
        bounds = [min(pair) for pair in zip(allowed, case.bounds, strict=True)]
        if all(error <= bound for error, bound in zip(errors, bounds, strict=True)):
            return
    i = max(range(len(errors)), key=lambda i: errors[i] - bounds[i])
    text = f"output {i} by {errors[i]:.3g}, bound {bounds[i]:.3g}"
    raise Wrong("C departs from numpy", f"{case.sizes}: {text}")


def _reason(error: CaptureError) -> str:
    return str(error).partition("; ")[2][:60]


def _copies(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return list(inputs)


def compare(results: Sequence[Any], case: Case, what: str, bounds: Sequence[float]) -> None:
    if len(results) != len(case.wanted):
        raise Wrong("count", f"{what} returns {len(results)} for {len(case.wanted)}")
    for i, (got, wanted) in enumerate(zip(results, case.wanted, strict=True)):
        where = f"{case.sizes}: output {i} of {what}"
        if not isinstance(got, torch.Tensor) or got.dtype is not case.dtypes[i]:
            raise Wrong("dtype", f"{where} is {getattr(got, 'dtype', got)}, not {case.dtypes[i]}")
        if got.shape != wanted.shape:
            raise Wrong("shape", f"{where} is {tuple(got.shape)}, not {tuple(wanted.shape)}")
        error = difference(got, wanted)
        if error > bounds[i]:
            raise Wrong("numbers", f"{where} is wrong by {error:.3g}, bound {bounds[i]:.3g}")
