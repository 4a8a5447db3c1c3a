"""Types and ranges of what files say, declared beside their names.

A check takes a value and returns it, or raises ValueError with what it wants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Check = Callable[[Any], Any]

#: The largest count that fits the integers of kernels.
LARGEST = 2**31 - 1


def whole(low: int = 0, high: int = LARGEST) -> Check:
    """A whole number from `low` to `high`."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{value!r:.60} is no whole number from {low} to {high}")
        return value

    return check


def real(low: float = -math.inf, high: float = math.inf) -> Check:
    """A finite number from `low` to `high`."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{value!r:.60} is no number from {low} to {high}")
        return float(value)

    return check


def text(value: Any) -> str:
    """Any text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} is no text")
    value.encode()
    return value


def flag(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError(f"{value!r:.60} is neither true nor false")
    return value


def one_of(*known: Any) -> Check:
    """One of some values."""

    def check(value: Any) -> Any:
        if not any(type(value) is type(one) and value == one for one in known):
            raise ValueError(f"{value!r:.60} is none of {', '.join(map(repr, known))}")
        return value

    return check


def optional(check: Check) -> Check:
    """None, or what another check takes."""
    return lambda value: None if value is None else check(value)


def listed(check: Check) -> Check:
    """A list of what another check takes."""

    def check_all(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f"{value!r:.60} is no list")
        return tuple(check(item) for item in value)

    return check_all


def record(fields: Mapping[str, Check]) -> Check:
    """A mapping with exactly these fields."""

    def check_fields(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.60} has no fields")
        if value.keys() != fields.keys():
            odd = sorted(map(str, value.keys() ^ fields.keys()))
            raise ValueError(f"fields {', '.join(odd)} are missing or unknown")
        return {name: named(name, check)(value[name]) for name, check in fields.items()}

    return check_fields


def named(name: str, check: Check) -> Check:
    """A check whose errors begin with a name."""

    def check_named(value: Any) -> Any:
        try:
            return check(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    return check_named
