"""Runs in float64, exact and with the rounding errors of a precision, and what they differ by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from graphopt.compiler.rounding_noise import ROUNDINGS, Rounding, RoundingNoise


@contextmanager
def wide(rounding: Rounding | None = None, seed: int = 0) -> Iterator[None]:
    """Torch with float64 by default, and with errors if a rounding is given."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            if rounding is None:
                yield
            else:
                with RoundingNoise(rounding, seed):
                    yield
    finally:
        torch.set_default_dtype(before)


def deviation(function: Callable[[], list[torch.Tensor]], precision: str) -> list[float]:
    """By how much the results of a function differ under the roundings of a precision.

    Returns:
        For each result the largest absolute difference; infinite where integers, bools or the
        places of NaN and infinity differ, which is where rounding decides.
    """
    with wide():
        exact = function()
    largest = [0.0] * len(exact)
    for seed in range(3):
        with wide(ROUNDINGS[precision], seed):
            noisy = function()
        for i, (a, b) in enumerate(zip(exact, noisy, strict=True)):
            largest[i] = max(largest[i], difference(b, a))
    return largest


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest absolute difference; infinite if exact or special values differ."""
    if got.shape != wanted.shape:
        return float("inf")
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(got, wanted) else float("inf")
    a, b = got.double(), wanted.double()
    finite = torch.isfinite(b)
    if not torch.equal(finite, torch.isfinite(a)):
        return float("inf")
    special = ~finite
    if not torch.equal(torch.nan_to_num(a[special]), torch.nan_to_num(b[special])):
        return float("inf")
    return float((a - b)[finite].abs().max()) if bool(finite.any()) else 0.0
