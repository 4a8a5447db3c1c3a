"""Kernels and generated modules under gcc's sanitizers: addresses, undefined behaviour, threads.

What they compute is what the same code computes unwatched. Here on the best level of this machine;
`make sanitize` has all of its levels, and all tests of kernels under the sanitizers.
"""

import platform
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import test_attention  # noqa: E402
import test_cif  # noqa: E402
import test_conv  # noqa: E402
import test_depthwise  # noqa: E402
import test_gemm_f32  # noqa: E402
import test_norm  # noqa: E402
import test_winograd  # noqa: E402
from captured import captured, lowered  # noqa: E402
from every_op import every_op  # noqa: E402
from graphs import CACHE, build, emit, native_levels, ops, random_inputs  # noqa: E402
from harness import Case, Runner, run_cases, sanitized  # noqa: E402
from sanitizers import SANITIZERS, THREADS, require_sanitizers  # noqa: E402
from torch import nn  # noqa: E402

from graphopt.funasr.layers import cif as cif  # noqa: E402
from graphopt.ir import Graph  # noqa: E402
from graphopt.kernels import registry  # noqa: E402
from graphopt.passes.eliminate_dead_code import EliminateDeadCode  # noqa: E402
from graphopt.passes.fuse_im2col import FuseIm2col  # noqa: E402
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
    "go_winograd": lambda: [test_winograd.make_case(spec)[0] for spec in test_winograd.SPECS],
    "go_depthwise": lambda: [test_depthwise.make_case(spec)[0] for spec in test_depthwise.SPECS],
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


def run_watched(
    graph: Graph, calls: list[list[Any]], levels: list[str], folder: Path, *sanitizers: str
) -> None:
    """Runs a graph's program, which must end well with what the same code gives unwatched."""
    module = emit(graph)
    for level in levels:
        context = build(module, level, folder).context(2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CC", "gcc")
            builder = Builder(CACHE, 2, sanitizers)
            program = builder.program(module.source, registry.level(ARCH, level))
        weights, given, made = (folder / name for name in ("weights.bin", "given", "made"))
        for inputs in calls:
            given.write_bytes(pack_arrays(inputs))
            command = [program, weights, given, made]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            if "unexpected memory mapping" in done.stderr:
                pytest.skip("the thread sanitizer does not run with this kernel's address layout")
            assert done.returncode == 0, done.stderr
            got = unpack_arrays(made.read_bytes())
            for a, b in zip(got, context.run(inputs), strict=True):
                np.testing.assert_array_equal(a, b)


def calls_of(graph: Graph, sizes: list[tuple[int, ...]]) -> list[list[Any]]:
    return [random_inputs(graph, **dict(zip(graph.dims, each, strict=False))) for each in sizes]


def watched_levels(pytestconfig: pytest.Config) -> list[str]:
    return native_levels() if pytestconfig.getoption("--sanitize") else native_levels()[-1:]


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
    calls = calls_of(graph, [(2, 7), (1, 2), (3, 17)])
    run_watched(graph, calls, watched_levels(pytestconfig), tmp_path, *SANITIZERS)


def test_code_of_every_op(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Here of those alone that are loops, for which no kernel is compiled."""
    require_sanitizers()
    graph, everything = every_op(), pytestconfig.getoption("--sanitize")
    calls = calls_of(graph, [(2, 5), (1, 2), (3, 15)])
    for inputs in calls:
        given = dict(zip((v.name for v in graph.inputs), inputs, strict=True))
        given["lengths"][:] = (np.arange(len(given["lengths"])) + 1) % 2
        np.abs(given["alphas"], out=given["alphas"])
    if not everything:
        kernels = {v for n in graph.nodes if n.op.kernel(n).startswith("go_") for v in n.outputs}
        graph.outputs = [v for v in graph.outputs if v not in kernels]
        EliminateDeadCode().run(graph)
    FuseIm2col().run(graph)
    run_watched(graph, calls, watched_levels(pytestconfig), tmp_path, *SANITIZERS)


@pytest.mark.parametrize("sanitizers", [SANITIZERS, THREADS], ids=",".join)
def test_recurrent_layers(
    tmp_path: Path, pytestconfig: pytest.Config, sanitizers: tuple[str, ...]
) -> None:
    """Whose threads wait for each other in every step, where the batch is small, or never."""
    require_sanitizers(sanitizers)
    torch.manual_seed(0)
    lstm = nn.LSTM(5, 40, proj_size=19)
    gru = nn.GRU(5, 33, bidirectional=True)
    graph = lowered(
        captured(
            lambda x, lstm, gru: (lstm(x), gru(x)), torch.randn(6, 3, 5), lstm=lstm, gru=gru
        ).graph
    )
    assert ops(graph).count("recurrent") == 2
    calls = calls_of(graph, [(6, 3), (1, 1), (4, 35)])
    run_watched(graph, calls, watched_levels(pytestconfig), tmp_path, *sanitizers)
