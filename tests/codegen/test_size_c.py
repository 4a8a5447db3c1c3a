"""Sizes in C: whatever sympy makes of them, compiled code computes what Python does."""

import ctypes
import operator
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sympy

from graphopt.codegen.size_c import c_condition, c_size
from graphopt.codegen.size_checks import SizeCheck, size_checks
from graphopt.errors import SizeError
from graphopt.ir import Dim, DimInfo, symbolic
from graphopt.kernels import registry
from graphopt.target import find_target
from graphopt.toolchain.build import Toolchain

DIMS = B, T, N = symbolic.symbol("B"), symbolic.symbol("T"), symbolic.symbol("N")
CALLS = [(1, 1, 1), (2, 5, 3), (3, 17, 8), (7, 2, 100), (64, 63, 1)]
INFOS = {str(dim): DimInfo(dim, 3, ((0, axis),)) for axis, dim in enumerate(DIMS)}

Number = Callable[[dict[sympy.Symbol, int]], int]
Made = tuple[Any, Number]


def _leaf(random: random.Random) -> Made:
    if random.random() < 0.4:
        number = random.choice([1, 2, 3, 5, 16, -1, -3, 1000])
        return sympy.Integer(number), lambda sizes: number
    dim = random.choice(DIMS)
    return dim, lambda sizes: sizes[dim]


def _joined(make: Callable[..., Any], count: Callable[..., int], *parts: Made) -> Made:
    numbers = [number for _, number in parts]
    return make(*(size for size, _ in parts)), lambda sizes: count(*(n(sizes) for n in numbers))


