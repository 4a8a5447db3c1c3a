"""Kinds of steps for reductions, norms, pooling, scans, sorts and stores, by overload."""

from __future__ import annotations

from functions import KINDS, enter_texts
from lines import chosen, enter, kind
from scene import Scene, Unfit

__all__ = ["KINDS"]

_A = "torch.ops.aten."


def _along(text: str) -> str:
    """A text of a value n and one of its axes, a."""

    def make(s: Scene) -> str:
        name = s.floats()
        axis = s.axis(name)
        if s.least(name, axis) < 1:
            raise Unfit
        return text.format(n=name, a=axis)

    return make  # type: ignore[return-value]


for _name, _text in {
    "prod.dim_int": "torch.prod({n}.tanh(), {a})",
    "nansum": "torch.nansum({n}, {a})",
    "histc": "torch.histc({n}.sign(), 3, -1.5, 1.5)",
    "count_nonzero": "torch.count_nonzero({n}.relu(), {a})",
    "count_nonzero.dim_IntList": "torch.count_nonzero({n}.relu(), ({a},))",
    "argmin": "torch.argmin({n}, {a})",
    "max.dim": "torch.max({n}, {a})[0]",
    "min.dim": "torch.min({n}, {a}, keepdim=True)[0]",
    "aminmax": "torch.aminmax({n}, dim={a})[1]",
    "var": "torch.var({n}, unbiased=False)",
    "var.dim": "torch.var({n}, ({a},), False)",
    "var.correction": "torch.var({n}, {a}, correction=0)",
    "std": "torch.std({n} * 2, unbiased=False)",
    "std.dim": "torch.std({n}, ({a},), False, True)",
    "std.correction": "torch.std({n}, {a}, correction=0)",
    "var_mean": "torch.var_mean({n}, False)[0]",
    "var_mean.dim": "torch.var_mean({n}, ({a},), False)[1]",
    "var_mean.correction": "torch.var_mean({n}, {a}, correction=0)[0]",
    "std_mean": "torch.std_mean({n}, False)[0]",
    "std_mean.dim": "torch.std_mean({n}, ({a},), False)[1]",
    "std_mean.correction": "torch.std_mean({n}, {a}, correction=0)[0]",
    "linalg_vector_norm": "torch.linalg.vector_norm({n}, 2, {a}, True)",
    "norm.Scalar": f"{_A}norm.Scalar({{n}}, 2)",
    "norm.ScalarOpt_dim": f"{_A}norm.ScalarOpt_dim({{n}}, 1, [{{a}}])",
    "norm.ScalarOpt_dtype": f"{_A}norm.ScalarOpt_dtype({{n}}, 2, dtype=torch.float32)",
    "norm.ScalarOpt_dim_dtype": f"{_A}norm.ScalarOpt_dim_dtype({{n}}, 2, [{{a}}], True, "
    "dtype=torch.float32)",
    "logsumexp": "torch.logsumexp({n}, {a})",
    "cosine_similarity": "F.cosine_similarity({n}, {n} + 1, {a})",
    "kthvalue": "torch.kthvalue({n}, 1, {a})[0]",
    "median": "torch.median({n})",
    "median.dim": "torch.median({n}, {a})[0]",
    "cumsum": "torch.cumsum({n}, {a})",
    "cumprod": "torch.cumprod({n}.tanh(), {a})",
    "cummax": "torch.cummax({n}, {a})[0]",
    "cummin": "torch.cummin({n}, {a})[0]",
    "logcumsumexp": "torch.logcumsumexp({n}, {a})",
    "sort": "torch.sort({n}, {a})[0]",
    "sort.stable": "torch.sort({n}, dim={a}, stable=True, descending=True)[0]",
    "argsort": f"{_A}argsort({{n}}, {{a}})",
    "argsort.stable": f"{_A}argsort.stable({{n}}, stable=True, dim={{a}})",
    "topk": "torch.topk({n}, 1, {a})[0]",
    "index_fill": "{n}.index_fill({a}, torch.zeros(1, dtype=torch.int64), 0.5)",
    "index_add": "{n}.index_add({a}, torch.arange({n}.shape[{a}]), {n})",
    "index_copy": "{n}.index_copy({a}, torch.arange({n}.shape[{a}]), {n} * 2)",
    "scatter.src": "{n}.scatter({a}, {n}.argsort({a}), {n} * 2)",
    "scatter.value": "{n}.scatter({a}, torch.zeros_like({n}, dtype=torch.int64), 1.5)",
    "scatter.reduce": "torch.scatter({n}, {a}, torch.zeros_like({n}, dtype=torch.int64), {n}, "
    'reduce="add")',
    "scatter.value_reduce": f"{_A}scatter.value_reduce({{n}}, {{a}}, "
    'torch.zeros_like({n}, dtype=torch.int64), 0.5, reduce="multiply")',
    "scatter_add": "{n}.scatter_add({a}, torch.zeros_like({n}, dtype=torch.int64), {n})",
    "scatter_reduce": "{n}.scatter_reduce({a}, torch.zeros_like({n}, dtype=torch.int64), {n}, "
    '"amax", include_self=False)',
}.items():
    enter(f"aten.{_name}", _along(_text))

