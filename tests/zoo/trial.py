"""Tries one model of the zoo in one precision, and says how it ended in a row."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from entry import Entry, Inputs
from kept_exports import Exports, kept_exports

import graphopt
from graphopt.compiler.bounds import BOUNDS
from graphopt.compiler.module import OptimizedModule
from graphopt.compiler.options import Options
from graphopt.compiler.report import Report
from graphopt.compiler.rounding_noise import ROUNDINGS, RoundingNoise
from graphopt.errors import ExampleMismatchError, GraphoptError, LoweringError
from graphopt.target import native
from graphopt.testing import relative_error

WHOLE, PART, REFUSED, WRONG = "whole", "part", "refused", "wrong"
#: How much further than torch's own f32 from float64 a result in f32 may be.
TIMES_TORCH = 10
#: How much larger than that of the example the error of another call may be.
TIMES_EXAMPLE = 3
#: How much larger than that of three runs with noise the error of one with roundings may be.
TIMES_NOISE = 3


@dataclass
class Row:
    """How a model ended in a precision.

    Attributes:
        name: of the model.
        precision: what it was compiled in.
        kind: WHOLE, PART, REFUSED or WRONG.
        why: the first line of the error, if there was one.
        compiled: nodes that are compiled.
        nodes: all nodes.
        left: nodes in torch, as op and reason, and how many there are.
        error: largest `relative_error` of the example's results, against float64 where the model
            can be run in it; not a number if nothing was compared.
        others: empty if what was compiled for the example serves calls of other sizes too, else
            what became of them.
        seconds: of torch.export, and of all else.
    """

    name: str
    precision: str
    kind: str = REFUSED
    why: str = ""
    compiled: int = 0
    nodes: int = 0
    left: dict[str, int] | None = None
    error: float = math.nan
    others: str = ""
    seconds: tuple[float, float] = (0.0, 0.0)


def attempts(name: str, entry: Entry, precisions: Sequence[str], interpret: bool) -> Iterator[Row]:
    """Compiles a model, or plans it and interprets the plan, and runs its calls.

    Args:
        name: of the model.
        entry: the model, which is exported once.
        precisions: as `graphopt.optimize` takes them.
        interpret: in numpy, without generated code.
    """
    model, calls = entry.model(), entry.calls()
    with kept_exports() as exports:
        for precision in precisions:
            exports.seconds = 0.0
            yield _attempt(Row(name, precision), model, calls, interpret, exports)


def _attempt(
    row: Row, model: torch.nn.Module, calls: list[Inputs], interpret: bool, exports: Exports
) -> Row:
    begun = time.perf_counter()
    try:
        fast = _optimized(model, calls[0], row.precision, interpret)
        row.seconds = exports.seconds, time.perf_counter() - begun - exports.seconds
        run = fast.interpret if interpret else fast
        _judge(row, model, calls, fast, run)
    except (ExampleMismatchError, LoweringError) as error:  # faults of graphopt, by its own word
        row.kind, row.why = WRONG, _line(error)
    except GraphoptError as error:
        row.kind, row.why = REFUSED, _line(error)
    except Exception as error:
        row.kind, row.why = WRONG, f"{type(error).__name__}: {_line(error)}"
    else:
        _count(row, fast.report())
    return row


def _optimized(model: torch.nn.Module, example: Inputs, precision: str, interpret: bool) -> Any:
    """The compiled model, for the best level of this machine alone: all levels give the same."""
    host = native()
    target = replace(host, levels=host.levels[-1:])
    if interpret:
        return OptimizedModule(model, Options.of(target=target, precision=precision, check=False))
    return graphopt.optimize(model, target, example, precision=precision)


def _call(run: Any, inputs: Inputs) -> Any:
    inputs = pytree.tree_map_only(torch.Tensor, torch.clone, inputs)
    with torch.no_grad():
        return run(**inputs) if isinstance(inputs, dict) else run(*inputs)


def _judge(
    row: Row, model: torch.nn.Module, calls: list[Inputs], fast: OptimizedModule, run: Any
) -> None:
    """Compares the results of all calls with the model's own.

    Raises:
        GraphoptError: as the example's call does.
    """
    exact = row.precision == "fp32"
    for number, inputs in enumerate(calls):
        own = _tensors(_call(model, inputs))
        assert number or not _is_constant(own), "it tells nothing: its results are the same numbers"
        wanted = _exact(model, inputs) or own
        allowed = max(BOUNDS[row.precision], TIMES_TORCH * _error(own, wanted, exact))
        try:
            error = _error(_tensors(_call(run, inputs)), wanted, exact)
        except GraphoptError as refusal:
            if number == 0:
                raise
            row.others = f"refused: {_line(refusal)}"
            continue
        if number == 0:
            row.error = error
            if not exact:  # its check knows what the model amplifies
                continue
        else:
            allowed = max(allowed, TIMES_EXAMPLE * row.error)
            if len(fast.report().checks) > 1:
                row.others = "captured again"
        if not error <= allowed and not error <= _amplified(model, inputs, row.precision, own):
            sizes = "other sizes: " if number else ""
            row.kind, row.why = WRONG, f"{sizes}an error of {error:.2g}, allowed {allowed:.2g}"
            return
    row.kind = WHOLE


def _amplified(
    model: torch.nn.Module, inputs: Inputs, precision: str, own: list[torch.Tensor]
) -> float:
    """The error that the model itself makes of roundings as a precision has them, and some more."""
    noisy = []
    for seed in range(3):
        with RoundingNoise(ROUNDINGS[precision], seed):
            noisy.append(_error(_tensors(_call(model, inputs)), own, False))
    return TIMES_NOISE * max(noisy)


def _is_constant(results: list[torch.Tensor]) -> bool:
    larger = [tensor for tensor in results if tensor.numel() > 1]
    return bool(larger) and all(bool((t == t.flatten()[0]).all()) for t in larger)


def _exact(model: torch.nn.Module, inputs: Inputs) -> list[torch.Tensor]:
    """The results in float64; empty if the model cannot be run in it."""
    wide = pytree.tree_map_only(torch.Tensor, _widened, inputs)
    try:
        return _tensors(_call(copy.deepcopy(model).double(), wide))
    except Exception:
        return []


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.dtype == torch.float32 else tensor


def _error(got: list[torch.Tensor], wanted: list[torch.Tensor], exact: bool) -> float:
    """The largest `relative_error`; infinite if whole numbers differ and `exact`, or shapes do."""
    if len(got) != len(wanted):
        return math.inf
    errors = [0.0]
    for x, y in zip(got, wanted, strict=True):
        if y.is_floating_point() or y.is_complex():
            errors.append(relative_error(_array(x), _array(y)))
        elif x.dtype != y.dtype or x.shape != y.shape or (exact and not torch.equal(x, y)):
            return math.inf
    return max(errors)


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.detach().double().numpy()


def _tensors(result: Any) -> list[torch.Tensor]:
    """The tensors of a result; those of another object, such as a cache, as its attributes lie."""
    found = []
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type):
            found += _tensors(list(vars(leaf).values()))
    return found


def _count(row: Row, report: Report) -> None:
    left = Counter(f"{r.op}: {'; '.join(r.reasons)}" for r in report.in_torch)
    row.nodes, row.compiled = len(report), len(report) - len(report.in_torch)
    row.left = dict(left.most_common())
    if row.left and row.kind == WHOLE:
        row.kind = PART


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
