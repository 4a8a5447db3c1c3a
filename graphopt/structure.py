"""Arguments and results as nested tuples, lists and dicts of tensors, in a form that JSON holds.

A template mirrors the nesting: `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": {...}}`,
`{"tensor": i}` for the i-th tensor, `{"value": x}` for a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.errors import InputCountError, PackageError

Template = dict[str, Any]

RESULT, AFTER = "graphopt: result", "graphopt: arguments after the call"
"""Keys of the result of a model that puts something into a container of its arguments."""

UNCHANGED = "graphopt: the argument itself"
"""Stands in a result for a leaf of the arguments that the model left alone."""


@dataclass(frozen=True)
class Leaf:
    """Stands for tensor `index` when a template is made."""

    index: int


def describe(tree: Any) -> Template:
    """The template of nested containers with `Leaf`s in place of tensors.

    Raises:
        PackageError: for a container or constant that JSON cannot hold.
    """
    if isinstance(tree, Leaf):
        return {"tensor": tree.index}
    if tree is None or isinstance(tree, bool | int | float | str):
        return {"value": tree}
    if type(tree) is tuple:
        return {"tuple": [describe(item) for item in tree]}
    if type(tree) is list:
        return {"list": [describe(item) for item in tree]}
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        return {"dict": {key: describe(item) for key, item in tree.items()}}
    raise PackageError(
        f"a package cannot hold arguments or results of type {type(tree).__name__}; wrap the model "
        "so that it takes and returns tensors, tuples, lists and dicts"
    )


def build(template: Template, tensors: Sequence[Any]) -> Any:
    """The nesting of a template with tensors in their places."""
    ((kind, content),) = template.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "value":
        return content
    if kind == "dict":
        return {key: build(item, tensors) for key, item in content.items()}
    items = [build(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def match(template: Template, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The tensors of a call, in order, if it has the form of the template.

    Raises:
        InputCountError: if arguments are missing, too many, of another structure, or if a constant
            differs from the one that the model was captured with.
    """
    found: dict[int, Any] = {}
    _match(template, (tuple(args), dict(kwargs)), found, "arguments")
    return [found[i] for i in sorted(found)]


def _match(template: Template, tree: Any, found: dict[int, Any], where: str) -> None:
    ((kind, content),) = template.items()
    if kind == "tensor":
        if not hasattr(tree, "shape"):
            raise InputCountError(f"a tensor as {where}", type(tree).__name__)
        found[content] = tree
    elif kind == "value":
        if tree is not content and tree != content:
            raise InputCountError(f"{content!r} as {where}, as captured", f"{tree!r}")
    elif kind == "dict":
        if not isinstance(tree, dict) or tree.keys() != content.keys():
            got = sorted(tree) if isinstance(tree, dict) else type(tree).__name__
            raise InputCountError(f"keys {sorted(content)} in {where}", str(got))
        for key, item in content.items():
            _match(item, tree[key], found, f"{where}[{key!r}]")
    else:
        if not isinstance(tree, list | tuple) or len(tree) != len(content):
            got = str(len(tree)) if isinstance(tree, list | tuple) else type(tree).__name__
            raise InputCountError(f"{len(content)} items in {where}", got)
        for i, item in enumerate(content):
            _match(item, tree[i], found, f"{where}[{i}]")


def write_back(before: Any, after: Any) -> None:
    """Gives the caller's containers the items that they have after the call."""
    if isinstance(before, dict):
        for key in [k for k in before if k not in after]:
            del before[key]
        for key, item in after.items():
            if key in before and isinstance(before[key], dict | list | tuple):
                write_back(before[key], item)
            elif not _is_unchanged(item):
                before[key] = item
    elif isinstance(before, list):
        before[:] = [
            before[i] if _is_unchanged(item) else item
            for i, item in enumerate(after)
        ]
    elif isinstance(before, tuple):
        for old, new in zip(before, after, strict=True):
            write_back(old, new)


def _is_unchanged(item: Any) -> bool:
    return isinstance(item, str) and item == UNCHANGED
