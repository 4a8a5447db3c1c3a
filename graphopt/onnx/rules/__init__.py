"""Rules of ONNX ops: each makes `go.*` nodes, by the rules of torch's ops where these are alike."""

from __future__ import annotations

import difflib

from graphopt.onnx.rules import (
    choice,
    elements,
    indexing,
    loops,
    norms,
    products,
    quantized,
    recurrent,
    reductions,
    resizing,
    sequences,
    shapes,
    whole_products,
    windows,
)
from graphopt.onnx.rules.table import Table, merged

RULES: Table = merged(
    elements.RULES,
    shapes.RULES,
    indexing.RULES,
    reductions.RULES,
    products.RULES,
    windows.RULES,
    resizing.RULES,
    norms.RULES,
    recurrent.RULES,
    quantized.RULES,
    whole_products.RULES,
    choice.RULES,
    loops.RULES,
    sequences.RULES,
)


def nearest(domain: str, op: str, opset: int) -> str:
    """What is compiled nearest to an op of an opset; empty if it is that form, or nothing is.

    Args:
        domain: of the op.
        op: its name.
        opset: that the model asks for.
    """
    if forms := RULES.get((domain, op)):
        oldest = min(forms)
        return "" if opset >= oldest else f"its form since opset {oldest} is compiled"
    known = sorted(name for _, name in RULES)
    found = difflib.get_close_matches(op, known, n=1, cutoff=0.75)
    return f"{found[0]} is compiled" if found else ""
