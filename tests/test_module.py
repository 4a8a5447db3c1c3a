"""The module that `optimize` returns: called, reported, copied and used like the original."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import graphopt
from graphopt import errors

torch = pytest.importorskip("torch")

import models  # noqa: E402

from graphopt.toolchain.build import Builder  # noqa: E402


@pytest.fixture(scope="module")
def model() -> Any:
    return models.network()


@pytest.fixture(scope="module")
def fast(model: Any) -> Any:
    return graphopt.optimize(model, precision="fp32", example_inputs=(torch.randn(2, 5, 48),))


def close(got: Any, expected: Any) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every capture and every library asked for."""
    from graphopt.compiler import specialization

    done: list[str] = []
    capture, library = specialization.capture, Builder.library
    monkeypatch.setattr(specialization, "capture", lambda *a: done.append("capture") or capture(*a))
    monkeypatch.setattr(Builder, "library", lambda *a: done.append("build") or library(*a))
    return done


def test_captured_at_the_first_call_and_never_again(model: Any, work: list[str]) -> None:
    fast = graphopt.optimize(model, precision="fp32")
    assert work == [] and len(fast.report()) == 0
    for shape in ((2, 5, 48), (1, 5, 48), (2, 1, 48), (1, 1, 48), (7, 130, 48)):
        x = torch.randn(shape)
        with torch.inference_mode():
            close(fast(x), model(x))
            close(fast(input=x), model(x))
    assert work == ["capture", "build"]


def test_example_inputs_are_captured_at_once(model: Any, work: list[str]) -> None:
    for example in ((torch.randn(1, 3, 48),), {"input": torch.randn(1, 3, 48)}):
        work.clear()
        fast = graphopt.optimize(model, precision="fp32", example_inputs=example)
        assert work == ["capture", "build"]
        fast(torch.randn(4, 2, 48))
        assert work == ["capture", "build"]


def test_a_first_call_of_one_frame_does_not_fix_the_length(model: Any, work: list[str]) -> None:
    fast = graphopt.optimize(model, precision="fp32")
    for length in (1, 6, 1, 300):
        x = torch.randn(2, length, 48)
        with torch.inference_mode():
            close(fast(x), model(x))
    assert work == ["capture", "build"] * 2
    narrow = torch.nn.Linear(1, 3).eval()
    fast = graphopt.optimize(narrow, precision="fp32", example_inputs=(torch.randn(2, 1),))
    with pytest.raises(errors.InputShapeError, match="size 2 along axis 1, compiled for 1"):
        fast(torch.randn(2, 2))


def test_signature_structure_and_dtypes() -> None:
    model = models.Nested().eval()
    fast = graphopt.optimize(model, precision="fp32")
    for batch in (2, 3):
        pair, bias = models.nested_arguments(batch)
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((pair,), {}),
            ((pair, bias), {"scale": 2.0}),
            ((), {"bias": bias, "pair": pair}),
            ((pair,), {"scale": 0.5}),
        ]
        for args, kwargs in calls:
            with torch.inference_mode():
                expected = model(*args, **kwargs)
            got = fast(*args, **kwargs)
            assert list(got) == list(expected) and got["kind"] == "linear"
            assert type(got["parts"]) is list and type(got["parts"][1]) is tuple
            close(got["sum"], expected["sum"])
            close(got["parts"][0], expected["parts"][0])
            assert torch.equal(got["parts"][1][0], expected["parts"][1][0])
    assert len(fast._captured()) == 4  # one for each structure and constant


def test_containers_of_the_arguments_are_updated() -> None:
    model = models.Caching().eval()
    fast = graphopt.optimize(model, precision="fp32")
    theirs, ours = models.empty_cache(), models.empty_cache()
    kept, seen = ours["kept"], ours["seen"]
    for length in (4, 1, 9):
        x = torch.randn(1, length, 8)
        with torch.inference_mode():
            close(fast(x, ours), model(x, theirs))
        close(ours, theirs)
        assert ours["kept"] is kept and ours["seen"] is seen
        del theirs["input"], ours["input"]


