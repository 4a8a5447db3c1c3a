"""The grammar of kernel names and the registry's rows."""

import platform
import re

import pytest
import sympy

from graphopt.kernels import formats, layouts, registry
from graphopt.kernels.names import KernelName, format_name, parse_name

OF_OPERAND = {format.operand or format.token: format for format in formats.FORMATS}
SYMBOLS = [(row, kernel) for row in registry.LEVELS for kernel in row.kernels]


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        (
            "go_gemm_f32_qa8r_qs8c_12x32x4_avx512_vnni",
            KernelName("gemm", "avx512_vnni", ("f32", "qa8r", "qs8c"), (12, 32, 4)),
        ),
        (
            "go_gemm_f32_qa8r_qs4b32_4x8x16_neon_i8mm_wide",
            KernelName("gemm", "neon_i8mm", ("f32", "qa8r", "qs4b32"), (4, 8, 16), "wide"),
        ),
        (
            "go_gemm_f32_qa8r_qs4b_8x8x16_sve2",
            KernelName("gemm", "sve2", ("f32", "qa8r", "qs4b"), (8, 8, 16)),
        ),
        ("go_pack_qa8r_8x8_sve2", KernelName("pack", "sve2", ("qa8r",), (8, 8))),
        ("go_norm_scalar", KernelName("norm", "scalar")),
    ],
)
def test_names_read_and_write(symbol, name):
    assert parse_name(symbol) == name
    assert format_name(name) == symbol


@pytest.mark.parametrize(
    "symbol",
    [
        "gemm_f32_f32_f32_6x16x1_avx2",
        "go_gemm_f32_f32_6x16x1_avx2",
        "go_gemm_f32_f32_f32_6x16_avx2",
        "go_gemm_f32_f32_f32_6x0x1_avx2",
        "go_gemm_f32_qx8r_qs8c_6x16x1_avx2",
        "go_gemm_f32_qa8r_qs4b0_6x16x1_avx2",
        "go_gemm_f32_f32_f32_6x16x1_avx3",
        "go_gemm_avx2",
        "go_pack_avx2",
        "go_norm",
    ],
)
def test_names_outside_the_grammar_are_refused(symbol):
    with pytest.raises(ValueError, match="is not a kernel name"):
        parse_name(symbol)


def test_a_name_that_does_not_read_back_is_refused():
    with pytest.raises(ValueError):
        format_name(KernelName("norm", "avx2", tile=(1, 2, 3)))


@pytest.mark.parametrize(
    ("row", "kernel"), SYMBOLS, ids=[f"{r.arch}-{k.symbol}" for r, k in SYMBOLS]
)
def test_rows_name_existing_sources_and_valid_symbols(row, kernel):
    name = parse_name(kernel.symbol)
    assert name.isa == row.name
    source = registry.ROOT / kernel.source
    assert source.exists()
    if name.op == "gemm":
        shared = kernel.symbol.removeprefix("go_").removesuffix(f"_{row.name}")
        assert f"GO_NAME({shared})" in source.read_text()  # for any level, as its flags say
        rhs = name.operands[2]
        layout = OF_OPERAND[rhs].layout(row.arch)
        assert name.tile[0] % layout.mr == 0
        assert name.tile[1] % layout.nr == 0
        assert name.tile[2] == layout.step


def test_every_level_implements_every_generic_name():
    for row in registry.LEVELS:
        assert [kernel.generic for kernel in row.kernels] == list(registry.ARGUMENTS)


def test_levels_have_headers_for_known_parts_and_a_start():
    for row in registry.LEVELS:
        assert {part.name for part in row.parts} <= set(registry.PARTS)
        headers = [*registry.PARTS.values(), *(part.header for part in row.parts)]
        assert all((registry.ROOT / name).exists() for name in (*headers, row.start))
    defines = registry.level("aarch64", "sve2").defines
    assert '-DGO_PART_PACK_BF16_STEP="neon_i8mm/pack_bf16_step.h"' in defines
    defines = registry.level("aarch64", "scalar").defines
    assert '-DGO_PART_PACK_BF16_STEP="common/pack_bf16_step.h"' in defines


def test_shared_kernels_know_no_level():
    """What a level does its own way is in its row, not in an #include of what all compile."""
    levels = {row.name for row in registry.LEVELS}
    sources = [p for name in ("common", "include") for p in (registry.ROOT / name).iterdir()]
    included = [line for p in sources for line in re.findall(r"#include .*", p.read_text())]
    assert included
    assert not [line for line in included if ".." in line or any(n in line for n in levels)]
    parts = {f"#include GO_PART_{name.upper()}" for name in registry.PARTS}
    assert {line for line in included if "GO_PART" in line} == parts


def test_binding_header_declares_and_binds():
    text = registry.binding_header(registry.level("x86_64", "avx2"))
    symbol = "go_gemm_f32_qa8r_qs8c_4x64x4_avx2"
    assert f"void {symbol}(go_team *team, const go_gemm_args *args);" in text
    assert f"#define go_gemm_qa8 {symbol}\n" in text


def test_unknown_names_raise():
    with pytest.raises(KeyError, match="known: x86_64/scalar"):
        registry.level("x86_64", "sve2")
    with pytest.raises(KeyError):
        registry.level("x86_64", "avx2").kernel("go_fft")


N2 = """processor : 0
Features  : fp asimd asimddp sve sve2 i8mm svei8mm bf16 svebf16 atomics lrcpc ilrcpc dcpop
processor : 1
Features  : fp asimd asimddp sve sve2 i8mm svei8mm bf16 svebf16 atomics lrcpc ilrcpc
"""


def test_features_are_those_of_all_cpus():
    features = registry.cpu_features(N2)
    assert "sve2" in features
    assert "dcpop" not in features
    assert registry.missing_features(registry.level("aarch64", "sve2"), "aarch64", features) == ()
    graviton2 = registry.cpu_features("Features : fp asimd asimddp")
    missing = registry.missing_features(
        registry.level("aarch64", "neon_i8mm"), "aarch64", graviton2
    )
    assert missing == ("i8mm", "bf16")
    assert registry.missing_features(registry.level("x86_64", "scalar"), "aarch64", features) == (
        "x86_64",
    )
    assert registry.cpu_features("") == frozenset()


def test_the_host_runs_at_least_the_scalar_level():
    assert registry.level(platform.machine(), "scalar") in registry.host_levels()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("scheme", ["bf16", "qa8r"])
def test_packed_sizes_work_on_symbols(arch, scheme):
    layout = formats.ROWS[scheme].layout(arch)
    m, k = sympy.Symbol("m", integer=True, positive=True), 70
    size = layouts.packed_lhs_bytes(layout, m, k)
    for rows in (1, 7, 8, 9, 100):
        assert size.subs(m, rows) == layouts.packed_lhs_bytes(layout, rows, k)


def test_the_f32_gemm_has_no_packed_left_operand():
    with pytest.raises(ValueError, match="unpacked"):
        layouts.packed_lhs_bytes(formats.F32.layout("x86_64"), 3, 4)
