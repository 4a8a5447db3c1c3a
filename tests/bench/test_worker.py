"""Objects in other processes: what they return, raise, and how they end."""

import os
import signal
import sys

import numpy as np
import pytest

from graphopt.bench.worker import fork, how_it_ended, start
from graphopt.errors import BenchmarkError


class Thing:
    def double(self, x):
        return 2 * x

    def fail(self):
        raise ValueError("no such size\nwith details")

    def die(self, number):
        os.write(2, b"first\nlast words\n")
        os.kill(os.getpid(), number)

    def leave(self):
        print("not an answer")
        sys.exit(3)


@pytest.fixture
def worker():
    worker = fork(Thing())
    yield worker
    worker.end()


def test_answers_and_errors(worker):
    large = np.arange(100_000)
    np.testing.assert_array_equal(worker.call("double", large), 2 * large)
    with pytest.raises(BenchmarkError, match=r"^cannot measure: ValueError: no such size$"):
        worker.call("fail")
    assert worker.call("double", 4) == 8


def test_one_that_dies_leaves_the_others(worker):
    other = fork(Thing())
    for _ in range(2):
        with pytest.raises(BenchmarkError, match="ended by SIGKILL after saying 'last words'"):
            worker.call("die", signal.SIGKILL)
    assert not worker.is_alive and other.is_alive
    assert other.call("double", 4) == 8
    other.end()
    with pytest.raises(BenchmarkError, match="it has ended"):
        other.call("double", 4)


def test_one_that_exits(worker):
    with pytest.raises(BenchmarkError, match="SystemExit: 3"):
        worker.call("leave")


def test_threads_of_torch_work_in_the_copy(worker):
    """OpenMP's threads of this process are not there; the copy starts its own."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    x = torch.ones(1 << 20)
    x.exp().sum()
    other = fork(torch)
    try:
        assert float(other.call("exp", x).sum()) == float(x.exp().sum())
    finally:
        torch.set_num_threads(before)
        other.end()


def test_programs_that_print():
    """What a program says is not taken for an answer."""
    program = """
from graphopt.bench.worker import serve
class Thing:
    def say(self, word):
        print(word, flush=True)
        return word
serve(Thing())
"""
    worker = start([sys.executable, "-c", program])
    assert worker.call("say", "hello") == "hello"
    worker.end()


def test_how_a_process_ended():
    assert how_it_ended(-4, []) == "it was ended by SIGILL"
    assert how_it_ended(-11, ["a", "b"]) == "it was ended by SIGSEGV after saying 'b'"
    assert how_it_ended(-99, []) == "it was ended by signal 99"
    assert how_it_ended(1, ["a", "b"]) == "b"
    assert how_it_ended(3, []) == "it ended with status 3"
