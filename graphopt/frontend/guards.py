"""What torch.export assumed about sizes: equalities to build in, conditions to check.

Exporting a model records guards over symbolic sizes, such as `Eq(Mod(T, 2), 0)` behind a view that
halves an axis. An equality of a size and an expression of other sizes replaces the size; everything
else becomes a condition that compiled modules check on every call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram

_SQUEEZES = {"aten::squeeze", "aten::squeeze_", "aten::squeeze_copy"}


@dataclass(frozen=True)
class Guards:
    """Guards of one exported program, over torch's symbols.

    Attributes:
        aliases: sizes of inputs that must equal an expression of others.
        conditions: what else must hold.
        asserts: what torch asserts of sizes and numbers that are read from tensors.
    """

    aliases: dict[sympy.Symbol, sympy.Expr]
    conditions: list[sympy.Basic]
    asserts: list[sympy.Basic] = field(default_factory=list)


def read_guards(*stages: ExportedProgram) -> Guards:
    """The guards of a program, without those that always hold.

    Left out: what torch's own ops asked about sizes 0 and 1 to choose strides (`squeeze`, which
    gives another result then, is a condition), and conditions on values read from tensors, which
    `go.check` nodes check.

    Args:
        stages: the program as it was exported, and what was made of it, where ops that nobody reads
            may be missing.
    """
    aliases: dict[sympy.Symbol, sympy.Expr] = {}
    conditions: list[sympy.Basic] = []
    for guard, within_torch in _shape_guards(stages[-1]):
        expr = guard.xreplace(aliases)
        if expr == sympy.true or (within_torch and _excludes_special_size(expr)):
            continue
        alias = _alias(expr)
        if alias is not None:
            aliases = {k: v.xreplace(dict([alias])) for k, v in aliases.items()}
            aliases[alias[0]] = alias[1]
        else:
            conditions.append(expr)
    conditions += [condition for stage in stages for condition in _kept_axes(stage)]
    replaced = (condition.xreplace(aliases) for condition in conditions)
    asserts = [a.xreplace(aliases) for a in _asserts(stages[0])]
    conditions = [condition for condition in replaced if condition != sympy.true]
    return Guards(aliases, conditions, asserts)


def _shape_guards(program: ExportedProgram) -> list[tuple[sympy.Basic, bool]]:
    """Each guard, and whether an op of torch asked for it rather than a line of Python."""
    for node in program.graph.nodes:
        for extent in getattr(node.meta.get("val"), "shape", ()):
            if not isinstance(extent, int):
                env = extent.node.shape_env
                return [(g.expr.xreplace(env.replacements), _within_torch(g)) for g in env.guards]
    return []


def _asserts(program: ExportedProgram) -> Iterator[sympy.Basic]:
    """What the program asserts of sizes while it runs."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        for number in (value, *getattr(value, "shape", ())):
            if isinstance(number, torch.SymInt):
                env: Any = number.node.shape_env
                for asserted in env.deferred_runtime_asserts.values():
                    yield from (a.expr.xreplace(env.replacements) for a in asserted)
                return


def _kept_axes(program: ExportedProgram) -> Iterator[sympy.Basic]:
    """That no axis has size 1 which would go then, and which torch kept."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or schema.name not in _SQUEEZES:
            continue
        shape = node.args[0].meta["val"].shape
        given = [*node.args[1:], *node.kwargs.values()] or [list(range(len(shape)))]
        for axis in given[0] if isinstance(given[0], list | tuple) else given:
            if shape and not isinstance(shape[axis], int):
                yield sympy.Ne(shape[axis].node.expr, 1)


def _within_torch(guard: Any) -> bool:
    """Whether the frame that asked is of torch's dispatcher or of the meaning of its ops.

    It is that of `Module.__call__` where only frames that torch leaves out of traces are deeper.
    """
    place = guard.sloc.framework_loc
    file = str(getattr(place, "filename", place))
    folder = os.path.dirname(torch.__file__)
    return folder + "/_" in file or file == torch.nn.modules.module.__file__


def _excludes_special_size(expr: sympy.Basic) -> bool:
    """Whether it says that a size, or a product of sizes, is not 0 or that a size is not 1."""
    if not isinstance(expr, sympy.Ne):
        return False
    if any(arg in (0, 1) for arg in expr.args):
        return True
    (size, *others), difference = list(expr.free_symbols), expr.lhs - expr.rhs
    if others or not difference.is_polynomial(size):
        return False
    return bool(sympy.degree(difference, size) == 1 and difference.subs(size, 1) == 0)


def _alias(expr: sympy.Basic) -> tuple[sympy.Symbol, sympy.Expr] | None:
    """(size, what it must equal) of an equality with a plain size that its other side lacks."""
    if not isinstance(expr, sympy.Eq):
        return None
    for size, other in (expr.args, expr.args[::-1]):
        if isinstance(size, sympy.Symbol) and size not in other.free_symbols:
            return size, other
    return None
