"""What a module holds: looked up before it is traced, put back afterwards.

Tracing runs the model's Python, which may set attributes (a counter, the last attention weights),
append to lists, or write to buffers. None of it may reach the user's model.
"""

from __future__ import annotations

import types
from collections import deque
from typing import Any

import torch

from graphopt.frontend.kept_weights import KeptWeights

_OPAQUE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class Held:
    """Everything that a module, its submodules and their containers and objects hold now.

    The model's Python runs within a `with` statement, after which all is put back; there ops may
    write to weights, too.

    Args:
        model: the module.
        tracing: whether torch.export is at work, which looks after parameters, buffers, and the
            values of tensors itself.

    Attributes:
        changed: the names of what had changed at the end of the last `with` statement.
    """

    def __init__(self, model: torch.nn.Module, tracing: bool = False) -> None:
        self.by_hooks: list[str] = []
        self.changed: list[str] = []
        self._hooks: list[tuple[str, Any]] = []
        self._contents: list[tuple[str, Any, Any]] = []
        self._tensors: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        weights: list[tuple[str, torch.Tensor]] = []
        self._seen: set[int] = set()
        self._tracing = tracing
        self._visit("", model, weights)
        # What hooks write to beside the model, such as a list of what they have seen.
        self._inside = len(self._contents)
        for name, hook in self._hooks:
            for thing in _surroundings(hook):
                self._visit(name, thing, weights)
        self._weights = KeptWeights(weights)

    def __enter__(self) -> Held:
        self._weights.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        self._weights.__exit__(*error)  # type: ignore[no-untyped-call]
        self.changed = self.put_back()

    def _visit(self, name: str, value: Any, weights: list[tuple[str, torch.Tensor]]) -> None:
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if isinstance(value, torch.nn.Parameter):
                weights += [] if self._tracing else [(name, value)]
            elif not self._tracing:
                self._tensors.append((name, value, value.detach().clone()))
            return
        content = _content(value)
        if content is None:
            return
        self._contents.append((name, value, content))
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, item in items:
            if self._tracing and key in ("_parameters", "_buffers"):
                continue
            if key in _HOOKS:
                self._hooks += [(f"a hook of {name or 'it'}", hook) for hook in item.values()]
            inner = name if key in ("_modules", "_parameters", "_buffers") else _join(name, key)
            self._visit(inner, item, weights)

    def put_back(self) -> list[str]:
        """Makes everything as it was; returns the names of what had changed.

        What hooks changed outside of the model is named in `by_hooks` instead.
        """
        names: list[str] = []
        for number, (name, value, before) in enumerate(self._contents):
            now = _content(value)
            if now is not None and not _same(before, now):
                changed = names if number < self._inside else self.by_hooks
                changed.append(_name_of(name, before, now))
                _put_back(value, before)
        names += self._weights.put_back()
        with torch.no_grad():
            for name, tensor, values in self._tensors:
                names += [name] if restore(tensor, values) else []
        return names


def restore(tensor: torch.Tensor, values: torch.Tensor) -> bool:
    """Gives a tensor the values that it had; returns whether it has others.

    Args:
        tensor: whose shape and dtype may have changed, too.
        values: a copy of what it was.
    """
    if tensor.shape != values.shape or tensor.dtype is not values.dtype:
        tensor.data = values.clone()
        return True
    differs = not torch.equal(tensor, values)
    if differs:
        tensor.copy_(values)
    return differs


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _surroundings(hook: Any) -> list[Any]:
    """What a function, a method or an object that is called can write to."""
    inner = [getattr(hook, "func", None), getattr(hook, "__self__", None)]
    cells = [*(getattr(hook, "__closure__", None) or ()), *_cells_within(inner[0])]
    held = [cell.cell_contents for cell in cells if cell != types.CellType()]
    return [*held, *(getattr(hook, "__defaults__", None) or ()), inner[1], hook]


def _cells_within(function: Any) -> tuple[Any, ...]:
    return getattr(function, "__closure__", None) or ()


def _content(value: Any) -> Any:
    """What a container or an object holds, in a container of its own; None for others."""
    if isinstance(value, dict | list | set | deque):
        return value.copy()
    if isinstance(value, _OPAQUE) or not isinstance(getattr(value, "__dict__", None), dict):
        return None
    return dict(vars(value))


def _same(before: Any, now: Any) -> bool:
    """Whether two containers hold the very same things."""
    if len(before) != len(now):
        return False
    if isinstance(before, dict):
        return all(k in now and now[k] is item for k, item in before.items())
    if isinstance(before, set):
        return bool(before == now)
    return all(a is b for a, b in zip(before, now, strict=True))


def _put_back(value: Any, before: Any) -> None:
    held = value if isinstance(value, dict | list | set | deque) else vars(value)
    held.clear()
    held.update(before) if isinstance(held, dict | set) else held.extend(before)


def _join(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _name_of(name: str, before: Any, now: Any) -> str:
    """Of what changed in a container: the first attribute of an object, else the container."""
    if not isinstance(before, dict):
        return name
    keys = [
        k for k in (*before, *now) if k not in before or k not in now or before[k] is not now[k]
    ]
    return _join(name, keys[0])
