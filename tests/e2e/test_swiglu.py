"""A SwiGLU block from torch to code: the gate is multiplied by the kernel that computes it.

Where gate and up are one product, the loop that multiplies its halves quantizes what it makes.
"""

from typing import Any

import pytest

import graphopt

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphopt.testing import BF16_RELATIVE, FP32_RELATIVE, INT8_SQNR, relative_error, sqnr  # noqa: E402

#: Four bits of weights in blocks of 32 leave about this signal to noise, in dB.
INT4_SQNR = 14.0


class SwiGlu(nn.Module):
    """x + down(silu(gate(x)) * up(x)) behind an RMS norm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Any) -> Any:
        y = self.norm(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_swiglu(precision: str) -> None:
    torch.manual_seed(0)
    model, x = SwiGlu(96, 160).eval(), torch.randn(2, 13, 96)
    fast = graphopt.optimize(model, precision=precision, example_inputs=(x,), strict=True)
    assert "multiplies by factor" in str(fast.report())
    with torch.inference_mode():
        got, want = fast(x).numpy(), model(x).numpy()
        one = fast(x[1:, 4:5]).numpy()
    assert (one == got[1:, 4:5]).all() or precision == "bf16"
    if precision == "fp32":
        assert relative_error(got, want) < FP32_RELATIVE
    elif precision == "bf16":
        assert relative_error(got, want) < BF16_RELATIVE
    else:
        assert sqnr(got, want) > (INT8_SQNR if precision == "int8" else INT4_SQNR)


class GatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x)) with gate and up in one matrix."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Any) -> Any:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(nn.functional.silu(gate) * up)


@pytest.mark.parametrize("precision", ["int8", "int4", "int8+bf16"])
def test_gate_is_quantized_where_it_is_computed(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, x = GatedMlp(64, 1184).eval(), torch.randn(2, 13, 64)

    def outputs() -> tuple[Any, ...]:
        fast = graphopt.optimize(model, precision=precision, example_inputs=(x,), strict=True)
        nodes = [n for n in fast.report().nodes if n.op == "go.pointwise"]
        assert len(nodes) == 1
        return nodes[0].kernel, fast(x).numpy(), fast(x[1:, 4:5]).numpy()

    kernel, got, one = outputs()
    monkeypatch.setenv("GRAPHOPT_SKIP", "fuse_quantize")
    stored, wanted, _ = outputs()
    assert (kernel, stored) == ("go_quantize_rows", "loop")
    assert (got == wanted).all() and (one == got[1:, 4:5]).all()
