"""What the kernels other than GEMM compute, in numpy float64.

Inputs are f32 arrays, or bf16 ones widened to f32; results are float64, so a test
states how far a kernel may be from the exact value. Names and argument meanings are
those of include/go_kernel.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Which keys a query sees, as `go_causal`.
SEES_ALL, CAUSAL_LAST, CAUSAL_FIRST = range(3)

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def _gelu_tanh(x: Array) -> Array:
    y: Array = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return y


#: The elementary functions of include/go_math.h, go_<name>f, by name.
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "erf": _erf,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "gelu_erf": lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


def norm(
    x: NDArray[np.float32],
    weight: NDArray[np.float32] | None,
    bias: NDArray[np.float32] | None,
    eps: float,
    rms: bool,
) -> Array:
    """Layer norm or RMS norm over the last axis.

    Args:
        x: [rows, cols].
        weight: factors [cols]; None for 1.
        bias: addends [cols]; None for 0.
        eps: added to the variance, rounded to f32.
        rms: whether it is the RMS norm, which does not subtract the mean.

    Returns:
        f64 [rows, cols].
    """
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = wide if rms else wide - wide.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        y: Array = centred / np.sqrt(variance + float(np.float32(eps)))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def softmax(x: NDArray[np.float32], log: bool = False) -> Array:
    """Softmax or log-softmax over the last axis; NaN for rows of -inf only."""
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = wide - wide.max(-1, keepdims=True)
        total = np.exp(shifted).sum(-1, keepdims=True)
        y: Array = shifted - np.log(total) if log else np.exp(shifted) / total
        return y


def depthwise(
    src: NDArray[np.float32],
    weight: NDArray[np.float32],
    t_out: int,
    stride: int = 1,
    dilation: int = 1,
    pad_left: int = 0,
) -> Array:
    """The sums of go_depthwise: ``sum_j weight[j] * src[t * stride + j * dilation - pad_left]``.

    Masks, bias and the rest are elementwise, and not done here.

    Args:
        src: [batch, t_in, channels]; counts as 0 outside.
        weight: [kernel, channels].
        t_out: times of the result.
        stride: times of ``src`` from one time of the result to the next.
        dilation: times from tap to tap.
        pad_left: zeros in front of ``src``.

    Returns:
        f64 [batch, t_out, channels].
    """
    batch, t_in, channels = src.shape
    y = np.zeros((batch, t_out, channels))
    for tap, row in enumerate(weight.astype(np.float64)):
        at = np.arange(t_out) * stride + tap * dilation - pad_left
        inside = (at >= 0) & (at < t_in)
        y[:, inside] += row * src[:, at[inside]].astype(np.float64)
    return y


def attention(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    scale: float,
    mask: NDArray[np.float32] | None = None,
    causal: int = 0,
    replaces: bool = False,
    unseen_zero: bool = False,
) -> Array:
    """Softmax attention with grouped heads, a mask and the causal rule, as go_attention has it.

    Args:
        q: queries [batch, tq, heads, dim].
        k: keys [batch, tk, kv_heads, dim]; ``kv_heads`` divides ``heads``.
        v: values [batch, tk, kv_heads, dim_v].
        scale: factor of the scores, rounded to f32.
        mask: added to the scores; broadcasts to [batch, heads, tq, tk]. None for no mask.
        causal: which keys a query sees: ``SEES_ALL``, ``CAUSAL_LAST`` (up to its own number,
            counted from the ends) or ``CAUSAL_FIRST`` (counted from the first).
        replaces: whether mask values other than 0 take the place of scores, and are not added.
        unseen_zero: whether a query whose scores are all -inf gives 0; NaN otherwise.

    Returns:
        f64 [batch, tq, heads, dim_v]; 0 without keys.
    """
    group = q.shape[2] // k.shape[2]
    tq, tk = q.shape[1], k.shape[1]
    wide_k, wide_v = (np.repeat(x.astype(np.float64), group, axis=2) for x in (k, v))
    scores = np.einsum("bthd,bshd->bhts", q.astype(np.float64), wide_k)
    scores = scores * float(np.float32(scale))
    if mask is not None:
        scores = np.where(mask != 0, mask, scores) if replaces else scores + mask
    if causal != SEES_ALL:
        last = np.arange(tq)[:, None] + (tk - tq if causal == CAUSAL_LAST else 0)
        scores = np.where(np.arange(tk)[None, :] > last, -np.inf, scores)
    weights = softmax(scores) if tk else scores
    if unseen_zero:
        weights = np.where((scores == -np.inf).all(-1, keepdims=True), 0, weights)
    y: Array = np.einsum("bhts,bshd->bthd", weights, wide_v)
    return y


@dataclass(frozen=True)
class Geometry:
    """Windows of im2col, vertical extents before horizontal ones.

    Attributes:
        taps: pixels of a window.
        stride: pixels from window to window.
        dilation: pixels from tap to tap.
    """

    taps: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def shares_lines(self) -> bool:
        """Whether the windows of a line are quantized together.

        They are where they overlap in an image, in which most values are read several times.
        """
        return self.taps[0] > 1 and self.dilation[1] == 1 and self.stride[1] < self.taps[1]


def im2col(
    src: Array,
    kernel: tuple[int, int],
    out_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
) -> Array:
    """The windows of a convolution as rows (im2col).

    A row holds the taps in order, the channels of a tap side by side.

    Args:
        src: [batch, in_h, in_w, channels] of any dtype; counts as 0 outside.
        kernel: (kh, kw).
        out_size: (out_h, out_w).
        stride: pixels from window to window, (vertical, horizontal).
        dilation: pixels from tap to tap, likewise.
        pad: zeros at the (top, left); those at the bottom and right follow from ``out_size``.

    Returns:
        [batch, out_h, out_w, kh * kw * channels], dtype as ``src``.
    """
    batch, in_h, in_w, channels = src.shape
    y = np.zeros((batch, *out_size, *kernel, channels), src.dtype)
    for i in range(kernel[0]):
        rows = np.arange(out_size[0]) * stride[0] + i * dilation[0] - pad[0]
        oh = np.flatnonzero((rows >= 0) & (rows < in_h))
        for j in range(kernel[1]):
            cols = np.arange(out_size[1]) * stride[1] + j * dilation[1] - pad[1]
            ow = np.flatnonzero((cols >= 0) & (cols < in_w))
            y[:, oh[:, None], ow, i, j] = src[:, rows[oh][:, None], cols[ow]]
    return y.reshape(batch, *out_size, kernel[0] * kernel[1] * channels)


def conv2d(
    src: NDArray[np.float32],
    weight: NDArray[np.float32],
    out_size: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad: tuple[int, int],
    groups: int,
) -> Array:
    """The sums of go_conv, without bias and activation.

    Args:
        src: [batch, in_h, in_w, in_c]; counts as 0 outside.
        weight: [out_c, in_c / groups, kh, kw], as in torch.
        out_size: (out_h, out_w).
        stride: pixels from window to window, (vertical, horizontal).
        dilation: pixels from tap to tap, likewise.
        pad: zeros at the (top, left); those at the bottom and right follow from ``out_size``.
        groups: of channels; divides ``in_c`` and ``out_c``.

    Returns:
        f64 [batch, out_h, out_w, out_c].
    """
    batch, in_h, in_w, in_c = src.shape
    out_c, _, kh, kw = weight.shape
    y = np.zeros((batch, *out_size, groups, out_c // groups))
    x = src.astype(np.float64).reshape(batch, in_h, in_w, groups, in_c // groups)
    w = weight.astype(np.float64).reshape(groups, out_c // groups, in_c // groups, kh, kw)
    for i in range(kh):
        rows = np.arange(out_size[0]) * stride[0] + i * dilation[0] - pad[0]
        oh = np.flatnonzero((rows >= 0) & (rows < in_h))
        for j in range(kw):
            cols = np.arange(out_size[1]) * stride[1] + j * dilation[1] - pad[1]
            ow = np.flatnonzero((cols >= 0) & (cols < in_w))
            window = x[:, rows[oh][:, None], cols[ow]]
            y[:, oh[:, None], ow] += np.einsum("bhwgc,gnc->bhwgn", window, w[..., i, j])
    return y.reshape(batch, *out_size, out_c)


def cif(
    hidden: NDArray[np.float32],
    alphas: NDArray[np.float32],
    threshold: float = 1.0,
    rule: str = "prefix",
    count: str = "floor",
) -> tuple[Array, NDArray[np.float32], NDArray[np.int32]]:
    """Continuous integrate-and-fire (Dong and Xu, arXiv:1905.11235), as go_cif defines it.

    Args:
        hidden: [batch, frames, channels].
        alphas: weights of the frames [batch, frames].
        threshold: level at which a token fires; "prefix" has none and does not read it.
        rule: how frames are shared among tokens: "integrate" as in FunASR's ``cif``, "prefix" as
            in its ``cif_v1``.
        count: what the counts are: sums of the weights rounded down ("floor") or to nearest even
            ("round"), 0 at least, or numbers of fires ("fires").

    Returns:
        Tokens f64 [batch, largest count, channels], zero behind the last fire of an item; peaks
        f32 [batch, frames]; counts i32 [batch].
    """
    now, following, peaks = _cif_shares(alphas, np.float32(threshold), rule)
    fires = ~np.isnan(following)
    totals = np.cumsum(alphas.astype(np.float64), 1)[:, -1:].sum(1).astype(np.float32)
    rounded = {"floor": np.floor(totals), "round": np.rint(totals), "fires": fires.sum(1)}[count]
    counts = np.maximum(rounded, 0).astype(np.int32)
    tokens = np.zeros((len(hidden), int(counts.max(initial=0)), hidden.shape[2]))
    for item, frames in enumerate(hidden.astype(np.float64)):
        made, token = 0, np.zeros(hidden.shape[2])
        for t, frame in enumerate(frames):
            token = token + now[item, t] * frame
            if fires[item, t] and made < tokens.shape[1]:
                tokens[item, made] = token
                made, token = made + 1, following[item, t] * frame
    return tokens, peaks, counts


def _cif_shares(
    alphas: NDArray[np.float32], threshold: np.float32, rule: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """For each frame its share of the token it is in, that of the next or NaN, and its peak."""
    if rule == "prefix":
        sums = np.cumsum(alphas.astype(np.float64), 1).astype(np.float32)
        whole = np.floor(sums)
        fires = np.diff(whole, axis=1, prepend=np.float32(0)) > 0
        peaks = fires.astype(np.float32) + sums - whole
        rest = peaks - np.floor(peaks)
        return np.where(fires, alphas - rest, alphas), np.where(fires, rest, np.nan), peaks
    now, following, peaks = alphas.copy(), np.full_like(alphas, np.nan), np.empty_like(alphas)
    level = np.zeros(len(alphas), np.float32)
    for t in range(alphas.shape[1]):
        missing = np.float32(1) - level
        level = level + alphas[:, t]
        peaks[:, t] = level
        fires = level >= threshold
        now[fires, t] = missing[fires]
        following[fires, t] = (alphas[:, t] - missing)[fires]
        level = np.where(fires, level - np.float32(1), level)
    return now, following, peaks
