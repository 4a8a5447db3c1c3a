"""How near each step comes to what this machine can do, and a sentence on what keeps it away."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.inspection.profiling.roofs import UNITS, Roofs

Row = Mapping[str, Any]

_NEAR = 0.6  # of a roof: it is what limits a step
_IDLE = 0.75  # of the threads: too few of them work
_SHORT_MS = 0.005  # beginning and ending a step on several threads takes about as long
_FEW_ROWS = 8  # of a product: fewer than a tile of most kernels
_CACHE_BYTES = 32 << 20  # where the system does not tell
_MEMORY, _CACHES, _ARITHMETIC = "memory", "caches", "arithmetic"


@dataclass(frozen=True)
class Limit:
    """A step against the roofs.

    Attributes:
        share: of the rate that the roofs allow it; 0 for a step without time.
        roof: which of them is the lowest for it: `arithmetic`, `memory` or `caches`.
        text: what limits it, in a sentence.
    """

    share: float
    roof: str
    text: str


def limits_of(rows: Sequence[Row], roofs: Roofs) -> list[Limit]:
    """The limit of every step of a profile.

    Constants and cached keys and values come from memory if all of a model's are larger than its
    last cache; everything else comes from caches.

    Args:
        rows: of a profile.
        roofs: of this machine, on as many threads.
    """
    lasting = sum(row["memory_bytes"] for row in rows)
    is_cached = lasting <= last_cache_bytes()
    return [_limit(row, roofs, is_cached) for row in rows]


def last_cache_bytes() -> int:
    """Bytes of the largest cache of this machine."""
    names = ("SC_LEVEL4_CACHE_SIZE", "SC_LEVEL3_CACHE_SIZE", "SC_LEVEL2_CACHE_SIZE")
    sizes = [os.sysconf(name) for name in names if name in os.sysconf_names]
    return next((size for size in sizes if size > 0), _CACHE_BYTES)


def _limit(row: Row, roofs: Roofs, is_cached: bool) -> Limit:
    macs, moved = row["macs"] or 0, row["bytes"]
    scheme = row.get("scheme", "f32")
    from_memory = 0 if is_cached else row["memory_bytes"]
    least = {
        _ARITHMETIC: macs / roofs.peak(scheme),
        _MEMORY: from_memory / roofs.memory,
        _CACHES: (moved - from_memory) / roofs.cache,
    }
    roof = max(least, key=lambda name: least[name])
    seconds = row["ms"] / 1e3
    share = least[roof] / seconds if seconds > 0 else 0.0
    rates = (
        {
            _ARITHMETIC: f"{macs / seconds / 1e9:.0f} GMAC/s in {UNITS.get(scheme, 'f32')}",
            _MEMORY: f"{from_memory / seconds / 1e9:.1f} GB/s from memory",
            _CACHES: f"{moved / seconds / 1e9:.1f} GB/s in caches",
        }
        if seconds > 0
        else {}
    )
    return Limit(share, roof, _sentence(row, roof, share, rates))


def _sentence(row: Row, roof: str, share: float, rates: Mapping[str, str]) -> str:
    if not rates:
        return "it takes no time that can be measured"
    reached = f"{rates[roof]}, {share:.0%} of the roof"
    if share >= _NEAR:
        return f"limited by {roof}: {reached}"
    busy, threads = row["busy"], row["threads"]
    if row["ms"] < _SHORT_MS:
        return f"too short: beginning and ending it takes about as long as its work; {reached}"
    if busy < _IDLE * threads:
        idle = f"limited by its tasks: {busy:.1f} of {threads} threads work"
        return f"{idle}; {reached}"
    if row["op"] == "go.linear" and _rows(row) <= _FEW_ROWS:
        return f"limited by reading weights for {_rows(row)} rows: {reached}"
    if not row["macs"]:
        return f"limited by its own arithmetic, value by value, and by strides: {reached}"
    why = "packing, edges of tiles, activations and latency are the rest"
    return f"limited by {roof}, with loss: {reached}; {why}"


def _rows(row: Row) -> int:
    """Rows of a product's operand."""
    rows = 1
    for extent in row["inputs"][0][0][:-1]:
        rows *= extent
    return rows
