"""Every environment switch of graphopt, read in one place."""

from __future__ import annotations

import difflib
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graphopt.errors import SwitchError

_NAMES = (
    "GRAPHOPT_DEBUG",
    "GRAPHOPT_DUMP",
    "GRAPHOPT_DUMP_FORMAT",
    "GRAPHOPT_STOP_AFTER",
    "GRAPHOPT_SKIP",
    "GRAPHOPT_VERIFY",
    "GRAPHOPT_SERIAL_CONV",
    "GRAPHOPT_CACHE",
)
_MOST_DEBUG = 5


class UnknownSwitchWarning(UserWarning):
    """A variable in the environment that looks like a switch of graphopt and is none."""


@dataclass(frozen=True)
class Config:
    """Settings of what is shown and checked. `stop_after` and `skip` alone can change results.

    Attributes:
        debug: `GRAPHOPT_DEBUG`, 0 to 5; each level adds to the one before.
        dump: `GRAPHOPT_DUMP`, a folder for the graph after each pass and the generated C.
        dump_format: `GRAPHOPT_DUMP_FORMAT`, what graphs are dumped as, `text` if empty.
        stop_after: `GRAPHOPT_STOP_AFTER`, the last pass to run (to bisect a wrong result).
        skip: `GRAPHOPT_SKIP`, passes to leave out, separated by commas.
        verify: `GRAPHOPT_VERIFY`, 1 checks the graph after every pass.
        serial_conv: `GRAPHOPT_SERIAL_CONV`, 1 leaves each convolution in one task (to see what
            cutting them gives).
        cache: `GRAPHOPT_CACHE`, the folder of compiled objects; `~/.cache/graphopt` by default.
    """

    debug: int = 0
    dump: Path | None = None
    dump_format: str = ""
    stop_after: str = ""
    skip: frozenset[str] = frozenset()
    verify: bool = False
    serial_conv: bool = False
    cache: Path = field(default_factory=lambda: _default_cache(os.environ))

    @staticmethod
    def from_environment() -> Config:
        """The settings of this process; warns of an unknown `GRAPHOPT_` variable.

        Raises:
            SwitchError: for a value that a variable cannot have.
        """
        env = os.environ
        _warn_of_unknown(env)
        dump = env.get("GRAPHOPT_DUMP")
        return Config(
            debug=_number(env, "GRAPHOPT_DEBUG", _MOST_DEBUG),
            dump=Path(dump) if dump else None,
            dump_format=env.get("GRAPHOPT_DUMP_FORMAT", "").strip(),
            stop_after=env.get("GRAPHOPT_STOP_AFTER", "").strip(),
            skip=frozenset(filter(None, map(str.strip, env.get("GRAPHOPT_SKIP", "").split(",")))),
            verify=bool(_number(env, "GRAPHOPT_VERIFY", 1)),
            serial_conv=bool(_number(env, "GRAPHOPT_SERIAL_CONV", 1)),
            cache=Path(env.get("GRAPHOPT_CACHE") or _default_cache(env)),
        )


def _default_cache(env: Mapping[str, str]) -> Path:
    """The folder of compiled objects where none is named; that of a user without a home is his."""
    if base := env.get("XDG_CACHE_HOME"):
        return Path(base) / "graphopt"
    try:
        return Path.home() / ".cache" / "graphopt"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"graphopt-cache-{os.getuid()}"


def _number(env: Mapping[str, str], name: str, most: int) -> int:
    text = env.get(name, "").strip() or "0"
    if text not in map(str, range(most + 1)):
        raise SwitchError(name, text, f"give a number from 0 to {most}")
    return int(text)


def _warn_of_unknown(env: Mapping[str, str]) -> None:
    for name in sorted(env):
        if name.startswith("GRAPHOPT_") and name not in _NAMES:
            near = difflib.get_close_matches(name, _NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_NAMES)}"
            message = f"{name} is no switch of graphopt and has no effect; {hint}"
            warnings.warn(message, UnknownSwitchWarning, stacklevel=3)
