"""The tree of imports is a tree of floors: no module imports from a room above its own."""

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("graphopt", "passes", "codegen", "kernels")
#: Rooms, the lowest first: folders, and files beside them; `graphopt` is its `__init__`.
FLOORS = (
    (
        "_version",
        "dtype",
        "errors",
        "extras",
        "module_group",
        "plain_files",
        "printable",
        "scratch_folder",
        "testing",
        "user_functions",
    ),
    ("config", "output_files", "progress", "worker_threads"),
    ("flags", "kernels"),
    ("toolchain",),
    ("runtime",),
    ("dependencies", "target"),
    ("ir",),
    ("passes", "frontend"),
    ("codegen", "hosts"),
    ("compiler",),
    ("llm", "funasr", "onnx"),
    ("adapters",),
    ("driver",),
    ("n2sim", "zoo"),
    ("bench",),
    ("inspection",),
    ("graphopt",),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path: Path) -> str:
    """The name that a file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "graphopt" else ("graphopt", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for name in SOURCES for path in (ROOT / name).rglob("*.py")}


def room_of(module: str) -> str:
    """The room that a module stands in."""
    return module.split(".")[:2][-1]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines and names of the modules of graphopt that a module imports, at once or late."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module or "" for name in full]
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "graphopt")


def arrows_up(modules: dict[str, str]) -> list[str]:
    """What imports from above, or beside itself, by the texts of modules."""
    found = []
    for module, text in modules.items():
        own = room_of(module)
        for line, name in imported(ast.parse(text)):
            other = room_of(name)
            if other != own and FLOOR_OF[other] >= FLOOR_OF[own]:
                found.append(f"{module}:{line} imports {name}")
    return found


def test_every_room_has_its_floor() -> None:
    assert sorted({room_of(module) for module in MODULES}) == sorted(FLOOR_OF)
    assert len(FLOOR_OF) == len(list(chain(*FLOORS)))


def test_no_module_imports_from_a_room_above_or_beside_its_own() -> None:
    assert arrows_up({module: path.read_text() for module, path in MODULES.items()}) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("graphopt.runtime.loaded", "from graphopt.codegen.emit import Module"),
        ("graphopt.runtime.loaded", "def late():\n    from graphopt.compiler import program"),
        ("graphopt.passes.base", "from graphopt.frontend import capture"),
        ("graphopt.ir.graph", "import graphopt"),
        ("graphopt.codegen", "from graphopt import bench"),
    ],
)
def test_an_arrow_that_runs_up_is_found(module: str, text: str) -> None:
    assert len(arrows_up({module: text})) == 1
