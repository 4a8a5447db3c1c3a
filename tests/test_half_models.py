"""Models in bfloat16 and float16, whole and in part: types as torch has them, numbers as near."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import F32, Maker, build, emit, native_levels

import graphopt
from graphopt.ir import DType, scalar
from graphopt.ir.interpret import run_graph

torch = pytest.importorskip("torch")

from captured import Function, captured  # noqa: E402

from graphopt.compiler.pipeline import PassManager, lowering_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.testing import BF16_RELATIVE, relative_error  # noqa: E402

F16 = DType.F16


class Block(torch.nn.Module):
    """Convolution, embedding, attention, norms and linears; the last norm may be f32."""

    def __init__(self, dtype: torch.dtype, mixed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv1d(8, 32, 3, padding=1)
        self.table = torch.nn.Embedding(7, 32)
        self.layer = torch.nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.norm = torch.nn.LayerNorm(32)
        self.out = torch.nn.Linear(32, 5)
        self.eval().to(dtype)
        if mixed:
            self.norm.float()

    def forward(self, x: Any, tokens: Any) -> Any:
        y = self.layer(self.conv(x).transpose(1, 2) + self.table(tokens))
        y = self.norm(y.to(self.norm.weight.dtype)).to(y.dtype)
        return self.out(y).softmax(-1), y.mean(1), y.float().argmax(-1)


def arguments(dtype: torch.dtype, time: int) -> tuple[Any, Any]:
    torch.manual_seed(time)
    return torch.randn(2, 8, time).to(dtype), torch.randint(0, 7, (2, time))


@pytest.mark.parametrize(
    "dtype, mixed, precision",
    [
        (torch.bfloat16, False, "bf16"),
        (torch.bfloat16, True, "int8"),
        (torch.float16, True, "fp32"),
    ],
    ids=str,
)
def test_a_model_of_16_bits_compiles_whole(dtype, mixed, precision, tmp_path: Path) -> None:
    model = Block(dtype, mixed)
    fast = graphopt.optimize(model, example_inputs=arguments(dtype, 9), precision=precision)
    assert not fast.report().in_torch
    inputs = arguments(dtype, 11)
    with torch.no_grad():
        wanted, got = model(*inputs), fast(*inputs)
    bound = {"bf16": 0.025, "int8": 0.09, "fp32": BF16_RELATIVE / 8}[precision]
    for one, other in zip(got[:2], wanted[:2], strict=True):
        assert one.dtype is other.dtype is dtype and one.shape == other.shape
        assert relative_error(one.double().numpy(), other.double().numpy()) < bound
    assert got[2].dtype is torch.int64
    fast.save(tmp_path / "block.gopt")
    loaded = graphopt.load(tmp_path / "block.gopt")
    for one, other in zip(loaded(*inputs), got, strict=True):
        assert one.dtype is other.dtype and torch.equal(one, other)
    stored = torch.uint16 if dtype is torch.bfloat16 else dtype
    arrays = loaded(inputs[0].view(stored).numpy(), inputs[1].numpy())
    assert [a.dtype for a in arrays[:2]] == [np.dtype(str(stored).removeprefix("torch."))] * 2
    with pytest.raises(graphopt.errors.InputDtypeError):
        loaded(inputs[0].float(), inputs[1])


def test_constants_of_16_bits_are_weights_of_products_and_results_are_rounded() -> None:
    weight = torch.randn(6, 4).bfloat16()
    x = torch.randn(3, 4).bfloat16()
    graph = captured(lambda x: torch.nn.functional.linear(x, weight).relu(), x).graph
    PassManager(Config(verify=True)).run(graph, lowering_passes())
    assert [n.op.name for n in graph.nodes] == ["go.pointwise", "go.linear", "go.pointwise"]
    (got,) = run_graph(graph, [x.view(torch.uint16).numpy()])
    wanted = (x.double() @ weight.double().T).float().bfloat16().relu()
    assert np.array_equal(got, wanted.view(torch.uint16).numpy())


def test_bf16_and_f16_together_are_f32() -> None:
    x, y = torch.randn(3).bfloat16(), torch.randn(3).half()
    graph = captured(lambda x, y: (x + y, x < y, torch.where(x < y, x, y)), x, y).graph
    PassManager(Config(verify=True)).run(graph, lowering_passes())
    assert [v.dtype for v in graph.outputs] == [F32, DType.BOOL, F32]
    got = run_graph(graph, [x.view(torch.uint16).numpy(), y.numpy()])
    assert np.array_equal(got[0], (x + y).numpy()) and np.array_equal(got[1], (x < y).numpy())


def conversions() -> Any:
    """Every f16 as f32 and doubled, and f32 as f16."""
    m = Maker()
    half, wide = m.input("half", "N", dtype=F16), m.input("wide", "K")
    widened = scalar.cast(scalar.operand(0, F16), F32)
    doubled = scalar.cast(scalar.apply("add", widened, widened), F16)
    rounded = scalar.cast(scalar.operand(0, F32), F16)
    return m.output(
        m.pointwise(widened, half), m.pointwise(doubled, half), m.pointwise(rounded, wide)
    )


def numbers() -> list[Any]:
    """All f16; f32 at, between, and just beside them, and of every size."""
    half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    half = half[~np.isnan(half)]
    near = np.sort(half[np.isfinite(half)].astype(np.float32))
    middle = (near[1:] + near[:-1]) / 2
    ends = [np.nextafter(middle, np.float32(sign * np.inf)) for sign in (1, -1)]
    random = np.random.default_rng(0).integers(0, 1 << 32, 4096, dtype=np.uint32)
    special = np.array([np.inf, -np.inf, np.nan, 65519.0, 65520.0, 1e30, 3e-8, 2.9e-8], np.float32)
    wide = np.concatenate([near, middle, *ends, random.view(np.float32), special])
    return [half, np.where(np.abs(wide) < np.finfo(np.float32).tiny, 0, wide).astype(np.float32)]


@pytest.mark.parametrize("level", native_levels())
def test_f16_is_converted_exactly(tmp_path: Path, level: str) -> None:
    inputs = numbers()
    with np.errstate(over="ignore"):
        wanted = [
            inputs[0].astype(np.float32),
            inputs[0] + inputs[0],
            inputs[1].astype(np.float16),
        ]
    got = build(emit(conversions()), level, tmp_path).context(2).run(inputs)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)


def test_f16_is_converted_alike_on_arm() -> None:
    half, wide = (torch.from_numpy(x) for x in numbers())
    model = Function(lambda half, wide: (half.float(), wide.half()))
    fast = graphopt.optimize(model, target="neoverse-n2", example_inputs=(half, wide))
    for level in ("scalar", "sve2"):
        for one, other in zip(
            fast.emulate(half, wide, level=level), model(half, wide), strict=True
        ):
            assert one.dtype is other.dtype
            assert np.array_equal(one.numpy(), other.numpy(), equal_nan=True)