_BINARY: list[tuple[Callable[..., Any], Callable[..., int]]] = [
    (lambda a, b: a + b, lambda a, b: a + b),
    (lambda a, b: a - b, lambda a, b: a - b),
    (lambda a, b: a * b, lambda a, b: a * b),
    (lambda a, b: sympy.floor(a / b), lambda a, b: a // b),
    (lambda a, b: sympy.ceiling(a / b), lambda a, b: -(-a // b)),
    (sympy.Mod, lambda a, b: a % b),
    (sympy.Max, max),
    (sympy.Min, min),
    (lambda a, b: sympy.floor(a / 3 - b / 2), lambda a, b: (2 * a - 3 * b) // 6),
]


def _random_size(random: random.Random, depth: int) -> Made:
    """A size as sympy has it, and a function that computes it in Python's integers."""
    if depth == 0:
        return _leaf(random)
    part = _random_size(random, depth - 1)
    if random.random() < 0.2:
        power = random.choice([2, 3])
        return _joined(lambda a: a**power, lambda a: a**power, part)
    other = _random_size(random, random.randrange(depth))
    return _joined(*random.choice(_BINARY), part, other)


def _known(size: Dim, number: Number) -> dict[tuple[int, ...], int]:
    """What the size is for each call for which it is defined, by Python and by sympy."""
    found = {}
    for call in CALLS:
        sizes = dict(zip(DIMS, call, strict=True))
        try:
            found[call] = number(sizes)
            if symbolic.evaluate(size, sizes) != found[call]:
                return {}  # sympy took it for another: Min(floor(-3/Max(N, T)), -3) is a mistake
        except ZeroDivisionError:
            continue
    return found


def _compiled(functions: dict[str, str], folder: Path) -> ctypes.CDLL:
    """Functions of the dims that return an expression each, in one library."""
    tools = Toolchain.find(find_target("native").arch)
    parameters = ", ".join(f"int64_t {dim}" for dim in DIMS)
    unused = " ".join(f"(void){dim};" for dim in DIMS)
    lines = ['#include "go_loop.h"']
    lines += [
        f"int64_t {name}({parameters}) {{ {unused} return {text}; }}"
        for name, text in functions.items()
    ]
    source, library = folder / "sizes.c", folder / "sizes.so"
    source.write_text("\n".join(lines) + "\n")
    flags = [*registry.REQUIRED_FLAGS, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    include = f"-I{registry.ROOT / 'include'}"
    flags += [*tools.link_flags(static=False), "-s"]
    command = [*tools.command, *flags, include, str(source), "-o", str(library)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    loaded = ctypes.CDLL(str(library))
    for name in functions:
        getattr(loaded, name).restype = ctypes.c_int64
        getattr(loaded, name).argtypes = [ctypes.c_int64] * len(DIMS)
    return loaded


RELATIONS: list[tuple[Any, Callable[[int, int], bool]]] = [
    (sympy.Eq, operator.eq),
    (sympy.Ne, operator.ne),
    (sympy.Lt, operator.lt),
    (sympy.Le, operator.le),
    (sympy.Gt, operator.gt),
    (sympy.Ge, operator.ge),
]


def test_random_sizes_are_the_same_in_c(tmp_path: Path) -> None:
    """So are the answers of conditions on them; checks refuse only what cannot be computed."""
    source = random.Random(11)
    cases = []
    while len(cases) < 250:
        try:
            size, number = _random_size(source, source.choice([1, 2, 2, 3]))
        except ZeroDivisionError:
            continue
        size = symbolic.simplify(size)
        if isinstance(size, int) or symbolic.not_computable(size) is not None:
            continue
        if known := _known(size, number):
            cases.append((size, known))
    functions = {}
    for i, (size, _) in enumerate(cases):
        functions[f"size{i}"] = c_size(size)
        checks = size_checks([], [size], [], [], INFOS)
        functions[f"checked{i}"] = " && ".join(f"({check.condition})" for check in checks)
        relation, _ = RELATIONS[i % 6]
        functions[f"holds{i}"] = c_condition(relation(size / 3, (B - T) / 2, evaluate=False))
    library = _compiled(functions, tmp_path)
    compared = 0
    for i, (size, known) in enumerate(cases):
        for call, expected in known.items():
            if not getattr(library, f"checked{i}")(*call):
                assert max(abs(expected), *call) > 2**20, (size, call)
                continue
            assert getattr(library, f"size{i}")(*call) == expected, (size, call)
            holds = RELATIONS[i % 6][1](2 * expected, 3 * (call[0] - call[1]))
            assert getattr(library, f"holds{i}")(*call) == holds, (size, call)
            compared += 1
    assert compared > 1000


def test_parentheses() -> None:
    assert c_size((T - 3) ** 2 * B) == "B*((T - 3)*(T - 3))"
    assert c_size(-(T**2) - (B - T) * 5) == "-5*B - T*T + 5*T"
    assert c_size(8 * sympy.floor((T + 1) / 2)) == "8*((T + 1) / 2)"
    assert c_size(sympy.floor((T - 3) / 2)) == "go_floor_div(T - 3, 2)"
    assert c_size(sympy.Mod(T - 3, 4) + B) == "B + ((T + 1) % 4)"


def _texts(*sizes: Dim, extents: tuple[Dim, ...] = (), slots: Any = ()) -> list[str]:
    return [check.text for check in size_checks(extents, sizes, slots, [], INFOS)]


def test_checks() -> None:
    assert _texts(5, 7) == []
    assert _texts(B * T * 8, 2 * T) == ["8*B*T + 2*T < 2**62"]
    assert _texts(T * (T + 1) / 2)[1:] == ["Eq(Mod(T**2 + T, 2), 0)"]
    assert _texts(sympy.floor(B / (T - 3)))[1:] == ["Ne(T - 3, 0)"]
    assert _texts(sympy.floor(B / sympy.Mod(8, T - 4)))[1:] == [
        "Ne(T - 4, 0)",
        "Ne(Mod(8, T - 4), 0)",
    ]
    assert _texts(extents=(T - 3, T))[1:] == ["T - 3 >= 0"]
    assert _texts(slots=[[8 * B, 64 * T], [4 * B]]) == ["12*B + 64*T < 2**62"]


def test_sizes_too_large_for_64_bits_are_refused(tmp_path: Path) -> None:
    size = sympy.Mod(T**10, 7)
    (check,) = size_checks([], [size], [], [], INFOS)
    functions = {"size": c_size(size), "checked": check.condition}
    library = _compiled(functions, tmp_path)
    for t in (9, 60, 100, 2**40):
        if library.checked(1, t, 1):
            assert library.size(1, t, 1) == t**10 % 7
        else:
            assert t**10 > 2**61
    assert library.checked(1, 60, 1) and not library.checked(1, 100, 1)


def test_what_depends_on_a_computed_size_waits_for_it() -> None:
    infos = {**INFOS, "N": DimInfo(N, 3, (), T)}
    first, *others = size_checks([N], [sympy.floor(N / 4)], [], [], infos)
    assert first.text == "2*T + 5 < 2**62" and not first.computed and not others
    _, check = size_checks([T - N], [], [], [], infos)
    assert check == SizeCheck("-N + T >= 0", "-N + T >= 0", frozenset({"N"}))


@pytest.mark.parametrize(
    "condition", [sympy.Symbol("p"), sympy.Eq(2**T, 8), sympy.Lt(B / (T - 3), 2)], ids=str
)
def test_conditions_without_c_are_refused(condition: sympy.Basic) -> None:
    with pytest.raises(SizeError, match="cannot be computed"):
        c_condition(condition)
