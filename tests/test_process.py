"""Calls while the process ends, is forked, is interrupted, or lacks something."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt import errors
from graphopt.runtime.sealed import seal

torch = pytest.importorskip("torch")

import models  # noqa: E402

X = np.linspace(-1, 1, 2 * 5 * 48, dtype=np.float32).reshape(2, 5, 48)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("process") / "net.gopt"
    x = torch.from_numpy(X)
    graphopt.optimize(models.network(), precision="fp32", example_inputs=(x,)).save(path)
    return path


def run(code: str, *arguments: object) -> str:
    """What a Python process prints that ends well by itself."""
    prefix = f"import sys\nsys.path.insert(0, {str(Path(models.__file__).parent)!r})\n"
    command = [sys.executable, "-c", prefix + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


END = """
import threading, time
def loop():
    while True:
        fast(x)
fast(x)
for _ in range(3):
    threading.Thread(target=loop, daemon=True).start()
time.sleep({})
"""
LOADED = "import graphopt, numpy as np\nfast = graphopt.load(sys.argv[1], num_threads=2)\n"
LOADED += "x = np.ones((2, 50, 48), np.float32)\n"
OPTIMIZED = "import graphopt, models, torch\nx = torch.ones(2, 50, 48)\n"
OPTIMIZED += "fast = graphopt.optimize(models.network(), precision='fp32', num_threads=2)\n"


def test_the_process_ends_while_daemon_threads_are_in_calls(package: Path) -> None:
    for moment in (0.0, 0.003, 0.01, 0.02):
        run(LOADED + END.format(moment), package)
    run(OPTIMIZED + END.format(0.02))


FORKS = """
import multiprocessing, os, signal, threading, time
def equal(made):
    return bool((made == expected).all())
def child():
    signal.alarm(60)
    return equal(fast(x)) and equal(fast(x))
def fork():
    pid = os.fork()
    if not pid:
        sys.exit(0 if child() else 3)
    return pid
"""
FIRST_CALL = """
reference = graphopt.optimize(models.network(), precision="fp32", num_threads=2)
expected = reference(x)
first = threading.Thread(target=lambda: fast(x))
first.start()
children = [time.sleep(0.2) or fork() for _ in range(3)]
print([os.waitpid(pid, 0)[1] for pid in children])
first.join()
print(equal(fast(x)), equal(reference(x)))
"""
MANY_CALLS = """
expected = fast(x)
stop = threading.Event()
def loop():
    while not stop.is_set():
        fast(x)
threads = [threading.Thread(target=loop) for _ in range(3)]
for thread in threads:
    thread.start()
children = [fork() for _ in range(10)]
print({os.waitpid(pid, 0)[1] for pid in children})
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.apply(child), pool.apply(child))
stop.set()
print(equal(fast(x)))
"""


def test_forks_during_a_first_call() -> None:
    assert run(OPTIMIZED + FORKS + FIRST_CALL) == "[0, 0, 0]\nTrue True\n"


def test_forks_while_other_threads_run(package: Path) -> None:
    assert run(LOADED + FORKS + MANY_CALLS, package) == "{0}\nTrue True\nTrue\n"


CLAIMS = """
import os, threading, time
from graphopt.runtime import process
from graphopt.dependencies import keep_process_settings
mine, others = process.Claim(), process.Claim()
entered, leave = threading.Event(), threading.Event()
def hold():
    assert others.take()
    with keep_process_settings():
        entered.set()
        leave.wait(0.3)
thread = threading.Thread(target=hold)
thread.start()
entered.wait()
assert mine.take()
folder = process.Folder("graphopt-test-")
parents = folder.path
pid = os.fork()
if not pid:
    assert not mine.take() and others.take()
    mine.give()
    with keep_process_settings():
        pass
    assert folder.path != parents
    print("works", flush=True)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0 and not others.take() and parents.exists()
thread.join()
"""


def test_a_child_has_the_claims_of_its_own_thread_alone() -> None:
    assert run(CLAIMS) == "works\n"


LOADS = """
import os, resource, shutil
from graphopt.runtime import sealed
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
def held():
    with open("/proc/self/maps") as maps:  # small files are copied into memory, others mapped
        mapped = sum("/memfd:graphopt" in line or "/copy.gopt/" in line for line in maps)
    return len(os.listdir("/proc/self/fd")), mapped, len(os.listdir("/proc/self/task"))
def sizes(folder):
    return [os.path.getsize(f"{folder}/{name}") for name in ("manifest.json", "weights.bin")]
before, copy, default = held(), sys.argv[1] + "/copy.gopt", sealed.COPIED_BYTES
for number in range(70):
    if number == 35:
        smaller, sealed.COPIED_BYTES = sizes(sys.argv[2])
        sealed.COPIED_BYTES -= 1
        assert smaller <= sealed.COPIED_BYTES
    shutil.copytree(sys.argv[2], copy)
    module = graphopt.load(copy, num_threads=2)
    assert (module(x) == expected).all()
    if number in (0, 69):
        assert all(now > then for now, then in zip(held(), before))
    shutil.rmtree(copy)
