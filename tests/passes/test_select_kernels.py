"""Kernels: every node gets the one that runs it, and the reasons say more."""

from graphs import I64, Maker, X, check_left_alone, check_pass, mul, native_levels

from graphopt.ir.ops import (
    Attention,
    Cat,
    Gather,
    Matmul,
    PackRows,
    Pointwise,
    QuantizeRows,
    Softmax,
)
from graphopt.kernels import registry
from graphopt.kernels.formats import BF16, INT8
from graphopt.passes.select_kernels import SelectKernels
from graphopt.target import find_target

N2 = find_target("neoverse-n2")


def test_names_every_node(golden) -> None:
    m = Maker()
    x = m.input("x", "B", "T", 16)
    y = m.norm(m.linear(x, 16))
    y = m.op(Softmax(log=False), m.pointwise(mul(X, 2.0), m.permute(y, 1, 0, 2)))
    graph = m.output(m.op(Cat(axis=2), y, y))
    golden("select_kernels", check_pass(SelectKernels(N2), graph))


def test_every_scheme_of_linear() -> None:
    for scheme, kernel in (
        (INT8, "go_gemm_qa8"),
        (BF16, "go_gemm_bf16"),
        (None, "go_gemm_f32"),
    ):
        m = Maker()
        graph = m.output(m.linear(m.input("x", "B", 16), 16))
        graph.nodes[0].op.format = scheme
        SelectKernels(N2).run(graph)
        node = graph.nodes[0]
        assert node.kernel == kernel
        symbol = registry.level("aarch64", "sve2").kernel(kernel).symbol
        assert f"select_kernels: {symbol} on the best level of neoverse-n2" in node.reasons
        slow = any("although" in r for r in node.reasons)
        assert slow == (scheme is None)


def test_kernels_exist_on_every_level() -> None:
    m = Maker()
    q = m.input("q", "B", 2, "T", 4)
    x = m.input("x", "B", "T", 4)
    indices = m.input("i", "B", dtype=I64)
    m.op(Attention(1.0), q, q, q)
    m.depthwise(x)
    m.conv(x, m.constant("w", 4, 4, 1), "B", 4, 4)
    m.op(Matmul(), x, m.permute(x, 0, 2, 1))
    m.op(QuantizeRows(), x)
    m.op(PackRows(), x)
    m.op(Pointwise(expr=X, shape=m.shape(*x.shape)), x).packed = "qa8r"
    m.op(Gather(), x, indices)
    graph = m.output()
    SelectKernels(find_target("native")).run(graph)
    kernels = [n.kernel for n in graph.nodes]
    assert kernels[-2:] == ["go_quantize_rows", "loop"]
    arch = find_target("native").arch
    for level in native_levels():
        for name in set(kernels) - {"view", "loop"}:
            assert registry.level(arch, level).kernel(name).generic == name


def test_aten_nodes_are_left_alone() -> None:
    m = Maker()
    check_left_alone(SelectKernels(N2), m.output(m.torch("cumsum", m.input("x", 4))))
