"""C functions: one per distinct operation."""

import re

from graphs import F32, Maker, X, emit, mul

from graphopt.codegen.function import FunctionBuilder
from graphopt.ir import symbolic


def functions(source: str) -> list[str]:
    return re.findall(r"^static void (\w+)\(go_team", source, re.M)


def test_the_same_layer_twice_is_one_function() -> None:
    m = Maker()
    y = m.linear(m.linear(m.input("x", "B", "T", 8), 8, name="a"), 8, name="b")
    module = emit(m.output(y))
    assert functions(module.source) == ["linear_f32_8x8"]
    assert len(module.steps) == 2 and module.steps[0].arguments != module.steps[1].arguments


def test_other_sizes_make_other_functions() -> None:
    m = Maker()
    x = m.input("x", "B", 8)
    y = m.linear(m.linear(x, 8), 8, bias=False)  # without a bias it is another operation
    module = emit(m.output(m.linear(y, 4)))
    assert functions(module.source) == ["linear_f32_8x8", "linear_f32_8x8_2", "linear_f32_8x4"]


def test_symbolic_sizes_are_parameters() -> None:
    m = Maker()
    x, y = m.input("x", "B", "T", 8), m.input("y", "B", "N", 8)
    module = emit(m.output(m.pointwise(mul(X, 2.0), x), m.pointwise(mul(X, 2.0), y)))
    assert len(functions(module.source)) == 1
    assert "8*B*T" in module.steps[0].arguments and "8*B*N" in module.steps[1].arguments


def test_builder_names_a_size_once() -> None:
    f = FunctionBuilder("f")
    t = symbolic.symbol("T")
    assert [f.size(t), f.size(2 * t), f.size(t), f.size(3)] == ["n0", "n1", "n0", "3"]
    f.pointer("x", F32, "INPUT(0, 0)")
    f.call("go_op", "go_op_args", {"m": "n0", "inner": {"x": "x"}})
    assert f.definition("f") == (
        "static void f(go_team *team, int64_t n0, int64_t n1, const float *x) {\n"
        "    const go_op_args args = {\n"
        "        .m = n0,\n"
        "        .inner = {\n"
        "            .x = x,\n"
        "        },\n"
        "    };\n"
        "    go_op(team, &args);\n"
        "}\n"
    )
    assert f.arguments == "team, T, 2*T, INPUT(0, 0)"
