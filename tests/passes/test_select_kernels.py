"""Kernels: every node gets the one that runs it, and the reasons say more."""

from graphs import I64, Maker, X, check_left_alone, check_pass, mul, native_levels

from graphopt.ir import DType
from graphopt.kernels import registry
from graphopt.passes.select_kernels import SelectKernels
from graphopt.target import find_target

N2 = find_target("neoverse-n2")


def test_names_every_node(golden) -> None:
    m = Maker()
    x = m.input("x", "B", "T", 16)
    y = m.norm(m.linear(x, 16))
    y = m.op(
        "go.softmax", [m.pointwise(mul(X, 2.0), m.permute(y, 1, 0, 2))], "T", "B", 16, log=False
    )
    graph = m.output(m.op("go.cat", [y, y], "T", "B", 32, axis=2))
    golden("select_kernels", check_pass(SelectKernels(N2), graph))


def test_every_scheme_of_linear() -> None:
    for scheme, kernel in (
        ("int8", "go_gemm_qa8"),
        ("bf16", "go_gemm_bf16"),
        (None, "go_gemm_f32"),
    ):
        m = Maker()
        graph = m.output(m.linear(m.input("x", "B", 16), 16))
        graph.nodes[0].attrs |= {"scheme": scheme} if scheme else {}
        SelectKernels(N2).run(graph)
        node = graph.nodes[0]
        assert node.attrs["kernel"] == kernel
        symbol = registry.level("aarch64", "sve2").kernel(kernel).symbol
        assert f"select_kernels: {symbol} on the best level of neoverse-n2" in node.reasons
        slow = any("although" in r for r in node.reasons)
        assert slow == (scheme is None)


def test_kernels_exist_on_every_level() -> None:
    m = Maker()
    q = m.input("q", "B", 2, "T", 4)
    x = m.input("x", "B", "T", 4)
    indices = m.input("i", "B", dtype=I64)
    attention = dict(roles=("q", "k", "v"), scale=1.0, causal=False)
    conv = dict(roles=("x", "weight"), stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1)
    m.op("go.attention", [q, q, q], *q.shape, **attention)
    m.depthwise(x)
    m.op("go.conv", [x, m.constant("w", 4, 4, 1)], *x.shape, **conv)
    m.op("go.matmul", [x, x], "B", "T", "T", roles=("left", "right"))
    m.op("go.quantize_rows", [x], *x.shape, dtype=DType.I8)
    m.op("go.pack_rows", [x], *x.shape, dtype=DType.BF16)
    m.op("go.pointwise", [x], *x.shape, dtype=DType.I8, expr=X).packed = "qa8r"
    m.op("go.gather", [x, indices], "B", "T", 4)
    graph = m.output()
    SelectKernels(find_target("native")).run(graph)
    kernels = [n.attrs["kernel"] for n in graph.nodes]
    assert kernels[-2:] == ["go_quantize_rows", "loop"]
    arch = find_target("native").arch
    for level in native_levels():
        for name in kernels[:-1]:
            assert registry.level(arch, level).kernel(name).generic == name


def test_aten_nodes_are_left_alone() -> None:
    m = Maker()
    check_left_alone(SelectKernels(N2), m.output(m.op("aten.cumsum", [m.input("x", 4)], 4)))