del module
print(held() == before)
sealed.COPIED_BYTES = default
many = [graphopt.load(sys.argv[2], num_threads=2) for _ in range(80)]
print(all((module(x) == expected).all() for module in many))
"""


def test_a_module_is_closed_with_its_last_user(package: Path, tmp_path: Path) -> None:
    code = "import gc, graphopt, numpy as np\ngc.disable()\nx = np.ones((2, 5, 48), np.float32)\n"
    code += "expected = graphopt.load(sys.argv[2], num_threads=2)(x)\n"
    assert run(code + LOADS, tmp_path, package) == "True\nTrue\n"


def test_an_optimized_module_is_closed_with_its_last_user() -> None:
    from graphopt.hosts import torch_ops as link_torch

    before = len(link_torch._programs)
    fast = graphopt.optimize(models.network(), precision="fp32")
    fast(torch.from_numpy(X))
    folder = next(iter(fast._captured()))._programs()[0][1]._folder.path
    assert len(link_torch._programs) == before + 1 and folder.is_dir()
    del fast
    assert len(link_torch._programs) == before and not folder.exists()


@pytest.mark.parametrize("number", [0, -1, 4096, 2**32 + 1, 2**80, True, "2", 1.5])
def test_numbers_of_threads(package: Path, number: Any) -> None:
    with pytest.raises(errors.ThreadCountError, match="num_threads is"):
        graphopt.load(package, num_threads=number)
    with pytest.raises(errors.ThreadCountError, match="the limit of threads is"):
        graphopt.limit_threads(number)


SHORT = """
import resource, graphopt, graphopt.runtime.loaded
from graphopt import errors
def limit(megabytes):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), resource.RLIM_INFINITY))
def refusal(function, *args):
    try:
        return function(*args)
    except errors.GraphoptError as error:
        return f"{type(error).__name__}: {error}"
"""


def test_without_memory_or_threads(package: Path, tmp_path: Path) -> None:
    threads = "module = graphopt.load(sys.argv[1], num_threads=100)\nlimit(200)\n"
    threads += "print(refusal(module, x))\nmodule = graphopt.load(sys.argv[1], num_threads=1)\n"
    threads += "print(module(x).shape)\nlarge = np.broadcast_to(x[:1], (2**40, 50, 48))\n"
    threads += "print(refusal(module, large))\n"
    said = run(LOADED + SHORT + threads, package).splitlines()
    assert said[0].startswith("ThreadStartError: ") and "100 threads; ask for fewer" in said[0]
    assert said[1] == "(2, 50, 24)" and said[2].startswith("OutOfMemoryError: ")
    wide = tmp_path / "wide.gopt"
    x = torch.ones(1, 1024)
    graphopt.optimize(
        torch.nn.Linear(1024, 8192).eval(), precision="fp32", example_inputs=(x,)
    ).save(wide)
    said = run(SHORT + "limit(16)\nprint(refusal(graphopt.load, sys.argv[1]))\n", wide).splitlines()
    assert said[0].startswith("OutOfMemoryError: ") and "weights.bin cannot be mapped" in said[0]


def test_a_view_that_no_memory_holds(package: Path) -> None:
    fast = graphopt.optimize(models.network(), precision="fp32")
    fast(torch.from_numpy(X))
    huge = torch.ones(1, 5, 48).expand(2**40, 5, 48)
    for module in (fast, graphopt.load(package)):
        with pytest.raises(errors.OutOfMemoryError, match=r"dense copy of .*shape \[1099511627776"):
            module(huge)


def test_calls_while_another_thread_traces() -> None:
    fast, x = graphopt.optimize(models.network(), precision="fp32"), torch.from_numpy(X)
    expected = fast(x)
    made = []

    class Traced(torch.nn.Module):
        def forward(self, y: torch.Tensor) -> torch.Tensor:
            thread = threading.Thread(target=lambda: made.append(fast(x)))
            thread.start()
            thread.join()
            return y + 1

    torch.fx.symbolic_trace(Traced())
    assert len(made) == 1 and torch.equal(made[0], expected)


def change(package: Path, path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy with another manifest and sums that match."""
    shutil.copytree(package, path)
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))
    seal(path)
    return path


@pytest.mark.parametrize(
    ("edit", "other"),
    [
        (lambda m: m.update(steps=[]), "steps"),
        (lambda m: m["steps"].append(m["steps"][0]), "steps"),
        (lambda m: m["inputs"][0].update(dtype="f64"), "inputs"),
        (lambda m: m["inputs"][0].update(shape=["B", 48]), "inputs"),
        (lambda m: m["inputs"][0].update(is_state=True), "inputs"),
        (lambda m: m["outputs"][0].update(dtype="i32"), "outputs"),
        (lambda m: m["outputs"][0].update(shape=[]), "outputs"),
    ],
)
def test_a_manifest_says_what_the_library_says(
    package: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], object], other: str
) -> None:
    changed = change(package, tmp_path / "changed.gopt", edit)
    with pytest.raises(errors.PackageCorruptError, match=f"other {other} than the manifest"):
        graphopt.load(changed)


INTERRUPTS = """
import signal
from graphopt.runtime import library as runtime
def interrupt(*_):
    raise KeyboardInterrupt
expected, interrupts = fast(x), 0
signal.signal(signal.SIGALRM, interrupt)
for delay in range(1, 21):
    try:
        signal.setitimer(signal.ITIMER_REAL, delay * 5e-4, 0.05)
        while True:
            fast.map(lambda item: item, range(2))
            fast(x)
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        interrupts += 1
print(interrupts, runtime._gate.running, bool((fast(x) == expected).all()))
"""


def test_an_interrupt_leaves_a_module_usable(package: Path) -> None:
    assert run(LOADED + INTERRUPTS, package) == "20 0 True\n"
