"""Python threads for a list of items, and what interrupts and failures leave of them."""

import itertools
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from graphopt.errors import ThreadStartError
from graphopt.worker_threads import map_on_threads


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_values_in_the_order_of_items(threads: int) -> None:
    def slow(item: int) -> tuple[int, int]:
        time.sleep(0.01 * (item % 2))
        return item * item, threading.get_ident()

    made = map_on_threads(slow, range(10), threads)
    assert [value for value, _ in made] == [item * item for item in range(10)]
    assert len({thread for _, thread in made} - {threading.get_ident()}) <= threads
    assert map_on_threads(slow, [], threads) == []


def test_a_failure_lets_no_more_items_begin() -> None:
    begun = []

    def fails(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise KeyError("of the function")
        time.sleep(0.02)

    with pytest.raises(KeyError, match="of the function"):
        map_on_threads(fails, range(100), 2)
    assert len(begun) < 10


def test_a_system_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import _thread

    start, ended = _thread.start_new_thread, []
    starts = itertools.count()

    def refuse(*args: object) -> int:
        if next(starts) == 2:
            raise RuntimeError("can't start new thread")
        return start(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(ThreadStartError, match="start 3 threads"):
        map_on_threads(ended.append, range(9), 3)
    assert sorted(ended) == sorted(set(ended))


@contextmanager
def alarms() -> Iterator[None]:
    """Signals whose handler raises KeyboardInterrupt, as that of SIGINT does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_interrupts_leave_no_thread_waiting() -> None:
    """A few dozen of these broke an executor: a lock of its was taken for ever."""
    threads, chance, interrupts = threading.active_count(), random.Random(0), 0
    with alarms():
        for _ in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(5e-4, 4e-3))
                while True:
                    map_on_threads(abs, range(3), 3)
            except KeyboardInterrupt:
                interrupts += 1
    assert interrupts == 300
    assert map_on_threads(abs, range(-3, 0), 3) == [3, 2, 1]
    assert threading.active_count() == threads


def test_an_interrupt_waits_for_items_that_have_begun() -> None:
    ended, begun = [], []

    def slow(item: int) -> None:
        begun.append(item)
        time.sleep(0.1)
        ended.append(item)

    with alarms(), pytest.raises(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        map_on_threads(slow, range(100), 2)
    assert len(begun) < 10 and sorted(begun) == sorted(ended)
