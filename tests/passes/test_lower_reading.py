"""Rules that give axes another order and elements other places: each overload against torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from captured import arrays, captured, lowered  # noqa: E402
from graphs import assert_close, check_native  # noqa: E402

from graphopt.errors import InputValueError  # noqa: E402
from graphopt.ir import DType  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.ir.ops import Aten  # noqa: E402
from graphopt.ir.verify import verify  # noqa: E402
from graphopt.passes.eliminate_dead_code import EliminateDeadCode  # noqa: E402
from graphopt.passes.fuse_pointwise import FusePointwise  # noqa: E402
from graphopt.passes.lower_aten import LowerAten  # noqa: E402
from graphopt.passes.lowering import (  # noqa: E402
    indexing,
    padding,
    parts,
    rearranging,
    resampling,
    views,
)
from graphopt.passes.lowering.schema import overload  # noqa: E402
from graphopt.passes.simplify_loads import SimplifyLoads  # noqa: E402
from graphopt.passes.simplify_views import SimplifyViews  # noqa: E402
from graphopt.testing import BF16_RELATIVE, FP32_RELATIVE  # noqa: E402

aten = torch.ops.aten
_random = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Any:
    return torch.randn(*shape, generator=_random)


def below(end: int, *shape: int) -> Any:
    return torch.randint(0, end, shape, generator=_random)


def written(x: Any, write: Callable[[Any], Any]) -> Any:
    """Twice x after a write in place to it or to a view of it."""
    y = x * 2
    write(y)
    return y


X, Y = randn(2, 3, 4), randn(2, 3, 4)
NUMBERS = torch.arange(-6, 18).reshape(2, 3, 4)
WORDS = torch.tensor([[1, 3, 2], [0, 0, 6]])
IMAGE, SQUARE = randn(2, 4, 6, 5), randn(3, 3)
ROW, VOLUME = randn(5), randn(1, 2, 3, 4, 2)
SOME, MANY, BACK = torch.tensor([1, 0, 1]), below(3, 2, 3, 4), torch.tensor([-1, 2, -3])
Case = tuple[Callable[..., Any], tuple[Any, ...]]


def _sampled(image: Any, grid: Any) -> list[Any]:
    """An image at points: each mode and each padding, with corners and without."""
    modes = ("bilinear", "nearest", *(["bicubic"] if image.dim() == 4 else []))
    paddings = ("zeros", "border", "reflection")
    return [
        F.grid_sample(image, grid, mode, padding, (i + j) % 2 == 0)
        for i, mode in enumerate(modes)
        for j, padding in enumerate(paddings)
    ]


CASES: dict[str, Case] = {
    "alias": (lambda x: aten.alias(x) * 2, (X,)),
    "clone": (lambda x: x.clone() * 2, (X,)),
    "contiguous": (lambda x: x.transpose(1, 2).contiguous(), (X,)),
    "detach": (lambda x: aten.detach(x) * 2, (X,)),
    "lift_fresh_copy": (lambda x: aten.lift_fresh_copy(x) * 2, (X,)),
    "dropout": (lambda x: F.dropout(x, 0.5, False) * 2, (X,)),
    "feature_dropout": (lambda x: aten.feature_dropout(x, 0.5, False) * 2, (X,)),
    "view": (lambda x: x.view(2, 12), (X,)),
    "reshape": (lambda x: x.transpose(1, 2).reshape(2, 12), (X,)),
    "_unsafe_view": (lambda x: aten._unsafe_view(x, [2, 12]), (X,)),
    "flatten": (lambda x: x.flatten(1), (X,)),
    "unflatten": (lambda x: x.unflatten(2, (2, 2)), (X,)),
    "unsqueeze": (lambda x: x.unsqueeze(-1), (X,)),
    "squeeze": (lambda x: x.unsqueeze(1).squeeze(1), (X,)),
    "permute": (lambda x: x.permute(2, 0, -2), (X,)),
    "transpose": (lambda x: x.transpose(-1, 0), (X,)),
    "t": (lambda x: aten.t(x), (X[0],)),
    "numpy_T": (lambda x: (x.T, aten.numpy_T(x[None])), (X[0],)),
    "expand": (lambda x: x[:, :1].expand(-1, 5, 4) * 2, (X,)),
    "expand_as": (lambda x, y: x[:, :1].expand_as(y) * 2, (X, Y)),
    "select_scatter": (lambda x: written(x, lambda y: y[:, 1].add_(1)), (X,)),
    "slice_scatter": (
        lambda x: (
            written(x, lambda y: y[:, 1:].exp_()),
            written(x, lambda y: y[..., -3:-1].mul_(3)),
            written(torch.ones(3, 4), lambda y: y[:, 1::2].add_(x[0, 0, 0])),
            written(torch.ones(2, 12), lambda y: y.view(2, 2, 6)[:, 1, ::3].sub_(x[0, 0, 0])),
            written(x[:, :0], lambda y: y[:, 1:].mul_(3)),
        ),
        (X,),
    ),
    "slice": (lambda x: (x[:, 1:], x[:, ::2], x[..., -3:-1]), (X,)),
    "narrow": (lambda x: x.narrow(2, 1, 2), (X,)),
    "select": (lambda x: (x[:, 1], x[..., -1]), (X,)),
    "split": (lambda x: x.split(3, 2), (X,)),
    "split_with_sizes": (lambda x: x.split([1, 3], 2), (X,)),
    "chunk": (lambda x: x.chunk(2, -1), (X,)),
    "unbind": (lambda x: x.unbind(2), (X,)),
    "cat": (
        lambda x, n: (torch.cat([x, n, x, torch.ones(0)], 1), torch.cat([x, x[:, :0]], 1)),
        (X, NUMBERS),
    ),
    "stack": (lambda x, n: torch.stack([x, n, n[:, :, :] > 2], -1), (X, NUMBERS)),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 0), value=-1.5), (X,)),
    "constant_pad_nd": (lambda x: aten.constant_pad_nd(x, [0, 1]), (X,)),
    "embedding": (lambda words, table: F.embedding(words, table), (WORDS, randn(7, 4))),
    "index_select": (lambda t, i: t.index_select(0, i), (randn(7, 4), WORDS[0])),
    "transposes": (
        lambda x, m: (
            [x.mT, x.mH, x.adjoint(), m.H, x.swapaxes(0, -1), x.swapdims(0, 1)],
            [x.movedim(0, 1), x.movedim((2, 0), (0, -1)), x.moveaxis(-1, 0)],
            [x.moveaxis((0, 1), (1, 0)), x.permute(1, 0, 2)],
        ),
        (X, SQUARE),
    ),
    "in other shapes": (
        lambda x, m: (
            [x.view_as(m), x.reshape_as(m), x.ravel(), torch.broadcast_to(m, (2, *m.shape))],
            [*torch.broadcast_tensors(m, m[0]), *torch.atleast_1d(m, m[0, 0, 0])],
            [aten.squeeze(x[:1]), x[:1, :1].squeeze((0, 1)), *aten.split.sizes(x, [1, 3], 2)],
            [torch.atleast_1d(m[0, 0, 0]), torch.atleast_2d(m[0, 0]), torch.atleast_3d(m[0])],
            [*torch.atleast_2d(m, m[0, 0]), *torch.atleast_3d(m, m[0, 0], m[0])],
        ),
        (X, Y),
    ),
    "copies": (
        lambda x: (
            [aten.view_copy(x, [2, 12]), aten.squeeze_copy(x[:1]), aten.squeeze_copy(x[:1], 0)],
            [aten.squeeze_copy(x[:1], [0, 1]), aten.unsqueeze_copy(x, 1), aten.alias_copy(x)],
            [aten.permute_copy(x, [1, 0, 2]), aten.transpose_copy(x, 1, 2), aten.t_copy(x[0])],
            [aten.expand_copy(x[:1], [2, 3, 4]), aten.detach_copy(x), aten.slice_copy(x, 1, 1)],
            [aten.select_copy(x, 1, 0), aten.narrow_copy(x, 1, 0, 2), aten.diagonal_copy(x[0])],
            [*aten.split_copy(x, 2, 2), *aten.split_with_sizes_copy(x, [1, 3], 2)],
            [*aten.unbind_copy(x, 2), aten.unfold_copy(x, 2, 2, 1)],
        ),
        (X,),
    ),
    "side by side": (
        lambda x, m: (
            [torch.hstack([x, x]), torch.hstack([m[0], m[1]]), torch.vstack([m[0], m])],
            [torch.dstack([m, m]), torch.dstack([m[0], m[1]]), torch.column_stack([m[0], m])],
            [torch.concat([x, x]), torch.concatenate([x, x], 1), torch.row_stack([m, m])],
            torch.block_diag(m, m[0], x[0], m[0, 0]),
        ),
        (X, SQUARE),
    ),
    "parts": (
        lambda x: (
            [x.tensor_split(2, 2), x.tensor_split((1, -1), 2), x.tensor_split((3, 1), 2)],
            [x.hsplit(3), x.vsplit(2), x.dsplit(2), x.hsplit([1]), x.vsplit([1]), x.dsplit([1, 3])],
            [x[0, 0].hsplit(2), x.unsafe_chunk(2, 2), aten.unsafe_split(x, 3, 2)],
            aten.unsafe_split_with_sizes(x, [1, 3], 2),
        ),
        (X,),
    ),
    "slices whose ends sizes say": (
        lambda x, n: (
            [x[:, x.shape[1] - 2 :], x[:, : n.shape[0]], x[:, n.shape[0] - x.shape[1] :]],
            [x[:, -n.shape[0] :], x[:, -n.shape[0]], x[:, n.shape[0] - x.shape[1]]],
            x.narrow(1, n.shape[0] - x.shape[1], 1),
        ),
        (X, randn(2)),
    ),
    "with a part replaced": (
        lambda x, n, m: (
            torch.slice_scatter(x, x[:, :2], 1, 0, 3, 2),
            torch.slice_scatter(x, x[:, :1], 1, n.shape[0] - x.shape[1]),
            torch.select_scatter(x, x[:, 0] + 1, 1, n.shape[0] - x.shape[1]),
            [torch.diagonal_scatter(m, m[0]), torch.diagonal_scatter(m, m[0, :2], -1)],
            torch.diagonal_scatter(x, x.diagonal(1, 0, 2) * 2, 1, 0, 2),
        ),
        (X, randn(2), SQUARE),
    ),
    "flips and rolls": (
        lambda x: (
            [x.flip(1), x.flip(0, -1), x.flip(()), x.fliplr(), x.flipud()],
            [x.roll(1, 2), x.roll((1, -5), (0, 1)), x.roll(3), x.roll(x.shape[1] - 1, 2)],
            [x.rot90(turns, (1, 2)) for turns in range(-1, 4)],
        ),
        (X,),
    ),
    "repeats": (
        lambda x: (
            [x.repeat(2, 1, 3, 1), x.repeat(x.shape[1], 1, 1), x.tile(2), x.tile(2, 1, 1, 2)],
            [x.repeat_interleave(2, 1), x.repeat_interleave(2), x.repeat_interleave(x.shape[1], 0)],
        ),
        (X,),
    ),
    "diagonals": (
        lambda x, m, row, n: (
            [m.diag(), row.diag(1), row.diag(-1), m.diagonal(1), x.diagonal(-1, 0, 2)],
            [torch.diag_embed(x), torch.diag_embed(x, -2, 0, -1), m.diagflat(1)],
            [torch.linalg.diagonal(m), x.tril(), x.triu(1), n.tril(-1), (n > 3).triu(-1)],
            [torch.eye(x.shape[1]), torch.eye(2, x.shape[1], dtype=torch.int64)],
        ),
        (X, SQUARE, ROW, NUMBERS),
    ),
    "products of all pairs": (
        lambda x, m, row: (
            [row.outer(m[1]), torch.ger(row, m[0]), torch.kron(m, row), torch.kron(row, x)],
            [torch.cartesian_prod(row, m[1]), torch.cartesian_prod(row)],
            [torch.meshgrid(row, m[1, :2], indexing=order) for order in ("ij", "xy")],
            aten.meshgrid([row, m[0]]),
        ),
        (X, SQUARE, ROW),
    ),
    "windows": (
        lambda x, image: (
            [x.unfold(1, 2, 1), x.unfold(2, 3, 2), x.sum().unfold(0, 1, 1)],
            [F.unfold(image, 2), F.unfold(image, (3, 2), 2, 1, (2, 1)), F.unfold(image[0], 2)],
            *(
                F.fold(F.unfold(image[..., :4, :4], *windows), (4, 4), *windows)
                for windows in ((2, 1, 0, 2), ((3, 2), 2, 1, (2, 1)), (2, 1, 1, 1), (4, 1, 0, 4))
            ),
            F.fold(F.unfold(image[0], 2), image.shape[2:], 2),
        ),
        (X, IMAGE),
    ),
    "padding": (
        lambda x, image, volume, n: (
            [F.pad(x, (1, 2, 3, 0), value=-1.5), F.pad(x, (-1, 1)), F.pad(x, (2, -1, -1, 2))],
            [F.pad(n, (1, -1), value=3), F.pad(x, (x.shape[1] - n.shape[0], 1))],
            F.pad(x, (n.shape[0] - x.shape[1], 1, 0, 1), value=2.0),
            [F.pad(image, (1, 2, 2, 1), mode="reflect"), F.pad(x, (-1, 2), mode="reflect")],
            [F.pad(image, (1, 1, 1, 9), mode="replicate"), F.pad(x, (1, 2), mode="circular")],
            [F.pad(volume, (1, 0, 1, 2, 0, 1), mode="circular"), F.pad(n > 2, (1, 1), value=True)],
            [aten.reflection_pad1d(x, [1, 2]), aten.reflection_pad2d(image, [1, 2, 0, 1])],
            [aten.reflection_pad3d(volume, [1, 1, 1, 2, 2, 0]), aten.replication_pad1d(x, [1, 2])],
            aten.replication_pad2d(image, [1, 2, 0, 1]),
            aten.replication_pad3d(volume, [1, 1, 1, 2, 2, 0]),
            aten._pad_circular(x, [1, 3]),
        ),
        (X, IMAGE, VOLUME, NUMBERS),
    ),
    "sequences of different lengths": (
        lambda m: (
            torch.nn.utils.rnn.pad_sequence([m, m[:2]]),
            torch.nn.utils.rnn.pad_sequence([m, m[:2], m[:1]], True, 2.5),
        ),
        (SQUARE,),
    ),
    "advanced indexing": (
        lambda x, image, some, back: (
            [x[:, some], x[back % 2 - 2], x[0, some], x[..., some], x[some, :, some]],
            [x[:, back, None, some], image[:, some, back], image[some, 0, back]],
            [x[torch.arange(x.shape[0])[:, None], back], x.sum()[None][back * 0], some[back]],
            x[1, some.int()],
        ),
        (X, IMAGE, SOME, BACK),
    ),
    "lookups": (
        lambda x, many, some, back: (
            [x.gather(1, many), x.gather(-1, many[:1, :, :2]), x.take(some), x.take(back[:, None])],
            [torch.take_along_dim(x, many, 1), torch.take_along_dim(x, many[:1, :, :1], 1)],
            [torch.take_along_dim(x, many.flatten()), x.index_select(1, some)],
            [x.index_select(0, some), x.sum().index_select(0, some[:1] * 0)],
            [x[0, 0].index_select(0, some), F.one_hot(many, 4), F.one_hot(some, x.shape[1])],
        ),
        (X, MANY, SOME, BACK),
    ),
    "pixels": (
        lambda x: (
            [F.pixel_shuffle(x, 2), F.pixel_unshuffle(x[..., :4], 2), F.channel_shuffle(x, 2)],
            F.pixel_shuffle(x[0], 2),
        ),
        (IMAGE,),
    ),
    "nearest": (
        lambda row, image, volume: (
            [F.interpolate(row, size=7), F.interpolate(row, scale_factor=2)],
            [F.interpolate(image, scale_factor=f) for f in (2, 3, (4, 2), (1.5, 0.5), 1.25)],
            [F.interpolate(image, (9, 3)), F.interpolate((image * 9).int().byte(), (9, 3))],
            [F.interpolate(image.bfloat16(), (9, 3)), F.interpolate(volume, (2, 3, 5))],
            [
                F.interpolate(v, scale_factor=1.5, mode="nearest-exact")
                for v in (row, image, volume)
            ],
            [F.interpolate(v, 7, mode="nearest-exact") for v in (row, image)],
            [aten.upsample_nearest1d(row, [7], 1.8), aten.upsample_nearest2d(image, [7, 5])],
            [aten.upsample_nearest3d(volume, [7, 5, 6], 2.0, 1.1, 3.0)],
            [
                aten._upsample_nearest_exact1d(row, [7]),
                aten._upsample_nearest_exact2d(image, [7, 5]),
            ],
            aten._upsample_nearest_exact3d(volume, [7, 5, 6]),
        ),
        (X, IMAGE, VOLUME),
    ),
    "linear": (
        lambda row, image, volume: (
            [F.interpolate(row, 7, mode="linear"), F.interpolate(row, 1, None, "linear", True)],
            [F.interpolate(image, (9, 1), None, "bilinear", corners) for corners in (True, False)],
            [F.interpolate(image, None, (1.5, 0.75), "bilinear", c) for c in (True, False)],
            F.interpolate(image, None, 1.25, "bilinear", recompute_scale_factor=True),
            [F.interpolate(image.bfloat16(), (9, 3), mode="bilinear")],
            [F.interpolate(image.double(), (9, 3), mode="bilinear")],
            [F.interpolate(image, (2 * image.shape[2], image.shape[3]), mode="bilinear")],
            F.interpolate(volume, (2, 3, 5), mode="trilinear"),
            [
                aten.upsample_linear1d(row, [7], False, 1.8),
                aten.upsample_bilinear2d(image, [7, 5], True),
            ],
            aten.upsample_trilinear3d(volume, [7, 5, 6], False, 2.0, 1.1, 3.0),
        ),
        (X, IMAGE, VOLUME),
    ),
    "cubic": (
        lambda image: (
            [F.interpolate(image, (9, 3), None, "bicubic", corners) for corners in (True, False)],
            F.interpolate(image, scale_factor=1.75, mode="bicubic"),
            aten.upsample_bicubic2d(image, [7, 5], False),
        ),
        (IMAGE,),
    ),
    "grids": (
        lambda image, volume, grid, points, theta: (
            _sampled(image, grid),
            F.grid_sample(volume, points, "bilinear", "reflection", True),
            F.grid_sample(volume, points, "nearest", "border", False),
            aten.grid_sampler_2d(image, grid, 0, 1, False),
            aten.grid_sampler_3d(volume, points, 0, 1, True),
            [F.affine_grid(theta, [2, 1, 3, 4], corners) for corners in (True, False)],
            F.affine_grid(theta.reshape(1, 3, 4), [1, 1, 2, 3, 1], False),
        ),
        (IMAGE, VOLUME, randn(2, 3, 4, 2), randn(1, 2, 3, 2, 3), randn(2, 2, 3)),
    ),
}
#: Overloads that the case of a name has.
_SEEN: dict[str, set[str]] = {}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str) -> None:
    """The numbers of torch, before and after loads become views and loops become one."""
    function, tensors = CASES[name]
    graph = captured(function, *tensors).graph
    _SEEN[name] = {overload(n.op.schema) for n in graph.nodes if isinstance(n.op, Aten)}
    EliminateDeadCode().run(graph)
    LowerAten().run(graph)
    left = [n for n in graph.nodes if not n.is_lowered]
    assert not left, [n.reasons for n in left]
    with torch.no_grad():
        wanted = arrays(function(*tensors))
    for later in ((), (SimplifyLoads(), SimplifyViews(), FusePointwise())):
        for step in later:
            step.run(graph)
            verify(graph, step.name)
        dtypes = [v.dtype for v in graph.outputs]
        bound = BF16_RELATIVE if DType.BF16 in dtypes else FP32_RELATIVE
        assert_close(run_graph(graph, arrays(tensors)), wanted, bound, dtypes)


def test_the_code_does_the_same(tmp_path: Path) -> None:
    """One library of loops that read in every way: through data, guarded, between elements."""

    def model(image: Any, at: Any, grid: Any) -> list[Any]:
        row, few = image[:, :, 0], at.shape[0]
        return [
            *(image[:, at], image[:, at - 4, at], image.gather(2, image.int().clamp(0, 3))),
            *(image.take(at), image.flip(2), image.roll(2, 3), row.unfold(2, 2, 1)),
            *(
                F.unfold(image, 2, padding=1),
                F.fold(F.unfold(image, 2, padding=1), image.shape[2:], 2, padding=1),
                torch.diag_embed(row, -1),
                image.repeat_interleave(2, 2),
            ),
            *(F.pad(row, (1, 2), mode="reflect"), F.pad(row, (1, 2), mode="circular")),
            *(F.pad(image, (-1, 2)), F.one_hot(at, 5), image[:, few - image.shape[2] :]),
            image.slice_scatter(image[:, :, ::2] * 2, 2, 0, None, 2),
            F.interpolate(image, scale_factor=1.5),
            F.interpolate(image, scale_factor=1.5, mode="bilinear"),
            F.interpolate(image, (9, 3), mode="bicubic"),
            F.grid_sample(image, grid, "bilinear", "reflection", align_corners=False),
        ]

    tensors = (IMAGE, SOME, randn(2, 3, 4, 2))
    graph = lowered(captured(model, *tensors).graph)
    assert all(n.is_lowered for n in graph.nodes)
    check_native(graph, tmp_path, bound=FP32_RELATIVE)
    assert_close(run_graph(graph, arrays(tensors)), arrays(model(*tensors)), FP32_RELATIVE)


def test_places_in_16_bits_stay_in_torch() -> None:
    """Torch rounds every step to them, and an error of a place is none of last bits."""
    tensors = (IMAGE.bfloat16(), randn(2, 3, 4, 2).bfloat16())
    graph = captured(lambda x, g: F.grid_sample(x, g, align_corners=False), *tensors).graph
    LowerAten().run(graph)
    (node,) = graph.nodes
    assert node.reasons == ["lower_aten: left in torch: places in bf16"]


def test_an_index_outside_fails_the_run() -> None:
    graph = lowered(captured(lambda x, i: x.gather(1, i), X[0], MANY[0]).graph)
    row, indices = X[0].numpy(), MANY[0].numpy()
    for wrong in (-1, 4):
        with pytest.raises(InputValueError, match=f"got {wrong}"):
            run_graph(graph, [row, np.where(indices == 2, wrong, indices)])


def test_every_overload_has_a_case() -> None:
    """Those of the cases that ran in this process; all of them, where all did."""
    tables = (indexing, padding, parts, rearranging, resampling, views)
    tested = set[str]().union(*_SEEN.values())
    missing = {name for table in tables for name in table.RULES} - tested
    assert not missing or _SEEN.keys() != CASES.keys(), missing
