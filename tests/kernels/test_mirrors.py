"""What Python repeats of C structs, enums, constants and sizes, beside the compiler's own view.

A C file asserts for each struct, field, enumerator and constant what Python says of it, and prints
the sizes that C computes. It is compiled for both architectures; the Arm program runs under qemu.
"""

import inspect
import platform
import re
import shutil
import subprocess
from ctypes import Array, Structure, c_char_p, c_float, c_void_p, sizeof
from pathlib import Path

import pytest

from graphopt.bench.kernels import native
from graphopt.codegen import weights
from graphopt.compiler import schedule
from graphopt.dtype import DType
from graphopt.kernels import (
    arguments,
    formats,
    layouts,
    reference_ops,
    reference_recurrent,
    registry,
    scratch,
    winograd,
)
from graphopt.passes import lower_aten, quantize_weights_int4
from graphopt.runtime import library
from graphopt.toolchain.build import Toolchain

ARCHES = ("x86_64", "aarch64")
SOURCES = (
    "attention_tasks.h",
    "gemm_bf16.h",
    "gemm_qs4.h",
    "im2col.h",
    "im2col_lines.h",
    "conv.c",
    "winograd.c",
    "cif.c",
    "recurrent.c",
)
INCLUDES = (*SOURCES, "timer.h", "peak.h", "trace_team.c", "stdio.h")


def mirrors() -> dict[str, type[Structure]]:
    """The ctypes structs of graphopt by the name of the C struct: GemmArgs is go_gemm_args."""
    found = {}
    for module in (arguments, library, native):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Structure) and kind.__module__ == module.__name__:
                words = re.findall("[A-Z][a-z0-9]*", name)
                found["_".join(["go", *words]).lower()] = kind
    return found


ENUMS = {
    "go_dtype": {f"GO_{d.name}": d.code for d in DType},
    "go_activation": {f"GO_ACT_{a.upper()}": i for i, a in enumerate(arguments.ACTIVATIONS)},
    "go_causal": {
        "GO_SEES_ALL": reference_ops.SEES_ALL,
        "GO_CAUSAL_LAST": reference_ops.CAUSAL_LAST,
        "GO_CAUSAL_FIRST": reference_ops.CAUSAL_FIRST,
    },
    "go_cif_rule": {f"GO_CIF_{r.upper()}": i for i, r in enumerate(arguments.CIF_RULES)},
    "go_cif_count": {f"GO_CIF_COUNT_{c.upper()}": i for i, c in enumerate(arguments.CIF_COUNTS)},
    "go_cell": {f"GO_CELL_{c.upper()}": i for i, c in enumerate(arguments.CELLS)},
    "go_code": {f"GO_{'ERROR_' * (c > 0)}{c.name}": c for c in library.Code},
}


def constants(arch: str) -> list[tuple[str, int]]:
    """C expressions and what Python says of them."""
    f32, bf16, qa8 = (f.layout(arch) for f in (formats.F32, formats.BF16, formats.INT8))
    return [
        ("GO_ABI_VERSION", library.ABI_VERSION),
        ("GO_MAX_RANK", library.MAX_RANK),
        ("GO_MAX_RANK", lower_aten.MAX_RANK),
        ("GO_MAX_THREADS", library.MAX_THREADS),
        ("GO_ALIGNMENT", weights._ALIGNMENT),
        ("GO_ALIGNMENT", native._ALIGN),
        ("GO_F32", arguments.F32),
        ("GO_BF16", arguments.BF16),
        ("GO_QS4_MAX_GROUP", quantize_weights_int4._LONGEST),
        ("PHASE_END", int(schedule._PHASE_END)),
        ("STEP_END", int(schedule._STEP_END)),
        ("QUERY_ROWS", scratch._QUERY_ROWS),
        ("GO_IM2COL_ROWS", scratch._IM2COL_ROWS),
        ("GO_OWNED_BYTES", scratch._OWNED_BYTES),
        ("GO_OWNED_LEAST", scratch._OWNED_LEAST),
        ("GO_OWNED_MOST", scratch._OWNED_MOST),
        ("MOST_COLS", scratch._WINOGRAD_COLUMNS),
        ("(int)(8 * GO_WINOGRAD_A)", int(8 * winograd.NEAR)),
        ("(int)(8 * GO_WINOGRAD_B)", int(8 * winograd.FAR)),
        ("GO_WINOGRAD_OUT", winograd.OUTPUTS),
        ("GO_WINOGRAD_POINTS", winograd.VALUES),
        ("GO_F32_NR", f32.nr),
        ("GO_BF16_MR", bf16.mr),
        ("GO_BF16_NR", bf16.nr),
        ("GO_BF16_KR", bf16.kr),
        ("GO_QA8_MR", qa8.mr),
        ("GO_QS8_NR", qa8.nr),
        ("GO_QA8_KR", qa8.kr),
        ("GO_BIASED", int(qa8.biased)),
        ("UNITS", reference_recurrent.UNITS),
        ("MOST_ROWS", scratch._RECURRENT_ROWS),
        ("MOST_GATES", max(reference_recurrent.GATES.values())),
        ("sizeof(share)", scratch.cif_scratch_bytes(1, 1)),
    ]


