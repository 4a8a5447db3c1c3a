"""The instructions of a program, with their functions."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from graphopt.errors import PricingError
from graphopt.n2sim.cores import Forwarding, forwarding, mac_class
from graphopt.n2sim.llvm import Llvm

_BRANCH = re.compile(r"(b|b\.\w+|bc\.\w+|cbn?z|tbn?z|br|ret|bl|blr)$")
_ADDRESS = re.compile(r"0x([0-9a-f]+) <[^>]*>$")
_LINE = re.compile(r"^\s+([0-9a-f]+):\s+(\S+)[ \t]*(.*?)(?:\s*//.*)?$", re.M)
_FUNCTION = re.compile(r"\d+: (\w+)\s+\w+ FUNC .* (\S+)$", re.M)


@dataclass(frozen=True)
class Instruction:
    """One machine instruction.

    Attributes:
        address: of its four bytes.
        op: mnemonic.
        operands: the rest of its text.
        function: symbol it belongs to.
    """

    address: int
    op: str
    operands: str
    function: str

    @cached_property
    def is_branch(self) -> bool:
        """Whether it may change the flow of control."""
        return _BRANCH.match(self.op) is not None

    @cached_property
    def target(self) -> int | None:
        """Where a direct branch or call goes."""
        found = _ADDRESS.search(self.operands) if self.is_branch else None
        return int(found[1], 16) if found else None

    @cached_property
    def kind(self) -> str:
        """A name of :data:`cores.MAC_CLASSES`, ``load``, ``store``, ``vector`` or ``scalar``."""
        macs = mac_class(self.op)
        if macs:
            return macs.name
        if self.op.startswith("ld"):
            return "load"
        if self.op.startswith("st"):
            return "store"
        return "vector" if re.search(r"\b[vzpqdsbh]\d+\b", self.operands) else "scalar"

    @cached_property
    def vectors(self) -> tuple[int, ...]:
        """Numbers of the vector registers among the operands, the destination first."""
        return tuple(int(n) for n in re.findall(r"\b[vzqdshb](\d+)\b", self.operands))

    @cached_property
    def forwarding(self) -> Forwarding | None:
        """How its addend is forwarded, for accumulates on vectors."""
        return forwarding(self.op) if self.vectors else None

    @cached_property
    def is_lane_load(self) -> bool:
        """Whether it loads one lane of its registers and keeps the others."""
        return re.match(r"ld[1-4]$", self.op) is not None and "}[" in self.operands

    @cached_property
    def text(self) -> str:
        """What llvm-mca reads: a local label for addresses; calls as jumps, which it prices."""
        op = {"bl": "b", "blr": "br"}.get(self.op, self.op)
        return f"{op} {_ADDRESS.sub('.Lx', self.operands)}"

    def macs(self, vector_bits: int) -> int:
        """Multiply-accumulates it does, all lanes counted, with SVE vectors of that length."""
        family = mac_class(self.op)
        if family is None:
            return 0
        macs = family.macs
        register = re.match(r"([vz]|[hsd](?=\d))\d+(?:\.(\d*)([bhsd]))?", self.operands)
        kind, lanes, lane = register.groups() if register else ("v", None, None)
        if kind in "hsd":  # FMADD and the like
            return 1
        if family.name == "fmla" and lane:
            macs = {"h": 8, "s": 4, "d": 2}.get(lane, macs)
        if lanes and int(lanes) * {"b": 8, "h": 16, "s": 32, "d": 64}[str(lane)] == 64:
            macs //= 2
        return macs * vector_bits // 128 if kind == "z" else macs


def disassemble(llvm: Llvm, program: Path) -> dict[int, Instruction]:
    """All instructions of a static aarch64 program by address, in order of address.

    Raises:
        PricingError: if the program is none, or position independent.
    """
    if not os.path.isfile(program):
        raise PricingError(f"{program} is not a file; give a static aarch64 program")
    return _disassemble(llvm, program, program.stat().st_mtime_ns)


@lru_cache(maxsize=2)  # one program is priced with many inputs
def _disassemble(llvm: Llvm, program: Path, _changed: int) -> dict[int, Instruction]:
    header, _ = llvm.run("llvm-readelf", "-hsW", str(program))
    if not re.search(r"Type:\s+EXEC", header) or "AArch64" not in header:
        raise PricingError(
            f"{program} is not a static aarch64 program of fixed address; "
            "build it with -static (and -no-pie)"
        )
    starts = {int(m[1], 16): m[2] for m in _FUNCTION.finditer(header)}
    listing, _ = llvm.run("llvm-objdump", "-d", "--no-show-raw-insn", str(program))
    code: dict[int, Instruction] = {}
    function = "?"
    for line in _LINE.finditer(listing):
        address = int(line[1], 16)
        function = starts.get(address, function)
        code[address] = Instruction(address, line[2], line[3].strip(), function)
    return code
