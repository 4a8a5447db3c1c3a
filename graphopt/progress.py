"""Reports the progress of long work (capture, passes, compiler, weights) to a listener."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from graphopt.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

Listener = Callable[[str], None]

# One for the process, not one a thread: compilers run on threads of a pool.
_listeners: list[Listener] = []


@contextlib.contextmanager
def progress_to(listener: Listener) -> Iterator[None]:
    """Calls `listener` with one line for each step of what runs inside the block.

    Args:
        listener: called from several threads.
    """
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def announce(step: str) -> None:
    """Says which step begins."""
    step = printable(step)
    for listener in tuple(_listeners):
        listener(step)


@contextlib.contextmanager
def show_progress(console: Console, task: str) -> Iterator[None]:
    """Shows a task, and the step it is at, in the last line of a terminal."""
    from rich.markup import escape

    with (
        console.status(escape(task)) as status,
        progress_to(lambda step: status.update(escape(f"{task}: {step}"))),
    ):
        yield
