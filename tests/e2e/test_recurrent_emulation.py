"""Recurrent layers on Arm: the code of every level under qemu, beside this machine's."""

import shutil
from typing import Any

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")

from captured import arrays  # noqa: E402
from torch import nn  # noqa: E402

from graphopt.testing import EMULATED_BF16, relative_error  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::graphopt.compiler.program.OtherMachineWarning"),
    pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed"),
]


class Layers(nn.Module):
    """Two kinds in both directions, and one whose states are projected."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(20, 36, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(72, 17, bidirectional=True, batch_first=True)
        self.projected = nn.LSTM(34, 32, proj_size=20, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.projected(self.gru(self.lstm(x)[0])[0])


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_emulated(precision: str) -> None:
    """The same integers and floats on Arm; BFMMLA has sums of its own."""
    torch.manual_seed(0)
    x = torch.randn(9, 4, 20)
    fast = graphopt.optimize(
        Layers().eval(),
        target="neoverse-n2",
        precision=precision,
        example_inputs=(x,),
        num_threads=2,
        strict=True,
    )
    here = arrays(fast(x))
    for level, bits in (("sve2", 128), ("neon_i8mm", 128), ("scalar", 128)):
        results = arrays(fast.emulate(x, level=level, sve_bits=bits))
        for got, wanted in zip(results, here, strict=True):
            if precision == "int8" or level == "scalar":
                assert np.array_equal(got, wanted), level
            else:
                assert relative_error(got, wanted) <= EMULATED_BF16, level
