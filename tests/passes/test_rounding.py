"""Rounding to int4: against the formulas, and what each way is better at."""

import numpy as np
import pytest

from graphopt.errors import CalibrationError, UnknownPrecisionError
from graphopt.ir.loss import Loss, mean_loss
from graphopt.kernels import reference
from graphopt.passes.support.rounding import (
    Rounding,
    _inverse_factor,
    loss_of,
    round_weights,
    search_scales,
)


def weights(n: int = 24, k: int = 128, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k), np.float32)


def hessian(k: int = 128, rows: int = 300, seed: int = 1) -> np.ndarray:
    """Of inputs that are correlated, with some channels far larger than others."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((rows, k // 2)) @ random.standard_normal((k // 2, k))
    x = (mixed * np.exp(random.standard_normal(k))).astype(np.float32)
    return x.T @ x


def plain_gptq(w: np.ndarray, group: int, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm of the paper without its shortcuts: the inverse anew for every channel."""
    w, k = w.astype(np.float64), len(h)
    damped = h.astype(np.float64) + 0.01 * np.diag(h).mean() * np.eye(k)
    inverses = [np.linalg.inv(damped[i:, i:]) for i in range(k)]
    importance = np.array([1 / inverse[0, 0] for inverse in inverses], np.float32)
    q, scales = np.zeros(w.shape, np.int8), []
    for i in range(k):
        if i % group == 0:
            block = slice(i, i + group)
            scales.append(search_scales(w[:, block].astype(np.float32), importance[block], True))
        q[:, i] = np.clip(np.rint(w[:, i] / scales[-1]), -8, 7)
        error = (w[:, i] - q[:, i] * scales[-1]) / inverses[i][0, 0]
        w[:, i:] -= np.outer(error, inverses[i][0])
    return q, np.stack(scales, 1)


@pytest.mark.parametrize("group", [32, 64])
def test_gptq_is_that_of_the_paper(group: int) -> None:
    w, h = weights(), hessian()
    q, scale = plain_gptq(w, group, h)
    got = round_weights(w, group, "gptq", h)
    same = got.q == q  # but where float32 rounds a tie the other way, and what follows from it
    assert same.mean() > 0.98
    assert np.mean(reference.f32_from_bf16(got.scale) == scale) > 0.95


def test_the_factor_is_that_of_the_inverse() -> None:
    h = hessian(64)
    factor = _inverse_factor(h).astype(np.float64)
    damped = h + 0.01 * np.diag(h).mean() * np.eye(64)
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(64), atol=1e-3)


def test_channels_without_correlation_are_rounded_alone() -> None:
    w, flat = weights(), np.eye(128, dtype=np.float32)
    alone = round_weights(w, 32, "scale-search")
    together = round_weights(w, 32, "gptq", flat)
    np.testing.assert_array_equal(alone.q, together.q)
    np.testing.assert_array_equal(alone.scale, together.scale)


@pytest.mark.parametrize("group", [32, 64, 0])
def test_what_each_way_is_better_at(group: int) -> None:
    w, h = weights(), hessian()
    rounded = {m: round_weights(w, group, m, h) for m in ("nearest", "scale-search", "gptq")}
    plain = round_weights(w, group, "scale-search")
    lost = {m: loss_of(w, r.dense(), h) for m, r in rounded.items()}
    outputs = [lost[m].outputs or 0 for m in ("gptq", "scale-search", "nearest")]
    assert outputs == sorted(outputs) and outputs[0] < 0.5 * outputs[2]
    assert loss_of(w, plain.dense()).weights < lost["nearest"].weights < lost["gptq"].weights
    for r in (*rounded.values(), plain):
        assert r.q.min() >= -8 and r.q.max() <= 7 and r.q.dtype == np.int8
        assert r.scale.dtype == (np.uint16 if group else np.float32)
        assert r.scale.shape == ((len(w), 128 // group) if group else (len(w),))


@pytest.mark.parametrize("method", ["nearest", "scale-search", "gptq"])
@pytest.mark.parametrize("group", [32, 0])
def test_zeros_stay_zeros(method: str, group: int) -> None:
    w, h = weights(), hessian()
    w[3], w[:, 32:64], h[5], h[:, 5] = 0, 0, 0, 0
    rounded = round_weights(w, group, method, h)
    assert np.isfinite(rounded.dense()).all()
    assert not rounded.dense()[3].any()
    assert not round_weights(np.zeros((4, 32), np.float32), group, method, np.eye(32)).q.any()


def test_loss_is_a_share_of_squares() -> None:
    w, x = weights(), np.random.default_rng(2).standard_normal((50, 128)).astype(np.float32)
    dense = round_weights(w, 32, "nearest").dense()
    loss = loss_of(w, dense, x.T @ x)
    np.testing.assert_allclose(loss.weights, ((w - dense) ** 2).sum() / (w**2).sum(), rtol=1e-5)
    wanted = np.square(x @ (w - dense).T).sum() / np.square(x @ w.T).sum()
    np.testing.assert_allclose(loss.outputs, wanted, rtol=1e-4)
    assert mean_loss([]) is None
    assert mean_loss([Loss(0.1), Loss(0.3, 0.5)]) == Loss(0.2, 0.5)
    assert str(Loss(0.01)) == "1.00e-02 of the weights"


def test_ways_that_are_none() -> None:
    with pytest.raises(UnknownPrecisionError, match="rounding=best"):
        Rounding("best")
    with pytest.raises(CalibrationError, match="gptq needs text"):
        Rounding("gptq")
