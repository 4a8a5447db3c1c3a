"""Serving: contexts side by side, within the limit of threads, and the bench of it."""

import threading
from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.bench import serve
from graphopt.errors import BenchmarkError, ThreadCountError

torch = pytest.importorskip("torch")


class Recognizer(torch.nn.Module):
    """Takes what Paraformer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 32)
        )

    def forward(self, speech, lengths):
        steps = torch.arange(speech.shape[1])
        mask = (steps[None, :] < lengths[:, None]).float()
        return self.layers(speech) * mask[:, :, None]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serve") / "asr.gopt"
    inputs = (torch.randn(2, 30, 64), torch.tensor([30, 20], dtype=torch.int32))
    graphopt.optimize(Recognizer().eval(), "native", inputs, precision="int8").save(path)
    return path


@pytest.fixture
def limit_of_two():
    graphopt.limit_threads(2)
    yield
    graphopt.limit_threads(64)


@pytest.mark.usefixtures("limit_of_two")
def test_callers_side_by_side_get_what_one_gets(package: Path) -> None:
    """Teams of 1 to 4 threads, of two modules that share the limit."""
    rng = np.random.default_rng(0)
    speech = rng.normal(size=(8, 40, 64)).astype(np.float32)
    lengths = np.full(1, 40, np.int32)
    alone = graphopt.load(package, 1)
    expected = [alone(x[None], lengths) for x in speech]
    modules = [graphopt.load(package, n) for n in (1, 2, 3, 4)]
    same = []

    def call(number: int) -> None:
        for i in range(50):
            got = modules[number % 4](speech[i % 8][None], lengths)
            same.append(np.array_equal(got, expected[i % 8]))

    callers = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=120)
    assert len(same) == 400 and all(same)


@pytest.mark.parametrize("threads", [0, -1, 2.0])
def test_a_limit_is_a_number_of_threads(threads: object) -> None:
    with pytest.raises(ThreadCountError):
        graphopt.limit_threads(threads)  # type: ignore[arg-type]


@pytest.mark.usefixtures("limit_of_two")
def test_bench(package: Path) -> None:
    start = serve.measure_start(package, 50, 2)
    assert len(start.calls) == serve.CALLS and 0 < start.load_cpu < 1
    assert start.peak_bytes >= start.idle_bytes > 1 << 20
    assert start.weight_bytes == (package / "weights.bin").stat().st_size
    assert start.arena_bytes > 0
    loads = serve.measure_streams(package, 50, 2, 4, 40)
    assert [(load.streams, load.threads) for load in loads] == [(1, 2), (4, 2), (4, 1)]
    for load in loads:
        assert len(load.latencies) == 40
        assert 0 < load.percentile(50) <= load.percentile(99)
    assert serve.start_table([start]).row_count == 8
    assert serve.streams_table(loads).row_count == 3


def test_bench_refuses_other_models(tmp_path: Path) -> None:
    model = torch.nn.Linear(8, 8).eval()
    graphopt.optimize(model, "native", (torch.randn(2, 8),)).save(tmp_path / "net.gopt")
    with pytest.raises(BenchmarkError, match="takes no features and lengths"):
        serve.measure_start(tmp_path / "net.gopt", 50, 1)
