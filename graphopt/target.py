"""What graphopt compiles for."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from graphopt.errors import UnknownPrecisionError, UnknownTargetError
from graphopt.kernels import registry
from graphopt.kernels.formats import FORMATS
from graphopt.kernels.registry import Level
from graphopt.runtime.cpus import usable_cpus

#: Of `graphopt.optimize`; `auto` is one of them.
PRECISIONS = tuple(dict.fromkeys(name for format in FORMATS for name in format.precisions))


@dataclass(frozen=True)
class Target:
    """A family of CPUs and the ISA levels that a library for it holds.

    Attributes:
        name: such as `neoverse-n2`.
        arch: `x86_64` or `aarch64`.
        levels: names of the ISA levels to build, the most capable last.
        int8_matrix: whether the best level multiplies int8 faster than f32 (SMMLA, SDOT, VNNI).
        bf16_matrix: whether it multiplies bf16 matrices (BFMMLA).
        cores: cores that `parallelize_conv` plans for.
    """

    name: str
    arch: str
    levels: tuple[str, ...]
    int8_matrix: bool
    bf16_matrix: bool
    cores: int

    @property
    def isa_levels(self) -> tuple[Level, ...]:
        """The registry rows of the levels."""
        return tuple(registry.level(self.arch, name) for name in self.levels)

    @property
    def is_host(self) -> bool:
        """Whether this machine has the target's architecture."""
        return self.arch == platform.machine()

    def precision(self, requested: str) -> str:
        """The precision to plan with; `auto` is the fastest the target has matrix instructions for.

        Raises:
            UnknownPrecisionError: naming the known ones.
        """
        if requested == "auto":
            parts = ["int8"] * self.int8_matrix + ["bf16"] * self.bf16_matrix
            return "+".join(parts) or "fp32"
        if requested not in PRECISIONS:
            raise UnknownPrecisionError(str(requested), (*PRECISIONS, "auto"))
        return requested


_ARM = ("scalar", "neon_i8mm", "sve2")
_FIXED = (
    Target("neoverse-n1", "aarch64", ("scalar", "neon_dotprod"), True, False, 16),
    Target("neoverse-v1", "aarch64", ("scalar", "neon_dotprod", "sve_i8mm"), True, True, 16),
    Target("neoverse-n2", "aarch64", _ARM, True, True, 16),
    Target("neoverse-v2", "aarch64", _ARM, True, True, 16),
)
_ALIASES = {
    "graviton2": "neoverse-n1",
    "graviton3": "neoverse-v1",
    "yitian710": "neoverse-n2",
    "graviton4": "neoverse-v2",
    "grace": "neoverse-v2",
}


def native() -> Target:
    """This machine, with the levels that its CPU has."""
    levels = registry.host_levels()
    features = {f for level in levels for f in level.features}
    return Target(
        "native",
        platform.machine(),
        tuple(level.name for level in levels),
        bool(features & {"avx512_vnni", "i8mm", "avx2"}),
        bool(features & {"bf16"}),
        usable_cpus(),
    )


def known_targets() -> tuple[Target, ...]:
    """All targets, this machine first."""
    return (native(), *_FIXED)


def find_target(name: str | Target) -> Target:
    """The target of a name or alias.

    Raises:
        UnknownTargetError: listing the known names and the nearest.
    """
    if isinstance(name, Target):
        return name
    if name == "native":
        return native()
    wanted = _ALIASES.get(name, name) if isinstance(name, str) else name
    for target in _FIXED:
        if target.name == wanted:
            return target
    raise UnknownTargetError(str(name), ["native", *(t.name for t in _FIXED), *_ALIASES])