def test_precision_and_target_of_the_report(model: Any) -> None:
    x = (torch.randn(1, 3, 48),)
    arm = graphopt.optimize(model, target="neoverse-n2", example_inputs=x)
    assert arm.report().precision == "int8+bf16"  # what auto is on a CPU with both
    assert arm.report().levels == ("scalar", "neon_i8mm", "sve2")
    with pytest.warns(UserWarning, match="built for neoverse-n2; this machine runs the same plan"):
        arm(*x)


def test_strict_lists_the_nodes() -> None:
    with pytest.raises(errors.UnsupportedNodesError) as caught:
        graphopt.optimize(
            models.Partly().eval(), strict=True, example_inputs=(torch.randn(2, 3, 16),)
        )
    ((op, place, reason),) = caught.value.nodes
    assert "i0e" in op and reason
    assert "models.py:" in place


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nodes_that_stay_in_torch(precision: str) -> None:
    model = models.Partly().eval()
    fast = graphopt.optimize(model, precision=precision)
    for shape in ((2, 7, 16), (1, 1, 16), (3, 40, 16)):
        x = torch.randn(shape)
        with torch.inference_mode():
            expected = model(x)
        bound = 1e-5 if precision == "fp32" else 0.03
        assert float((fast(x) - expected).abs().max() / expected.abs().max()) < bound
    report = fast.report()
    (row,) = report.in_torch
    assert "i0e" in row.op and row.kernel == "torch"
    assert "models.py:" in row.source and row.reasons
    assert any(r.compiled and r.op == "go.linear" for r in report)
    assert "i0e" in str(report) and f"of {len(report)} nodes" in str(report)


def test_inputs_are_left_alone(fast: Any) -> None:
    x = torch.randn(3, 4, 48)
    before = x.clone()
    y = fast(x)
    z = y.clone()
    fast(torch.randn(3, 4, 48))
    assert torch.equal(x, before) and torch.equal(y, z)


def test_inputs_of_any_layout(fast: Any, model: Any) -> None:
    base = torch.randn(48, 6, 4)
    layouts = [
        base.permute(2, 1, 0),
        base.permute(2, 1, 0)[::2, 1::2],
        torch.randn(3, 1, 48).expand(3, 5, 48),
        torch.randn(4, 6, 96)[..., ::2],
        torch.randn(4, 6, 97)[..., 1:49],
        torch.randn(2, 3, 48, dtype=torch.complex64).real,
        torch.randn(2, 3, 48, dtype=torch.complex64).conj().imag,  # has the negative bit
        torch.randn(1, 3, 48).requires_grad_(),
        torch.nn.Parameter(torch.randn(1, 3, 48)),
    ]
    for x in layouts:
        with torch.no_grad():
            close(fast(x), model(x))
        close(fast(x).detach(), model(x).detach())


def test_results_do_not_lead_to_gradients(fast: Any) -> None:
    x = torch.randn(1, 3, 48, requires_grad=True)
    with pytest.raises(RuntimeError, match="graphopt"):
        fast(x).sum().backward()
    with torch.inference_mode():
        assert not fast(x).requires_grad


def test_has_no_parameters_of_its_own(fast: Any) -> None:
    assert not list(fast.parameters()) and not list(fast.buffers()) and not fast.state_dict()
    assert not fast.training
    parent = torch.nn.ModuleDict({"fast": fast})
    assert not parent.state_dict()


def test_weights_are_those_of_the_capture() -> None:
    model = models.network()
    x = torch.randn(1, 3, 48)
    fast = graphopt.optimize(model, precision="fp32", example_inputs=(x,))
    before = fast(x)
    with torch.no_grad():
        model[0].weight.zero_()
    assert torch.equal(fast(x), before)


def test_copies_share_the_code(fast: Any, work: list[str]) -> None:
    x = torch.randn(1, 3, 48)
    for copied in (copy.deepcopy(fast), copy.copy(fast), copy.deepcopy([fast])[0]):
        assert torch.equal(copied(x), fast(x))
    assert work == []


