"""Tensors of a model that a call replaces by others: written in place instead, as far as they fit.

torch.export keeps account of what is written to buffers, and loses what is assigned to them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from graphopt.errors import CaptureError


class Assigned:
    """The tensors under the names that modules have for them, as they are now."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._name = type(model).__name__
        self._held = [
            (path, holder, {k: v for k, v in holder.items() if _counts(holder, owner, v)}, owner)
            for path, owner in model.named_modules()
            for holder in (owner._buffers, owner._parameters, vars(owner))
        ]

    def write(self) -> None:
        """Writes to every tensor what was assigned to its name since, and puts it back there.

        An attribute that is no buffer stays as it is if that has another shape: it may be there to
        be looked at only.

        Raises:
            CaptureError: for a buffer or weight that comes, goes, or has another shape.
        """
        for path, holder, before, owner in self._held:
            registered = holder is not vars(owner)
            names = {**before, **holder} if registered else before
            for name in names:
                old, new = before.get(name), holder.get(name)
                if new is old:
                    continue
                if _fits(old, new):
                    old.copy_(new)  # type: ignore[union-attr]
                    holder[name] = old
                elif registered:
                    holder.clear()
                    holder.update(before)
                    where = f"{path}.{name}" if path else name
                    why = (
                        f"it gives {where!r} another shape or dtype, or makes it anew; give it the"
                    )
                    raise CaptureError(self._name, None, f"{why} shape that it keeps")


def drop_constant_writes(program: ExportedProgram) -> None:
    """Drops writes of constants to attributes that nothing reads.

    Such are the weights that hooks of `torch.nn.utils.weight_norm` compute before each call.

    Args:
        program: its attributes that are no buffers are inputs of kind `CONSTANT_TENSOR`.
    """
    kinds = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
    nodes = list(program.graph.nodes)
    writes = [node for node in nodes if node.target is torch.ops.aten.copy_.default]
    if not writes:
        return
    varies = {node.args[0] for node in writes}
    for node in nodes:
        if kinds.get(node.name) is InputKind.USER_INPUT or varies & set(node.all_input_nodes):
            varies.add(node)
    for node in writes:
        attribute, value = node.args[:2]
        is_attribute = kinds.get(attribute.name) is InputKind.CONSTANT_TENSOR
        if is_attribute and value not in varies and [*attribute.users] == [node] and not node.users:
            program.graph.erase_node(node)


def _counts(holder: dict[str, Any], owner: torch.nn.Module, value: Any) -> bool:
    return holder is not vars(owner) or isinstance(value, torch.Tensor)


def _fits(old: Any, new: Any) -> bool:
    """Whether both are tensors of one shape, which does not depend on arguments, and one dtype."""
    return (
        isinstance(old, torch.Tensor)
        and isinstance(new, torch.Tensor)
        and old.dtype is new.dtype
        and old.dim() == new.dim()
        and all(isinstance(b, int) and a == b for a, b in zip(old.shape, new.shape, strict=True))
    )
