"""All models of the zoo, by family."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

from entry import Entry


def families() -> dict[str, Mapping[str, Entry]]:
    """The models of every family, which is a module in `families`."""
    folder = Path(__file__).parent / "families"
    names = sorted(path.stem for path in folder.glob("*.py"))
    return {name: importlib.import_module(f"families.{name}").MODELS for name in names}


def models(only: str = "") -> dict[str, Entry]:
    """Models by name.

    Args:
        only: patterns of names or families, with commas; all if empty.
    """
    wanted = only.split(",") if only else ["*"]
    chosen = {}
    for family, entries in families().items():
        for name, entry in entries.items():
            if name in chosen:
                raise ValueError(f"two models of the zoo are called {name}")
            if any(fnmatch(name, w) or fnmatch(family, w) for w in wanted):
                chosen[name] = entry
    return chosen
