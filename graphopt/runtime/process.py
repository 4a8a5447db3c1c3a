"""The process around a call: it may end, or be forked, while other threads are in graphopt.

*The end.* Daemon threads go on while the interpreter ends, until it takes from them the right to
run, which tears C++ frames down. So the end waits for calls; a thread that comes to the end of its
call by then, or begins another, sleeps for ever.

*Forks.* A child has the memory of all threads but only the one that forked. So a fork waits while
another thread changes what is shared (`changes`: capture, build, settings of the process), and what
a thread that the child lacks had claimed is free in the child (`Claim`).
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  its hooks around forks must come after ours
import logging  # noqa: F401  the same
import os
import sys
import threading
import time
import weakref
from pathlib import Path

from graphopt.scratch_folder import ScratchFolder

#: Seconds that the end of the process or a fork waits for other threads: long builds take as long.
_PATIENCE = 60.0
_GLANCE = 0.001  # seconds between two looks at other threads


class _Presence:
    """Which threads are in a piece of code, each as often as it came in; a context manager."""

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}

    def __enter__(self) -> None:
        me = threading.get_ident()
        self._depths[me] = self._depths.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        self._depths[me] -= 1
        if not self._depths[me]:
            del self._depths[me]

    @property
    def inside(self) -> bool:
        """Whether this thread is there."""
        return threading.get_ident() in self._depths

    @property
    def others(self) -> bool:
        """Whether another thread is there that still lives."""
        alive = sys._current_frames().keys()
        return bool((set(self._depths) & alive) - {threading.get_ident()})

    def keep_own(self) -> None:
        """Forgets other threads, in the child of a fork."""
        me = threading.get_ident()
        self._depths = {thread: n for thread, n in self._depths.items() if thread == me}


class _Calls(_Presence):
    """Calls under way; the end of the process waits for them."""

    _last: int | None = None  # the thread that ends the process

    def __enter__(self) -> None:
        super().__enter__()
        self._stop_at_the_end()

    def __exit__(self, *_: object) -> None:
        self._stop_at_the_end()
        super().__exit__()

    def _stop_at_the_end(self) -> None:
        me = threading.get_ident()
        if self._last not in (None, me):
            self._depths.pop(me, None)
            never = threading.Lock()
            never.acquire()
            never.acquire()

    def end(self) -> None:
        """Lets no other thread go on, and returns when none is in a call."""
        self._last = threading.get_ident()
        patience = time.monotonic() + _PATIENCE
        while self.others and time.monotonic() < patience:
            time.sleep(_GLANCE)


class _Changes(_Presence):
    """Changes of what threads share; a fork waits for those of other threads."""

    def __init__(self) -> None:
        super().__init__()
        self._forking = threading.Lock()

    def __enter__(self) -> None:
        if self.inside:
            super().__enter__()
            return
        with self._forking:
            super().__enter__()

    def before_fork(self) -> None:
        """Returns when no other thread changes anything, and lets none begin."""
        patience = time.monotonic() + _PATIENCE
        self._forking.acquire()
        while self.others and time.monotonic() < patience:
            self._forking.release()
            time.sleep(_GLANCE)
            self._forking.acquire()

    def after_fork(self) -> None:
        """Lets them begin again."""
        self._forking.release()


class Claim:
    """What one thread has at a time, without waiting; free in a child that lacks the thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        _claims.add(self)

    def take(self) -> bool:
        """Claims it; whether it was free."""
        taken = self._lock.acquire(blocking=False)
        if taken:
            self._owner = threading.get_ident()
        return taken

    def give(self) -> None:
        """Gives it back; after a fork it may be free already."""
        self._owner = None
        if self._lock.locked():
            self._lock.release()

    def keep_own(self) -> None:
        """Frees it in the child of a fork, unless the thread that forked has it."""
        if self._owner != threading.get_ident():
            self._lock = threading.Lock()


class Folder:
    """A temporary folder, removed with this object by the process that made it.

    A forked child makes one of its own: its parent may be gone before it.

    Args:
        prefix: of its name.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._made: tuple[int, ScratchFolder] | None = None

    @property
    def path(self) -> Path:
        """The folder of this process."""
        me = os.getpid()
        if self._made is None or self._made[0] != me:
            self._made = me, ScratchFolder(prefix=self._prefix)
        return self._made[1].path


#: `with calls:` around whatever runs compiled code.
calls = _Calls()
#: `with changes:` around whatever leaves shared things half done for a while.
changes = _Changes()
_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    changes.after_fork()
    for presence in (calls, changes):
        presence.keep_own()
    for claim in list(_claims):
        claim.keep_own()


atexit.register(calls.end)
os.register_at_fork(
    before=changes.before_fork,
    after_in_parent=changes.after_fork,
    after_in_child=_after_fork_in_child,
)
