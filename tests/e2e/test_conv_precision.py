"""Convolutions in int8 and bf16 from torch to this machine's code and to emulated Arm code."""

import shutil
from typing import Any

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphopt.testing import BF16_RELATIVE, EMULATED_BF16, INT8_SQNR, relative_error, sqnr  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::graphopt.compiler.program.OtherMachineWarning")

# name -> module, shape of its input
MODELS = {
    "1d": (nn.Conv1d(24, 40, 3, padding=1), (2, 24, 37)),
    "1d strided": (nn.Conv1d(80, 48, 5, stride=2, padding=2), (1, 80, 41)),
    "1d dilated": (nn.Conv1d(16, 33, 4, dilation=3, bias=False), (2, 16, 29)),
    "1d grouped": (nn.Conv1d(64, 96, 3, padding=1, groups=4), (2, 64, 19)),
    "1d pointwise": (nn.Conv1d(40, 72, 1), (3, 40, 11)),
    "2d": (nn.Conv2d(8, 32, 3, stride=(2, 1), padding=1), (2, 8, 11, 14)),
    "2d grouped": (nn.Conv2d(32, 64, (3, 2), groups=2, dilation=(1, 2)), (1, 32, 9, 8)),
}


class Fused(nn.Module):
    """A convolution between element-wise ops, an activation and a residual behind it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Any) -> Any:
        y = self.conv(x * 2)
        return torch.relu(y) + y.tanh()


def compile_model(name: str, precision: str, target: str = "native", threads: int = 1) -> Any:
    torch.manual_seed(0)
    module, shape = MODELS[name]
    x = torch.randn(shape)
    model = Fused(module).eval()
    fast = graphopt.optimize(
        model,
        target=target,
        precision=precision,
        example_inputs=(x,),
        num_threads=threads,
        strict=True,
    )
    with torch.inference_mode():
        return fast, x, model(x).numpy()


@pytest.mark.parametrize("precision", ["int8", "bf16", "int8+bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_against_torch(name: str, precision: str) -> None:
    """int8: the noise of two factors of 8 bits (INT8_SQNR leaves 8 dB to it). bf16: rounded
    factors, and a sum whose terms' rounding errors average out."""
    fast, x, wanted = compile_model(name, precision)
    listing = str(fast.report())
    assert ("_im2col" in listing) == ("pointwise" not in name), listing
    assert "go_conv" not in listing, listing
    got = fast(x).numpy()
    if "int8" in precision:
        assert sqnr(got, wanted) >= INT8_SQNR
    else:
        assert relative_error(got, wanted) <= BF16_RELATIVE
    many, _, _ = compile_model(name, precision, threads=3)
    assert np.array_equal(many(x).numpy(), got)


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed")
@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize("name", ["1d", "1d grouped", "2d"])
def test_emulated(name: str, precision: str) -> None:
    """The same integers and floats on Arm; BFMMLA has sums of its own."""
    fast, x, _ = compile_model(name, precision, "neoverse-n2")
    here = fast(x).numpy()
    for level, bits in (("sve2", 128), ("sve2", 256), ("neon_i8mm", 128), ("scalar", 128)):
        got = fast.emulate(x, level=level, sve_bits=bits).numpy()
        if precision == "int8" or level == "scalar":
            assert np.array_equal(got, here), level
        else:
            assert relative_error(got, here) <= EMULATED_BF16, level
