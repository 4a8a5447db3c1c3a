"""Functions of libraries that loop over the elements of tensors, as functions of tensors.

A tracer cannot follow a list of a tensor's numbers, of which there are as many as the batch is
long. While a model is captured, what computes the same stands in for these functions, in every
module of their library that has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
    with ExitStack() as stack:
        for (module, name), function in _STAND_INS.items():
            own = getattr(sys.modules.get(module), name, None)
            if own is not None:
                stack.enter_context(replaced(name, own, function, module.partition(".")[0]))
        yield


@contextmanager
def replaced(name: str, own: Any, other: Any, library: str = "") -> Iterator[None]:
    """Puts something in the place of what modules have under its name, and that back.

    Args:
        name: of it.
        own: what the modules have.
        other: what they get.
        library: whose modules; of all libraries but torch if empty.
    """
    modules = [  # thousands are looked at: nothing is made for each of them
        module
        for path in list(sys.modules)
        if getattr(module := sys.modules.get(path), "__dict__", _NO_NAMES).get(name) is own
        and _is_of(library, path.partition(".")[0])
    ]
    try:
        for module in modules:
            setattr(module, name, other)
        yield
    finally:
        for module in modules:
            setattr(module, name, own)


_NO_NAMES: dict[str, Any] = {}


def _is_of(library: str, name: str) -> bool:
    return name == library if library else name not in ("torch", "graphopt")
