"""Kinds of steps that move elements: views, parts, lookups, padding, resampling."""

from __future__ import annotations

import torch
from lines import Line, chosen, enter, kind
from scene import Scene, Unfit


def _axes(s: Scene, name: str) -> tuple[int, int]:
    """Two axes."""
    rank = s[name].dim()
    if rank < 2:
        raise Unfit
    first, second = s.random.sample(range(rank), 2)
    return first - s.random.choice((0, rank)), second


def _image(s: Scene, axes: int = 2) -> str:
    """A tensor [batch, channels, ...] with so many axes of space."""
    if axes == 1:
        return s.floats(3)
    return f"{s.floats(3)}[{', '.join([':', *['None'] * (axes - 1)])}]"


def _at(s: Scene, extent: str, shape: str = "") -> str:
    """Indices of an axis, from data."""
    name = s.pick(lambda t: t.dtype in (torch.int64, torch.int32) and t.dim() > 0)
    wanted = f".flatten()[:1].expand({shape})" if shape else ""
    return f"({name}.long() % {extent}){wanted}"


# Axes in another order, extents of other forms.

for _op in ("swapaxes", "swapdims", "movedim", "moveaxis"):
    enter(f"aten.{_op}", lambda s, op=_op: f"{(n := s.anything())}.{op}{_axes(s, n)}")
for _op in ("mT", "mH"):
    enter(f"aten.{_op}", lambda s, op=_op: f"{s.anything(2, 3, 4)}.{op}")
enter("aten.adjoint", lambda s: f"{s.anything(2, 3)}.adjoint()")
enter("aten.matrix_H", lambda s: f"{s.anything(2)}.H")
for _op in ("movedim", "moveaxis"):
    enter(
        f"aten.{_op}.intlist",
        lambda s, op=_op: f"{(n := s.anything(2, 3))}.{op}({(p := _axes(s, n))}, {p[::-1]})",
    )
    enter(f"aten.{_op}.int", lambda s, op=_op: f"{(n := s.anything(2, 3))}.{op}{_axes(s, n)}")
for _op in ("view_as", "reshape_as"):
    enter(f"aten.{_op}", lambda s, op=_op: f"{(n := s.floats())}.contiguous().{op}({n} * 2)")
enter("aten.ravel", lambda s: f"{s.anything()}.ravel()")
enter("aten.broadcast_to", lambda s: f"torch.broadcast_to({(n := s.floats())}, (2, *{n}.shape))")
enter(
    "aten.broadcast_tensors",
    lambda s: Line(f"torch.broadcast_tensors({(n := s.floats())}, {s.beside(n)})", 2),
)
for _rank in (1, 2, 3):
    enter(f"aten.atleast_{_rank}d", lambda s, r=_rank: f"torch.atleast_{r}d({s.anything()})")
    enter(
        f"aten.atleast_{_rank}d.Sequence",
        lambda s, r=_rank: Line(f"torch.atleast_{r}d({s.anything()}, {s.anything()})", 2),
    )
_ATEN = "torch.ops.aten"
for _name, _text in {
    "view_copy": "({x}, [-1])",
    "squeeze_copy": "({x}[None, ..., :1])",
    "squeeze_copy.dim": ".dim({x}[None], 0)",
    "squeeze_copy.dims": ".dims({x}[None, None], [0, 1])",
    "unsqueeze_copy": "({x}, -1)",
    "permute_copy": "({x}, list(range({x}.dim()))[::-1])",
    "transpose_copy": "({x}, 0, -1)",
    "t_copy": "({x}.reshape(1, -1))",
    "expand_copy": "({x}, [2, *{x}.shape])",
    "alias_copy": "({x})",
    "detach_copy": "({x})",
    "slice_copy": "({x}, 0, 1)",
    "select_copy": "({x}, -1, 0)",
    "narrow_copy": "({x}, 0, 0, 1)",
    "unfold_copy": "({x}, 0, 1, 2)",
}.items():
    _call = f"{_ATEN}.{_name.partition('.')[0]}{_text}"
    enter(f"aten.{_name}", lambda s, t=_call: t.format(x=s.anything(1, 2, 3)))
