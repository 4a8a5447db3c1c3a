"""Which operator of torch a rule lowers: keyed by overload, with the schema it was written for."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphopt.ir import Value

if TYPE_CHECKING:
    from graphopt.passes.lowering.builder import Builder

Lowering = Callable[["Builder"], Value | list[Value]]

_REQUIRED = object()  # no value equals the default of an argument that has none


@dataclass(frozen=True)
class Rule:
    """How one overload of an operator is lowered.

    Attributes:
        schema: the overload as torch prints it, without marks of aliasing.
        lower: makes the nodes.
        implied: arguments that need not be read: the result's shape says them, or they are about
            gradients.
    """

    schema: str
    lower: Lowering
    implied: frozenset[str]

    def defaults(self) -> dict[str, Any]:
        """Every argument with its default, or with what equals nothing."""
        inside = self.schema.partition("(")[2].rpartition(") ->")[0]
        arguments = [a for a in re.split(r", (?![^\[]*\])", inside) if a not in ("", "*")]
        parsed = {}
        for argument in arguments:
            declared, equals, default = argument.partition("=")
            name = declared.rpartition(" ")[2]
            parsed[name] = ast.literal_eval(default) if equals else _REQUIRED
        return parsed


def overload(schema: str) -> str:
    """`aten.max.other` of `aten::max.other(...)`; nothing is behind the name of a default."""
    return schema.partition("(")[0].replace("::", ".")


def rules(lower: Lowering, *schemas: str, implied: str = "") -> dict[str, Rule]:
    """One way to lower several overloads, by overload.

    Args:
        lower: the way.
        schemas: of the overloads.
        implied: as of `Rule`, in one text.
    """
    return {overload(s): Rule(s, lower, frozenset(implied.split())) for s in schemas}
