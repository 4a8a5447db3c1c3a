"""Kernels read and store bf16 where a model widens and rounds around them."""

from graphs import BF16, F32, Maker, check_left_alone, check_pass, ops

from graphopt.ir import Value, scalar
from graphopt.ir.ops import Attention, Norm
from graphopt.passes.fuse_casts import FuseCasts

WIDE = scalar.cast(scalar.operand(0, BF16), F32)
ROUNDED = scalar.cast(scalar.operand(0, F32), BF16)


def norm(m: Maker, x: Value) -> Value:
    return m.op(Norm(1e-5, rms=False), x)


def test_norms_between_casts_read_and_store_bf16(golden) -> None:
    m = Maker()
    x = m.input("x", "B", 6, 4, dtype=BF16)
    wide = m.reshape(m.pointwise(WIDE, x), 6 * m.shape("B")[0], 4)
    once = m.pointwise(ROUNDED, norm(m, wide))
    twice = m.pointwise(ROUNDED, norm(m, m.pointwise(WIDE, once)))
    graph = m.output(twice, once)
    golden("fuse_casts", check_pass(FuseCasts(attention=False), graph))
    assert ops(graph) == ["reshape", "norm", "norm"]


def test_what_others_read_in_f32_is_left_alone() -> None:
    m = Maker()
    x = m.input("x", "B", 4, dtype=BF16)
    wide = m.pointwise(WIDE, x)
    kept = norm(m, wide)
    check_left_alone(FuseCasts(attention=False), m.output(m.pointwise(ROUNDED, kept), kept, wide))


def test_attention_reads_bf16_where_the_precision_has_it() -> None:
    def graph(sources: int):
        m = Maker()
        narrow = [m.input(f"x{i}", "B", 2, "T", 8, dtype=BF16) for i in range(sources)]
        wide = [m.pointwise(WIDE, x) for x in narrow]
        wide += [m.input(f"w{i}", "B", 2, "T", 8) for i in range(3 - sources)]
        return m.output(m.op(Attention(0.5), *wide))

    check_left_alone(FuseCasts(attention=False), graph(3))
    check_left_alone(FuseCasts(attention=True), graph(2))
    fused = graph(3)
    assert FuseCasts(attention=True).run(fused) and ops(fused) == ["attention"]