enter("aten.diagonal_copy", lambda s: f"{_ATEN}.diagonal_copy({s.anything(2, 3)}, 1)")
enter("aten.split_copy", lambda s: f"{_ATEN}.split_copy({s.anything(1, 2)}, 2)[0]")
enter(
    "aten.split_with_sizes_copy",
    lambda s: f"{_ATEN}.split_with_sizes_copy({(n := s.floats())}, [1, {n}.shape[0] - 1])[1]",
)
enter("aten.unbind_copy", lambda s: f"{_ATEN}.unbind_copy({s.anything(1, 2, 3)})[0]")
for _op in ("concat", "concatenate", "hstack", "vstack", "dstack", "column_stack"):
    enter(f"aten.{_op}", lambda s, op=_op: f"torch.{op}([{(n := s.anything(1, 2, 3))}, {n}])")
enter("aten.row_stack", lambda s: f"torch.row_stack([{(n := s.floats(1, 2))}, {n}])")
enter("aten.block_diag", lambda s: f"torch.block_diag({s.floats(1, 2)}, {s.floats(1, 2)})")


# Parts.


@kind("aten.tensor_split")
def _tensor_split(s: Scene) -> str:
    name = s.anything(1, 2, 3)
    return f"{name}.tensor_split({chosen(s, '2', '3', '(1, -1)', '(2, 1)')}, {s.axis(name)})[-1]"


for _op, _ranks in {"hsplit": (1, 2, 3), "vsplit": (2, 3), "dsplit": (3,)}.items():
    enter(
        f"aten.{_op}",
        lambda s, op=_op, ranks=_ranks: (
            f"{s.anything(*ranks)}.{op}({chosen(s, '1', '2', '[1]', '[1, -1]')})[0]"
        ),
    )
enter("aten.unsafe_chunk", lambda s: f"{s.anything(1, 2, 3)}.unsafe_chunk(2)[0]")
enter("aten.unsafe_split", lambda s: f"{_ATEN}.unsafe_split({s.anything(1, 2, 3)}, 2)[0]")
enter(
    "aten.unsafe_split_with_sizes",
    lambda s: f"{_ATEN}.unsafe_split_with_sizes({(n := s.floats())}, [1, {n}.shape[0] - 1])[1]",
)


@kind("a slice of either sign")
def _either(s: Scene) -> str:
    name, other = s.anything(1, 2, 3), s.anything(1, 2, 3)
    return f"{name}[{other}.shape[0] - {name}.shape[0] :{chosen(s, '', ':2')}]"


@kind("a part replaced")
def _replaced(s: Scene) -> str:
    name = s.floats(2, 3)
    axis, step = s.random.choice((0, 1)), s.random.choice((2, 3))
    front = ":, " * axis
    return f"{name}.slice_scatter({name}[{front}::{step}] * 2, {axis}, 0, None, {step})"


@kind("aten.diagonal_scatter")
def _diagonal_scatter(s: Scene) -> str:
    name, offset = s.floats(2, 3), s.random.choice((-1, 0, 1))
    return f"{name}.diagonal_scatter({name}.diagonal({offset}) * 2, {offset})"


# Other orders.


@kind("aten.flip")
def _flip(s: Scene) -> str:
    name = s.anything(1, 2, 3)
    return f"{name}.flip({chosen(s, str(s.axis(name)), '0, -1' if s[name].dim() > 1 else '0')})"


