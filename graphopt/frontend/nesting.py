"""Nested arguments and results, taken apart into leaves and put together again.

torch's pytree takes apart tuples, lists, dicts and objects of classes that are registered with it.
Other objects (a cache of transformers, a dataclass) are taken apart as `copy.copy` copies them, by
`__reduce_ex__`: into arguments of their class, attributes, and items of the list or dict that they
are. What has no such parts, or takes care of its state itself, is a leaf.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree

VALUES = (
    *(bool, int, float, complex, str, bytes, type(None), type(...), slice, range, enum.Enum),
    *(np.generic, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, type),
    *(types.FunctionType, types.BuiltinFunctionType),
)
"""Leaves that are no tensors and that their text tells from others, or that never change."""

SIZES = (torch.SymInt, torch.SymFloat, torch.SymBool)
_CLOSED = (torch.Tensor, *SIZES, *VALUES, torch.nn.Module)


@dataclasses.dataclass(frozen=True)
class Given:
    """Stands in a result for an object of the arguments, by its number among those."""

    number: int


@dataclasses.dataclass(eq=False)
class _Opened:
    """An object that was taken apart.

    Attributes:
        kind: its class.
        creates: whether its class is called, or only its `__new__`, with the arguments.
        arguments: of its `__new__`.
        attributes: by name.
        items: of a list.
        pairs: of a dict.
    """

    kind: type
    creates: bool
    arguments: tuple[Any, ...]
    attributes: dict[str, Any]
    items: list[Any]
    pairs: dict[Any, Any]

    def keyed(self) -> tuple[list[tuple[Any, Any]], Any]:
        """Children with their keys, and all else that there is to know."""
        children: list[tuple[Any, Any]] = [
            *((pytree.SequenceKey(i), item) for i, item in enumerate(self.arguments)),
            *((pytree.GetAttrKey(name), item) for name, item in self.attributes.items()),
            *((pytree.SequenceKey(i), item) for i, item in enumerate(self.items)),
            *((pytree.MappingKey(key), item) for key, item in self.pairs.items()),
        ]
        counts = len(self.arguments), len(self.items)
        return children, (self.kind, self.creates, counts, (*self.attributes,), (*self.pairs,))


def _put_together(children: Any, context: Any) -> Any:
    kind, creates, (arguments, items), names, keys = context
    rest = iter(children)
    given = [next(rest) for _ in range(arguments)]
    made = kind(*given) if creates else kind.__new__(kind, *given)
    for name in names:
        object.__setattr__(made, name, next(rest))
    for _ in range(items):
        made.append(next(rest))
    for key in keys:
        made[key] = next(rest)
    return made


def _flatten(opened: _Opened) -> tuple[list[Any], Any]:
    children, context = opened.keyed()
    return [child for _, child in children], context


pytree.register_pytree_node(
    _Opened,
    _flatten,
    _put_together,
    serialized_type_name="graphopt.Opened",
    flatten_with_keys_fn=_Opened.keyed,
)


class _Opener:
    """Opens the objects of a tree.

    Attributes:
        objects: those that were opened, in order.
    """

    def __init__(self, given: Mapping[int, Given]) -> None:
        self.objects: list[Any] = []
        self._given = given
        self._around: list[int] = []

    def open(self, tree: Any) -> Any:
        return pytree.tree_map(self._leaf, tree, is_leaf=_is_shape)

    def _leaf(self, leaf: Any) -> Any:
        if _is_closed(leaf) or id(leaf) in self._around:
            return leaf
        if _is_shape(leaf):
            return _Opened(torch.Size, True, (tuple(leaf),), {}, [], {})
        if id(leaf) in self._given:
            return self._given[id(leaf)]
        opened = _opened(leaf)
        if opened is None:
            return leaf
        self.objects.append(leaf)
        self._around.append(id(leaf))
        opened.arguments, opened.attributes, opened.items, opened.pairs = self.open(
            (opened.arguments, opened.attributes, opened.items, opened.pairs)
        )
        self._around.pop()
        return opened


def _is_shape(thing: Any) -> bool:
    """Whether it is what torch takes apart, but puts together as a tuple."""
    return isinstance(thing, torch.Size)


def _is_closed(leaf: Any) -> bool:
    if isinstance(leaf, torch.Size):
        return not any(isinstance(extent, torch.SymInt) for extent in leaf)
    return isinstance(leaf, _CLOSED)


def _opened(thing: Any) -> _Opened | None:
    """An object taken apart by one level; None if that cannot be, or if it holds nothing."""
    kind = type(thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        named = {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}
        return _Opened(kind, False, (), {**getattr(thing, "__dict__", {}), **named}, [], {})
    own: Any = kind.__getstate__
    if own is not object.__getstate__ or hasattr(kind, "__setstate__"):
        return None
    try:
        reduced = thing.__reduce_ex__(2)
    except Exception:  # whatever the class says about it
        return None
    if not isinstance(reduced, tuple):
        return None
    function, arguments, state, items, pairs, *_ = (*reduced, None, None, None)
    if function is copyreg.__newobj__ and arguments[0] is kind:  # type: ignore[attr-defined]
        creates, arguments = False, arguments[1:]
    elif function is kind and not arguments:
        creates = True
    else:
        return None
    attributes: dict[str, Any] = {}
    for part in state if isinstance(state, tuple) else (state,):
        attributes |= part or {}
    opened = _Opened(
        kind, creates, tuple(arguments), attributes, list(items or ()), dict(pairs or ())
    )
    return opened if opened.keyed()[0] else None


def flatten(tree: Any, given: Mapping[int, Given] = {}) -> tuple[list[Any], pytree.TreeSpec]:
    """Leaves and structure, which put together again give objects of their own classes.

    Args:
        tree: anything.
        given: objects, by id, that are not opened, and the leaves in their places.
    """
    leaves, spec = pytree.tree_flatten(tree, is_leaf=_is_shape)
    if all(map(_is_closed, leaves)):
        return leaves, spec
    return pytree.tree_flatten(_Opener(given).open(tree), is_leaf=_is_shape)


def flatten_with_path(tree: Any) -> tuple[list[tuple[Any, Any]], pytree.TreeSpec]:
    """`flatten` with paths of leaves; their numbers if a class is registered without keys."""
    opened = _Opener({}).open(tree)
    try:
        return pytree.tree_flatten_with_path(opened, is_leaf=_is_shape)
    except ValueError:
        leaves, spec = pytree.tree_flatten(opened, is_leaf=_is_shape)
        return [((pytree.SequenceKey(i),), leaf) for i, leaf in enumerate(leaves)], spec


def parts(thing: Any) -> dict[Any, Any]:
    """What a container or an object holds by index, key or name, in the order of `flatten`.

    Args:
        thing: anything; what is a leaf has no parts.
    """
    if isinstance(thing, list | tuple):
        return dict(zip(getattr(thing, "_fields", range(len(thing))), thing, strict=True))
    if isinstance(thing, dict):
        return dict(thing)
    if _is_closed(thing) or (type(thing) not in pytree.SUPPORTED_NODES and _opened(thing) is None):
        return {}
    tree = thing if type(thing) in pytree.SUPPORTED_NODES else _opened(thing)
    try:
        pairs, _ = pytree.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)
    except ValueError:
        return dict(enumerate(pytree.tree_leaves(tree, is_leaf=lambda x: x is not tree)))
    return {_name_of(path[0]): part for path, part in pairs}


def _name_of(key: Any) -> Any:
    """The index, key or name in an entry of a path."""
    return next(getattr(key, field) for field in ("idx", "key", "name") if hasattr(key, field))


def objects(tree: Any) -> list[Any]:
    """The objects that `flatten` opens, in order."""
    opener = _Opener({})
    opener.open(tree)
    return opener.objects
