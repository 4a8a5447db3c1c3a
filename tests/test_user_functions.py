"""Functions of the user's by name: modules and files are imported as Python imports them."""

import pickle
import sys
from pathlib import Path

import pytest

from graphopt.user_functions import NoFunction, function_named

MODEL = """
from __future__ import annotations
from dataclasses import dataclass
import beside

@dataclass
class Pair:
    x: int
    y: int = beside.NUMBER

def build():
    import later
    return Pair(later.NUMBER)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one; `elsewhere` in it has a model with two modules beside it."""
    (tmp_path / "elsewhere").mkdir()
    for name, text in {"own": MODEL, "beside": "NUMBER = 2", "later": "NUMBER = 1"}.items():
        (tmp_path / "elsewhere" / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_a_module_as_others_are(folder: Path) -> None:
    first = sys.path[0]
    build = function_named("elsewhere/own.py:build")
    assert sys.path[0] == first and sys.path[-1] == str(folder / "elsewhere")
    pair = build()  # which imports what lies beside the file
    assert (pair.x, pair.y) == (1, 2) and pickle.loads(pickle.dumps(pair)) == pair
    assert sys.modules["own"].build is build
    assert function_named("elsewhere/own.py:build") is build
    assert function_named("own:build") is build
    assert sys.path.count(str(folder / "elsewhere")) == 1


@pytest.mark.parametrize("name", ["json", "wave"])
def test_a_file_hides_no_module_of_its_name(folder: Path, name: str) -> None:
    Path(f"{name}.py").write_text("def build():\n    return 'own'\n")
    known = sys.modules.get(name)
    function = function_named(f"{name}.py:build")
    assert function() == "own" and sys.modules[function.__module__].build is function
    assert sys.modules.get(name) is known
    assert function_named(f"{name}.py:build") is function


def test_files_of_one_name_are_two_modules(folder: Path) -> None:
    for number in (1, 2):
        Path(f"d{number}").mkdir()
        Path(f"d{number}/same.py").write_text(f"def build():\n    return {number}\n")
    assert [function_named(f"d{n}/same.py:build")() for n in (1, 2, 1)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("elsewhere/none.py:build", r"no file 'elsewhere/none\.py'"),
        ("elsewhere:build", "no function 'build' in elsewhere"),
        ("elsewhere/own.py:other", "no function 'other'"),
        ("elsewhere/own.py:__name__", "no function '__name__'"),
        ("no.such.place:build", "no module 'no.such.place'"),
        (":build", "no name of a module"),
        (".own:build", "no name of a module"),
        ("build", "no name of a module"),
    ],
)
def test_what_is_missing_is_said(folder: Path, name: str, what: str) -> None:
    with pytest.raises(NoFunction, match=what):
        function_named(name)


def test_errors_of_a_module_are_its_own(folder: Path) -> None:
    Path("broken.py").write_text("import no_such_package\n")
    for name in ("broken:build", "broken.py:build"):
        with pytest.raises(ModuleNotFoundError, match="no_such_package"):
            function_named(name)
    assert "broken" not in sys.modules
