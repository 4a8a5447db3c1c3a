"""Lowering of aten ops: every rule once against torch, and every refusal with its reason."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from captured import arrays, captured  # noqa: E402
from function_cases import FUNCTIONS  # noqa: E402
from graphs import Maker, assert_close, check_left_alone, check_pass  # noqa: E402
from mask_cases import MASKS  # noqa: E402
from reduction_cases import LINES, NORMS, POOLS, REDUCTIONS  # noqa: E402

import graphopt.funasr.layers.cif  # noqa: E402, F401  (registers graphopt.cif)
from graphopt.errors import LoweringError  # noqa: E402
from graphopt.frontend.import_torch import TORCH_DTYPES, schema_text  # noqa: E402
from graphopt.ir import DType, Graph, Node, Ref, Value  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.ir.ops import Aten, Check  # noqa: E402
from graphopt.ir.verify import verify  # noqa: E402
from graphopt.passes.eliminate_dead_code import EliminateDeadCode  # noqa: E402
from graphopt.passes.lower_aten import RULES, LowerAten  # noqa: E402
from graphopt.passes.lowering import (  # noqa: E402
    attention,
    convolutions,
    experts,
    functions,
    indexing,
    lines,
    masks,
    norms,
    padding,
    parts,
    pointwise,
    pooling,
    products,
    rearranging,
    recurrent,
    reductions,
    resampling,
    sequences,
    views,
)
from graphopt.passes.lowering.promotion import promoted  # noqa: E402
from graphopt.testing import BF16_RELATIVE, FP32_RELATIVE  # noqa: E402

aten = torch.ops.aten
_random = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Any:
    return torch.randn(*shape, generator=_random)


def written(x: Any, write: Callable[[Any], Any]) -> Any:
    """Twice x after a write in place to it or to a view of it."""
    y = x * 2
    write(y)
    return y


X, Y = randn(2, 3, 4), randn(2, 3, 4)
POSITIVE = X.abs() + 0.5
NUMBERS = torch.arange(-6, 18).reshape(2, 3, 4)
MASK = X > 0
SQUARE, WEIGHT, BIAS = randn(2, 4, 4), randn(5, 4), randn(5)
WORDS = torch.tensor([[1, 3, 2], [0, 0, 6]])
Case = tuple[Callable[..., Any], tuple[Any, ...]]

UNARY = "neg abs exp sin cos tanh erf sigmoid silu relu floor ceil"
POINTWISE: dict[str, Case] = {
    **{name: (getattr(aten, name).default, (X,)) for name in UNARY.split()},
    **{name: (getattr(aten, name).default, (POSITIVE,)) for name in ("log", "sqrt", "rsqrt")},
    "add": (lambda x, y: torch.add(x, y, alpha=3) + 1, (X, Y)),
    "sub": (lambda x, n: torch.sub(x, n, alpha=2), (X, NUMBERS)),
    "mul": (lambda x, y: x * y * 2.5, (X, Y[:, :1])),
    **{
        name: (
            lambda n, x, f=name: (getattr(torch, f)(n, x), getattr(torch, f)(n, 2)),
            (NUMBERS, X),
        )
        for name in ("lt", "le", "gt", "ge", "eq", "ne")
    },
    "greater": (lambda x, y: torch.greater(x, y), (X, Y)),
    "less": (lambda x, y: torch.less(x, y), (X, Y)),
    "logical_and": (lambda x, y: torch.logical_and(x, y), (NUMBERS, Y)),
    "logical_or": (lambda x, y: torch.logical_or(x, y), (MASK, NUMBERS)),
    "logical_not": (lambda x: torch.logical_not(x), (NUMBERS,)),
    "bitwise_and": (lambda x, y: torch.bitwise_and(x, y), (MASK, Y > 0)),
    "bitwise_or": (lambda x, y: torch.bitwise_or(x, y), (MASK, Y > 0)),
    "bitwise_not": (lambda x: ~x, (MASK,)),
    "__and__": (lambda x, y: x & y, (MASK, Y > 0)),
    "__or__": (lambda x, y: x | y, (MASK, Y > 0)),
    "rsub": (lambda x: (1 - x, torch.rsub(x, 2.0, alpha=3)), (X,)),
    "maximum": (lambda x, y: torch.maximum(x, y), (X, Y)),
    "minimum": (lambda x, n: torch.minimum(n, n * 2 - 3) + x, (X, NUMBERS)),
    "div": (
        lambda x, n: (
            x / n,
            n / 2,
            torch.div(x, 0.25, rounding_mode="floor"),
            torch.div(x, 0.3, rounding_mode="trunc"),
        ),
        (X, NUMBERS + 0.5),
    ),
    "true_divide": (lambda n: torch.true_divide(n, 4), (NUMBERS,)),
    "where": (lambda m, x, n: torch.where(m, x, n), (MASK, X, NUMBERS)),
    "masked_fill": (lambda x, m: x.masked_fill(m, -3.5), (X, MASK)),
    "clamp": (lambda x, n: (x.clamp(-0.5, 0.25), n.clamp(min=2)), (X, NUMBERS)),
    "clamp_min": (lambda x: x.clamp_min(0.1), (X,)),
    "clamp_max": (lambda x: x.clamp_max(0.1), (X,)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.75), (X,)),
    "relu6": (lambda x: F.relu6(x * 10), (X,)),
    "pow": (lambda x: (x**2, x**3, x.abs() ** 0.5, (x.abs() + 1) ** -0.5), (X,)),
    "square": (lambda x: x.square(), (X,)),
    "gelu": (lambda x: (F.gelu(x), F.gelu(x, approximate="tanh")), (X,)),
    "glu": (lambda x: F.glu(x, -1), (X,)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), (X,)),
    "hardsigmoid": (lambda x: F.hardsigmoid(x * 4), (X,)),
    "hardswish": (lambda x: F.hardswish(x * 4), (X,)),
    "to": (lambda x: (x.to(torch.int64), x.to(torch.bfloat16)), (X * 10,)),
    "_to_copy": (lambda n: aten._to_copy(n, dtype=torch.float32), (NUMBERS,)),
    "type_as": (lambda n, x: n.type_as(x) / 3, (NUMBERS, X)),
    "arange": (
        lambda x: x + torch.arange(x.shape[2]) + torch.arange(1, 3, 0.5),
        (X,),
    ),
    "full": (lambda x: torch.full((x.shape[0], 4), 1.5), (X,)),
    "full_like": (lambda x: torch.full_like(x, 2.5), (X,)),
    "fill": (lambda x: (written(x, lambda y: y[0].fill_(0.5)), x * 0), (X,)),
    "zero": (lambda x: written(x, lambda y: y[0].zero_()), (X,)),
    "copy": (lambda x, n: written(x, lambda y: y.copy_(n[:1])), (X, NUMBERS)),
    "zeros": (lambda x: torch.zeros(x.shape[1]), (X,)),
    "empty_like empty new_empty": (
        lambda x: (torch.empty_like(x).fill_(2), torch.empty(3).zero_(), x.new_empty(2).zero_()),
        (X,),
    ),
    "zeros_like": (lambda x: torch.zeros_like(x), (NUMBERS,)),
    "new_zeros": (lambda x: x.new_zeros(3), (X,)),
    "ones": (lambda x: torch.ones(x.shape[1], dtype=torch.bool), (X,)),
    "ones_like": (lambda x: torch.ones_like(x), (X,)),
    "new_ones": (lambda x: x.new_ones(3), (X,)),
    "scalar_tensor": (
        lambda x: (x * aten.scalar_tensor(2.5), aten.scalar_tensor(x.shape[1]) * x),
        (X,),
    ),
    "isinf": (
        lambda x, y: (torch.isinf(x), torch.isinf(y), torch.isinf(y.long())),
        (1 / torch.tensor([0.0, 1.0, -0.0]), torch.tensor([1e300, -math.inf])),
    ),
}

LINEAR, KERNEL1 = torch.nn.Linear(4, 5), torch.nn.Parameter(randn(6, 4, 3))
GAIN = torch.nn.Parameter(randn(4))  # fixes the size of the axis
MATRIX = torch.nn.Parameter(randn(4, 5))
BILINEAR = torch.nn.Bilinear(4, 4, 3)
PRODUCTS: dict[str, Case] = {
    "linear": (
        lambda x, w, v: (
            (
                LINEAR(x),
                F.linear(x, LINEAR.weight),
                F.linear(x[0], w, LINEAR.bias),
                LINEAR(x[0, 0]),
            ),
            (F.linear(x, v), F.linear(x[0, 0], w)),
        ),
        (X, WEIGHT, randn(4)),
    ),
    "matmul bmm mm mv dot vdot inner chain_matmul linalg_multi_dot": (
        lambda x, y, v, q, k: (
            (x @ y, x @ MATRIX, torch.bmm(x, y), aten.mm(x[0], MATRIX), aten.mm(x[0], y[0])),
            (x @ v, v @ y, v @ v, torch.mv(x[0], v), torch.dot(v, v), aten.vdot(v, v), v @ MATRIX),
            (
                x @ y[:1],
                x[:1] @ y,
                x[0] @ y,
                x @ y[0],
                q @ k,
                q[:, :1] @ k,
            ),
            (torch.inner(x, v), torch.inner(x, x[0]), torch.inner(v, v), torch.inner(v[0], x)),
            (torch.chain_matmul(x[0], y[0], y[1]), torch.linalg.multi_dot([v, y[0], y[1], v])),
            x.bfloat16() @ y.bfloat16(),
        ),
        (X, SQUARE, randn(4), randn(2, 3, 2, 4), randn(2, 1, 4, 5)),
    ),
    "addmm baddbmm addbmm addmv addr": (
        lambda x, y, v: (
            (torch.addmm(LINEAR.bias, x[0], MATRIX), torch.addmm(LINEAR.bias[:1], x[0], MATRIX)),
            (torch.addmm(x[0], x[0], y[0], alpha=2, beta=0.5), torch.addmm(v, x[0], y[0])),
            (torch.baddbmm(x, x, y, beta=2), torch.baddbmm(v[0], x, y, alpha=0.5, beta=0)),
            (torch.addbmm(x[0], x, y), torch.addmv(x[0, :, 0], x[0], v, alpha=3)),
            torch.addr(x[0], x[0, :, 0], v, beta=2),
        ),
        (X, SQUARE, randn(4)),
    ),
    "einsum tensordot bilinear": (
        lambda x, y, v: (
            *(
                torch.einsum(text, *operands)
                for text, *operands in (
                    ("bij,bjk->bik", x, y),
                    ("bij,jk", x, MATRIX),
                    ("bij,bkj->bki", x, y),
                    ("...ij,...jk->...ik", x, y),
                    ("b i j -> j", x),
                    ("bij,bij->bi", x, x),
                    ("i,j->ij", v, v),
                    ("bij,bjk,k->bi", x, y, v),
                    ("bij,j->", x, v),
                    ("bij,bij->bij", x, x[:1]),
                    ("bij,kl->bkli", x, MATRIX[:2]),
                    ("ij,kj->ik", x[0], y[0]),
                )
            ),
            (
                torch.tensordot(x, y, dims=([0, 2], [0, 1])),
                torch.tensordot(x, y[0], 1),
                torch.tensordot(x[:1], y, dims=([0, 2], [0, 1])),  # a sum beside one element
                torch.tensordot(x, y[..., :1], dims=([2, 0], [2, 0])),
                v.mean().repeat(()),
                BILINEAR(x, x),
            ),
        ),
        (X, SQUARE, randn(4)),
    ),
    "scaled_dot_product_attention": (
        lambda q, k, m: (
            F.scaled_dot_product_attention(q * GAIN, k * GAIN, k * GAIN, m),
            F.scaled_dot_product_attention(q, k, k, m > 0, scale=0.2),
            F.scaled_dot_product_attention(k * GAIN, k * GAIN, k * GAIN, is_causal=True),
        ),
        (randn(2, 2, 3, 4), randn(2, 2, 5, 4), randn(2, 1, 3, 5).abs()),
    ),
}
LAST = torch.nn.Parameter(randn(6))
SEQUENCES: dict[str, Case] = {}
FAMILIES = {
    "pointwise": POINTWISE,
    "functions": FUNCTIONS,
    "reductions": REDUCTIONS,
    "norms": NORMS,
    "pools": POOLS,
    "lines": LINES,
    "products": PRODUCTS,
    "sequences": SEQUENCES,
    "masks": MASKS,
}


def check(name: str, case: Case) -> None:
    function, tensors = case
    graph = captured(function, *tensors).graph
    missing = {f"aten.{op}" for op in name.split()} - {n.op.name for n in graph.nodes}
    assert name == "of other types" or not missing, "the case has no such node"
    EliminateDeadCode().run(graph)
    LowerAten().run(graph)
    verify(graph, "lower_aten")
    left = [n for n in graph.nodes if not n.is_lowered]
    assert not left, [n.reasons for n in left]
    assert not LowerAten().run(graph)
    with torch.no_grad():
        wanted = arrays(function(*tensors))
    got = run_graph(graph, arrays(tensors))
    dtypes = [v.dtype for v in graph.outputs]
    assert_close(got, wanted, BF16_RELATIVE if DType.BF16 in dtypes else FP32_RELATIVE, dtypes)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise(name: str) -> None:
    check(name, POINTWISE[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    check(name, FUNCTIONS[name])


@pytest.mark.parametrize("name", [*REDUCTIONS, *NORMS, *POOLS, *LINES])
def test_reductions(name: str) -> None:
    check(name, (REDUCTIONS | NORMS | POOLS | LINES)[name])


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    check(name, PRODUCTS[name])


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences(name: str) -> None:
    check(name, SEQUENCES[name])


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    check(name, MASKS[name])


def test_every_rule_has_a_case() -> None:
    tested = {
        f"aten.{op}" for family in FAMILIES.values() for name in family for op in name.split()
    }
    # A size read from a tensor is tested below, sizes that a node computes in
    # test_computed_dims.py, layers in test_convolutions.py, test_experts.py and test_recurrent.py,
    # what moves elements in test_lower_reading.py.
    here = (pointwise, functions, reductions, norms, pooling, lines, products, attention, sequences)
    here = (*here, masks)
    ops = {".".join(name.split(".")[:2]) for table in here for name in table.RULES}
    assert ops - tested == {"aten.item", "graphopt.cif"}
    reading = (indexing, padding, parts, rearranging, resampling, views)
    tables = (*here, convolutions, experts, recurrent, *reading)
    assert len(RULES) == sum(len(table.RULES) for table in tables)


def test_a_size_read_from_a_tensor_becomes_a_check() -> None:
    m = Maker()
    lengths = m.input("lengths", "B", dtype=DType.I64)
    m.input("x", "B", "T")
    size = m.shape("T")[0]
    item = Aten("aten.item", {"self": Ref(0)}, schema="aten::item(Tensor self) -> Scalar")
    item.size = size
    m.graph.nodes.append(Node(item, {"x0": lengths}, []))
    graph = m.output(lengths)
    LowerAten().run(graph)
    assert [n.op for n in graph.nodes] == [Check(size)]


def test_before_and_after(golden) -> None:
    def model(x):
        return F.gelu(torch.addmm(LINEAR.bias, x, MATRIX).unsqueeze(1))

    graph = captured(model, X[0]).graph
    golden("lower_aten", check_pass(LowerAten(), graph, numbers=False))


REFUSED: dict[str, Case] = {
    "no rule for aten.erfinv": (lambda x: x.erfinv(), (X,)),
    "batch norm without channels or statistics": (
        lambda x: F.batch_norm(*[x.new_zeros(0)] * 3, training=False),
        (X,),
    ),
    "matmul on f64, f64": (lambda x, y: x.double() @ y.double(), (X, SQUARE)),
    "sin of f64": (lambda x: x.sin(), (X.double(),)),
    "transposed convolution with weights or groups computed at run time": (
        lambda x, w: F.conv_transpose1d(x, KERNEL1 * w),
        (randn(2, 6, 5), randn(1, 4, 1)),
    ),
    "convolution with a number of taps that varies": (
        lambda x, w: F.conv1d(x, w),
        (SQUARE, randn(3, 4, 2)),
    ),
    "no rule for aten.view.dtype": (lambda x: x.view(torch.int32), (X,)),
    "attention with dropout": (
        lambda x: F.scaled_dot_product_attention(x * GAIN, x * GAIN, x * GAIN, dropout_p=0.5),
        (randn(1, 2, 3, 4),),
    ),
    "attention whose head size varies": (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        (randn(1, 2, 3, 4),),
    ),
}


def one_node(function: Callable[..., Any], *tensors: Any) -> tuple[Graph, Node]:
    graph = captured(function, *tensors).graph
    (node,) = graph.nodes
    return graph, node


def reason_of(graph: Graph, node: Node) -> str:
    LowerAten().run(graph)
    assert graph.nodes == [node]
    return node.reasons[-1]


def test_an_argument_that_no_rule_reads_is_named() -> None:
    graph, node = one_node(lambda x: x.softmax(-1), X)
    rule = RULES["aten.softmax.int"]
    schema = rule.schema.replace("dtype=None", "dtype=None, float eps=0.0, Device? device=None")
    later = replace(rule, schema=schema)
    with patch.dict(RULES, {"aten.softmax.int": later}):
        node.op.schema, given = schema, node.op.arguments
        given |= {"eps": 0.0, "device": "cuda:0"}
        left = "lower_aten: left in torch: "
        assert reason_of(graph, node) == f"{left}argument device = cuda:0 of aten.softmax"
        given |= {"device": "cpu", "eps": 0.5}
        assert reason_of(graph, node) == f"{left}argument eps = 0.5 of aten.softmax"
        given["eps"] = 0.0
        assert LowerAten().run(graph)


def test_a_schema_of_another_torch_is_refused() -> None:
    graph, node = one_node(lambda x: x.relu(), X)
    node.op.schema = "aten::relu(Tensor self, float slope=0.5) -> Tensor"
    assert "its rule is for aten::relu(Tensor self) -> Tensor" in reason_of(graph, node)


def test_a_rule_that_fails_names_the_node() -> None:
    graph, node = one_node(lambda x: x.softmax(-1), X)
    node.op.arguments["dim"] = "last"
    with pytest.raises(LoweringError, match=r"aten\.softmax at .*captured\.py:\d+ failed"):
        LowerAten().run(graph)


@pytest.mark.parametrize("name", [n for n in RULES if n not in experts.RULES])
def test_rules_have_the_schemas_of_this_torch(name: str) -> None:
    namespace, op, *overload = name.split(".")
    packet = getattr(getattr(torch.ops, namespace), op)
    target = getattr(packet, overload[0] if overload else "default")
    assert schema_text(target._schema) == RULES[name].schema


TYPES = [*TORCH_DTYPES, True, 3, 2.5]


@pytest.mark.parametrize("one", TYPES, ids=str)
def test_types_are_promoted_as_torch_does(one: Any) -> None:
    def operands(kind: Any) -> list[tuple[Any, Any]]:
        if not isinstance(kind, DType):
            return [(kind, kind)]
        dtype = TORCH_DTYPES[kind]
        return [(Value(kind, (2,) * n), torch.ones([2] * n, dtype=dtype)) for n in (0, 1)]

    for mine, its in operands(one):
        for other in TYPES:
            for my_other, its_other in operands(other):
                if isinstance(its, torch.Tensor) or isinstance(its_other, torch.Tensor):
                    wanted = torch.result_type(its, its_other)
                    assert TORCH_DTYPES[promoted([mine, my_other])] is wanted, (mine, my_other)


BF = torch.tensor([256.0, 0.1, -3.0], dtype=torch.bfloat16)
EXTREMES = torch.tensor([1e10, -1e10, 3e9, -1.0, 300.7, math.nan, math.inf, -math.inf, 1e30])
PROMOTIONS: dict[str, Case] = {
    "bf16 against numbers and whole numbers": (
        lambda x, n: (x == 0.1, x - n, x < n, x * n[0], x.where(x > 0, 0.3)),
        (BF, torch.tensor([257, 0, -3])),
    ),
    "i64 against f32": (lambda n, x: (n == x, n > x, n < 2.5), (torch.tensor([2**24 + 1]), X)),
    "u8 wraps": (
        lambda n: (n + 255, n - 1, n * 200, n < -1, n == 257, -n),
        (torch.tensor([0, 1, 255], dtype=torch.uint8),),
    ),
    "arithmetic of bool": (
        lambda x, y: (x * y, x + y, torch.maximum(x, y), torch.minimum(x, y)),
        (MASK, Y > 0),
    ),
    "bool is not 0 or 1 in words": (
        lambda m, n: (m & n.bool(), n.bool() | m, (m + 0.5) * 2, m == 2),
        (MASK, NUMBERS),
    ),
    "floats as whole numbers": (
        lambda x, d: [
            y.to(t)
            for y in (x, d)
            for t in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
        ],
        (EXTREMES, EXTREMES.double()),
    ),
    "quotients of 16 bits, rounded at every step": (
        lambda x, y: [
            torch.div(v.to(t), w.to(t) if isinstance(w, torch.Tensor) else w, rounding_mode=mode)
            for v, w in ((x, y), (x, 0.3))
            for t in (torch.bfloat16, torch.float16)
            for mode in ("floor", "trunc")
        ],
        (torch.linspace(-40, 41, 3000), torch.linspace(0.01, 7, 3000)),
    ),
    "f64 keeps its digits": (
        lambda x, m: (x * 0.1 + 1 / 3, x.masked_fill(m, 0.1), x - torch.tensor(0.1)),
        (X.double(), MASK),
    ),
}


@pytest.mark.parametrize("name", PROMOTIONS)
def test_numbers_are_exactly_those_of_torch(name: str) -> None:
    function, tensors = PROMOTIONS[name]
    graph = captured(function, *tensors).graph
    LowerAten().run(graph)
    assert all(n.is_lowered for n in graph.nodes), [n.reasons for n in graph.nodes]
    wanted = arrays(function(*tensors))
    for got, y in zip(run_graph(graph, arrays(tensors)), wanted, strict=True):
        assert got.dtype == y.dtype
        np.testing.assert_array_equal(got, y)


def attend(tensors: list[Any], **options: Any) -> tuple[Any, Any]:
    """(graphopt's, torch's) scaled_dot_product_attention of whole tensors."""

    def function(*given: Any) -> Any:
        q, k, v, *mask = given
        return F.scaled_dot_product_attention(q, k, v, *mask, scale=0.5, **options)

    graph = captured(function, *tensors).graph
    LowerAten().run(graph)
    assert all(n.is_lowered for n in graph.nodes), [n.reasons for n in graph.nodes]
    return run_graph(graph, arrays(tensors)), arrays(function(*tensors))


UNSEEN = torch.ones(2, 1, 3, 5, dtype=torch.bool)
UNSEEN[0, 0, 1] = False
HIDDEN = torch.zeros(2, 1, 3, 5).masked_fill(~UNSEEN, -math.inf)
QUERIES = [randn(2, 4, 3, 4), randn(2, 4, 5, 4), randn(2, 4, 5, 6)]
POISONED = [QUERIES[0].masked_fill(torch.eye(3, 4) > 0, math.nan), *QUERIES[1:]]


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        (QUERIES, {"is_causal": True}),
        ([QUERIES[1], QUERIES[0], QUERIES[0]], {"is_causal": True}),
        ([QUERIES[0], QUERIES[1][:, :2], QUERIES[2][:, :2]], {"enable_gqa": True}),
        ([*QUERIES, UNSEEN], {}),
        ([*QUERIES, HIDDEN], {}),
        ([*QUERIES, UNSEEN[0, 0]], {}),
        ([*POISONED, UNSEEN], {}),
        ([q[:, 0] for q in QUERIES], {}),
        ([*(q[:, 0] for q in QUERIES), UNSEEN[:, 0]], {}),
        ([q[0, 0] for q in QUERIES], {"is_causal": True}),
        ([*(q.unflatten(1, (2, 2)) for q in QUERIES), UNSEEN[:, None]], {}),
        ([QUERIES[0], QUERIES[1][:, :1], QUERIES[2][:, :1]], {}),
        ([QUERIES[0], QUERIES[1][:1], QUERIES[2][:1]], {}),
    ],
    ids=[
        *("causal 3x5", "causal 5x3", "gqa", "bool", "-inf", "2-D mask", "NaN", "3-D", "3-D mask"),
        *("2-D", "5-D", "one head", "one batch"),
    ],
)
def test_attention_is_that_of_torch(tensors: list[Any], options: dict[str, Any]) -> None:
    got, wanted = attend(tensors, **options)
    assert_close(got, wanted, FP32_RELATIVE, [DType.F32])


@pytest.mark.parametrize("reason", REFUSED)
def test_left_in_torch_with_the_reason(reason: str) -> None:
    function, tensors = REFUSED[reason]
    graph = captured(function, *tensors).graph
    LowerAten().run(graph)
    left = [n for n in graph.nodes if not n.is_lowered]
    assert f"lower_aten: left in torch: {reason}" in [r for n in left for r in n.reasons]


def test_lowered_graphs_are_left_alone() -> None:
    m = Maker()
    check_left_alone(LowerAten(), m.output(m.linear(m.input("x", "B", 4), 3)))
