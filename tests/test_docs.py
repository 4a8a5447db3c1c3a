"""What is documented: passes in the order in which they run, parameters of public functions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_passes_are_listed_in_order() -> None:
    pytest.importorskip("sympy")
    from graphopt import target
    from graphopt.compiler import pipeline

    listed = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.M)
    assert sorted(listed) == sorted(pipeline.pass_names())
    for precision, bits in (("int4", 16), ("int8+bf16", 8)):
        passes = [
            *pipeline.lowering_passes(),
            *pipeline.precision_passes(precision, activation_bits=bits),
            *pipeline.placement_passes(target.native()),
        ]
        order = list(dict.fromkeys(step.name for step in passes))
        assert [name for name in listed if name in order] == order


def test_files_exist() -> None:
    folders = ("", "graphopt", "graphopt/funasr", "kernels/include", "kernels")
    for name in re.findall(r"[\w/]+\.(?:py|h)\b", PAGE):
        assert any((ROOT / folder / name).exists() for folder in folders), name


def functions(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.FunctionDef, list[str]]]:
    """Public functions and methods, and the parameters that a caller gives."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from functions(child, True)
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            given = child.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            bound = inside and "staticmethod" not in map(ast.unparse, child.decorator_list)
            kept = [a for a in every if a is not None][bound:]
            told = [a for a in kept if "Option" in ast.unparse(a) or "Argument" in ast.unparse(a)]
            yield child, [a.arg for a in kept if not told]


def undocumented(text: str) -> list[str]:
    """Functions of three and more parameters, but for commands, that do not say what these are."""
    return [
        f.name
        for f, parameters in functions(ast.parse(text))
        if len(parameters) >= 3
        and not re.search(r"Args:|see `|as for `", ast.get_docstring(f) or "", re.I)
    ]


def test_three_parameters_and_more_are_documented() -> None:
    assert undocumented("def f(a, b, c):\n  'Adds.'\nclass A:\n  def g(self, a, b): ...") == ["f"]
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("graphopt", "passes", "codegen", "kernels")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.parent.name != "ops"  # their methods are documented in graphopt/ir/op.py
        for name in undocumented(path.read_text())
    ]
    assert not found
