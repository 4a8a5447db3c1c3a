"""The grammar of kernel names, in both directions.

    go_<op>_<dst>_<lhs>_<rhs>_<MxNxK>_<isa>[_<variant>]     GEMM
    go_pack_<token>_<NxK>_<isa>[_<variant>]                 packing
    go_<op>_<isa>[_<variant>]                               everything else

Operand tokens: ``f``, ``bf`` or ``i`` + bits, or ``q`` + ``s``/``a`` (symmetric,
asymmetric) + bits + ``t``/``r``/``c``/``b<n>``/``b`` (tensor, row, channel, block of n, block
of any length).
The C symbol, the registry row, the test id and the benchmark row are this one string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphopt.kernels.registry import LEVELS

_ISAS = "|".join(sorted({row.name for row in LEVELS}, reverse=True))  # sve2x before sve2
_TOKEN = r"(?:(?:f|bf|i)[1-9][0-9]*|q[sa][1-9][0-9]*(?:t|r|c|b(?:[1-9][0-9]*)?))"
_SIZE = r"[1-9][0-9]*"
_TAIL = rf"(?P<isa>{_ISAS})(?:_(?P<variant>[a-z0-9]+))?"
_GEMM = re.compile(
    rf"go_gemm_(?P<dst>{_TOKEN})_(?P<lhs>{_TOKEN})_(?P<rhs>{_TOKEN})"
    rf"_(?P<tile>{_SIZE}x{_SIZE}x{_SIZE})_{_TAIL}"
)
_PACK = re.compile(rf"go_pack_(?P<token>{_TOKEN})_(?P<tile>{_SIZE}x{_SIZE})_{_TAIL}")
_PLAIN = re.compile(rf"go_(?P<op>[a-z][a-z0-9]*)_{_TAIL}")


@dataclass(frozen=True)
class KernelName:
    """A parsed kernel name.

    ``operands`` is (dst, lhs, rhs) for a GEMM, (token,) for packing, else empty;
    ``tile`` is (M, N, K), (rows, K) or empty in the same cases.
    """

    op: str
    isa: str
    operands: tuple[str, ...] = ()
    tile: tuple[int, ...] = ()
    variant: str = ""

    def __str__(self) -> str:
        """The C symbol."""
        parts = ["go", self.op, *self.operands]
        if self.tile:
            parts.append("x".join(map(str, self.tile)))
        parts.append(self.isa)
        if self.variant:
            parts.append(self.variant)
        return "_".join(parts)


def format_name(name: KernelName) -> str:
    """Return the C symbol of ``name``; ValueError if the grammar does not allow it."""
    text = str(name)
    if parse_name(text) != name:
        raise ValueError(f"no kernel name reads back as {name!r}")
    return text


def parse_name(symbol: str) -> KernelName:
    """Return the parts of a C symbol; ValueError if it is outside the grammar."""
    for op, pattern in (("gemm", _GEMM), ("pack", _PACK), ("", _PLAIN)):
        match = pattern.fullmatch(symbol)
        if match is None:
            continue
        part = match.groupdict()
        if part.get("op") in ("gemm", "pack"):
            break
        operands = tuple(part[key] for key in ("dst", "lhs", "rhs", "token") if part.get(key))
        tile = tuple(int(n) for n in part["tile"].split("x")) if part.get("tile") else ()
        return KernelName(op or part["op"], part["isa"], operands, tile, part["variant"] or "")
    raise ValueError(f"{symbol!r} is not a kernel name (grammar: kernels/names.py)")
