"""Kinds of steps of a random model that sum over an axis: GEMMs, norms, reductions, attention."""

from __future__ import annotations

import torch
from lines import HALF, Line, chosen, enter, kind
from scene import FLOATS, Scene, Unfit

from graphopt.funasr.layers import cif  # noqa: F401  registers the op


def last(s: Scene, *ranks: int) -> tuple[str, int]:
    name = s.floats(*ranks)
    return name, s.static(name, -1)


@kind("aten.linear")
def _linear(s: Scene) -> str:
    name, width = last(s, 1, 2, 3, 4)
    out = s.random.choice((s.width, s.width, 5, 16))
    bias = s.random.choice(["", ", bias=False"])
    return f"{s.member(f'nn.Linear({width}, {out}{bias})')}({name})"


@kind("half")
def _half(s: Scene) -> str:
    """A product, norm or softmax in 16 bits."""
    name, width = last(s, 2, 3)
    dtype = s.random.choice(HALF)
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
    name, width = last(s, 2)
    out = s.random.choice((s.width, 5))
    weight = s.parameter(width, out)
    scale = s.random.choice(["", "", ", beta=0.5", ", alpha=2"])
    return f"torch.addmm({s.parameter(out)}, {name}, {weight}{scale})"


@kind("aten.matmul")
def _matmul(s: Scene) -> str:
    name, width = last(s, 1, 2, 3, 4)
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
    name, width = last(s, 2, 3, 4)
    options = s.random.choice(["", ", 1e-3", ", elementwise_affine=False", ", bias=False"])
    if s[name].dim() == 4 and s.random.random() < 0.3:
        width_ = f"({s.static(name, -2)}, {width})"
        return f"{s.member(f'nn.LayerNorm({width_})')}({name})"
    return f"{s.member(f'nn.LayerNorm({width}{options})')}({name})"


@kind("aten.rms_norm")
def _rms_norm(s: Scene) -> str:
    name, width = last(s, 2, 3, 4)
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
