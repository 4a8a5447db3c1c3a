"""Fixtures and import paths that all tests share."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from graphopt.runtime.library import limit_threads

HERE = Path(__file__).parent
# Test support modules (harness.py, graphs.py) are imported by bare name.
sys.path[:0] = [str(HERE / "kernels"), str(HERE / "support"), str(HERE / "fuzz"), str(HERE / "zoo")]

os.environ.setdefault("GRAPHOPT_VERIFY", "1")  # check the graph after each pass
# One for the workers and for what they start, none of it in the home directory.
os.environ.setdefault("GRAPHOPT_CACHE", str(Path(tempfile.gettempdir()) / "graphopt-test-cache"))

limit_threads(64)  # teams of more threads than this machine has CPUs are tested too

# The same examples in every run; a failure prints what reproduces it.
settings.register_profile("graphopt", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("graphopt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the expected texts in tests/golden instead of comparing with them",
    )
    parser.addoption(
        "--sanitize",
        action="store_true",
        help="run kernels and modules of all levels under gcc's address and undefined sanitizers",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--sanitize"):
        import harness

        harness.SANITIZE_ALL[0] = True


@pytest.fixture(autouse=True)
def denormals_count() -> Iterator[None]:
    """Benchmarks flush denormals to zero until their process ends, which here is all tests'."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(autouse=True)
def own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules that a test writes and imports end with it, or they hide others of their name."""
    yield
    written = tmp_path_factory.getbasetemp()
    sys.path[:] = [folder for folder in sys.path if not Path(folder).is_relative_to(written)]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and Path(file).is_relative_to(written):
            del sys.modules[name]


@pytest.fixture(scope="module")
def captured_once() -> Iterator[None]:
    """What torch.export makes of a model is kept for the next target or precision of a module."""
    from kept_exports import kept_exports

    with kept_exports():
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: the text must be that of tests/golden/<name>.txt."""

    def compare(name: str, text: str) -> None:
        path = HERE / "golden" / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: pytest --update-golden makes it"
        assert text == path.read_text(), f"not as in {path}: pytest --update-golden if intended"

    return compare
