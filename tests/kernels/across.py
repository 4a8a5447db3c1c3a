"""Run cases at several team sizes and compare with the scalar level bit for bit."""

from __future__ import annotations

import copy
import platform
from collections.abc import Sequence

import numpy as np
from harness import Case, Runner, require, run_cases

THREADS = (1, 2, 3)
_SCALAR_RESULTS: dict[str, list[dict[str, np.ndarray]]] = {}


def bits(x: np.ndarray) -> np.ndarray:
    """The bytes of an array, NaNs made equal: their sign and payload differ between CPUs."""
    if x.dtype == np.float32:
        x = np.where(np.isnan(x), np.float32(np.nan), x)
    return x.view(np.uint8)


def run_everywhere(
    runner: Runner, generic: str, cases: Sequence[Case], key: str, as_scalar: bool = True
) -> list[dict[str, np.ndarray]]:
    """Results of ``cases``, asserted equal for 1, 2 and 3 threads and to the scalar level.

    ``key`` names the list of cases, which must be the same in every call with that key.
    Without ``as_scalar`` the bits are not those of the scalar level, as with BFMMLA.
    """
    batch = []
    for case in cases:
        for threads in THREADS:
            batch.append(copy.copy(case))
            batch[-1].threads = threads
    results = run_cases(runner, generic, batch)
    single = results[:: len(THREADS)]
    if as_scalar and key not in _SCALAR_RESULTS:
        scalar = require(f"{platform.machine()}/scalar")
        _SCALAR_RESULTS[key] = run_cases(scalar, generic, list(cases))
    for i, case in enumerate(cases):
        for name in case.writes:
            if name == "scratch":
                continue
            for j, threads in enumerate(THREADS):
                got = results[i * len(THREADS) + j][name]
                same = np.array_equal(bits(got), bits(single[i][name]))
                assert same, f"case {i}: {name} differs with {threads} threads"
            if not as_scalar:
                continue
            expected = _SCALAR_RESULTS[key][i][name]
            assert np.array_equal(bits(single[i][name]), bits(expected)), (
                f"case {i}: {name} differs from the scalar level"
            )
    return single
