"""How rules are entered: by domain and op, and by the opset from which on a form holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from graphopt.ir import Value
from graphopt.onnx.call import Call
from graphopt.onnx.known import Tensor

Result: TypeAlias = Value | Tensor
Rule: TypeAlias = Callable[[Call], Result | list[Result] | list[Value] | list[Tensor]]
Table: TypeAlias = dict[tuple[str, str], dict[int, Rule]]

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own ops."""


def since(version: int, domain: str = "", /, **rules: Rule) -> Table:
    """One form of each of some ops.

    Args:
        version: the opset from which on it holds.
        domain: of the ops.
        rules: by name of the op.
    """
    return {(domain, op): {version: rule} for op, rule in rules.items()}


def merged(*tables: Mapping[tuple[str, str], Mapping[int, Rule]]) -> Table:
    """All forms of all ops.

    Raises:
        ValueError: if two are of the same op and opset.
    """
    table: Table = {}
    for one in tables:
        for key, forms in one.items():
            known = table.setdefault(key, {})
            if twice := known.keys() & forms.keys():
                raise ValueError(f"two rules for {key} since opset {twice}")
            known.update(forms)
    return table
