"""Kinds of steps of a random model: at least one for every lowering rule, and what models do.

A kind takes a `Scene` and returns the text of an expression (or a `Line` that defines several
values, or writes in place). It raises `Unfit` if the scene has no operands for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scene import Scene, Unfit


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
    if s[name].dim() > 1 and s.random.random() < 0.3:
        return f"torch.where(torch.arange({name}.shape[1]) % 2 > 0)[0].sum()"
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

HALF = ("bfloat16", "float16")
_TYPES = ("float32", "float64", *HALF, "int64", "int32", "int16", "int8", "uint8", "bool")


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
enter("aten.empty_like", lambda s: f"torch.empty_like({s.floats()}).fill_(0.5)")
enter("aten.empty", lambda s: f"torch.empty({_shape_text(s, s.anything(1, 2, 3))}).fill_(2)")
enter("aten.new_empty", lambda s: f"{(n := s.floats())}.new_empty({_shape_text(s, n)}).zero_()")
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


def range_of(s: Scene, name: str, axis: int) -> str:
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
        return f"{name}[..., {range_of(s, name, s[name].dim() - 1)}]"
    return f"{name}[{':, ' * axis}{range_of(s, name, axis)}]"


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
