"""What torch.export assumed about sizes: equalities to build in, conditions to check.

Exporting a model records guards over symbolic sizes, such as `Eq(Mod(T, 2), 0)` behind a view that
halves an axis. An equality of a size and an expression of other sizes replaces the size; everything
else becomes a condition that compiled modules check on every call.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy
from torch.export import ExportedProgram


@dataclass(frozen=True)
class Guards:
    """Guards of one exported program, over torch's symbols.

    Attributes:
        aliases: sizes of inputs that must equal an expression of others.
        conditions: what else must hold.
    """

    aliases: dict[sympy.Symbol, sympy.Expr]
    conditions: list[sympy.Basic]


def read_guards(program: ExportedProgram) -> Guards:
    """The guards of a program, without those that always hold.

    Left out: conditions that exclude sizes 0 and 1 (torch.export compiles such sizes apart because
    they broadcast; a graph captured for a general size is right for 1 too, and 0 is refused
    anyway), and conditions on values read from tensors, which `go.check` nodes check.
    """
    aliases: dict[sympy.Symbol, sympy.Expr] = {}
    conditions: list[sympy.Basic] = []
    for guard in _shape_guards(program):
        expr = guard.xreplace(aliases)
        if expr == sympy.true or _excludes_special_size(expr):
            continue
        alias = _alias(expr)
        if alias is not None:
            aliases = {k: v.xreplace(dict([alias])) for k, v in aliases.items()}
            aliases[alias[0]] = alias[1]
        else:
            conditions.append(expr)
    replaced = (condition.xreplace(aliases) for condition in conditions)
    return Guards(aliases, [condition for condition in replaced if condition != sympy.true])


def _shape_guards(program: ExportedProgram) -> list[sympy.Basic]:
    for node in program.graph.nodes:
        for extent in getattr(node.meta.get("val"), "shape", ()):
            if not isinstance(extent, int):
                env = extent.node.shape_env
                return [guard.expr.xreplace(env.replacements) for guard in env.guards]
    return []


def _excludes_special_size(expr: sympy.Basic) -> bool:
    return isinstance(expr, sympy.Ne) and any(arg in (0, 1) for arg in expr.args)


def _alias(expr: sympy.Basic) -> tuple[sympy.Symbol, sympy.Expr] | None:
    """(size, what it must equal) of an equality with a plain size that its other side lacks."""
    if not isinstance(expr, sympy.Eq):
        return None
    for size, other in (expr.args, expr.args[::-1]):
        if isinstance(size, sympy.Symbol) and size not in other.free_symbols:
            return size, other
    return None
