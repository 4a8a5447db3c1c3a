"""Functions of libraries that loop over the elements of tensors, as functions of tensors.

A tracer cannot follow a list of a tensor's numbers, of which there are as many as the batch is
long. While a model is captured, what computes the same stands in for these functions, in every
module of their library that has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: By module and name.
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {}


def stand_in(module: str, name: str, function: Callable[..., Any]) -> None:
    """Lets a function stand in for one of a library while models are captured.

    Args:
        module: the library's, which need not be installed.
        name: of the function there.
        function: takes and gives the same.
    """
    _STAND_INS[module, name] = function


@contextmanager
def replaced_functions() -> Iterator[None]:
    """Puts the functions in their places, and the library's own back."""
    changed: list[tuple[Any, str, Any]] = []
    for (module, name), stand_in in _STAND_INS.items():
        own = getattr(sys.modules.get(module), name, None)
        library = module.partition(".")[0]
        for place in [m for n, m in sys.modules.items() if n.partition(".")[0] == library]:
            if own is not None and vars(place).get(name) is own:
                changed.append((place, name, own))
                setattr(place, name, stand_in)
    try:
        yield
    finally:
        for place, name, own in changed:
            setattr(place, name, own)
