"""The graph and what is true of it at every stage: sizes, numbers, cost and meaning."""

from graphopt.ir.graph import (
    Dim,
    DimInfo,
    DType,
    Graph,
    Layout,
    Node,
    Origin,
    Ref,
    Shape,
    Value,
    constant,
    learn_sizes,
)

__all__ = [
    "DType",
    "Dim",
    "DimInfo",
    "Graph",
    "Layout",
    "Node",
    "Origin",
    "Ref",
    "Shape",
    "Value",
    "constant",
    "learn_sizes",
]
