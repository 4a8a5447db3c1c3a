"""What predictions assume of a server, and the file that says what was measured on one.

A file of constants is TOML, which people may read and edit; what it leaves out is assumed:

    format = 1
    machine = "the server under the desk"
    target = "neoverse-n2"

    [constants.clock]
    value = 2.8e9
    unit = "Hz"
    origin = "measured: 1000 dependent additions"
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphopt.errors import ConstantsFileError
from graphopt.plain_files import read_text

FORMAT = 1
ASSUMED = "assumed"


@dataclass(frozen=True)
class Constant:
    """A number about a machine.

    Attributes:
        unit: of the value: `Hz`, `B/s`, `B/cycle`, `s`, or `1` for a ratio.
        value: the number.
        about: what it is.
        origin: how it is known: `assumed`, or how it was measured, in words.
    """

    unit: str
    value: float
    about: str
    origin: str = ASSUMED


#: All that a file may hold, with what is assumed where it does not.
CONSTANTS: Mapping[str, Constant] = {
    "clock": Constant("Hz", 3.0e9, "of all cores"),
    "core_bandwidth": Constant("B/s", 20e9, "that one core draws from memory"),
    "socket_bandwidth": Constant("B/s", 200e9, "that all cores together draw from memory"),
    "bytes_per_cycle": Constant(
        "B/cycle", 16.0, "that loops without a priced kernel read and write in caches"
    ),
    "step_seconds": Constant("s", 0.0, "that several cores need to begin and end a step"),
    "kernel_scale": Constant("1", 1.0, "cycles of kernels over those of LLVM's model"),
}
_MOST_BYTES = 1 << 20
_MAY_BE_ZERO = ("step_seconds",)


@dataclass(frozen=True)
class Machine:
    """What predictions assume of a server.

    Attributes:
        constants: what is known otherwise than in `CONSTANTS`, by name.
        name: of the machine, for people.
        target: that it was measured as; empty for any.
    """

    constants: Mapping[str, Constant] = field(default_factory=dict)
    name: str = ""
    target: str = ""

    def __getitem__(self, name: str) -> Constant:
        """A constant, as it is known or assumed."""
        return self.constants.get(name, CONSTANTS[name])

    def known(self, name: str, value: float, origin: str) -> Machine:
        """The same machine with one constant known.

        Args:
            name: of the constant.
            value: in the unit that `CONSTANTS` has.
            origin: how it is known, in words.
        """
        constant = replace(CONSTANTS[name], value=value, origin=origin)
        return replace(self, constants={**self.constants, name: constant})

    @property
    def clock(self) -> float:
        """Hz."""
        return self["clock"].value

    @property
    def bytes_per_cycle(self) -> float:
        """That loops without a priced kernel (element-wise ops, gathering) move in caches."""
        return self["bytes_per_cycle"].value

    @property
    def step_seconds(self) -> float:
        """Seconds that several cores need to begin and end a step."""
        return self["step_seconds"].value

    @property
    def kernel_scale(self) -> float:
        """Cycles of kernels over those of LLVM's model."""
        return self["kernel_scale"].value

    def bandwidth(self, cores: float) -> float:
        """Bytes a second that some cores draw from memory."""
        return min(cores * self["core_bandwidth"].value, self["socket_bandwidth"].value)

    def as_dict(self) -> dict[str, Any]:
        """All constants, those that are assumed among them."""
        return {
            name: {"value": one.value, "unit": one.unit, "about": one.about, "origin": one.origin}
            for name, one in ((name, self[name]) for name in CONSTANTS)
        }


def read_machine(path: str | Path) -> Machine:
    """A machine by its file of constants.

    Args:
        path: TOML, as `machine_text` gives it.

    Raises:
        ConstantsFileError: if it cannot be read, or says something that is not understood.
    """
    try:
        found = tomllib.loads(read_text(Path(path), _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise ConstantsFileError(path, f"it is no readable TOML: {error}") from error
    fields = {"format", "machine", "target", "constants"}
    if more := sorted(found.keys() - fields):
        raise ConstantsFileError(path, f"it has {more[0]!r}; known are {', '.join(sorted(fields))}")
    if (version := found.get("format")) != FORMAT:
        raise ConstantsFileError(path, f"its format is {version!r}, not {FORMAT}")
    name, target, given = (found.get(key, "") for key in ("machine", "target", "constants"))
    if not isinstance(name, str) or not isinstance(target, str):
        raise ConstantsFileError(path, "machine and target are texts")
    if not isinstance(given, dict):
        raise ConstantsFileError(path, "it has no table of constants")
    return Machine({key: _constant(path, key, row) for key, row in given.items()}, name, target)


def _constant(path: str | Path, name: str, row: Any) -> Constant:
    if name not in CONSTANTS:
        raise ConstantsFileError(
            path, f"it has a constant {name!r}; known are {', '.join(CONSTANTS)}"
        )
    known = CONSTANTS[name]
    if not isinstance(row, dict) or row.keys() - {"value", "unit", "origin"}:
        raise ConstantsFileError(path, f"{name} is no table of value, unit and origin")
    value, unit, origin = row.get("value"), row.get("unit"), row.get("origin", "")
    if unit != known.unit:
        raise ConstantsFileError(path, f"{name} is in {known.unit!r}, not {unit!r}")
    if not isinstance(origin, str):
        raise ConstantsFileError(path, f"the origin of {name} is no text")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConstantsFileError(path, f"{name} is {value!r}, no number")
    if value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
        raise ConstantsFileError(path, f"{name} is {value!r}, which no machine has")
    return replace(
        known, value=float(value), origin=origin or "a file without a word of its origin"
    )


def machine_text(machine: Machine) -> str:
    """The file of constants of a machine: TOML, of what is known of it."""
    lines = [f"format = {FORMAT}", f"machine = {_text(machine.name)}"]
    lines += [f"target = {_text(machine.target)}"]
    for name, one in machine.constants.items():
        lines += [
            "",
            f"[constants.{name}]  # {one.about}",
            f"value = {one.value!r}",
            f"unit = {_text(one.unit)}",
            f"origin = {_text(one.origin)}",
        ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """A string of TOML, whose escapes are among those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
