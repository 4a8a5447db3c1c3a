"""Calls of ops that reduce, pool, scan, sort and scatter: names of ops, function, tensors."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

aten = torch.ops.aten
_random = torch.Generator().manual_seed(2)
Call = tuple[Callable[..., Any], tuple[Any, ...]]


def randn(*shape: int) -> Any:
    return torch.randn(*shape, generator=_random)


def named(names: str, function: Callable[..., Any], *tensors: Any) -> dict[str, Call]:
    return {names: (function, tensors)}


X, Y = randn(2, 3, 4), randn(2, 3, 4)
N = torch.tensor([[3, -1, 3, 0], [7, 7, -2, 5], [0, 0, 0, 1]])
MASK = X > 0
ODD = torch.tensor([[1.0, math.nan, 3.0], [math.inf, 2.0, 2.0], [-math.inf, -math.inf, -0.0]])

REDUCTIONS: dict[str, Call] = {
    **named(
        "sum mean prod any all amax amin max min argmax argmin count_nonzero nansum aminmax "
        "_is_all_true _is_any_true",
        lambda x, n, m, o: (
            (x.sum(1), n.sum(0, keepdim=True), m.sum(), x.sum(), x.sum(-1, dtype=torch.float64)),
            (x.mean(-1), x.mean((0, 1), keepdim=True), x.mean().mean(-1), n.prod(), x.prod(1)),
            (aten._is_all_true(m), aten._is_any_true(m)),
            (m.any(), m.any(1), m.any((0, 2)), n.all(), n.all(1, keepdim=True), m.prod(0)),
            (x.amax((0, 1)), x.amin(2, keepdim=True), n.amax(), n.max(), x.min()),
            (x.argmax(-1), n.argmax(1, keepdim=True), n.argmax(), n.sum().argmax(0)),
            (x.argmin(1), n.argmin(), o.argmin(1), o.argmax(0), o.sum(1), o.amax(1)),
            (torch.count_nonzero(n), torch.count_nonzero(o, (0, 1)), o.nansum(), o.nansum(1)),
            (*n.max(1), *x.min(-1, keepdim=True), *o.max(0), *o.min(1), *n.sum().max(0)),
            (*torch.aminmax(x, dim=1), *torch.aminmax(n), *m.max(1)),
            (torch.max(x, n[0]), torch.min(n, n - 1)),
        ),
        X,
        N,
        MASK,
        ODD,
    ),
    **named(
        "var std var_mean std_mean linalg_vector_norm norm logsumexp mse_loss",
        lambda x, o: (
            (x.var(), x.var(1), x.var((0, 2), unbiased=False, keepdim=True), x[:, :1].var(1)),
            (torch.var(x, 1, correction=2), x.std(-1), x.std(), *torch.var_mean(x, 1)),
            (*torch.std_mean(x), torch.std(x.double(), 1), *torch.var_mean(x, (0, 1))),
            *(torch.linalg.vector_norm(x, p, 1) for p in (0, 1, 2, 3, 0.5, math.inf, -math.inf)),
            (x.norm(), x.norm(dim=1), aten.norm.ScalarOpt_dim(x, 1, [1]), F.normalize(x, dim=1)),
            (aten.norm.ScalarOpt_dim_dtype(x, 2, [1], True, dtype=torch.float64), aten.norm(x, 3)),
            aten.norm.ScalarOpt_dtype(x, 2, dtype=torch.float64),
            (x.logsumexp(1), x.logsumexp((0, 2), keepdim=True), o.logsumexp(1)),
            *(aten.mse_loss(x, x * 2, reduction) for reduction in range(3)),
        ),
        X,
        ODD,
    ),
    **named(
        "cosine_similarity pairwise_distance cdist",
        lambda x, y: (
            (
                F.cosine_similarity(x, y),
                F.cosine_similarity(x, y[:1], -1),
                F.pairwise_distance(x, y),
            ),
            (torch.cdist(x, y), torch.cdist(x, y[:, :2], p=1.0), F.pairwise_distance(x, y, 1.0)),
        ),
        X,
        Y,
    ),
    **named(
        "histc",
        lambda x, n, o: (
            (
                torch.histc(x, 4, -1, 1),
                torch.histc(n.float(), 4, 0, 3),
                torch.histc(x[:0], 2, 0, 1),
            ),
            torch.histc(o, 3, -1.5, 3),
        ),
        X,
        N,
        ODD,
    ),
    **named(
        "kthvalue median",
        lambda x, n, o: (
            (*x.kthvalue(2, 1), x[:, 0, 0].kthvalue(1)[0], x.median(), n.median()),
            (x.median(1).values, o.median(1).values, o.median(), *x[0].median(0, keepdim=True)),
        ),
        X,
        N,
        ODD,
    ),
}

IMAGE, WEIGHT, BIAS, POSITIVE = randn(2, 4, 6, 5), randn(4), randn(4), randn(4).abs() + 0.5
NORMS: dict[str, Call] = {
    **named(
        "layer_norm native_layer_norm rms_norm group_norm native_group_norm instance_norm",
        lambda x, i, w, c: (
            (F.layer_norm(x, (4,), x[0, 0] * 2), F.layer_norm(x, (3, 4), eps=1e-3)),
            (F.rms_norm(x, (4,)), F.rms_norm(x, (4,), w, 1e-3), F.rms_norm(x, (3, 4))),
            (F.layer_norm(x.double(), (4,), w.double(), c.double()), F.layer_norm(x[0, 0], (4,))),
            aten.native_layer_norm(x, [4], w, c, 1e-5),
            (F.group_norm(i, 2, w, c), F.group_norm(i, 1), F.group_norm(i[:, :, 0, 0], 2)),
            aten.native_group_norm(i, w, c, 2, 4, 30, 2, 1e-5),
            (F.instance_norm(i), F.instance_norm(i[:, :, 0], weight=w, bias=c)),
            F.instance_norm(i, c, w.abs() + 1, use_input_stats=False),
        ),
        X,
        IMAGE,
        WEIGHT,
        BIAS,
    ),
    **named(
        "batch_norm native_batch_norm",
        lambda i, m, v, w, b: (
            (
                F.batch_norm(i, m, v, w, b),
                F.batch_norm(i[:, :, 0, 0], m, v),
                F.batch_norm(i, m, v, w),
            ),
            F.batch_norm(i, None, None, w, b, training=True),
            aten.native_batch_norm(i, w, b, m, v, False, 0.1, 1e-5)[0],
        ),
        IMAGE,
        WEIGHT,
        POSITIVE,
        BIAS,
        WEIGHT,
    ),
    **named(
        "_native_batch_norm_legit_no_training _native_batch_norm_legit",
        lambda x, m, v, w, b: (
            F.relu_(F.batch_norm(x, m, v, w, b)),
            aten._native_batch_norm_legit.no_stats(x, w, b, True, 0.1, 1e-5),
            aten._native_batch_norm_legit_no_training(x, w, b, m, v, 0.1, 1e-5)[0],
        ),
        IMAGE,
        WEIGHT,
        POSITIVE,
        BIAS,
        WEIGHT,
    ),
    **named(
        "softmax _softmax log_softmax _log_softmax",
        lambda x, n: (
            (x.softmax(-1), x.softmax(1), aten._softmax(x, 1, False), x.double().softmax(1)),
            (x.log_softmax(0), aten._log_softmax(x, -1, False), x.double().log_softmax(-1)),
            (n.softmax(0, dtype=torch.float32), x.sum().softmax(0), x[:, :0].double().softmax(1)),
            x.bfloat16().softmax(1, dtype=torch.float32),
        ),
        X,
        N,
    ),
}

LONG, VOLUME = randn(2, 3, 11), randn(1, 2, 5, 6, 4)
POOLS: dict[str, Call] = {
    **named(
        "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices "
        "max_pool3d_with_indices",
        lambda x, i, v, n: (
            (
                F.max_pool1d(x, 3),
                F.max_pool1d(x, 4, 2, 1),
                F.max_pool1d(x[0], 3, 2, ceil_mode=True),
            ),
            F.max_pool1d(x, 2, 3, dilation=3),
            F.max_pool2d(i, 2),
            F.max_pool2d(i, (3, 2), (2, 1), (1, 0), ceil_mode=True),
            F.max_pool2d(i[0], 3, 2, 1, dilation=2),
            F.max_pool2d(n, 2, 1),
            F.max_pool3d(v, 2, ceil_mode=True),
            *F.max_pool1d(x, 3, 2, return_indices=True),
            *F.max_pool2d(i, 3, 2, 1, return_indices=True),
            *F.max_pool3d(v, 2, 1, return_indices=True),
        ),
        LONG,
        IMAGE,
        VOLUME,
        N[None],
    ),
    **named(
        "avg_pool1d avg_pool2d avg_pool3d",
        lambda x, i, v: (
            (F.avg_pool1d(x, 3), F.avg_pool1d(x, 4, 3, 2, True), F.avg_pool1d(x[0], 2, 1)),
            F.avg_pool1d(x, 4, 3, 2, True, False),
            F.avg_pool2d(i, (2, 3), 1, (1, 1), ceil_mode=True),
            F.avg_pool2d(i, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            F.avg_pool2d(i, 2, divisor_override=3),
            F.avg_pool3d(v, 2, 2, 1, ceil_mode=True),
            F.lp_pool2d(i.abs(), 2, 2),
            F.local_response_norm(i, 3),
        ),
        LONG,
        IMAGE,
        VOLUME,
    ),
    **named(
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d "
        "_adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
        lambda x, i, v: (
            (
                F.adaptive_avg_pool1d(x, 4),
                F.adaptive_avg_pool1d(x, 1),
                F.adaptive_avg_pool1d(x, 15),
            ),
            (F.adaptive_avg_pool2d(i, (4, 3)), F.adaptive_avg_pool2d(i, 1)),
            (F.adaptive_avg_pool2d(i[0], (None, 2)), F.adaptive_avg_pool3d(v, (2, 3, 3))),
            (aten._adaptive_avg_pool2d(i, [7, 2]), aten._adaptive_avg_pool3d(v, [1, 1, 1])),
            *F.adaptive_max_pool1d(x, 4, return_indices=True),
            *F.adaptive_max_pool2d(i, (4, 3), return_indices=True),
            *F.adaptive_max_pool3d(v, 2, return_indices=True),
        ),
        LONG,
        IMAGE,
        VOLUME,
    ),
}

INDEX = torch.tensor([[0, 2, 1, 0], [1, 1, 0, 2]])
PLACES, DISTINCT = torch.tensor([2, 0, 2]), torch.tensor([2, 0])
LINES: dict[str, Call] = {
    **named(
        "cumsum cumprod cummax cummin logcumsumexp",
        lambda x, n, m, o: (
            (x.cumsum(1), n.cumsum(0), m.cumsum(-1), o.cumsum(1), n.sum().cumsum(0)),
            (x.cumsum(0, dtype=torch.float64), x.cumprod(1), n.cumprod(1), x.bfloat16().cumsum(2)),
            (*x.cummax(1), *n.cummax(0), *o.cummax(1), *x.cummin(-1), *o.cummin(0)),
            (x.logcumsumexp(1), o.logcumsumexp(1)),
        ),
        X,
        N,
        MASK,
        ODD,
    ),
    **named(
        "sort argsort msort topk",
        lambda x, n, o: (
            (*torch.sort(x), *torch.sort(x, 1, descending=True), *torch.sort(n.sum())),
            (*torch.sort(n, stable=True), *torch.sort(o, 1), x.argsort(0), torch.msort(n)),
            torch.sort(o, dim=0, descending=True, stable=True),
            (n.argsort(dim=1, stable=True), *x.topk(2), *x.topk(1, 1, largest=False)),
        ),
        X,
        N,
        ODD,
    ),
    **named(
        "scatter scatter_add scatter_reduce",
        lambda x, i, s, n: (
            (x.scatter(0, i[:, :3], s), x.scatter(1, i, 2.5), x.scatter_add(1, i, s)),
            (torch.scatter(x, 0, i, s, reduce="add"), torch.scatter(x, 0, i, 2, reduce="multiply")),
            (n.scatter_add(1, i, i), n.sum().scatter(0, i[0, 0], n[0, 0])),
            *(
                (x > 0).scatter_reduce(0, i[:, :4], s > 0, how, include_self=own)
                for how in ("prod", "amax", "amin")
                for own in (True, False)
            ),
            *(
                y.scatter_reduce(0, i[:, :4], v, how, include_self=own)
                for how in ("sum", "prod", "mean", "amax", "amin")
                for own in (True, False)
                for y, v in ((x, s), (n, i))
                if how != "mean" or y is x
            ),
        ),
        randn(3, 4),
        INDEX,
        randn(2, 4),
        N,
    ),
    **named(
        "index_put",
        lambda x, p, d: (
            (x.index_put((p,), x[0] * 2), x.index_put((p,), x[0], accumulate=True)),
            aten.index_put(x, [None, p], x[0, 1]),
            x.index_put((p - 1, p), x[0, 1], accumulate=True),
            aten.index_put(x, [p[:, None], None, d], x[0, :, 1]),
            (x.index_put((x > 0,), x[0, 0, 0]), x.index_put((x[:, 0, 0] > 0,), x[0, 0, 0])),
        ),
        randn(3, 3, 4),
        PLACES,
        DISTINCT,
    ),
    **named(
        "index_add index_copy index_fill masked_scatter",
        lambda x, p, d, v: (
            (x.index_add(0, p, v), x.index_add(2, p, x[..., :3], alpha=2)),
            x.index_copy(0, d, v[:2]),
            x.index_fill(1, d - 1, 2.5),
            (x.masked_scatter(x > 0, x * 2), x.masked_scatter(x[:, :, :1] > 0, x * 3)),
        ),
        randn(3, 3, 4),
        PLACES,
        DISTINCT,
        randn(3, 3, 4),
    ),
}  # fmt: skip