enter("aten.fliplr", lambda s: f"{s.anything(2, 3)}.fliplr()")
enter("aten.flipud", lambda s: f"{s.anything(1, 2, 3)}.flipud()")
enter("aten.roll", lambda s: f"{(n := s.anything())}.roll({chosen(s, '1', '-7')}, {s.axis(n)})")
enter(
    "aten.rot90", lambda s: f"{(n := s.anything())}.rot90({s.random.randint(0, 5)}, {_axes(s, n)})"
)
enter(
    "aten.repeat", lambda s: f"{(n := s.anything(1, 2))}.repeat(2, {', '.join('13'[: s[n].dim()])})"
)
enter("aten.tile", lambda s: f"{s.anything(1, 2, 3)}.tile({chosen(s, '2', '1, 2')})")
enter(
    "aten.repeat_interleave",
    lambda s: f"{(n := s.anything())}.repeat_interleave(2, {chosen(s, str(s.axis(n)), 'None')})",
)
for _op in ("tril", "triu"):
    enter(f"aten.{_op}", lambda s, op=_op: f"{s.anything(2, 3)}.{op}({chosen(s, '0', '1', '-1')})")
enter("aten.eye", lambda s: f"torch.eye({s.anything(1, 2, 3)}.shape[0])")
enter("aten.eye.m", lambda s: f"torch.eye(3, {s.anything(1, 2, 3)}.shape[0])")
for _op in ("diagonal", "diag_embed", "diagflat"):
    enter(f"aten.{_op}", lambda s, op=_op: f"{s.anything(2, 3)}.{op}({chosen(s, '0', '1', '-1')})")
enter("aten.diag", lambda s: f"{s.anything(1, 2)}.diag({chosen(s, '0', '1', '-1')})")
enter("aten.linalg_diagonal", lambda s: f"torch.linalg.diagonal({s.floats(2, 3)}, offset=-1)")
enter("aten.unfold", lambda s: f"{s.anything(1, 2, 3)}.unfold(-1, {chosen(s, '1', '2', '3')}, 2)")


@kind("aten.im2col")
def _im2col(s: Scene) -> str:
    options = f"({s.random.choice((1, 2))}, 2), 1, 1, {chosen(s, '1', '(1, 2)')}"
    return f"F.unfold({_image(s)}, {options})"


@kind("aten.col2im")
def _col2im(s: Scene) -> str:
    """The windows of an image, one after the other or over each other, put together again."""
    image, stride = _image(s), s.random.choice((1, 2))
    windows = f"{(2, s.random.choice((1, 2)))}, 1, 1, {stride}"
    return f"F.fold(F.unfold(u := {image}, {windows}), u.shape[2:], {windows})"


def _even(s: Scene) -> str:
    """An image whose channels are a multiple of 4."""
    name = s.floats(3)
    if s.static(name, 2) % 4:
        raise Unfit
    return f"{name}.transpose(1, 2)[..., None]"


enter("aten.pixel_shuffle", lambda s: f"F.pixel_shuffle({_even(s)}, 2)")
enter("aten.pixel_unshuffle", lambda s: f"F.pixel_unshuffle({_even(s)}.expand(-1, -1, 2, 4), 2)")
enter("aten.channel_shuffle", lambda s: f"F.channel_shuffle({_even(s)}, 4)")
for _op in ("outer", "ger"):
    enter(f"aten.{_op}", lambda s, op=_op: f"torch.{op}({s.floats(1)}, {s.floats(1)})")
enter("aten.kron", lambda s: f"torch.kron({s.floats(1, 2)}, {s.floats(1, 2)})")
enter("aten.cartesian_prod", lambda s: f"torch.cartesian_prod({s.floats(1)}, {s.floats(1)})")
_ORDERS = ('indexing="ij"', 'indexing="xy"')
enter(
    "aten.meshgrid.indexing",
    lambda s: Line(f"torch.meshgrid({s.floats(1)}, {s.floats(1)}, {chosen(s, *_ORDERS)})", 2),
)
enter("aten.meshgrid", lambda s: Line(f"{_ATEN}.meshgrid([{s.floats(1)}, {s.floats(1)}])", 2))


# Lookups.


@kind("aten.index")
def _index(s: Scene) -> str:
    name = s.anything(2, 3)
    at = [_at(s, f"{name}.shape[{axis}]") for axis in range(2)]
    back = chosen(s, "", f" - {name}.shape[1]")
    rows = f"torch.arange({name}.shape[0])[:, None]"
    return chosen(
        s,
        f"{name}[{at[0]}]",
        f"{name}[:, {at[1]}{back}]",
        f"{name}[{rows}, torch.arange({name}.shape[1])]",
        f"{name}[{rows}, ({at[1]}).flatten()[:1]]",
    )


