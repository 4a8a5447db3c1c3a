"""Every environment switch of graphopt, read in one place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Config:
    """Settings that change what is shown and checked, never what is computed.

    Attributes:
        debug: `GRAPHOPT_DEBUG`, 0 to 5; each level adds to the one before.
        dump: `GRAPHOPT_DUMP`, a folder for the graph after each pass and the generated C.
        stop_after: `GRAPHOPT_STOP_AFTER`, the last pass to run (to bisect a wrong result).
        skip: `GRAPHOPT_SKIP`, passes to leave out, separated by commas.
        verify: `GRAPHOPT_VERIFY`, 1 checks the graph after every pass.
        serial_conv: `GRAPHOPT_SERIAL_CONV`, 1 leaves each convolution in one task (to see what
            cutting them gives).
        cache: `GRAPHOPT_CACHE`, the folder of compiled objects; `~/.cache/graphopt` by default.
    """

    debug: int = 0
    dump: Path | None = None
    stop_after: str = ""
    skip: frozenset[str] = frozenset()
    verify: bool = False
    serial_conv: bool = False
    cache: Path = field(default_factory=lambda: _default_cache(os.environ))

    @staticmethod
    def from_environment() -> Config:
        """The settings of this process."""
        env = os.environ
        dump = env.get("GRAPHOPT_DUMP")
        return Config(
            debug=int(env.get("GRAPHOPT_DEBUG") or 0),
            dump=Path(dump) if dump else None,
            stop_after=env.get("GRAPHOPT_STOP_AFTER", ""),
            skip=frozenset(filter(None, env.get("GRAPHOPT_SKIP", "").split(","))),
            verify=env.get("GRAPHOPT_VERIFY", "0") == "1",
            serial_conv=env.get("GRAPHOPT_SERIAL_CONV", "0") == "1",
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
