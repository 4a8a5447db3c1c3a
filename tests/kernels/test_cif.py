"""Continuous integrate-and-fire: the kernel beside numpy, and numpy beside FunASR."""

import numpy as np
import pytest
from across import bits, run_everywhere
from harness import LEVEL_IDS, At, Case, end_of, require, run_cases

from graphopt.kernels.arguments import CIF_COUNTS, CIF_RULES, CifArgs
from graphopt.kernels.reference_ops import cif
from graphopt.kernels.scratch import cif_scratch_bytes

ROOM = 40
SHAPES = [(1, 1, 1), (1, 2, 16), (3, 37, 33), (2, 60, 64), (4, 23, 150), (1, 0, 5)]


def make_case(shape, rule, count, seed=0, threshold=1.0, scale=0.6, room=ROOM):
    """A case with hidden rows and weights that lie apart, and what numpy is given."""
    batch, frames, channels = shape
    rng = np.random.default_rng(seed)
    hidden = rng.normal(0, 1, (batch, frames + 1, channels + 3)).astype(np.float32)
    alphas = (scale * rng.random((batch, frames + 2))).astype(np.float32)
    alphas[1::2, frames // 2 :] = 0
    pointers = {
        "hidden": hidden,
        "alphas": alphas,
        "dst": np.full(batch * room * channels, 7, np.float32),
        "peaks": np.full((batch, frames), 7, np.float32),
        "counts": np.full(batch, 7, np.int32),
        "tokens": np.full(1, 7, np.int64),
        "scratch": np.full(cif_scratch_bytes(batch, frames) + 1, 7, np.uint8),
    }
    args = CifArgs(
        batch=batch,
        frames=frames,
        channels=channels,
        max_tokens=room,
        rule=CIF_RULES.index(rule),
        count=CIF_COUNTS.index(count),
        threshold=threshold,
        hidden_stride=(hidden[0].size, hidden.shape[2]),
        alphas_stride=(alphas.shape[1], 1),
    )
    writes = ("dst", "peaks", "counts", "tokens", "scratch")
    given = (hidden[:, :frames, :channels], alphas[:, :frames], threshold, rule, count)
    ends = {"hidden": end_of(given[0], hidden), "alphas": end_of(given[1], alphas)}
    return Case(args, pointers, writes, ends=ends), given


def all_cases():
    cases = []
    for i, shape in enumerate(SHAPES):
        for rule in CIF_RULES:
            for j, count in enumerate(CIF_COUNTS):
                cases.append(make_case(shape, rule, count, i, (1.0, 0.9, 1.0)[j]))
    return cases


@pytest.mark.parametrize("where", LEVEL_IDS)
def test_matches_numpy(where):
    """The schedule bit for bit; a token of f frames takes f roundings of partial sums."""
    made = all_cases()
    results = run_everywhere(require(where), "go_cif", [case for case, _ in made], "cif")
    for (case, given), out in zip(made, results, strict=True):
        tokens, peaks, counts = cif(*given)
        assert np.array_equal(out["counts"], counts)
        assert np.array_equal(bits(out["peaks"]), bits(peaks))
        assert out["tokens"][0] == tokens.shape[1]
        got = out["dst"][: tokens.size].reshape(tokens.shape)
        assert np.all(out["dst"][tokens.size :] == 7)
        assert np.all(np.abs(got - tokens) <= 2.0**-24 * case.args.frames * 40)


@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_an_item_does_not_depend_on_its_batch(where):
    case, _ = make_case((3, 37, 33), "prefix", "floor", 5)
    alone = []
    for row in range(3):
        args = CifArgs.from_buffer_copy(case.args)
        args.batch = 1
        own = {
            name: At(array, row * array.strides[0]) if name in ("hidden", "alphas") else array
            for name, array in case.pointers.items()
        }
        alone.append(Case(args, own, case.writes))
    whole, *single = run_cases(require(where), "go_cif", [case, *alone])
    longest, channels = int(whole["tokens"][0]), case.args.channels
    rows = whole["dst"][: 3 * longest * channels].reshape(3, longest, channels)
    for row, out in zip(rows, single, strict=True):
        count = int(out["tokens"][0])
        mine = out["dst"][: count * channels].reshape(count, channels)
        assert count and np.array_equal(bits(row[:count].copy()), bits(mine))


@pytest.mark.parametrize("where", LEVEL_IDS[:3])
def test_more_tokens_than_room_and_weights_that_count_nothing(where):
    """What does not fit is left out and told; NaN is no count; huge weights fire once a frame."""
    full, given = make_case((2, 37, 16), "prefix", "round", 3, scale=3.0, room=5)
    huge, _ = make_case((1, 9, 16), "prefix", "round", 3, scale=1e30, room=5)
    nan, _ = make_case((2, 9, 16), "integrate", "floor", 3)
    nan.pointers["alphas"][1, 4] = np.nan
    first, second, third = run_cases(require(where), "go_cif", [full, huge, nan])
    tokens, _, counts = cif(*given)
    assert first["tokens"][0] == counts.max() > 5
    got = first["dst"].reshape(2, 5, 16)
    assert np.allclose(got, tokens[:, :5], atol=1e-5)
    assert second["tokens"][0] == -1 and third["tokens"][0] == -1
    assert list(third["counts"])[1] == -1


FORMS = {
    "cif": ("integrate", "round"),
    "cif_export": ("integrate", "fires"),
    "cif_v1": ("prefix", "round"),
    "cif_v1_export": ("prefix", "floor"),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("batch", [1, 3])
def test_numpy_matches_funasr(name, batch):
    """FunASR takes differences of running sums, which cancels: 1e-5 of sums below 40."""
    torch = pytest.importorskip("torch")
    predictor = pytest.importorskip("funasr.models.paraformer.cif_predictor")
    rule, count = FORMS[name]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        hidden = rng.normal(0, 1, (batch, 41, 8)).astype(np.float32)
        alphas = (0.7 * rng.random((batch, 41))).astype(np.float32)
        alphas[:, -1] += np.ceil(alphas.sum(1)) - alphas.sum(1) + np.float32(0.3)
        given = torch.from_numpy(hidden), torch.from_numpy(alphas.copy())
        expected, peaks = getattr(predictor, name)(*given, 1.0)
        tokens, ours, _ = cif(hidden, alphas, 1.0, rule, count)
        assert tokens.shape == expected.shape
        assert np.abs(tokens - expected.numpy()).max(initial=0) < 1e-5 * 40
        assert np.abs(ours - peaks.numpy()).max() < 1e-5
