"""What the pricing knows of the cores: widths, and the classes of multiply-accumulates."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """A core of which LLVM has a scheduling model.

    Attributes:
        name: as ``llvm-mca -mcpu`` calls it.
        width: instructions that it renames in a cycle; micro-ops are twice as many.
        vector_bits: length of its SVE vectors.
        late_addend: its accumulates take their addend late (see :data:`FORWARDING`), which LLVM
            before version 23 does not know.
    """

    name: str
    width: int
    vector_bits: int = 128
    late_addend: bool = False


CORES = {
    core.name: core
    for core in (
        Core("neoverse-n1", 4),
        Core("neoverse-n2", 5, late_addend=True),
        Core("neoverse-v1", 8, vector_bits=256),
        Core("neoverse-v2", 8),
    )
}


@dataclass(frozen=True)
class MacClass:
    """Instructions that multiply and accumulate alike.

    Attributes:
        name: of the class, and of the peak it is compared with.
        pattern: regular expression of the mnemonics.
        macs: multiply-accumulates of one instruction on 128 bits.
        sample: one instruction that writes register ``{}``, to ask the model for the peak.
    """

    name: str
    pattern: str
    macs: int
    sample: str


MAC_CLASSES = (
    MacClass("smmla", r"[su]mmla|usmmla", 32, "smmla v{}.4s, v30.16b, v31.16b"),
    MacClass("bfmmla", r"bfmmla", 16, "bfmmla v{}.4s, v30.8h, v31.8h"),
    MacClass("dot", r"[su]dot|usdot|sudot", 16, "sdot v{}.4s, v30.16b, v31.16b"),
    MacClass("bfdot", r"bfdot", 8, "bfdot v{}.4s, v30.8h, v31.8h"),
    MacClass("fmla", r"fn?ml[as]|fn?m(ad|sb)", 4, "fmla v{}.4s, v30.4s, v31.4s"),
)


def mac_class(mnemonic: str) -> MacClass | None:
    """The class of a mnemonic, or None."""
    return next((c for c in MAC_CLASSES if re.fullmatch(c.pattern, mnemonic)), None)


@dataclass(frozen=True)
class Forwarding:
    """Accumulates whose addend may arrive late.

    Attributes:
        pattern: regular expression of the mnemonics.
        latency: cycles until anyone else can read the result.
        late: cycles until the next accumulate of the same row can.
    """

    pattern: str
    latency: int
    late: int


#: Arm Neoverse N2 Software Optimization Guide, tables of the vector instructions.
FORWARDING = (
    Forwarding(r"fn?ml[as]", 4, 2),
    Forwarding(r"[su]dot|usdot|sudot", 3, 1),
    Forwarding(r"[su]mmla|usmmla", 3, 1),
    Forwarding(r"bfdot", 4, 2),
    Forwarding(r"bfmmla", 5, 3),
    Forwarding(r"bfmlal[bt]?", 4, 1),
    Forwarding(r"ml[as]|[su]ml[as]l[2bt]?", 4, 1),
    Forwarding(r"[su]adalp|[su]r?sra|[su]aba(l[2bt]?)?", 4, 1),
)


def forwarding(mnemonic: str) -> Forwarding | None:
    """The row of a mnemonic, or None."""
    return next((f for f in FORWARDING if re.fullmatch(f.pattern, mnemonic)), None)
