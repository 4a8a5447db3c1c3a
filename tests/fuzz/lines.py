"""Kinds of steps of a random model: at least one for every lowering rule, and what models do.

A kind takes a `Scene` and returns the text of an expression (or a `Line` that defines several
values, or writes in place). It raises `Unfit` if the scene has no operands for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scene import FLOATS, INTEGERS, Scene, Unfit

from graphopt.funasr.layers import cif  # noqa: F401  registers the op


@dataclass(frozen=True)
class Line:
    """A line that defines no value, or several."""

    text: str
    results: int = 0


Kind = Callable[[Scene], str | Line]
KINDS: dict[str, Kind] = {}
"""By name; those of lowering rules have the name of the op."""


def kind(*names: str) -> Callable[[Kind], Kind]:
    """Enters a function under names."""

    def enter(function: Kind) -> Kind:
        KINDS.update(dict.fromkeys(names, function))
        return function

    return enter


def enter(name: str, text: Callable[[Scene], str | Line]) -> None:
    KINDS[name] = text


def chosen(s: Scene, *texts: str) -> str:
    return s.random.choice(texts)


# Element-wise.

for _op in ("neg", "abs", "sin", "cos", "tanh", "erf", "sigmoid", "exp", "floor", "ceil", "square"):
    enter(f"aten.{_op}", lambda s, op=_op: f"torch.{op}({s.any_float()})")
for _op in ("relu", "silu", "hardsigmoid", "hardswish", "relu6"):
    enter(f"aten.{_op}", lambda s, op=_op: f"F.{op}({s.floats()})")
for _op in ("log", "sqrt", "rsqrt"):
    enter(f"aten.{_op}", lambda s, op=_op: f"torch.{op}({s.any_float()}.abs() + 0.1)")
_TANH = ', approximate="tanh"'
enter("aten.gelu", lambda s: f"F.gelu({s.floats()}{chosen(s, '', _TANH)})")
enter("aten.leaky_relu", lambda s: f"F.leaky_relu({s.floats()}, {s.number(0.01, 0.5)})")
enter("aten.hardtanh", lambda s: f"F.hardtanh({s.floats()}, {s.number(-2, 0)}, {s.number(0, 2)})")
enter("aten.isinf", lambda s: f"torch.isinf({s.any_float()} / {s.anything()})")


@kind("operators")
def _arithmetic(s: Scene) -> str:
    name = s.pick(lambda t: t.dtype is not torch.bool)
    return f"{name} {s.random.choice('+-*')} {s.operand(name)}"


def _called_arithmetic(op: str) -> Kind:
    def make(s: Scene) -> str:
        name = s.floats() if s.random.random() < 0.7 else s.integers()
        alpha = s.random.choice(["", ", alpha=2"]) if op != "mul" else ""
        return f"torch.{op}({name}, {s.beside(name)}{alpha})"

    return make


for _op in ("add", "sub", "mul", "rsub"):
    enter(f"aten.{_op}", _called_arithmetic(_op))


@kind("aten.div")
def _div(s: Scene) -> str:
    name = s.any_float() if s.random.random() < 0.8 else s.integers()
    mode = s.random.choice(["", "", ', rounding_mode="floor"', ', rounding_mode="trunc"'])
    return f"torch.div({name}, {_nonzero(s, name)}{mode})"


enter("aten.true_divide", lambda s: f"torch.true_divide({(n := s.floats())}, {_nonzero(s, n)})")


def _nonzero(s: Scene, name: str) -> str:
    return chosen(s, f"({s.beside(name)}.abs() + 1)", s.number(0.5, 3), f"{name}.shape[-1]")


for _op in ("maximum", "minimum"):
    enter(
        f"aten.{_op}",
        lambda s, op=_op: f"torch.{op}({(n := s.pick(is_number))}, {s.beside(n)})",
    )


def is_number(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.int64, torch.int32)


for _op in ("eq", "ne", "lt", "le", "gt", "ge", "greater", "less"):
    enter(f"aten.{_op}", lambda s, op=_op: f"torch.{op}({(n := s.anything())}, {s.operand(n)})")
for _op in ("and", "or"):
    enter(
        f"aten.logical_{_op}",
        lambda s, op=_op: f"torch.logical_{op}({(n := s.anything())}, {s.beside(n)})",
    )
    enter(
        f"aten.bitwise_{_op}",
        lambda s, op=_op: f"torch.bitwise_{op}({(n := _mask(s))}, {s.beside(n)})",
    )
    enter(
        f"aten.__{_op}__",
        lambda s, op=_op: f"{(n := _mask(s))} {'&' if op == 'and' else '|'} {s.beside(n)}",
    )
enter("aten.logical_not", lambda s: f"torch.logical_not({s.anything()})")
enter("aten.bitwise_not", lambda s: f"~{_mask(s)}")


def _mask(s: Scene) -> str:
    return s.pick(lambda t: t.dtype is torch.bool)


@kind("aten.where")
def _where(s: Scene) -> str:
    name = s.anything()
    return f"torch.where({s.bools()}, {name}, {s.operand(name)})"


_INFINITE = 'float("-inf")'


@kind("aten.masked_fill")
def _masked_fill(s: Scene) -> str:
    name = s.floats()
    other = s.pick(lambda t: t.dtype is torch.bool) if s.random.random() < 0.5 else ""
    mask = other or f"{name} > {s.number(-1, 1)}"
    return f"{name}.masked_fill({mask}, {chosen(s, '0.0', '-1.5', '-1e9', _INFINITE)})"


enter("aten.clamp", lambda s: f"{s.pick(is_number)}.clamp({chosen(s, '-1, 1', 'min=0', 'max=1')})")
enter("aten.clamp_min", lambda s: f"torch.clamp_min({s.floats()}, {s.number(-1, 1)})")
enter("aten.clamp_max", lambda s: f"torch.clamp_max({s.floats()}, {s.number(-1, 1)})")


@kind("aten.pow")
def _pow(s: Scene) -> str:
    exponent = s.random.choice(["2", "3", "0.5", "-0.5", "1", "0", "-1", "2.0"])
    name = s.floats()
    return f"{name}.abs().add(0.2) ** {exponent}" if "." in exponent else f"{name} ** {exponent}"


enter("aten.glu", lambda s: f"F.glu({(n := s.floats())}, {s.axis(n)})")


@kind("aten.batch_norm")
def _batch_norm(s: Scene) -> str:
    name = s.floats(2, 3, 4)
    if s[name].dim() == 3 and s.random.random() < 0.7:
        return f"{s.member(f'nn.BatchNorm1d({s.static(name, 2)})')}({name}.transpose(1, 2))"
    rank = "2d" if s[name].dim() == 4 else "1d"
    return f"{s.member(f'nn.BatchNorm{rank}({s.static(name, 1)})')}({name})"


# Types and new tensors.

_HALF = ("bfloat16", "float16")
_TYPES = ("float32", "float64", *_HALF, "int64", "int32", "int16", "int8", "uint8", "bool")


@kind("aten.to")
def _to(s: Scene) -> str:
    name = s.anything()
    types = _TYPES[:6] if s[name].is_floating_point() else _TYPES
    dtype = s.random.choice(types)
    # In float64 both are one type, of which `to` makes no copy unless it is told to.
    own = {str(s[name].dtype), f"torch.{dtype}"} == {"torch.float32", "torch.float64"}
    return f"{name}.to(torch.{dtype}{', copy=True' * own})"


@kind("aten._to_copy")
def _to_copy(s: Scene) -> str:
    return f"torch.ops.aten._to_copy({s.floats()}, dtype=torch.{s.random.choice(_TYPES[:4])})"


enter("aten.type_as", lambda s: f"{s.integers()}.type_as({s.floats()})")


@kind("aten.arange")
def _arange(s: Scene) -> str:
    name = s.anything(1, 2, 3, 4)
    end = s.dim(name, s.axis(name))
    dtype = s.random.choice(["", ", dtype=torch.float32", ", dtype=torch.int32"])
    return chosen(s, f"torch.arange({end}{dtype})", f"torch.arange(2, 2 + 3 * {end}, 3{dtype})")


@kind("positions")
def _positions(s: Scene) -> str:
    name = s.floats(2, 3)
    axis = s.random.randrange(s[name].dim())
    shape = ", ".join("-1" if a == axis else "1" for a in range(s[name].dim()))
    return f"{name} + torch.arange({s.dim(name, axis)}).view({shape}) * {s.number(0.1, 0.5)}"


def _shape_text(s: Scene, name: str) -> str:
    return ", ".join(s.dim(name, a) for a in range(s[name].dim()))


for _op, _first in (("zeros", ""), ("ones", ""), ("full", ", 1.5")):
    enter(
        f"aten.{_op}",
        lambda s, op=_op, first=_first: (
            f"torch.{op}(({_shape_text(s, s.anything(1, 2, 3))},){first})"
        ),
    )
    enter(
        f"aten.{_op}_like",
        lambda s, op=_op, first=_first: (
            f"torch.{op}_like({s.anything()}{first and first.replace('1.5', '2')})"
        ),
    )
enter("aten.new_zeros", lambda s: f"{(n := s.floats())}.new_zeros({_shape_text(s, n)})")
enter("aten.new_ones", lambda s: f"{(n := s.floats())}.new_ones({_shape_text(s, n)})")
enter("aten.fill", lambda s: f"torch.fill({s.floats()}, {s.number(-2, 2)})")
enter("aten.scalar_tensor", lambda s: f"{s.floats()} * torch.scalar_tensor({s.number(1, 2)})")


# Views.

for _op in ("alias", "detach", "lift_fresh_copy"):
    enter(f"aten.{_op}", lambda s, op=_op: f"torch.ops.aten.{op}({s.anything()})")
enter("aten.clone", lambda s: f"{s.anything()}.clone()")
enter("aten.contiguous", lambda s: f"{s.anything()}.contiguous()")
enter("aten.dropout", lambda s: f"F.dropout({s.floats()}, 0.3, training=False)")
enter("aten.feature_dropout", lambda s: f"torch.feature_dropout({s.floats(3, 4)}, 0.3, False)")


def _other_shape(s: Scene, name: str) -> str:
    """Neighbouring axes joined, or one split, in a text of extents."""
    rank = s[name].dim()
    dims = [s.dim(name, a) for a in range(rank)]
    choice = s.random.random()
    if choice < 0.5 and rank > 1:
        axis = s.random.randrange(rank - 1)
        joined = dims[axis : axis + 2]
        whole = "-1" if s.random.random() < 0.5 else " * ".join(joined)
        return ", ".join([*dims[:axis], whole, *dims[axis + 2 :]])
    static = [a for a in range(rank) if dims[a].isdigit() and int(dims[a]) % 2 == 0]
    static = [a for a in static if int(dims[a])]
    if not static:
        return ", ".join([*dims[:-1], "-1"])
    axis = s.random.choice(static)
    parts = s.random.choice([["2", str(int(dims[axis]) // 2)], [str(int(dims[axis]) // 2), "2"]])
    return ", ".join([*dims[:axis], *parts, *dims[axis + 1 :]])


enter("aten.reshape", lambda s: f"{(n := s.anything(1, 2, 3, 4))}.reshape({_other_shape(s, n)})")
enter("aten.view", lambda s: f"{(n := s.anything(1, 2, 3, 4))}.view({_other_shape(s, n)})")
enter(
    "aten._unsafe_view",
    lambda s: f"torch.ops.aten._unsafe_view({(n := s.anything(2, 3))}, [{_other_shape(s, n)}])",
)


@kind("aten.flatten")
def _flatten(s: Scene) -> str:
    name = s.anything(1, 2, 3, 4)
    first = s.random.randrange(s[name].dim())
    return f"{name}.flatten({first}, {s.random.randrange(first, s[name].dim())})"


@kind("aten.unflatten")
def _unflatten(s: Scene) -> str:
    name = s.anything(1, 2, 3)
    axis = s.axis(name)
    if s.static(name, axis) % 2:
        raise Unfit
    return f"{name}.unflatten({axis}, {chosen(s, '(2, -1)', '(-1, 2)')})"


enter("aten.unsqueeze", lambda s: f"{(n := s.anything(1, 2, 3))}.unsqueeze({s.axis(n)})")


@kind("aten.squeeze")
def _squeeze(s: Scene) -> str:
    name = s.anything(1, 2, 3, 4)
    axis = s.axis(name)
    first = f"{name}.narrow({axis}, 0, 1)"
    return f"{chosen(s, name, first)}.squeeze({chosen(s, str(axis), str(axis), '')})"


@kind("aten.permute")
def _permute(s: Scene) -> str:
    name = s.anything(2, 3, 4)
    axes = list(range(s[name].dim()))
    s.random.shuffle(axes)
    signed = [a - len(axes) if s.random.random() < 0.3 else a for a in axes]
    return f"{name}.permute({', '.join(map(str, signed))})"


enter(
    "aten.transpose",
    lambda s: f"{(n := s.anything(1, 2, 3, 4))}.transpose({s.axis(n)}, {s.axis(n)})",
)
enter("aten.t", lambda s: f"{s.anything(1, 2)}.t()")
enter("aten.numpy_T", lambda s: f"{s.anything(2, 3)}.T")


@kind("aten.expand")
def _expand(s: Scene) -> str:
    name = s.anything(1, 2, 3)
    axis = s.random.randrange(s[name].dim())
    extents = ["-1"] * s[name].dim()
    extents[axis] = s.random.choice(["3", s.dim(name, axis)])
    front = s.random.choice(["", "2, "])
    return f"{name}.narrow({axis}, 0, 1).expand({front}{', '.join(extents)})"


enter("aten.expand_as", lambda s: f"{(n := s.anything(2, 3))}[:, :1].expand_as({n})")


def _range(s: Scene, name: str, axis: int) -> str:
    """The text of a slice."""
    least = s.least(name, axis)
    start = s.random.choice(["", "", "1", "-1", "-3", str(s.random.randint(0, max(least - 1, 0)))])
    end = s.random.choice(["", "", "-1", "2", str(s.random.randint(0, least)), "100"])
    step = s.random.choice(["", "", "", ":2", ":3"])
    return f"{start}:{end}{step}"


@kind("aten.slice")
def _slice(s: Scene) -> str:
    name = s.anything(1, 2, 3, 4)
    axis = s.random.randrange(s[name].dim())
    if s.random.random() < 0.3:
        return f"{name}[..., {_range(s, name, s[name].dim() - 1)}]"
    return f"{name}[{':, ' * axis}{_range(s, name, axis)}]"


@kind("empty part")
def _empty(s: Scene) -> str:
    name = s.floats(2, 3)
    part = chosen(s, f"{name}[:, :0]", f"{name}[:0]", f"{name}[..., 3:3]")
    axis = s.random.choice((0, 1))
    return chosen(s, part, f"torch.cat([{name}, {name}[:, :0]], 1)", f"{part}.sum({axis})")


@kind("aten.narrow")
def _narrow(s: Scene) -> str:
    name = s.anything(1, 2, 3)
    axis = s.axis(name)
    least = s.least(name, axis)
    start = s.random.randint(0, least)
    return f"{name}.narrow({axis}, {start}, {s.random.randint(0, least - start)})"


@kind("aten.select")
def _select(s: Scene) -> str:
    name = s.anything(1, 2, 3, 4)
    axis = s.axis(name)
    if s.least(name, axis) < 1:
        raise Unfit
    return f"{name}.select({axis}, {s.random.choice((0, -1))})"


@kind("aten.split")
def _split(s: Scene) -> str | Line:
    name = s.anything(1, 2, 3)
    axis = s.axis(name)
    extent = s.static(name, axis)
    size = s.random.randint(1, extent)
    if -(-extent // size) > 4:
        return f"{name}.split({size}, {axis})[{s.random.choice((0, -1))}]"
    return _many(f"{name}.split({size}, {axis})", -(-extent // size))


def _many(text: str, count: int) -> str | Line:
    return f"{text}[0]" if count == 1 else Line(text, count)


@kind("aten.split_with_sizes")
def _split_with_sizes(s: Scene) -> str | Line:
    name = s.anything(1, 2, 3)
    axis = s.axis(name)
    extent = s.static(name, axis)
    first = s.random.randint(0, extent)
    return Line(f"{name}.split([{first}, {extent - first}], {axis})", 2)


@kind("aten.chunk")
def _chunk(s: Scene) -> str | Line:
    name = s.anything(1, 2, 3)
    axis = s.axis(name)
    if s.least(name, axis) < 2:
        raise Unfit
    return chosen(s, f"{name}.chunk(2, {axis})[0]", f"{name}.chunk(3, {axis})[-1]")


@kind("aten.unbind")
def _unbind(s: Scene) -> str | Line:
    name = s.anything(2, 3)
    axis = s.axis(name)
    count = s.static(name, axis)
    return f"{name}.unbind({axis})[-1]" if count > 4 else _many(f"{name}.unbind({axis})", count)


@kind("aten.cat")
def _cat(s: Scene) -> str:
    name = s.anything(1, 2, 3)
    axis = s.axis(name)
    front = ":, " * (axis % s[name].dim())
    other = chosen(s, name, s.beside(name, same=True), f"{name}[{front}1:]", f"{name}[{front}:1]")
    return f"torch.cat([{name}, {other}{chosen(s, '', f', {name}')}], {axis})"


enter(
    "aten.stack",
    lambda s: f"torch.stack([{(n := s.anything(1, 2, 3))}, {s.beside(n, same=True)}], {s.axis(n)})",
)


@kind("aten.pad")
def _pad(s: Scene) -> str:
    name = s.anything(2, 3)
    pads = [str(s.random.choice((0, 1, 2))) for _ in range(s.random.choice((2, 4)))]
    if s.random.random() < 0.1:
        pads[0] = "-1"
    value = s.random.choice(["", ", value=0.5" if s[name].is_floating_point() else ""])
    return f"F.pad({name}, ({', '.join(pads)}){value})"


enter(
    "aten.constant_pad_nd",
    lambda s: f"torch.constant_pad_nd({s.floats(2, 3)}, (1, {chosen(s, '0', '2')}), 0.0)",
)


# Lookups.


def _indices(s: Scene, rows: int, *ranks: int) -> str:
    name = s.pick(lambda t: t.dtype in (torch.int64, torch.int32) and t.dim() in ranks)
    return f"{name}.clamp(0, {rows - 1})"


@kind("aten.embedding")
def _embedding(s: Scene) -> str:
    return f"{s.member(f'nn.Embedding(7, {s.width})')}({_indices(s, 7, 1, 2)})"


@kind("aten.index_select")
def _index_select(s: Scene) -> str:
    if s.random.random() < 0.5:
        return f"{s.parameter(6, s.width)}.index_select(0, {_indices(s, 6, 1)})"
    name = s.floats(2, 3)
    axis = s.random.choice((0, 1))
    return f"{name}.index_select({axis}, torch.arange({s.dim(name, axis)}))"


# Products.


def _last(s: Scene, *ranks: int) -> tuple[str, int]:
    name = s.floats(*ranks)
    return name, s.static(name, -1)


@kind("aten.linear")
def _linear(s: Scene) -> str:
    name, width = _last(s, 1, 2, 3, 4)
    out = s.random.choice((s.width, s.width, 5, 16))
    bias = s.random.choice(["", ", bias=False"])
    return f"{s.member(f'nn.Linear({width}, {out}{bias})')}({name})"


@kind("half")
def _half(s: Scene) -> str:
    """A product, norm or softmax in 16 bits."""
    name, width = _last(s, 2, 3)
    dtype = s.random.choice(_HALF)
    x = f"{name}.to(torch.{dtype})"
    weight = f"{s.parameter(s.width, width)}.to(torch.{dtype})"
    y = s.random.choice(
        (
            f"torch.nn.functional.linear({x}, {weight})",
            f"torch.nn.functional.layer_norm({x}, ({width},))",
            f"torch.softmax({x}, -1)",
            f"torch.nn.functional.gelu({x} @ {weight}.t())",
        )
    )
    return f"{y}{s.random.choice(('', '.float()'))}"


@kind("aten.addmm")
def _addmm(s: Scene) -> str:
    name, width = _last(s, 2)
    out = s.random.choice((s.width, 5))
    weight = s.parameter(width, out)
    scale = s.random.choice(["", "", ", beta=0.5", ", alpha=2"])
    return f"torch.addmm({s.parameter(out)}, {name}, {weight}{scale})"


@kind("aten.matmul")
def _matmul(s: Scene) -> str:
    name, width = _last(s, 1, 2, 3, 4)
    if s.random.random() < 0.6:
        return f"{name} @ {s.parameter(width, s.random.choice((s.width, 5)))}"
    other = s.beside(name)
    return f"{name} @ {other}.transpose(-1, -2)"


enter("aten.mm", lambda s: f"torch.mm({(n := s.floats(2))}, {n}.t())")
enter(
    "aten.bmm",
    lambda s: f"torch.bmm({(n := s.floats(3))}, {s.beside(n, same=True)}.transpose(1, 2))",
)


def _convolved(s: Scene) -> str:
    name = s.floats(3)
    channels = s.static(name, 2)
    groups = s.random.choice((1, 1, 1, channels, 2 if channels % 2 == 0 else 1))
    out = channels if groups > 1 else s.random.choice((channels, 6))
    taps, dilation = s.random.choice((1, 2, 3, 5)), s.random.choice((1, 1, 2))
    stride, padding = s.random.choice((1, 1, 1, 2)), s.random.choice((0, 1, 2))
    bias = s.random.choice(["", ", bias=False"])
    made = s.member(
        f"nn.Conv1d({channels}, {out}, {taps}, {stride}, {padding}, {dilation}, {groups}{bias})"
    )
    front = s.random.randint(0, (taps - 1) * dilation)
    padded = f"F.pad({name}.transpose(1, 2), ({front}, {(taps - 1) * dilation - front}))"
    return f"{made}({chosen(s, padded, f'{name}.transpose(1, 2)')})"


enter("aten.conv1d", lambda s: f"{_convolved(s)}.transpose(1, 2)")


@kind("aten.conv2d")
def _conv2d(s: Scene) -> str:
    name = s.floats(3, 4)
    if s[name].dim() == 3:
        name, channels = f"{name}.unsqueeze(1)", 1
    else:
        channels = s.static(name, 1)
    groups = s.random.choice((1, channels))
    size = s.random.choice(["1", "3", "(3, 1)", "(1, 2)"])
    stride, padding = s.random.choice(["1", "2", "(1, 2)"]), s.random.choice(["0", "1"])
    out = channels if groups > 1 else 4
    made = f"nn.Conv2d({channels}, {out}, {size}, {stride}, {padding}, groups={groups})"
    return f"{s.member(made)}({name})"


@kind("aten.convolution")
def _convolution(s: Scene) -> str:
    name = s.floats(3)
    channels = s.static(name, 2)
    weight = s.parameter(4, channels, 3)
    rest = f"None, [1], [{s.random.choice((0, 1))}], [1], False, [0], 1"
    return f"torch.convolution({name}.transpose(1, 2), {weight}, {rest})"


@kind("aten.layer_norm")
def _layer_norm(s: Scene) -> str:
    name, width = _last(s, 2, 3, 4)
    options = s.random.choice(["", ", 1e-3", ", elementwise_affine=False", ", bias=False"])
    if s[name].dim() == 4 and s.random.random() < 0.3:
        width_ = f"({s.static(name, -2)}, {width})"
        return f"{s.member(f'nn.LayerNorm({width_})')}({name})"
    return f"{s.member(f'nn.LayerNorm({width}{options})')}({name})"


@kind("aten.rms_norm")
def _rms_norm(s: Scene) -> str:
    name, width = _last(s, 2, 3, 4)
    options = s.random.choice(["", ", 1e-3", ", elementwise_affine=False"])
    return f"{s.member(f'nn.RMSNorm({width}{options})')}({name})"


for _op in ("softmax", "log_softmax"):
    enter(f"aten.{_op}", lambda s, op=_op: f"torch.{op}({(n := s.floats())}, {s.axis(n)})")
    enter(
        f"aten._{_op}",
        lambda s, op=_op: f"torch.ops.aten._{op}({(n := s.floats())}, {s.axis(n)}, False)",
    )


def _reduced(s: Scene, op: str, name: str) -> str:
    rank = s[name].dim()
    keep = s.random.choice(["", ", keepdim=True"])
    choice = s.random.random()
    if choice < 0.15 or rank == 0:
        return f"torch.{op}({name})"
    if choice < 0.35 and op not in ("any", "all"):
        axes = s.random.sample(range(rank), s.random.randint(1, rank))
        return f"torch.{op}({name}, ({', '.join(map(str, axes))},){keep})"
    return f"torch.{op}({name}, {s.axis(name)}{keep})"


for _op in ("sum", "mean", "any", "all", "amax", "amin", "max", "min"):
    _dtypes = {"mean": FLOATS, "any": (torch.bool, torch.int64, torch.float32)}.get(
        _op, (*FLOATS, torch.int64, torch.bool)
    )
    if _op == "all":
        _dtypes = (torch.bool, torch.int64, torch.float32)

    def _reduction(s: Scene, op: str = _op, dtypes: tuple[torch.dtype, ...] = _dtypes) -> str:
        name = s.pick(lambda t: t.dtype in dtypes)
        if op in ("max", "min"):
            axis = s.axis(name)
            return chosen(s, f"torch.{op}({name})", f"torch.{op}({name}, {axis}).values")
        return _reduced(s, op, name)

    enter(f"aten.{_op}", _reduction)


@kind("aten.argmax")
def _argmax(s: Scene) -> str:
    name = s.pick(lambda t: t.dtype in (torch.float32, torch.int64) and t.dim() > 0)
    return f"{name}.argmax({s.axis(name)}{chosen(s, '', ', keepdim=True')})"


@kind("aten.scaled_dot_product_attention")
def _sdpa(s: Scene) -> str:
    name = s.floats(3)
    if s.static(name, 2) % 2:
        raise Unfit
    heads = f"{name}.unflatten(2, (2, -1)).transpose(1, 2)"
    keys = heads
    options = s.random.choice(["", ", is_causal=True", ", scale=0.3", "mask", "float mask"])
    if s.random.random() < 0.3:
        keys = f"torch.cat([{heads}, {heads}[:, :, :1]], 2)"
        options = options if "mask" not in options else ""
    if options == "mask":
        mask = f"({name}[:, :, 0] > {s.number(-2, 0.5)})[:, None, None]"
        options = f", {mask}"
    elif options == "float mask":
        options = f", {name}[:, None, None, :, 0] * 0.5"
    value = f"F.scaled_dot_product_attention({heads}, {keys}, {keys}{options})"
    return f"{value}.transpose(1, 2).flatten(2)"


@kind("graphopt.cif")
def _cif(s: Scene) -> Line:
    name = s.floats(3)
    rule = s.random.choice(['"integrate"', '"prefix"'])
    count = s.random.choice(['"floor"', '"round"'])
    weights = f"torch.sigmoid({name}[..., 0])"
    return Line(f"torch.ops.graphopt.cif({name}, {weights}, 1.0, {rule}, {count})", 3)


@kind("aten.item")
def _item(s: Scene) -> str:
    name = s.floats(3)
    lengths = f"torch.full(({name}.shape[0],), {name}.shape[1])"
    count = f"n := {lengths}.max().item()"
    known = f"torch._check(n == {name}.shape[1])"
    return f"(({count}), {known}, {name} * torch.arange(n)[None, :, None])[2]"


# What models do, beside single ops.


@kind("feed forward")
def _feed_forward(s: Scene) -> str:
    name, width = _last(s, 2, 3)
    hidden = s.random.choice((20, 64))
    activation = s.random.choice(["ReLU", "GELU", "SiLU"])
    first, second = f"nn.Linear({width}, {hidden})", f"nn.Linear({hidden}, {width})"
    block = s.member(f"nn.Sequential({first}, nn.{activation}(), {second})")
    return f"{block}({name}){chosen(s, '', f' + {name}')}"


@kind("gated")
def _gated(s: Scene) -> str:
    name, width = _last(s, 2, 3)
    gate, up = s.member(f"nn.Linear({width}, 24, bias=False)"), s.parameter(width, 24)
    return f"F.silu({gate}({name})) * ({name} @ {up})"


@kind("attention")
def _attention(s: Scene) -> str:
    name, width = _last(s, 3)
    if width % 4:
        raise Unfit
    size = width // 2
    made = s.member(f"nn.Linear({width}, {3 * width})")
    heads = f"{made}({name}).unflatten(2, (3, 2, {size})).permute(2, 0, 3, 1, 4)"
    masks = [
        "",
        f".masked_fill(({name}[:, :, 0] > 1)[:, None, None], -1e9)",
        f".masked_fill(torch.ones({name}.shape[1], {name}.shape[1]).triu(1) > 0, float('-inf'))",
    ]
    mask = s.random.choice(masks)
    scores = f"((h := {heads})[0] @ h[1].transpose(-1, -2) * {size**-0.5}){mask}"
    return f"(({scores}).softmax(-1) @ h[2]).transpose(1, 2).reshape({name}.shape)"


@kind("memory block")
def _memory_block(s: Scene) -> str:
    name, width = _last(s, 3)
    taps = s.random.choice((3, 5))
    made = s.member(f"nn.Conv1d({width}, {width}, {taps}, groups={width}, bias=False)")
    masked = f"(u := {name} * ({name}[..., :1] > -1).to(torch.float32))"
    left = s.random.randint(0, taps - 1)
    pad = f"({left}, {taps - 1 - left})"
    return f"{made}(F.pad({masked}.transpose(1, 2), {pad})).transpose(1, 2) + u"


@kind("shift")
def _shift(s: Scene) -> str:
    name = s.anything(2, 3)
    return f"torch.cat([{name}[:, :1], {name}[:, : {name}.shape[1] - 1]], 1)"


@kind("interleave")
def _interleave(s: Scene) -> str:
    name, width = _last(s, 3)
    if width % 2:
        raise Unfit
    other = s.beside(name, same=True)
    return f"torch.stack([{name}[..., ::2], {other}[..., 1::2]], -1).flatten(2)"


@kind("mask by length")
def _mask_by_length(s: Scene) -> str:
    name = s.floats(3)
    lengths = f"({name}[:, 0, 0] > 0).to(torch.int64) + 1"
    mask = f"(torch.arange({name}.shape[1])[None] < ({lengths})[:, None])"
    return chosen(s, f"{name} * {mask}[..., None]", mask)


@kind("rotate")
def _rotate(s: Scene) -> str:
    name, width = _last(s, 3)
    if width % 2:
        raise Unfit
    half = width // 2
    return f"torch.cat([-{name}[..., {half}:], {name}[..., :{half}]], -1)"


@kind("center")
def _center(s: Scene) -> str:
    name = s.floats()
    return f"{name} - {name}.mean({s.axis(name)}, keepdim=True)"


@kind("size in a factor")
def _size(s: Scene) -> str:
    name = s.floats(2, 3)
    return f"{name} * ({name}.shape[{s.axis(name)}] {chosen(s, '+ 1', '* 2', '// 2', '** 2')})"


@kind("left in torch")
def _in_torch(s: Scene) -> str:
    name = s.floats(2, 3)
    axis = s.axis(name)
    texts = (f"torch.cumsum({name}, {axis})", f"torch.flip({name}, ({axis},))")
    return chosen(s, *texts, f"torch.sort({name}, {axis}).values", f"torch.roll({name}, 1, {axis})")


@kind("mixed types")
def _mixed(s: Scene) -> str:
    name = s.pick(lambda t: t.dtype in (*INTEGERS, torch.bool))
    return f"{name} {s.random.choice('+*')} {chosen(s, '1.5', '2', s.floats())}"


# Writes in place: to a value that is no argument, through views of it.


def _own(s: Scene, *ranks: int) -> str:
    """A copy of a value, which may be written to."""
    name = s.floats(*ranks)
    return chosen(s, f"{name}.clone()", f"({name} * 1.5)", f"torch.zeros_like({name})")


@kind("own")
def _own_value(s: Scene) -> str:
    return _own(s)


@kind("write to a part")
def _write_part(s: Scene) -> Line:
    name = s.own(2, 3)
    axis = s.random.randrange(s[name].dim())
    where = s.random.choice([f"{':, ' * axis}{_range(s, name, axis)}", ":, 0", "..., ::2", "0"])
    value = s.random.choice(["0", "1.5", f"{name}[{where}] * 2", f"{s.beside(name)}[{where}]"])
    return Line(f"{name}[{where}] = {value}")


@kind("write through a view")
def _write_view(s: Scene) -> Line:
    name = s.own(2, 3)
    view = s.random.choice(
        [
            f"{name}.view(-1)",
            f"{name}.transpose(0, 1)",
            f"{name}[..., :4]",
            f"{name}[:, 1:]",
            f"{name}.chunk(2, -1)[0]",
            f"{name}.select(1, -1)",
            f"{name}.unsqueeze(1)",
            name,
        ]
    )
    write = s.random.choice(
        [
            "add_(1)",
            "mul_(2)",
            "zero_()",
            "sigmoid_()",
            "fill_(0.5)",
            "clamp_(min=0)",
            "relu_()",
            f"copy_({s.number(-1, 1)} * {view})" if view == name else "neg_()",
            "masked_fill_" + f"({view} > 0, -1.0)",
        ]
    )
    return Line(f"{view}.{write}")


enter("aten.copy", lambda s: f"torch.ops.aten.copy({(n := s.floats())}, {s.beside(n)})")
enter("aten.zero", lambda s: f"torch.ops.aten.zero({s.floats()})")
enter(
    "aten.select_scatter",
    lambda s: f"{(n := s.floats(2, 3))}.select_scatter({n}.select(1, 0) * 2, 1, -1)",
)
enter(
    "aten.slice_scatter",
    lambda s: f"{(n := s.floats(2, 3))}.slice_scatter({n}[:, 1:] * 2, 1, 1)",
)


@kind("aten._native_batch_norm_legit_no_training")
def _batch_norm_alone(s: Scene) -> Line:
    name = s.floats(2, 4)
    size = s.static(name, 1)
    mean, factor = s.parameter(size), s.parameter(size)
    variance = s.member(f"buffer torch.rand({size}) + 0.5")
    operands = f"{name}, {factor}, None, {mean}, {variance}, 0.1, 1e-3"
    return Line(f"torch.ops.aten._native_batch_norm_legit_no_training({operands})", 3)


@kind("augmented")
def _augmented(s: Scene) -> Line:
    name = s.own(2, 3)
    return Line(f"{name} {s.random.choice('+-*')}= {s.beside(name)}")


@kind("ReLU in place")
def _relu_in_place(s: Scene) -> str:
    name, width = _last(s, 2, 3)
    made = s.member(f"nn.Sequential(nn.Linear({width}, {s.width}), nn.ReLU(inplace=True))")
    return f"{made}({name})"
