"""Kinds of steps of a random model that are several ops, as models have them; writes in place."""

from __future__ import annotations

import torch
from contractions import last
from lines import Line, chosen, enter, kind, range_of
from scene import INTEGERS, Scene, Unfit


@kind("feed forward")
def _feed_forward(s: Scene) -> str:
    name, width = last(s, 2, 3)
    hidden = s.random.choice((20, 64))
    activation = s.random.choice(["ReLU", "GELU", "SiLU"])
    first, second = f"nn.Linear({width}, {hidden})", f"nn.Linear({hidden}, {width})"
    block = s.member(f"nn.Sequential({first}, nn.{activation}(), {second})")
    return f"{block}({name}){chosen(s, '', f' + {name}')}"


@kind("residual block")
def _residual_block(s: Scene) -> str:
    """A convolution over one axis or two, finished in all the ways that nets have."""
    name, width = last(s, 3)
    axes, groups = s.random.choice((1, 2)), s.random.choice((1, 1, 1, 2, width))
    if width % groups:
        raise Unfit
    taps, bias = s.random.choice((1, 3, 5)), s.random.choice((True, False))
    reach = f"padding={taps // 2}, groups={groups}, bias={bias}"
    layers = [f"nn.Conv{axes}d({width}, {width}, {taps}, {reach})"]
    layers += [f"nn.BatchNorm{axes}d({width})"] * s.random.choice((0, 1))
    acts = ("nn.ReLU()", "nn.LeakyReLU(0.3)", "nn.SiLU()", "nn.ReLU6()", "nn.Hardswish()")
    layers += s.random.sample(acts, s.random.choice((0, 1)))
    x = f"{name}.transpose(1, 2){'[..., None]' if axes == 2 else ''}"
    y = f"{s.member(f'nn.Sequential({chr(44).join(layers)})')}(u := {x})"
    y += s.random.choice(("", " * u", " + u", " + u", " + u + u.sigmoid()"))
    y = f"{s.random.choice(acts)}({y})" if s.random.random() < 0.6 else f"({y})"
    return f"{y}{'[..., 0]' if axes == 2 else ''}.transpose(1, 2)"


@kind("gated")
def _gated(s: Scene) -> str:
    name, width = last(s, 2, 3)
    gate, up = s.member(f"nn.Linear({width}, 24, bias=False)"), s.parameter(width, 24)
    return f"F.silu({gate}({name})) * ({name} @ {up})"


@kind("attention")
def _attention(s: Scene) -> str:
    name, width = last(s, 3)
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
    name, width = last(s, 3)
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
    name, width = last(s, 3)
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
    name, width = last(s, 3)
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
    where = s.random.choice([f"{':, ' * axis}{range_of(s, name, axis)}", ":, 0", "..., ::2", "0"])
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
    name, width = last(s, 2, 3)
    made = s.member(f"nn.Sequential(nn.Linear({width}, {s.width}), nn.ReLU(inplace=True))")
    return f"{made}({name})"
