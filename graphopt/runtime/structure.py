"""Arguments and results as nested tuples, lists and dicts of tensors, in a form that JSON holds.

A template mirrors the nesting: `{"tuple": [...]}`, `{"list": [...]}`, `{"dict": {...}}`,
`{"ordered": {...}}` for an `OrderedDict`, `{"tensor": i}` for the i-th tensor, `{"value": x}` for a
constant. A dict of a library's own class, such as the results of transformers, is a plain one here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.errors import InputCountError, PackageError

Template = dict[str, Any]

RESULT, AFTER = "graphopt: result", "graphopt: arguments after the call"
"""Keys of the result of a model that puts something into a container of its arguments."""

UNCHANGED = "graphopt: the argument itself"
"""Stands in a result for a leaf of the arguments that the model left alone."""


MAX_DEPTH = 100
"""Containers in each other."""

_DICTS: dict[str, type[dict[str, Any]]] = {"dict": dict, "ordered": OrderedDict}
_CONSTANTS = (bool, int, float, str, type(None))


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
    if isinstance(tree, _CONSTANTS):
        return {"value": tree}
    if type(tree) is tuple:
        return {"tuple": [describe(item) for item in tree]}
    if type(tree) is list:
        return {"list": [describe(item) for item in tree]}
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        kind = "ordered" if type(tree) is OrderedDict else "dict"
        return {kind: {key: describe(item) for key, item in tree.items()}}
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
    if kind in _DICTS:
        return _DICTS[kind]((key, build(item, tensors)) for key, item in content.items())
    items = [build(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def match(template: Template, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The tensors of a call, in order, if it has the form of the template.

    Args:
        template: of the pair of positional and keyword arguments.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

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
        if not _is_tensor(tree):
            raise InputCountError(f"a tensor as {where}", type(tree).__name__)
        found[content] = tree
    elif kind == "value":
        # By their text: 1, 1.0 and True are equal but not the same, NaN is the same but not equal.
        if not isinstance(tree, _CONSTANTS) or repr(tree) != repr(content):
            raise InputCountError(f"{content!r} as {where}, as captured", f"{tree!r}")
    elif kind in _DICTS:
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


def check(template: Any, count: int, depth: int = 0) -> list[int]:
    """Tensor numbers of a template read from a file, in order of appearance.

    Args:
        template: anything that JSON holds.
        count: how many tensors there are.
        depth: containers around it.

    Raises:
        ValueError: if it is no template, names a missing tensor, or nests too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"a template has more than {MAX_DEPTH} containers in each other")
    if not isinstance(template, dict) or len(template) != 1:
        raise ValueError(f"{_short(template)} is no template")
    ((kind, content),) = template.items()
    if kind == "tensor" and type(content) is int and 0 <= content < count:
        return [content]
    if kind == "value" and isinstance(content, _CONSTANTS):
        return []
    if kind in _DICTS and isinstance(content, dict):
        return [i for item in content.values() for i in check(item, count, depth + 1)]
    if kind in ("tuple", "list") and isinstance(content, list):
        return [i for item in content for i in check(item, count, depth + 1)]
    raise ValueError(f"{_short(template)} is no template of {count} tensors")


def _short(value: Any) -> str:
    return repr(value)[:60]


def write_back(before: Any, after: Any) -> None:
    """Gives the caller's containers the items that they have after the call."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [k for k in before if k not in after]:
            del before[key]
        for key, item in after.items():
            before[key] = _merged(before.get(key), item)
    elif isinstance(before, list) and isinstance(after, list):
        before[:] = _merged_items(before, after)
    elif isinstance(before, tuple) and isinstance(after, tuple):
        _merged_items(before, after)


def _merged(old: Any, new: Any) -> Any:
    """What the caller finds: the old object, with new contents, or what the model put there."""
    if isinstance(new, str) and new == UNCHANGED:
        return old
    if isinstance(old, dict | list) and type(new) is type(old):
        write_back(old, new)
        return old
    if type(new) is tuple or hasattr(new, "_make"):
        items = _merged_items(old if isinstance(old, tuple) else (), new)
        return new._make(items) if hasattr(new, "_make") else tuple(items)
    if type(new) is type(old) and not _is_tensor(new) and (attributes := _attributes(new)):
        for name, item in attributes.items():
            object.__setattr__(old, name, _merged(getattr(old, name, None), item))
        for name in _attributes(old).keys() - attributes.keys():
            object.__delattr__(old, name)
        if isinstance(new, dict | list):
            write_back(old, new)
        return old
    return new


def _attributes(thing: Any) -> dict[str, Any]:
    """What an object holds under names, without the items of the container that it may be."""
    slots = [name for kind in type(thing).__mro__ for name in _names(kind)]
    held = {name: getattr(thing, name) for name in slots if hasattr(thing, name)}
    return {**held, **getattr(thing, "__dict__", {})}


def _names(kind: type) -> Sequence[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else [n for n in slots if not n.startswith("__")]


def _is_tensor(thing: Any) -> bool:
    return hasattr(thing, "shape") and hasattr(thing, "dtype")


def _merged_items(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    return [_merged(old[i] if i < len(old) else None, item) for i, item in enumerate(new)]