enter(
    "aten.gather",
    lambda s: f"{(n := s.floats(2, 3))}.gather(1, {_at(s, f'{n}.shape[1]', f'{n}.shape')})",
)
enter("aten.take", lambda s: f"{(n := s.floats())}.take({_at(s, f'{n}.numel()')})")
enter(
    "aten.take_along_dim",
    lambda s: f"{(n := s.floats(2, 3))}.take_along_dim({_at(s, f'{n}.shape[0]', f'{n}.shape')}, 0)",
)
enter("aten.one_hot", lambda s: f"F.one_hot({_at(s, '4')}, {chosen(s, '4', '7')})")


# Padding.


@kind("padding by its own")
def _own(s: Scene) -> str:
    name, mode = s.floats(3), chosen(s, "reflect", "replicate", "circular")
    return f'F.pad({name}, ({s.random.choice((0, 1, 2))}, 1), mode="{mode}")'


for _op in ("reflection", "replication"):
    for _count in (1, 2, 3):
        _pads = f"{[1, 0, 0, 0, 0, 0][: 2 * _count]}"
        _call = f"{_ATEN}.{_op}_pad{_count}d({{}}, {_pads})"
        enter(
            f"aten.{_op}_pad{_count}d",
            lambda s, t=_call, n=_count: t.format(_image(s, n)),
        )
enter("aten._pad_circular", lambda s: f"{_ATEN}._pad_circular({s.floats(3)}, [1, 2])")
enter(
    "aten.pad_sequence",
    lambda s: (
        f"torch.nn.utils.rnn.pad_sequence([{(n := s.floats(2))}, {n}[:1]], "
        f"{chosen(s, 'True', 'False')}, 0.5)"
    ),
)


# Resampling.


def _sizes(axes: int) -> str:
    return f"[{', '.join('576'[:axes])}]"


for _op, _counts in {
    "upsample_nearest": (1, 2, 3),
    "_upsample_nearest_exact": (1, 2, 3),
    "upsample_linear": (1,),
    "upsample_bilinear": (2,),
    "upsample_trilinear": (3,),
    "upsample_bicubic": (2,),
}.items():
    for _count in _counts:
        _align = "False, " if "nearest" not in _op else ""
        _call = f"{_ATEN}.{_op}{_count}d"
        enter(
            f"aten.{_op}{_count}d.vec",
            lambda s, op=_call, n=_count, align=_align: (
                f"{op}.vec({_image(s, n)}, "
                f"{chosen(s, f'{_sizes(n)}, {align}None', f'None, {align}{[1.5, 2.0, 0.5][:n]}')})"
            ),
        )
        enter(
            f"aten.{_op}{_count}d",
            lambda s, op=_call, n=_count, align=_align[:-2]: (
                f"{op}({', '.join(filter(None, (_image(s, n), _sizes(n), align)))})"
            ),
        )


def _grid(s: Scene, axes: int) -> str:
    """An image, points in it, and how it is sampled."""
    image, between = _image(s, axes), ", ".join("234"[:axes])
    points = s.member(f"nn.Parameter(torch.rand(1, {between}, {axes}) - 0.5)")
    options = f"{s.random.choice((0, 1))}, {s.random.choice((0, 1, 2))}, False"
    return f"{image}, {points}.expand({image}.shape[0], *[-1] * {axes + 1}), {options}"


enter("aten.grid_sampler", lambda s: f"torch.grid_sampler({_grid(s, 2)})")
for _count in (2, 3):
    enter(
        f"aten.grid_sampler_{_count}d",
        lambda s, n=_count: f"{_ATEN}.grid_sampler_{n}d({_grid(s, n)})",
    )
enter(
    "aten.affine_grid_generator",
    lambda s: (
        f"torch.affine_grid_generator({s.parameter(2, 2, 3)}, [2, 1, 3, 4], "
        f"{chosen(s, 'True', 'False')})"
    ),
)