def assertions(arch: str) -> list[str]:
    """C that compiles if it is as Python says, and if Python leaves nothing out."""
    lines = []
    for struct, kind in mirrors().items():
        empty = ", ".join("{0}" if is_aggregate(f[1]) else "0" for f in kind._fields_)
        lines.append(f"const {struct} all_of_{struct} = {{{empty}}};")
        lines.append(f'_Static_assert(sizeof({struct}) == {sizeof(kind)}, "size of {struct}");')
        for name, declared in kind._fields_:
            field, value = getattr(kind, name), f"(({struct} *)0)->{name}"
            said = f"offsetof({struct}, {name}) == {field.offset}"
            said += f" && sizeof({value}) == {field.size} && {class_of(declared, value)}"
            lines.append(f'_Static_assert({said}, "{struct}.{name}");')
    for enum, values in ENUMS.items():
        cases = " ".join(f"case {name}:" for name in values)
        lines.append(f"int is_{enum}({enum} x) {{ switch (x) {{ {cases} return 1; }} return 0; }}")
        lines += [f'_Static_assert({name} == {n}, "{name}");' for name, n in values.items()]
    lines += [f'_Static_assert({c} == {n}, "{c}");' for c, n in constants(arch)]
    return lines


def is_aggregate(kind: type) -> bool:
    return issubclass(kind, Structure | Array)


def class_of(kind: type, value: str) -> str:
    """C that is true if a field is what its ctypes type says, beyond its size."""
    if issubclass(kind, Structure):
        return "1"
    if issubclass(kind, Array):
        return class_of(kind._type_, f"{value}[0]")
    same = {c_void_p: "(void *)0", c_char_p: "(void *)0", c_float: "1.0f"}.get(kind, "1")
    return f"__builtin_classify_type({value}) == __builtin_classify_type({same})"


#: Sizes m, n, k (a multiple of the group), group, heads, threads.
CASES = [
    (m, n, k, group, heads, threads)
    for m, n, k, group in [(1, 1, 32, 32), (21, 37, 96, 32), (700, 530, 512, 256), (9, 8, 64, 64)]
    for heads, threads in [(1, 1), (6, 3)]
]

#: Sizes that C computes, for the variables of CASES.
C_SIZES = """
const go_gemm_args g = {.m = m, .n = n, .k = k, .group = group, .dst_stride = (ptrdiff_t)stride};
const go_attention_args a = {.batch = 2, .kv_heads = heads, .tk = n, .dim = k, .dim_v = m};
const scratch_map map = map_scratch(&a, (unsigned)threads - 1);
show((char *)(map.weights + QUERY_ROWS * round16(n)) - (char *)NULL);
const go_conv_args c = {.groups = heads, .in_c = heads * k, .kh = 3, .kw = 2, .tile_rows = m};
show(threads * window_floats(&c) * sizeof(float));
const go_conv_args t = {.in_c = group, .tile_rows = m};
show((char *)scratch_of(threads, &t).values - (char *)NULL);
show(threads * go_im2col_floats(k) * sizeof(float));
go_im2col_args l = {.channels = k, .out_w = m, .kh = 3, .kw = 2, .stride_h = 2, .stride_w = 1};
l.dilation_h = 2, l.dilation_w = 1;
const go_line_sizes line = go_line_sizes_of(&l, 2, 0);
show(go_im2col_shares(&l) * threads * go_line_scratch(&l, &line));
show(go_has_buffers(threads, &g) ? threads * go_owned_rows(&g) : m);
const go_recurrent_args r = {.batch = m, .directions = 2, .hidden = n, .width = k};
const sharing shared = sharing_for(&r, threads);
const float *rows = workspace_of(&r, &shared, threads - 1).rows;
show((char *)(rows + MOST_ROWS * (round16(n > k ? n : k) + UNITS)) - (char *)NULL);
const size_t panels = (m + GO_QA8_MR - 1) / GO_QA8_MR, columns = (n + GO_QS8_NR - 1) / GO_QS8_NR;
show(panels * go_qa8_panel_bytes(k));
show(columns * go_qa8_tile_at(&g, 0, 1, 0, n).rhs_stride);
show(columns * go_qs4c_layout(&g).bytes);
show(columns * go_qs4b_layout(&g).bytes);
show((n + GO_BF16_NR - 1) / GO_BF16_NR * go_bf16_tile_at(&g, 0, 1, 0, n).rhs_stride * 2);
"""


