"""Strides of views, against numpy."""

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from graphopt.ir import DType, Layout, Value
from graphopt.ir.layout import (
    broadcast_strides,
    dense,
    is_contiguous,
    merge_axes,
    reshaped_strides,
    row_stride,
    same_strides,
)
from graphopt.ir.symbolic import contiguous_strides, symbol

B, T = symbol("B"), symbol("T")


def test_dense_in_an_order() -> None:
    value = Value(DType.F32, (B, 4, T))
    assert dense(value).strides == (4 * T, T, 1)
    assert dense(value, (0, 2, 1)).strides == (4 * T, 1, 4)


def test_contiguous_ignores_strides_of_single_elements() -> None:
    value = Value(DType.F32, (1, 4))
    value.layout = Layout(value, (99, 1))
    assert is_contiguous(value)
    assert same_strides((5, 1), (7, 1), (1, 3)) and not same_strides((5, 1), (7, 1), (2, 3))


def test_a_size_written_in_another_way_is_not_repeated() -> None:
    value = Value(DType.F32, (1, sympy.Min(512, T), 8))
    assert broadcast_strides(value, 4) == (0, 0, 8, 1)


def test_merge_axes() -> None:
    assert merge_axes((B, T, 8), (8 * T, 8, 1)) == [(8 * B * T, 1)]
    assert merge_axes((B, T, 4), (8 * T, 8, 1)) == [(B * T, 8), (4, 1)]
    assert merge_axes((1, 1), (3, 3)) == []


@pytest.mark.parametrize(
    "shape, strides, row",
    [
        ((), (), 1),
        ((5,), (1,), 5),
        ((5,), (2,), None),
        ((B, T, 8), (8 * T, 8, 1), 8),
        ((B, T, 4), (8 * T, 8, 1), 8),
        ((B, T, 8), (8, 8 * B, 1), None),
        ((T, 1), (3, 7), 3),
    ],
)
def test_row_stride(shape, strides, row) -> None:
    assert row_stride(shape, strides) == row


def test_symbolic_reshapes() -> None:
    assert reshaped_strides((B, T, 8), (8 * T, 8, 1), (B, T, 2, 4)) == (8 * T, 8, 4, 1)
    assert reshaped_strides((B, T, 8), (8 * T, 8, 1), (B * T, 8)) == (8, 1)
    assert reshaped_strides((B, 8, T), (8 * T, 1, 8), (B, 8 * T)) is None
    half = T // 2  # dense memory may take any shape, even one that is not seen to fit
    assert reshaped_strides((B, T, 8), (8 * T, 8, 1), (B, half, 16)) is not None


@given(st.data())
def test_reshapes_agree_with_numpy(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4))
    axes = data.draw(st.permutations(range(len(shape))))
    base = np.arange(int(np.prod(shape))).reshape(shape).transpose(axes)
    total, new = base.size, []
    while total > 1:
        factor = data.draw(st.sampled_from([f for f in range(2, total + 1) if total % f == 0]))
        new.append(factor)
        total //= factor
    new = tuple(data.draw(st.permutations([*new, 1])))
    strides = tuple(s // base.itemsize for s in base.strides)
    found = reshaped_strides(base.shape, strides, new)
    if found is None:
        assert not np.shares_memory(base, base.reshape(new))  # numpy copies too
    else:
        view = np.lib.stride_tricks.as_strided(base, new, [s * base.itemsize for s in found])
        np.testing.assert_array_equal(view, base.reshape(new))
    if same_strides(strides, contiguous_strides(base.shape), base.shape):
        assert found is not None
