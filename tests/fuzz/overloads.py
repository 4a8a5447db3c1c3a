"""Kinds of steps for the overloads of ops that the lines of models seldom reach, by overload."""

from __future__ import annotations

import contractions  # noqa: F401  enters its kinds
import habits  # noqa: F401
import layers  # noqa: F401
import moves  # noqa: F401
import torch
from lines import Line, chosen, enter, is_number, kind
from reductions import KINDS
from scene import Scene, Unfit

__all__ = ["KINDS"]


def _number(s: Scene, name: str) -> str:
    whole = not s[name].is_floating_point()
    return str(s.random.randint(1, 3)) if whole else s.number(-2, 2)


def _of_number(op: str, rest: tuple[str, ...] = ("",)) -> None:
    """Arithmetic with a number that is no tensor on the way."""

    def make(s: Scene) -> str:
        name = s.pick(is_number)
        return f"torch.ops.aten.{op}({name}, {_number(s, name)}{chosen(s, *rest)})"

    enter(f"aten.{op}", make)


for _op in ("add", "sub", "rsub"):
    _of_number(f"{_op}.Scalar", ("", ", 2"))
for _op in ("mul", "div", "true_divide"):
    _of_number(f"{_op}.Scalar")
_MODES = [f", rounding_mode={mode}" for mode in ('"floor"', '"trunc"', "None")]
_of_number("div.Scalar_mode", tuple(_MODES))


def _of_bool(op: str) -> None:
    def make(s: Scene) -> str:
        name = s.pick(lambda t: t.dtype is torch.bool)
        return f"torch.ops.aten.{op}({name}, {chosen(s, 'True', 'False')})"

    enter(f"aten.{op}", make)


for _op in ("bitwise_and", "bitwise_or", "__and__", "__or__"):
    _of_bool(f"{_op}.Scalar")

enter("aten.where.ScalarSelf", lambda s: f"torch.where({s.bools()}, 1.5, {s.floats()})")
enter("aten.where.Scalar", lambda s: f"torch.where({s.bools()}, {chosen(s, '1.5', '2')}, 0.5)")


def _of_all(s: Scene, name: str) -> str:
    """A tensor without axes of the same type."""
    if not all(s.at(name, size).numel() for size in range(len(s.sizes))):
        raise Unfit
    return f"{name}.amax()"


@kind("aten.masked_fill.Tensor")
def _masked_fill(s: Scene) -> str:
    name = s.floats()
    return f"{name}.masked_fill({name} > {s.number(-1, 1)}, {_of_all(s, name)})"


enter("aten.fill.Tensor", lambda s: f"torch.fill({(n := s.floats())}, {_of_all(s, n)})")


@kind("aten.clamp.Tensor")
def _clamp(s: Scene) -> str:
    name = s.pick(is_number)
    low, high = s.beside(name), s.beside(name)
    return f"torch.clamp({name}, {chosen(s, low, 'None')}, {high})"


for _op in ("clamp_min.Tensor", "clamp_max.Tensor", "max.other", "min.other"):
    enter(
        f"aten.{_op}",
        lambda s, op=_op: (
            f"torch.{op.partition('.')[0]}({(n := s.pick(is_number))}, {s.beside(n)})"
        ),
    )


@kind("aten.to.device", "aten.to.dtype_layout", "aten.to.other")
def _to(s: Scene) -> str:
    name = s.pick(lambda t: t.dtype is not torch.float64)
    return chosen(
        s,
        f'torch.ops.aten.to.device({name}, "cpu", torch.bfloat16)',
        f"torch.ops.aten.to.dtype_layout({name}, dtype=torch.bfloat16)",
        f"torch.ops.aten.to.other({name}, {s.floats()}.to(torch.bfloat16))",
    )


enter("aten.arange.start", lambda s: f"torch.arange(2, 2 + {s.dim(s.anything(1, 2), 0)})")


@kind("aten.squeeze.dims")
def _squeeze(s: Scene) -> str:
    name = s.anything(2, 3, 4)
    axis = s.axis(name)
    return f"{name}.narrow({axis}, 0, 1).squeeze(({axis}, {(axis + 1) % s[name].dim()}))"


@kind("aten.split.sizes")
def _split(s: Scene) -> Line:
    name = s.anything(1, 2, 3)
    axis = s.axis(name)
    extent = s.static(name, axis)
    first = s.random.randint(0, extent)
    return Line(f"torch.ops.aten.split.sizes({name}, [{first}, {extent - first}], {axis})", 2)


@kind("aten.conv1d.padding")
def _conv1d(s: Scene) -> str:
    name = s.floats(3)
    channels, padding = s.static(name, 2), s.random.choice(["same", "valid"])
    made = s.member(f'nn.Conv1d({channels}, {channels}, 3, padding="{padding}")')
    return f"{made}({name}.transpose(1, 2)).transpose(1, 2)"


@kind("aten.conv2d.padding")
def _conv2d(s: Scene) -> str:
    name, padding = s.floats(3), s.random.choice(["same", "valid"])
    made = s.member(f'nn.Conv2d(1, 4, (1, 3), padding="{padding}")')
    return f"{made}({name}.unsqueeze(1))"


for _op in ("any", "all"):
    enter(
        f"aten.{_op}.dims",
        lambda s, op=_op: f"torch.{op}({s.anything(2, 3)} > 0, (0, {chosen(s, '1', '-1')}))",
    )


def _some(s: Scene, name: str) -> str:
    """Some of the second axis of a value, the same ones whatever numbers are rounded to."""
    return f"(torch.arange({name}.shape[1]) % {s.random.choice((1, 2, 3))} > 0)"


# What data decide the size of is folded at once: others could not stand beside it.
enter(
    "aten.masked_select",
    lambda s: f"{(n := s.floats(3))}.masked_select({_some(s, n)}[:, None]).sum()",
)
enter(
    "aten.nonzero",
    lambda s: f"{_some(s, s.floats(2, 3))}.nonzero().sum({chosen(s, '0', '1')}).sum()",
)
enter("aten.nonzero_numpy", lambda s: f"{_some(s, s.floats(2, 3))}.nonzero(as_tuple=True)[0].sum()")
enter(
    "aten.nonzero_static",
    lambda s: f"torch.nonzero_static({_some(s, s.floats(2, 3))}, size={chosen(s, '3', '9')})",
)
