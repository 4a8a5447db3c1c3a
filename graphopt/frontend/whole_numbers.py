"""`int(tensor)` in a model, which Python lets no tracer answer: `int` must return an `int`.

Where a capture fails at such a line, the module of that line gets an `int` of its own while the
model is captured again: a number that torch knows as a symbol stays one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch

from graphopt.frontend.user_lines import is_users

_MESSAGE = "Could not extract specialized integer"


class _Kind(type):
    """Whatever is an `int` is one of these."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, int)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, int)


class _Int(metaclass=_Kind):
    def __new__(cls, value: Any = 0, *base: Any) -> Any:
        if isinstance(value, torch.Tensor):
            value = value.item()
        if isinstance(value, torch.SymInt | torch.SymFloat):
            return torch.sym_int(value)  # type: ignore[no-untyped-call]
        return int(value, *base)


def asking_module(error: BaseException) -> dict[str, Any] | None:
    """The names of the module whose line made a whole number of a tensor; None for other errors."""
    if _MESSAGE not in str(error):
        return None
    frames = [f for f in _frames(error.__traceback__) if is_users(f.f_code.co_filename)]
    names = frames[-1].f_globals if frames else {}
    return names if frames and "int" not in names else None


@contextmanager
def symbolic_int(modules: list[dict[str, Any]]) -> Iterator[None]:
    """Puts an `int` that keeps symbols among the names of some modules, which have none."""
    for names in modules:
        names["int"] = _Int
    try:
        yield
    finally:
        for names in modules:
            names.pop("int", None)


def _frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