enter_texts(
    {
        "prod": "torch.prod({x}.tanh())",
        "mse_loss": f"{_A}mse_loss({{x}}, {{x}} * 2, 0)",
        "pairwise_distance": "F.pairwise_distance({x}, {x} * 2)",
        "msort": "torch.msort({x})",
        "_is_all_true": "torch._is_all_true({x} > -9)",
        "_is_any_true": "torch._is_any_true({x} > 1)",
        "masked_scatter": "{x}.masked_scatter({x} > 0, {x} * 2)",
    }
)
enter("aten.cdist", lambda s: f"torch.cdist({(n := s.floats(2, 3))}, {n} * 2)")
enter(
    "aten.index_put",
    lambda s: f"torch.index_put({(n := s.floats())}, ({n} > 0,), torch.zeros(()))",
)
enter(
    "aten.native_layer_norm",
    lambda s: (
        f"torch.native_layer_norm({(n := s.floats(2, 3))}, [{s.static(n, -1)}], "
        "None, None, 1e-5)[0]"
    ),
)


@kind("aten.group_norm", "aten.native_group_norm", "aten.instance_norm")
def _group_norm(s: Scene) -> str:
    name = s.floats(3)
    channels = s.static(name, 2)
    turned = f"{name}.transpose(1, 2)"
    made = s.member(f"nn.GroupNorm(1, {channels})")
    n, c, t = f"{name}.shape[0]", channels, f"{name}.shape[1]"
    return chosen(
        s,
        f"{made}({turned})",
        f"F.instance_norm({turned})",
        f"torch.native_group_norm({turned}, None, None, {n}, {c}, {t}, 1, 1e-5)[0]",
    )


@kind("aten.native_batch_norm", "aten._native_batch_norm_legit.no_stats")
def _batch_norm(s: Scene) -> str:
    name = s.floats(3)
    c = s.static(name, 2)
    turned = f"{name}.transpose(1, 2)"
    running = f"torch.zeros({c}), torch.ones({c})"
    return chosen(
        s,
        f"{_A}native_batch_norm({turned}, None, None, {running}, False, 0.1, 1e-5)[0]",
        f"{_A}_native_batch_norm_legit.no_stats({turned}, None, None, True, 0.1, 1e-5)[0]",
    )


def _image(s: Scene, spatial: int) -> str:
    """A value as an image whose last axis is the innermost one."""
    name = s.floats(3)
    if s.static(name, 2) < 5:
        raise Unfit
    return f"{name}[{', '.join([':'] + ['None'] * (spatial - 1) + [':', ':'])}]"


for _n in (1, 2, 3):
    _ones = ", ".join(["1"] * (_n - 1) + ["{k}"])
    for _op in (f"max_pool{_n}d", f"max_pool{_n}d_with_indices", f"avg_pool{_n}d"):
        enter(
            f"aten.{_op}",
            lambda s, op=_op, n=_n, ones=_ones: (
                f"{_A}{op}({_image(s, n)}, [{ones.format(k=s.random.choice((2, 3)))}]"
                f"{chosen(s, '', ', [2]' if n == 1 else '')})"
                f"{'[0]' if 'indices' in op else ''}"
            ),
        )
    for _op in (f"adaptive_avg_pool{_n}d", f"_adaptive_avg_pool{_n}d", f"adaptive_max_pool{_n}d"):
        if _op == "_adaptive_avg_pool1d":  # there is none
            continue
        enter(
            f"aten.{_op}",
            lambda s, op=_op, n=_n, ones=_ones: (
                f"{_A}{op}({_image(s, n)}, [{ones.format(k=s.random.choice((1, 3, 4)))}])"
                f"{'[0]' if 'max' in op else ''}"
            ),
        )


def _square(s: Scene) -> tuple[str, str]:
    """A value of three axes and one of its batches times itself, [n, n]."""
    name = s.floats(3)
    return name, f"({name}[0].t() @ {name}[0]).tanh()"


for _name, _text in {
    "mv": "torch.mv({n}[0], {n}[0, 0].tanh())",
    "dot": "torch.dot({n}[0, 0], {n}[0, 0].tanh())",
    "vdot": f"{_A}vdot({{n}}[0, 0], {{n}}[0, 0].tanh())",
    "inner": "torch.inner({n}, {n}[0, 0].tanh())",
    "baddbmm": "torch.baddbmm({n}, {n}, {s}.expand({n}.shape[0], -1, -1), alpha=0.5, beta=2)",
    "addbmm": "torch.addbmm({n}[0], {n}, {s}.expand({n}.shape[0], -1, -1))",
    "addmv": "torch.addmv({n}[0, :, 0], {n}[0], {n}[0, 0].tanh())",
    "addr": "torch.addr({n}[0], {n}[0, :, 0], {n}[0, 0])",
    "chain_matmul": "torch.chain_matmul({n}[0], {s}, {s})",
    "linalg_multi_dot": "torch.linalg.multi_dot([{n}[0], {s}, {s}])",
    "tensordot": "torch.tensordot({n}, {s}, 1)",
    "bilinear": f"{_A}bilinear({{n}}, {{n}}, {{s}}[None])",
}.items():

    def _product(s: Scene, text: str = _text) -> str:
        name, square = _square(s)
        return text.format(n=name, s=square)

    enter(f"aten.{_name}", _product)


@kind("aten.einsum")
def _einsum(s: Scene) -> str:
    name, square = _square(s)
    text = chosen(s, "btc,cd->btd", "btc,dc->dbt", "...c,cd->...d", "btc,cd->b")
    return chosen(
        s,
        f'torch.einsum("{text}", {name}, {square})',
        f'torch.einsum("btc,bsc->bts", {name}, {name}.tanh())',
    )
