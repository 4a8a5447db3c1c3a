"""The numpy meaning of every op, against torch or by hand."""

import numpy as np
import pytest
from graphs import BF16, Maker, random_inputs

from graphopt.ir import DType, scalar
from graphopt.ir.interpret import run_graph
from graphopt.ir.numbers import narrow, widen
from graphopt.ir.ops.elements import FUNCTIONS
from graphopt.kernels import reference
from graphopt.testing import FP32_SAME, relative_error, sqnr

torch = pytest.importorskip("torch")


def test_bf16_rounds_as_torch() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4000, dtype=np.uint32)
    x = np.concatenate([bits.view(np.float32), np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)])
    wanted = torch.from_numpy(x).bfloat16()
    got = narrow(x, BF16)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(got[finite], wanted.view(torch.uint16).numpy()[finite])
    assert np.isnan(widen(got, BF16)[~finite]).all()


#: Tested with whole numbers in tests/codegen/test_loops.py, or not functions of one type.
NOT_OF_FLOATS = {"where", "and", "or", "not", "quotient", "nonzero", "shift_left", "shift_right"}
NOT_OF_FLOATS |= {"bit_and", "bit_or", "bit_xor", "bit_not"}
OF_TWO = ("add", "sub", "mul", "div", "max", "min", "pow", "atan2", "copysign", "rest")
OF_TWO += ("floor_divide", "remainder")


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - NOT_OF_FLOATS))
def test_functions(name: str) -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(0)).abs() + 0.1
    x = x % 1 if name in ("asin", "acos", "atanh") else x + 1 if name == "acosh" else x
    y = x.flip(0)
    special = {
        "gelu_erf": torch.nn.functional.gelu,
        "gelu_tanh": lambda v: torch.nn.functional.gelu(v, approximate="tanh"),
        "silu": torch.nn.functional.silu,
        "max": torch.maximum,
        "min": torch.minimum,
        "rest": torch.fmod,
    }
    function = special.get(name) or getattr(torch, name)
    operands = 2 if name in (*OF_TWO, *scalar.COMPARISONS) else 1
    wanted = function(*(x, y)[:operands]).numpy()
    got = FUNCTIONS[name](*(x.numpy(), y.numpy())[:operands])
    assert got.dtype == wanted.dtype and relative_error(got, wanted) < FP32_SAME


def test_dims_come_from_the_inputs() -> None:
    m = Maker()
    x = m.input("x", "B", "T")
    graph = m.output(m.pointwise(scalar.size(m.shape("T")[0]), shape=("B",)), x)
    got = run_graph(graph, random_inputs(graph, T=9))
    np.testing.assert_array_equal(got[0], [9, 9])


def test_quantized_rows_are_numbers() -> None:
    m = Maker()
    x = m.input("x", "B", "T", 32)
    graph = m.output(m.quantized(x, 16))
    node = graph.nodes[-1]
    (data,) = random_inputs(graph)
    (got,) = run_graph(graph, [data])
    q, scale, bias = (node.operands[role].data for role in ("weight", "scale", "bias"))
    rows = reference.quantize_rows(data.reshape(-1, 32))
    exact = reference.gemm_qa8(rows, reference.QuantizedColumns(q, scale), bias)
    assert relative_error(got.reshape(-1, 16), exact) < FP32_SAME


def test_unknown_ops_are_refused() -> None:
    m = Maker()
    graph = m.output(m.torch("cumsum", m.input("x", 4)))
    with pytest.raises(NotImplementedError, match=r"aten\.cumsum"):
        run_graph(graph, [np.zeros(4, np.float32)])


def test_measures() -> None:
    x = np.array([1.0, -2.0, np.nan], np.float32)
    assert relative_error(x, x) == 0 and relative_error(x[:2], x) == np.inf
    assert relative_error(x, np.array([1.0, -2.0, 0.0])) == np.inf
    assert relative_error(np.array([1.0, -1.0]), np.array([1.0, -2.0])) == 0.5
    assert (
        relative_error(np.zeros(0), np.zeros(0)) == 0 and relative_error(x[:1], x[:1] * 0) == np.inf
    )
    assert sqnr(x[:2], x[:2]) == np.inf
    assert sqnr(np.array([1.1]), np.array([1.0])) == pytest.approx(20, abs=1e-6)


def test_nan_becomes_the_bf16_that_kernels_make() -> None:
    bits = np.array([0x7F800001, 0xFF812345, 0x7FC00000, 0xFFFFFFFF, 0x7F800000], np.uint32)
    numbers = bits.view(np.float32)
    narrowed = narrow(numbers, DType.BF16)
    np.testing.assert_array_equal(narrowed, reference.bf16_from_f32(numbers))
    assert narrowed.tolist() == [0x7FC0, 0xFFC0, 0x7FC0, 0xFFC0, 0x7F80]