def test_pickling_names_the_way(fast: Any) -> None:
    with pytest.raises(errors.PackageError, match=r"\.save\(path\).*graphopt\.load"):
        pickle.dumps(fast)


def test_callers_on_several_threads(model: Any) -> None:
    fast = graphopt.optimize(model, precision="int8")  # also captured by whoever comes first
    inputs = [torch.randn(1 + i % 3, 5 + i, 48) for i in range(12)]
    results: list[list[Any]] = [[] for _ in inputs]

    def call(i: int) -> None:
        for _ in range(20):
            results[i].append(fast(inputs[i]))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fast._captured()) == 1
    for x, made in zip(inputs, results, strict=True):
        assert len(made) == 20
        alone = fast(x)
        assert all(torch.equal(y, alone) for y in made)


FORKED = """
import os, sys
sys.path.insert(0, {support!r})
import torch, graphopt, models
x = torch.randn(2, 5, 48)
fast = graphopt.optimize(models.network(), precision="fp32", num_threads=2)
before = fast(x)
child = os.fork()
if child == 0:
    sys.exit(0 if torch.equal(fast(x), before) else 3)
assert torch.equal(fast(x), before)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_starts_its_own_threads() -> None:
    code = FORKED.format(support=os.path.dirname(models.__file__))
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


MEMORY = """
import sys
sys.path.insert(0, {support!r})
import torch, graphopt, models
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
fast = graphopt.optimize(models.network(), precision="int8", num_threads=2)
for length in (1, 300, 150):
    fast(torch.randn(2, length, 48))
before = resident()
for call in range(1000):
    fast(torch.randn(2, 1 + call * 37 % 300, 48))
print(resident() - before)
"""


def number(code: str) -> int:
    """What `code` prints in a process of its own, whose memory nothing else has touched."""
    code = code.format(support=os.path.dirname(models.__file__))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_calls() -> None:
    # 1000 calls make 350 MB of results; a leak of one result in a hundred would show.
    assert number(MEMORY) < 3_500_000


def float_mode() -> bool:
    """Whether denormals count as zero on this thread."""
    return float(torch.full((1,), 1e-40) * 0.5) == 0.0


ADVISED = """
import sys
sys.path.insert(0, {support!r})
import torch, graphopt, models
def advised():
    kib = 0
    for line in open("/proc/self/smaps"):
        word = line.split()
        if word[0] == "Size:":
            size = int(word[1])
        elif word[0] == "VmFlags:" and "hg" in word:
            kib += size
    return kib
fast = graphopt.optimize(models.network(), precision="fp32")
fast(torch.randn(2, 5, 48))
before = advised()
fast(torch.randn(64, 500, 48))
print(advised() - before)
"""


def test_a_large_arena_asks_for_huge_pages() -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has no transparent huge pages")
    # The arena has at least room for the 64 x 500 rows of 48 floats, less the ends of its pages.
    assert number(ADVISED) > 64 * 500 * 48 * 4 / 1024 - 4096


def test_the_callers_float_mode_comes_back(fast: Any) -> None:
    x = torch.randn(2, 3, 48)
    for flush in (False, True):
        if torch.set_flush_denormal(flush):
            fast(x)
            assert float_mode() is flush
    torch.set_flush_denormal(False)


def test_denormals_count_as_zero(fast: Any) -> None:
    small = torch.full((1, 2, 48), 1e-40)
    assert torch.equal(fast(small), fast(torch.zeros(1, 2, 48)))


def test_profile_covers_every_step(fast: Any) -> None:
    x = torch.randn(2, 5, 48)
    begun = time.perf_counter()
    rows = fast.profile(x, repeats=2)
    elapsed = 1e3 * (time.perf_counter() - begun)
    assert 2 * sum(row["ms"] for row in rows) <= elapsed  # the median of two is their mean
    assert [row["op"] for row in rows] == [r.op for r in fast.report() if r.kernel != "view"]
    assert all(row["ms"] > 0 for row in rows)
    linear = rows[0]
    assert linear["macs"] == 2 * 5 * 48 * 64 and linear["module"] == "0"
