"""Ops that write in place to a tensor of which nothing else is a view, as ops that make a new one.

    y = conv2d(x, w)                 y = conv2d(x, w)
    z = relu_(y)              ->     z = relu(y)
    u = add(y, z)                    u = add(z, z)

Such are the activations of most convolutional networks, masks that are filled in, and tensors that
are made empty and written to then. What torch does about all others takes it as long as capturing
the model.
"""

from __future__ import annotations

from typing import Any

import torch

#: Ops whose result is always memory of its own.
_FRESH = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("linear", "matmul", "bmm", "addmm", "batch_norm", "group_norm", "layer_norm", "cat"),
    *("add", "sub", "mul", "div", "relu", "sigmoid", "tanh", "silu", "gelu", "hardtanh", "elu"),
    *("leaky_relu", "hardswish", "hardsigmoid", "relu6", "mish", "max_pool2d", "avg_pool2d"),
    *("softmax", "clone", "masked_fill", "fill", "zero", "clamp", "neg", "exp", "sqrt", "abs"),
    *("empty", "zeros", "ones", "full", "rand", "randn", "arange", "uniform"),
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
}
#: Ops in place whose results have the type of what they write to in both forms.
_UNARY = {
    *("relu_", "relu6_", "sigmoid_", "tanh_", "silu_", "hardtanh_", "elu_", "leaky_relu_"),
    *("hardswish_", "hardsigmoid_", "mish_", "celu_", "selu_"),
    *("masked_fill_", "fill_", "zero_", "clamp_", "neg_", "exp_", "sqrt_", "abs_", "uniform_"),
}
_BINARY = {"add_", "sub_", "mul_", "div_"}
#: Ops that may return their operand, though their schemas do not say so.
_MAY_BE_THE_SAME = {"dropout", "feature_dropout", "alpha_dropout", "type_as"}


def write_apart(graph: torch.fx.Graph) -> None:
    """Replaces what it can of the ops that write in place.

    Args:
        graph: of an exported program, changed in place.
    """
    place = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        name = _name(node)
        if name not in _UNARY and not (name in _BINARY and _keeps_type(node)):
            continue
        target = node.args[0]
        if _name(target) not in _FRESH or not all(map(_reads, target.users.keys() - {node})):
            continue
        functional = getattr(torch.ops.aten, name.removesuffix("_"))
        node.target = getattr(functional, node.target._overloadname)
        for user in list(target.users):
            if place[user] > place[node]:
                user.replace_input_with(target, node)


def _name(node: Any) -> str:
    """The name of an op of torch; empty for others."""
    schema = getattr(getattr(node, "target", None), "_schema", None)
    return schema.name.removeprefix("aten::") if schema else ""


def _keeps_type(node: torch.fx.Node) -> bool:
    """Whether the other operand is a tensor of the same floating-point type."""
    tensors: list[Any] = [getattr(arg, "meta", {}).get("val") for arg in node.args[:2]]
    return node.target._overloadname == "Tensor" and all(  # type: ignore[union-attr]
        isinstance(t, torch.Tensor) and t.is_floating_point() and t.dtype is tensors[0].dtype
        for t in tensors
    )


def _reads(user: torch.fx.Node) -> bool:
    """Whether a node gives nothing that shares memory with its operands; it may write in place."""
    if user.op == "output":
        return True
    if not isinstance(user.target, torch._ops.OpOverload):
        return False
    schema = user.target._schema
    if _name(user) in _UNARY | _BINARY:
        return True
    return _name(user) not in _MAY_BE_THE_SAME and not any(
        value.alias_info for value in (*schema.returns, *schema.arguments)
    )