def python_sizes(arch: str, m: int, n: int, k: int, group: int, heads: int, threads: int):
    """The same sizes as Python computes them."""
    rule = {format.token: format.layout(arch) for format in formats.FORMATS}
    stride, ones = scratch.quantized_result_stride(n), ((1, 1), (1, 1))
    overlapping = reference_ops.Geometry((3, 2), (2, 1), (2, 1))
    return [
        scratch.attention_scratch_bytes(2, heads, n, k, m, threads),
        scratch.conv_scratch_bytes(heads * k, m, heads, 3, 2, m, threads),
        scratch.winograd_scratch_bytes(group, m, threads),
        scratch.im2col_scratch_bytes(k, m, reference_ops.Geometry((1, 1), *ones), 2, threads),
        scratch.im2col_scratch_bytes(k, m, overlapping, 2, threads),
        scratch.quantized_result_bytes(m, n, threads) // (4 * stride),
        scratch.recurrent_scratch_bytes(2, m, k, n, threads),
        layouts.packed_lhs_bytes(rule["qa8"], m, k),
        layouts.packed_rhs_bytes(rule["qa8"], n, k),
        layouts.packed_rhs_bytes(rule["qs4c"], n, k),
        layouts.packed_rhs_bytes(rule["qs4b"], n, k, group=group),
        layouts.packed_rhs_bytes(rule["bf16"], n, k),
    ]


def program(arch: str) -> str:
    """The C file."""
    calls = [
        "sizes({}, {});".format(", ".join(map(str, case)), scratch.quantized_result_stride(case[1]))
        for case in CASES
    ]
    variables = ", ".join(f"size_t {v}" for v in ("m", "n", "k", "group", "heads", "threads"))
    return "\n".join(
        [
            *(f'#include "{name}"' for name in INCLUDES),
            "#define go_ceil_div module_ceil_div  // has its own, of other types",
            '#include "go_module.h"',
            "#undef go_ceil_div",
            *assertions(arch),
            'static void show(size_t bytes) { printf("%zu ", bytes); }',
            f"static void sizes({variables}, size_t stride) {{{C_SIZES}}}",
            f"int main(void) {{ {' '.join(calls)}",
            "for (size_t c = 0; c < GO_QS8_NR; c++) show(go_qs4b_scale_index(c));",
            "show(GO_QA8_ROWS); return 0; }",
        ]
    )


def compile_program(arch: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Compiles for the scalar level, without optimizing, into `folder`."""
    level, tools = registry.level(arch, "scalar"), Toolchain.find(arch)
    source = folder / "mirrors.c"
    source.write_text(text)
    include = [f"-I{registry.ROOT / n}" for n in ("", "include", "common", "harness", "runtime")]
    warnings = ["-Wno-everything", "-Wmissing-field-initializers", "-Wswitch", "-Werror"]
    flags = [
        "-std=gnu11",
        "-DGO_TRACE",
        *level.defines,
        *include,
        *warnings,
    ]
    static = arch != platform.machine()
    machine = [*tools.link_flags(static), *["-static"] * static]
    command = [*tools.command, *machine, *flags, source, "-o", folder / "mirrors", "-lm"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.mark.parametrize("arch", ARCHES)
def test_structs_enums_constants_and_sizes_are_those_of_c(arch: str, tmp_path: Path) -> None:
    assert set(registry.ARGUMENTS.values()) <= set(mirrors())
    done = compile_program(arch, program(arch), tmp_path)
    assert done.returncode == 0, done.stderr
    emulator = [] if arch == platform.machine() else [shutil.which(f"qemu-{arch}")]
    if None in emulator:
        pytest.skip(f"qemu-{arch} is missing")
    run = subprocess.run([*emulator, tmp_path / "mirrors"], capture_output=True, check=True)
    *sizes, rows = map(int, run.stdout.split())
    expected = [size for case in CASES for size in python_sizes(arch, *case)]
    assert sizes == expected + formats.INT4_BLOCKS.layout(arch).scale_places()
    assert rows <= scratch._QUANTIZED_ROWS
    if arch == "aarch64":
        assert rows == scratch._QUANTIZED_ROWS


def test_drift_is_named(tmp_path: Path) -> None:
    text = program(platform.machine())
    for right, wrong in [
        ("offsetof(go_gemm_args, k) == 16", "offsetof(go_gemm_args, k) == 24"),
        ("all_of_go_port = {0, 0, 0}", "all_of_go_port = {0, 0}"),
        ("case GO_ACT_TANH:", ""),
        ("QUERY_ROWS == 24", "QUERY_ROWS == 16"),
    ]:
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    done = compile_program(platform.machine(), text, tmp_path)
    assert done.returncode != 0
    for named in ("go_gemm_args.k", "'written'", "'GO_ACT_TANH' not handled", "QUERY_ROWS"):
        assert named in done.stderr
