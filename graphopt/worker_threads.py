"""Python threads for a list of items, of which an interrupt breaks nothing.

Executors wait in locks written in Python. An exception that a signal's handler raises as such a
lock is taken leaves it taken, and a worker waits for it for ever (`threading.Condition.__enter__`).
Here all that threads share is of C, and Python calls handlers before or after it alone.
"""

import _thread
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from queue import SimpleQueue
from typing import TypeVar

from graphopt.errors import ThreadStartError

Item = TypeVar("Item")
Made = TypeVar("Made")


def map_on_threads(
    function: Callable[[Item], Made], items: Sequence[Item], threads: int
) -> list[Made]:
    """What a function gives for each item.

    After an exception of the function, or an interrupt of this thread, no more items begin; it
    goes on when those that have begun are done.

    Args:
        function: lets other Python threads go on where it computes.
        items: no more threads are started than these.
        threads: at least 1.

    Raises:
        ThreadStartError: if the system does not let so many threads start.
        BaseException: the first that the function raised.
    """
    count = min(threads, len(items))
    made: dict[int, Made] = {}
    waiting: deque[int | None] = deque((*range(len(items)), *repeat(None, count)))
    ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def work() -> None:
        try:
            while (index := waiting.popleft()) is not None:
                made[index] = function(items[index])
        except BaseException as error:
            waiting.extendleft(repeat(None, count))
            ended.put(error)
        else:
            ended.put(None)

    started, failures = list[int](), list[BaseException | None]()
    try:
        # Each in one call of C, so that no interrupt comes between an event and knowing it.
        try:
            started.extend(map(_thread.start_new_thread, repeat(work, count), repeat(())))
        except RuntimeError as error:
            raise ThreadStartError(count) from error
        failures.extend(map(ended.get, repeat(True, count)))
    finally:
        waiting.extendleft(repeat(None, count))
        for _ in range(len(started) - len(failures)):
            ended.get()
    for failure in filter(None, failures):
        raise failure
    return [made[index] for index in range(len(items))]
