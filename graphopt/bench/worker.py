"""Objects in processes of their own, so that one that dies takes nothing with it."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NoReturn, Protocol

from graphopt.errors import BenchmarkError, GraphoptError

_END = None  # in place of a call


class Worker:
    """An object in another process, which calls its methods.

    Args:
        calls: where calls go, as pickles.
        answers: where results come from.
        said: what the process writes to its standard error.
        wait: returns when the process has ended, with its status; a negative one is the number of
            a signal.
    """

    def __init__(
        self, calls: IO[bytes], answers: IO[bytes], said: IO[bytes], wait: Callable[[], int]
    ) -> None:
        self._calls, self._answers, self._said, self._wait = calls, answers, said, wait
        self._ended = ""

    @property
    def is_alive(self) -> bool:
        """Whether it has answered everything so far."""
        return not self._ended

    def call(self, method: str, *arguments: Any) -> Any:
        """What a method of the object returns.

        Raises:
            BenchmarkError: with the first line of what it raised, or with how the process ended,
                now or before.
        """
        if not self._ended:
            try:
                pickle.dump((method, arguments), self._calls)
                self._calls.flush()
                result, failure = pickle.load(self._answers)
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                status = self._wait()
                self._said.seek(0)
                said = self._said.read().decode(errors="replace").strip().splitlines()
                self._close(how_it_ended(status, said))
            else:
                if failure:
                    raise BenchmarkError(failure)
                return result
        raise BenchmarkError(self._ended)

    def end(self) -> None:
        """Ends the process and waits for that."""
        if not self._ended:
            with contextlib.suppress(BrokenPipeError):  # then it ended before
                pickle.dump(_END, self._calls)
                self._calls.flush()
            self._wait()
            self._close("it has ended")

    def _close(self, ended: str) -> None:
        self._ended = ended
        for file in (self._calls, self._answers, self._said):
            with contextlib.suppress(BrokenPipeError):  # what it never read
                file.close()


def start(command: Sequence[str]) -> Worker:
    """A new program, which calls :func:`serve`."""
    said = tempfile.TemporaryFile()  # noqa: SIM115  the worker closes it
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
    assert process.stdin is not None and process.stdout is not None
    return Worker(process.stdin, process.stdout, said, process.wait)


def serve(thing: Any) -> None:
    """Calls methods of an object for the process that started this one.

    What the object prints goes to the standard error.
    """
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(thing, calls, answers)


def fork(thing: Any) -> Worker:
    """A copy of this process with a copy of an object, which shares what neither writes to.

    A thread that computed nothing forks: OpenMP would wait in the child for the threads that
    belong to another.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_fork, thing).result()


def _fork(thing: Any) -> Worker:
    said = tempfile.TemporaryFile()  # noqa: SIM115  the worker closes it
    (calls, to_child), (from_child, answers) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        _become(thing, calls, answers, said)
    os.close(calls)
    os.close(answers)

    def wait() -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return Worker(os.fdopen(to_child, "wb"), os.fdopen(from_child, "rb"), said, wait)


def _become(thing: Any, calls: int, answers: int, said: IO[bytes]) -> NoReturn:
    """The life of the child, which must not return into code of its parent."""
    try:
        gc.freeze()  # what the parent has is not its to collect
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        _serve(thing, os.fdopen(calls, "rb"), os.fdopen(answers, "wb"))
        os._exit(0)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)


def _serve(thing: Any, calls: IO[bytes], answers: IO[bytes]) -> None:
    while True:
        try:
            call = pickle.load(calls)
        except EOFError:  # its parent died
            return
        if call is _END:
            return
        method, arguments = call
        try:
            answer = getattr(thing, method)(*arguments), ""
        except Exception as error:  # a peer may fail in its own way; the table tells
            answer = None, reason(error)
        pickle.dump(answer, answers)
        answers.flush()


class _Row(Protocol):
    missing: str


@contextlib.contextmanager
def alone(row: _Row) -> Iterator[None]:
    """Keeps an engine that fails from ending the others' rows: its own says why."""
    try:
        yield
    except BenchmarkError as error:
        row.missing = str(error)


def reason(error: Exception) -> str:
    """First line of an error, with its type if it is not one of graphopt's own."""
    lines = str(error).strip().splitlines() or [""]
    known = isinstance(error, GraphoptError)
    return lines[0] if known else f"{type(error).__name__}: {lines[0]}"


def how_it_ended(status: int, said: Sequence[str]) -> str:
    """Why a process gave no answer: its last words, and the signal that ended it, if one did.

    Args:
        status: of the process; a negative one is the number of a signal.
        said: lines on its standard error.
    """
    words = said[-1] if said else ""
    if status >= 0:
        return words or f"it ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"it was ended by {name}" + (f" after saying {words!r}" if words else "")
