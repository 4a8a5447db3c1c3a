"""Extras: what is imported is brought by the one that hints name, and all names are real ones."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from graphopt.extras import APART, EXTRAS, command_of, install_command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BROUGHT = PROJECT["optional-dependencies"]
SOURCES = [
    path
    for name in ("graphopt", "passes", "codegen", "kernels")
    for path in (ROOT / name).rglob("*.py")
]


def names(requirements: list[str]) -> set[str]:
    """The distributions that requirements name, without those of other extras."""
    return {canonicalize_name(Requirement(text).name) for text in requirements} - {"graphopt"}


def wanted(path: Path) -> set[str]:
    """Packages of others that a file imports, or asks `require` for."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=aliases):
                found |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module)):
                found.add(module)
            case ast.Call(
                func=ast.Name(id="require" | "package_folder"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.add(name)
    return {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"graphopt"}


def test_the_smallest_install_is_numpy_and_a_command_line() -> None:
    assert names(PROJECT["dependencies"]) == {"numpy", "rich", "typer"}


def test_each_package_comes_with_its_extra() -> None:
    homes = packages_distributions()
    for module, extra in EXTRAS.items():
        owners = {canonicalize_name(name) for name in homes.get(module, [module])}
        assert owners & names(BROUGHT[extra]), f"graphopt[{extra}] does not bring {module}"
        assert install_command(module) == command_of(extra)


def test_whatever_is_imported_is_known() -> None:
    known = names(PROJECT["dependencies"]) | EXTRAS.keys() | APART.keys()
    strangers = {f"{path.name}: {name}" for path in SOURCES for name in wanted(path) - known}
    assert not strangers, f"graphopt/extras.py does not say what brings {strangers}"


def test_extras_that_are_named_exist() -> None:
    texts = [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "pyproject.toml"]
    lists = [
        (path.name, found)
        for path in texts
        for found in re.findall(r"(?:graphopt|pip install '\.)\[([a-z0-9,]+)\]", path.read_text())
    ]
    assert lists
    for where, found in lists:
        assert set(found.split(",")) <= BROUGHT.keys(), f"{where} names [{found}]"
    asked = [
        match[1] for path in SOURCES for match in re.finditer(r'@needs\("(\w+)"', path.read_text())
    ]
    assert asked and set(asked) <= BROUGHT.keys()


def test_all_has_every_extra_but_dev() -> None:
    def closure(extra: str) -> set[str]:
        inner = [e for text in BROUGHT[extra] for e in own_extras(text)]
        return {extra}.union(*map(closure, inner))

    def own_extras(text: str) -> set[str]:
        requirement = Requirement(text)
        return requirement.extras if requirement.name == "graphopt" else set()

    assert closure("all") == BROUGHT.keys() - {"dev"}
