"""The harness itself: it must notice kernels that touch what is not theirs."""

import numpy as np
import pytest
from harness import At, Runner, require, run_kernel

from graphopt.kernels.arguments import F32, PackLhsArgs

SCALAR = "x86_64/scalar"  # these mutations suit panels of one row


def pack(runner: Runner, x: np.ndarray, dst_bytes: int, offset: int = 0):
    """Pack x [m, k] as bf16, reading from ``offset`` bytes into its memory."""
    args = PackLhsArgs(m=x.shape[0], k=x.shape[1], src_stride=x.shape[1], src_dtype=F32)
    dst = np.zeros(dst_bytes, np.uint8)
    return run_kernel(runner, "go_pack_bf16", args, {"src": At(x, offset), "dst": dst})


def stray(write):
    """A mutation of the packing kernel that also does ``write``."""
    call = "go_pack_bf16_rows(args, first,"
    return call, f"{write}, {call}"


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        (stray("((char *)args->dst)[32] = 1"), "were written"),
        (stray("((char *)args->dst)[-1] = 1"), "were written"),
        (stray("*(float *)args->src = 0"), "input 'src' was written"),
    ],
)
def test_stray_writes_are_noticed(mutation, message):
    runner = Runner(require(SCALAR).level, mutation=mutation)
    with pytest.raises(AssertionError, match=message):
        pack(runner, np.ones((2, 8), np.float32), 32)


def test_reading_behind_a_buffer_crashes_and_is_noticed():
    with pytest.raises(AssertionError, match="the kernel crashed"):
        pack(require(SCALAR), np.ones((2, 8), np.float32), 32, offset=32)


def test_offsets_point_into_the_array():
    x = np.arange(32, dtype=np.float32).reshape(2, 16)
    args = PackLhsArgs(m=1, k=8, src_stride=8, src_dtype=F32)
    out = run_kernel(
        require(SCALAR),
        "go_pack_bf16",
        args,
        {"src": At(x, 32), "dst": np.zeros(16, np.uint8)},
    )
    assert (out["dst"].view(np.uint16) == (x[0, 8:].view(np.uint32) >> 16)).all()
