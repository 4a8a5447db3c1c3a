"""Kernels and generated modules under gcc's sanitizers of addresses and undefined behaviour.

What they compute is what the same code computes unwatched. Here on the best level of this machine;
`make sanitize` has all of its levels, and all tests of kernels under the sanitizers.
"""

import platform
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import test_attention  # noqa: E402
import test_cif  # noqa: E402
import test_conv  # noqa: E402
import test_gemm_f32  # noqa: E402
import test_norm  # noqa: E402
from captured import captured, lowered  # noqa: E402
from graphs import CACHE, build, emit, native_levels, ops, random_inputs  # noqa: E402
from harness import Case, Runner, run_cases, sanitized  # noqa: E402
from sanitizers import SANITIZERS, require_sanitizers  # noqa: E402
from torch import nn  # noqa: E402

from graphopt.funasr.layers import cif as cif  # noqa: E402
from graphopt.kernels import registry  # noqa: E402
from graphopt.runtime.emulate import pack_arrays, unpack_arrays  # noqa: E402
from graphopt.toolchain.build import Builder  # noqa: E402

ARCH = platform.machine()
CASES: dict[str, Callable[[], list[Case]]] = {
    "go_gemm_f32": lambda: [
        call.case for call, *_ in test_gemm_f32.calls_for(ARCH, test_gemm_f32.plan_of())
    ],
    "go_attention": lambda: [
        test_attention.make_case(spec)[0] for spec in test_attention.SPECS + test_attention.FEW
    ],
    "go_conv": lambda: [test_conv.make_case(spec)[0] for spec in test_conv.SPECS],
    "go_norm": lambda: [case for case, _ in test_norm.all_cases()],
    "go_cif": lambda: [case for case, _ in test_cif.all_cases()],
}


def unwatched(level: str) -> Runner:
    return Runner(registry.level(ARCH, level))


@pytest.mark.parametrize("generic", CASES)
def test_kernels(generic: str) -> None:
    level, cases = native_levels()[-1], CASES[generic]()
    for number, case in enumerate(cases):
        case.threads = 1 + number % 3
    runner = unwatched(level)
    watched = run_cases(sanitized(runner), generic, cases)
    expected = run_cases(runner, generic, cases)
    for case, got, wanted in zip(cases, watched, expected, strict=True):
        for name in set(case.writes) - {"scratch"}:
            assert got[name].tobytes() == wanted[name].tobytes()


#: Something of a kernel that is otherwise right, behind which a fault is put.
PLACES = {
    "go_cif": "    go_barrier(team);\n    const size_t blocks",
    "go_attention": "    const attention_way bf16 = {QUERY",
}


@pytest.mark.parametrize(
    ("generic", "fault", "report"),
    [
        ("go_cif", "int n = INT32_MAX; *a->tokens = n + (int)a->batch", "signed integer overflow"),
        ("go_cif", "__builtin_memset(__builtin_malloc(4), 0, 4 + a->batch)", "heap-buffer-overf"),
        # The value is not used, and the bytes are there: only the sanitizer knows of them.
        ("go_attention", "(void)((volatile const float *)a->q)[-1]", "use-after-poison"),
    ],
)
def test_faults_are_found(generic: str, fault: str, report: str) -> None:
    line = PLACES[generic]
    faulty = line.replace("    const", f"    {{ {fault}; }}\n    const")
    runner = replace(sanitized(unwatched("scalar")), mutation=(line, faulty))
    with pytest.raises(AssertionError, match=report):
        run_cases(runner, generic, CASES[generic]()[:5])


def recognize(x, conv, norm, linear, weigh):
    """Layers around attention, whose frames become as many tokens as their weights say."""
    h = torch.relu(conv(x.transpose(1, 2))).transpose(1, 2)
    h = nn.functional.gelu(linear(norm(h)))
    q = h.unflatten(2, (2, 12)).transpose(1, 2)
    h = h + nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)
    alphas = torch.sigmoid(weigh(h)).squeeze(2)
    tokens, peaks, counts = torch.ops.graphopt.cif(h, alphas, 1.0, "prefix", "floor")
    return linear(tokens) * 2, peaks, counts, h[:, 1:, ::2]


def test_a_module(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    require_sanitizers()
    torch.manual_seed(0)
    layers = {
        "conv": nn.Conv1d(10, 24, 3, padding=1),
        "norm": nn.LayerNorm(24),
        "linear": nn.Linear(24, 24),
        "weigh": nn.Linear(24, 1),
    }
    graph = lowered(captured(recognize, torch.randn(2, 7, 10), **layers).graph)
    assert {"linear", "conv", "attention", "norm", "pointwise", "cif"} <= set(ops(graph))
    module = emit(graph)
    calls = [
        random_inputs(graph, **dict(zip(graph.dims, sizes, strict=False)))
        for sizes in ((2, 7), (1, 2), (3, 17))
    ]
    for level in native_levels() if pytestconfig.getoption("--sanitize") else native_levels()[-1:]:
        context = build(module, level, tmp_path).context(2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CC", "gcc")
            builder = Builder(CACHE, 2, SANITIZERS)
            program = builder.program(module.source, registry.level(ARCH, level))
        weights, given, made = (tmp_path / name for name in ("weights.bin", "given", "made"))
        for inputs in calls:
            given.write_bytes(pack_arrays(inputs))
            command = [program, weights, given, made]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            got = unpack_arrays(made.read_bytes())
            for a, b in zip(got, context.run(inputs), strict=True):
                np.testing.assert_array_equal(a, b)
