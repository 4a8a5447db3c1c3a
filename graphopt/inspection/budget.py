"""How good a mix of precisions has to be: a measure of its results, and a bound for it.

    sqnr>=30dB      signal over error of each result, against fp32
    cosine>=0.999   of the angle between both
    max<=0.01       largest difference; relative<=0.01 of the largest magnitude
    kl<=0.01        divergence of softmax over the last axis, in nats, mean of the rows
    top1>=99.5%     rows of which the largest number stays where it is; whole numbers that stay
    NAME<=+0.002    a function of the user's, of arrays (got, reference) or of the compiled model;
                    with a sign, beyond what fp32 gives

Where a model has several results, the worst one counts.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import OptionError
from graphopt.inspection.accuracy import Error

Array = np.ndarray[Any, Any]
OfArrays = Callable[[Array, Array], float]

_TEXT = re.compile(
    r"\s*(?P<name>\w+)\s*(?P<sign>[<>]=)\s*(?P<offset>[+-]?)(?P<number>[\d.]+(e-?\d+)?)\s*"
    r"(?P<unit>dB|%)?\s*",
    re.IGNORECASE,
)


def _kl(got: Array, reference: Array) -> float:
    """Mean over rows of what softmax of the result misses of softmax of the reference, in nats."""
    p, q = (x - _log_sum(x) for x in (reference.astype(np.float64), got.astype(np.float64)))
    return max(0.0, float(np.mean(np.sum(np.exp(p) * (p - q), axis=-1))))


def _log_sum(x: Array) -> Array:
    top = x.max(axis=-1, keepdims=True)
    return np.asarray(top + np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))


def _top1(got: Array, reference: Array) -> float:
    if reference.dtype.kind != "f":
        return float(np.mean(got == reference)) if got.size else 1.0
    return float(np.mean(got.argmax(axis=-1) == reference.argmax(axis=-1)))


#: Measures, and whether more of them is better.
MEASURES: dict[str, tuple[OfArrays, bool]] = {
    "sqnr": (lambda got, reference: Error.of(got, reference).sqnr, True),
    "cosine": (lambda got, reference: Error.of(got, reference).cosine, True),
    "max": (lambda got, reference: Error.of(got, reference).largest, False),
    "relative": (lambda got, reference: Error.of(got, reference).relative, False),
    "kl": (_kl, False),
    "top1": (_top1, True),
}


@dataclass(frozen=True)
class Budget:
    """What results must be.

    Attributes:
        text: as it was given.
        name: of the measure.
        larger: whether more of it is better.
        bound: worst value that is good enough.
        beyond: whether the bound is a difference to the value of fp32.
        of_arrays: the measure of a result and its reference; None for one of the whole model.
        of_model: the measure of what is called like the model; None for one of arrays.
    """

    text: str
    name: str
    larger: bool
    bound: float
    beyond: bool
    of_arrays: OfArrays | None
    of_model: Callable[[Any], float] | None

    @staticmethod
    def of(text: str, metric: Callable[..., Any] | None = None) -> Budget:
        """A budget from its text, such as `sqnr>=30dB`.

        Args:
            text: see the module.
            metric: the user's measure: a function of a result and its reference, or of what is
                called like the model.

        Raises:
            OptionError: for what is none.
        """
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise OptionError("budget", text, "give a measure and a bound, such as sqnr>=30dB")
        name, larger, unit = found["name"], found["sign"] == ">=", (found["unit"] or "").lower()
        try:
            bound = float(found["offset"] + found["number"]) / (100 if unit == "%" else 1)
        except ValueError:
            raise OptionError("budget", text, f"{found['number']} is no number") from None
        of_arrays = of_model = None
        if metric is not None:
            if _arguments(metric) == 1:
                of_model = metric
            else:
                of_arrays = metric
        elif name in MEASURES:
            of_arrays, better = MEASURES[name]
            if better != larger:
                sign = ">=" if better else "<="
                raise OptionError("budget", text, f"give {name}{sign}...")
        else:
            known = ", ".join(MEASURES)
            raise OptionError("budget", text, f"give one of {known}, or metric= of your own")
        if (unit == "db") > (name == "sqnr"):
            raise OptionError("budget", text, f"{name} is not in dB")
        beyond = bool(found["offset"])
        if beyond and of_model is None:
            raise OptionError("budget", text, "results are compared with fp32; leave out the sign")
        return Budget(text, name, larger, bound, beyond, of_arrays, of_model)

    def worst(self, got: Sequence[Array], reference: Sequence[Array]) -> float:
        """The measure of the worst result; the worst there is for one of another shape.

        Args:
            got: of a mix.
            reference: of fp32; whole numbers count for `top1` alone.
        """
        assert self.of_arrays is not None
        values = []
        for mine, right in zip(got, reference, strict=True):
            if mine.shape != right.shape:
                return -math.inf if self.larger else math.inf
            if right.size and (right.dtype.kind == "f" or self.name == "top1"):
                values.append(float(self.of_arrays(mine, right)))
        worst = min if self.larger else max
        return worst(values, default=math.inf if self.larger else 0.0)

    def limit(self, of_fp32: float) -> float:
        """The worst value that is good enough, where fp32 has this one."""
        return self.bound + of_fp32 if self.beyond else self.bound

    def holds(self, value: float, of_fp32: float) -> bool:
        """Whether a value is good enough, where fp32 has the other one."""
        limit = self.limit(of_fp32)
        return value >= limit if self.larger else value <= limit

    def shown(self, value: float) -> str:
        """A value as tables show it."""
        if self.name == "sqnr":
            return f"{value:.1f} dB" if math.isfinite(value) else "exact" if value > 0 else "lost"
        return f"{100 * value:.2f} %" if self.name == "top1" else f"{value:.4g}"


def _arguments(metric: Callable[..., Any]) -> int:
    """How many arguments a function cannot be called without.

    Raises:
        OptionError: for what takes neither one nor two.
    """
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(p.kind in positional and p.default is p.empty for p in parameters)
    if count not in (1, 2):
        how = "give a function of (got, reference), or of the compiled model"
        raise OptionError("metric", metric, how)
    return count
