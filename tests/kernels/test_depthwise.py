"""The depthwise convolution along time (FSMN memory block)."""

from dataclasses import dataclass

import numpy as np
import pytest
from across import bits, run_everywhere
from harness import LEVEL_IDS, At, Case, end_of, require, run_cases

from graphopt.kernels import reference_ops
from graphopt.kernels.arguments import ACTIVATIONS, BF16, F32, DepthwiseArgs
from graphopt.kernels.reference import activation, bf16_from_f32, f32_from_bf16


@dataclass
class Spec:
    """One convolution; ``extras``: i mask_in, o mask_out (I, O: of ones), b bias, r residual."""

    batch: int = 1
    t_in: int = 10
    channels: int = 16
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    pad: tuple[int, int] = (1, 1)
    extras: str = ""
    identity: int = 0
    act: str = "none"
    src_dtype: int = F32
    dst_dtype: int = F32

    @property
    def t_out(self):
        reach = self.t_in + sum(self.pad) - (self.kernel - 1) * self.dilation - 1
        return max(0, reach // self.stride + 1)


SPECS = [
    Spec(t_in=1, channels=1, kernel=1, pad=(0, 0)),
    Spec(t_in=0, channels=5),
    Spec(batch=0),
    Spec(t_in=1, channels=17, kernel=11, pad=(5, 5), extras="io", identity=1),
    Spec(t_in=7, channels=16, kernel=2, pad=(1, 0)),
    Spec(2, 37, 33, 11, pad=(5, 5), extras="ior", identity=1),
    Spec(1, 53, 40, 20, pad=(19, 0), extras="r", identity=2),
    Spec(2, 41, 31, 20, pad=(10, 9), extras="b", identity=2, act="relu"),
    Spec(1, 29, 19, 5, stride=2, pad=(2, 2), extras="b", act="silu"),
    Spec(1, 29, 19, 4, stride=3, dilation=2, pad=(-1, 4), extras="bo", act="gelu_erf"),
    Spec(1, 31, 48, 15, dilation=3, pad=(42, 0), extras="i", act="tanh"),
    Spec(2, 19, 23, 7, pad=(3, 3), extras="ibor", identity=1, src_dtype=BF16, dst_dtype=BF16),
    Spec(1, 23, 32, 9, pad=(4, 4), extras="r", identity=2, src_dtype=BF16),
    Spec(1, 80, 17, 70, pad=(35, 34), extras="i", identity=1),
    Spec(1, 90, 16, 5, dilation=70, pad=(140, 140), extras="b", identity=2),
    Spec(1, 300, 3, 4, stride=2, pad=(3, 0), src_dtype=BF16),
    Spec(1, 40, 16, 3, pad=(-8, 10), extras="i", identity=1),
    Spec(1, 560, 16, 20, pad=(19, 0), extras="io", identity=1),
    Spec(1, 260, 150, 11, pad=(5, 5), extras="ior", identity=1, dst_dtype=BF16),
    Spec(2, 167, 150, 11, pad=(5, 5), extras="IOr", identity=1),
    Spec(1, 320, 32, 4, stride=2, pad=(3, 0), extras="I"),
    Spec(1, 100, 48, 3, dilation=4, pad=(-2, 10), extras="Ib", identity=1),
    Spec(1, 100, 32, 3, pad=(40, 40), extras="O"),
    Spec(1, 41, 32, 5, pad=(2, 2), extras="r"),
]


def stored(x, dtype):
    return bf16_from_f32(x) if dtype == BF16 else x.astype(np.float32)


def values(x):
    return f32_from_bf16(x) if x.dtype == np.uint16 else x


def strided(rng, batch, times, channels, dtype):
    """Random values as the corner of a larger array, and the view of them."""
    whole = stored(rng.normal(0, 1, (batch, times + 1, channels + 3)).astype(np.float32), dtype)
    return whole, whole[:, :times, :channels]


def make_case(spec, seed=0):
    """The case, and the arrays it uses by name."""
    rng = np.random.default_rng(seed)
    data = {"weight": rng.normal(0, 1, (spec.kernel, spec.channels)).astype(np.float32)}
    pointers = {"weight": data["weight"]}
    pointers["src"], data["src"] = strided(
        rng, spec.batch, spec.t_in, spec.channels, spec.src_dtype
    )
    shape = (spec.batch, spec.t_out + 1, spec.channels + 2)
    pointers["dst"] = np.full(shape, 7, np.uint16 if spec.dst_dtype == BF16 else np.float32)
    args = DepthwiseArgs(
        batch=spec.batch,
        t_in=spec.t_in,
        t_out=spec.t_out,
        channels=spec.channels,
        kernel=spec.kernel,
        stride=spec.stride,
        dilation=spec.dilation,
        pad_left=spec.pad[0],
        src_stride=element_strides(pointers["src"]),
        src_dtype=spec.src_dtype,
        identity=spec.identity,
        activation=ACTIVATIONS.index(spec.act),
        dst_stride=element_strides(pointers["dst"]),
        dst_dtype=spec.dst_dtype,
    )
    if "b" in spec.extras:
        pointers["bias"] = data["bias"] = rng.normal(0, 1, spec.channels).astype(np.float32)
    if "r" in spec.extras:
        args.residual_dtype = spec.src_dtype
        pointers["residual"], data["residual"] = strided(
            rng, spec.batch, spec.t_out, spec.channels, spec.src_dtype
        )
        args.residual_stride = element_strides(pointers["residual"])
    for letter, name, times in (("i", "mask_in", spec.t_in), ("o", "mask_out", spec.t_out)):
        if letter in spec.extras.lower():
            kept = 1.0 if letter.upper() in spec.extras else 0.8
            mask = (rng.random((spec.batch, times, 1)) < kept).astype(np.float32)
            pointers[name] = data[name] = mask
            setattr(args, f"{name}_stride", (times, 1))
    ends = {n: end_of(data[n], pointers[n]) for n in ("src", "residual") if n in pointers}
    return Case(args, pointers, ends=ends), data


def element_strides(array):
    return tuple(s // array.itemsize for s in array.strides[:2])


def oracle(spec, data):
    """Exact result, and the sum of magnitudes of its terms."""
    src = values(data["src"]).astype(np.float64)
    u = src * data.get("mask_in", 1.0)
    geometry = (spec.t_out, spec.stride, spec.dilation, spec.pad[0])
    y = reference_ops.depthwise(u, data["weight"], *geometry)
    size = reference_ops.depthwise(np.abs(u), np.abs(data["weight"]), *geometry)
    extra = [data["bias"]] if "bias" in data else []
    if spec.identity:
        extra.append((u if spec.identity == 1 else src)[:, : spec.t_out])
    for term in extra:
        y, size = y + term, size + np.abs(term)
    y = activation(y, spec.act) * data.get("mask_out", 1.0)
    if "residual" in data:
        y, size = y + values(data["residual"]), size + np.abs(values(data["residual"]))
    return y, size


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_float64(where):
    """One rounding per tap and per step behind it, each of a partial sum below the sum of
    magnitudes; activations have slopes below 1.13 and err by less than 3 ulp."""
    made = [make_case(spec, i) for i, spec in enumerate(SPECS)]
    results = run_everywhere(require(where), "go_depthwise", [c for c, _ in made], "depthwise")
    for spec, (_, data), out in zip(SPECS, made, results, strict=True):
        got = out["dst"][:, : spec.t_out, : spec.channels]
        assert np.all(out["dst"][:, spec.t_out :] == 7)
        assert np.all(out["dst"][:, :, spec.channels :] == 7)
        expected, size = oracle(spec, data)
        bound = 2.0**-24 * (spec.kernel + 10) * 1.13 * (size + 1e-30)
        if spec.dst_dtype == BF16:
            bound = bound + 2.0**-8 * np.abs(expected)
        assert np.all(np.abs(values(got) - expected) <= bound)


@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_mask_broadcasts_and_nan_passes_it(where):
    """A mask with stride 0 over the batch; NaN behind a zero mask reaches exactly the outputs
    whose window holds it, and no other channel."""
    spec = Spec(2, 21, 18, 5, pad=(2, 2), extras="i", identity=1)
    case, data = make_case(spec)
    data["mask_in"][:] = 1
    data["mask_in"][0, 9] = 0
    case.args.mask_in_stride = (0, 1)
    case.pointers["src"][1, 9, 4] = np.nan
    (out,) = run_everywhere(require(where), "go_depthwise", [case], "depthwise nan")
    got = out["dst"][:, :21, :18]
    holes = np.zeros(got.shape, bool)
    holes[1, 7:12, 4] = True
    assert np.array_equal(np.isnan(got), holes)
    expected, _ = oracle(spec, data | {"mask_in": data["mask_in"][:1]})
    assert np.allclose(got[~holes], expected[~holes], atol=1e-5)


@pytest.mark.parametrize("kernel", [11, 20])
@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_padded_batch_equals_single_utterances(where, kernel):
    """Hidden frames behind the end of an utterance change no bit of it."""
    lengths = (37, 23, 1)
    spec = Spec(3, 37, 24, kernel, pad=(kernel // 2, kernel - 1 - kernel // 2), identity=1)
    spec.extras = "io"
    case, data = make_case(spec)
    for row, length in enumerate(lengths):
        for name in ("mask_in", "mask_out"):
            data[name][row] = (np.arange(37) < length)[:, None]
    alone = []
    for row, length in enumerate(lengths):
        args = DepthwiseArgs.from_buffer_copy(case.args)
        args.batch, args.t_in, args.t_out = 1, length, length
        pointers = {
            name: At(array, 0 if name == "weight" else row * array.strides[0])
            for name, array in case.pointers.items()
        }
        alone.append(Case(args, pointers))
    whole, *single = run_cases(require(where), "go_depthwise", [case, *alone])
    for row, length in enumerate(lengths):
        window = (row, slice(length), slice(24))
        assert np.array_equal(
            bits(whole["dst"][window].copy()), bits(single[row]["dst"][window].copy())
        )
