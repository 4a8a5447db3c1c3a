"""The way of a graph through the passes, as one list."""

from __future__ import annotations

import difflib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from graphopt.config import Config
from graphopt.errors import UnknownPrecisionError
from graphopt.ir import Graph
from graphopt.passes.assign_layouts import AssignLayouts
from graphopt.passes.base import Pass
from graphopt.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from graphopt.passes.eliminate_dead_code import EliminateDeadCode
from graphopt.passes.fold_constants import FoldConstants
from graphopt.passes.fuse_attention import FuseAttention
from graphopt.passes.fuse_epilogue import FuseEpilogue
from graphopt.passes.fuse_fsmn import FuseFsmn
from graphopt.passes.fuse_patches import FusePatches
from graphopt.passes.fuse_pointwise import FusePointwise
from graphopt.passes.fuse_quantize import FuseQuantize
from graphopt.passes.lower_aten import LowerAten
from graphopt.passes.lower_bf16 import LowerBf16
from graphopt.passes.lower_depthwise import LowerDepthwise
from graphopt.passes.parallelize_conv import ParallelizeConv
from graphopt.passes.quantize_dynamic_int8 import QuantizeDynamicInt8
from graphopt.passes.quantize_weights_int4 import QuantizeWeightsInt4
from graphopt.passes.rounding import NEAREST, Rounding
from graphopt.passes.select_kernels import SelectKernels
from graphopt.passes.share_table import ShareTable
from graphopt.passes.simplify_views import SimplifyViews
from graphopt.passes.split_activations import SplitActivations
from graphopt.passes.unfold_conv import UnfoldConv
from graphopt.printer import file_name, print_graph, printable
from graphopt.progress import announce
from graphopt.target import Target
from graphopt.verify import verify


def lowering_passes() -> list[Pass]:
    """From aten nodes to fused `go.*` nodes: the same for every target and precision."""
    return [
        EliminateDeadCode(),
        LowerAten(),
        FoldConstants(),
        EliminateCommonSubexpressions(),
        EliminateDeadCode(),
        SimplifyViews(),
        LowerDepthwise(),
        UnfoldConv(windows=False),
        SimplifyViews(),
        EliminateDeadCode(),
        FuseAttention(),
        SimplifyViews(),
        FuseFsmn(),
        FuseEpilogue(),
        FusePointwise(),
        EliminateCommonSubexpressions(),
        EliminateDeadCode(),
    ]


def check_activation_bits(bits: int) -> None:
    """Raises UnknownPrecisionError for bits that quantized activations cannot have."""
    if type(bits) is not int or bits not in (8, 16):
        raise UnknownPrecisionError(f"activation_bits={bits}", ("8", "16"))


def precision_passes(
    precision: str, group: int = 32, activation_bits: int = 8, rounding: Rounding = NEAREST
) -> list[Pass]:
    """Where numbers become narrower.

    Args:
        precision: one of `graphopt.target.PRECISIONS`.
        group: int4 weights that share a scale; 0 for a scale per channel.
        activation_bits: of quantized activations, 8, or 16 for two int8 rows.
        rounding: how weights become int4.

    Raises:
        UnknownPrecisionError: for rounding where nothing becomes int4, or other bits.
    """
    check_activation_bits(activation_bits)
    if "int4" not in precision and rounding.method != NEAREST.method:
        raise UnknownPrecisionError(f"rounding={rounding.method} beside {precision}", ("int4",))
    passes: list[Pass] = []
    if precision != "fp32":
        passes.append(UnfoldConv(windows=True))
    if "int4" in precision:
        passes.append(QuantizeWeightsInt4(group, rounding))
    if "int8" in precision or "int4" in precision:
        passes += [QuantizeDynamicInt8(), ShareTable()]
    if activation_bits == 16:
        passes.append(SplitActivations())
    if "bf16" in precision:
        passes.append(LowerBf16(gemm=True))
    if "int8" in precision or "int4" in precision:
        passes.append(FuseQuantize())
    if precision != "fp32":
        passes.append(FusePatches())
    return passes


def placement_passes(target: Target, serial_conv: bool = False) -> list[Pass]:
    """Memory layout, tasks and kernels; convolutions in one task each if `serial_conv`."""
    return [AssignLayouts(), ParallelizeConv(target, serial_conv), SelectKernels(target)]


class PassManager:
    """Runs passes one after the other, checks and shows what they did.

    Args:
        config: what to check and show.
        report: receives a line per pass (`GRAPHOPT_DEBUG`); standard error by default.
    """

    def __init__(self, config: Config, report: Callable[[str], None] | None = None) -> None:
        self._config = config
        self._report = report or (lambda text: print(text, file=sys.stderr))
        self._count = 0
        self._stopped = False

    def run(self, graph: Graph, passes: list[Pass]) -> Graph:
        """Runs the passes on the graph in place and returns it."""
        if self._count == 0:
            self._dump("capture", graph)
        for step in passes:
            if self._stopped or step.name in self._config.skip:
                continue
            announce(f"{graph.name}: {step.name}")
            before = print_graph(graph) if self._config.debug >= 3 else ""
            nodes, start = len(graph.nodes), time.perf_counter()
            modified = step.run(graph)
            seconds = time.perf_counter() - start
            if self._config.verify:
                verify(graph, step.name)
            if self._config.debug >= 1:
                what = "changed" if modified else "no change"
                size = f"{nodes} -> {len(graph.nodes)} nodes, {seconds * 1e3:.1f} ms"
                self._report(f"{printable(graph.name)}: {step.name}: {what}, {size}")
            if self._config.debug >= 3 and modified:
                after = print_graph(graph)
                diff = difflib.unified_diff(
                    before.splitlines(), after.splitlines(), lineterm="", n=1
                )
                self._report("\n".join(diff))
            self._dump(step.name, graph)
            self._stopped = step.name == self._config.stop_after
        return graph

    def show_decisions(self, graph: Graph) -> None:
        """Lists kernels and reasons (`GRAPHOPT_DEBUG=2`)."""
        if self._config.debug >= 2:
            self._report(print_graph(graph, reasons=True))

    def show_source(self, graph: Graph, source: str, library: Path) -> None:
        """Shows the generated C (`GRAPHOPT_DEBUG=4`), its code (5), and dumps the C."""
        if self._config.debug >= 4:
            self._report(f"{source}\n{printable(graph.name)}: built {library}")
        if self._config.debug >= 5:
            command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
            shown = subprocess.run(command, capture_output=True, text=True, check=False)
            self._report(shown.stdout or shown.stderr)
        if self._config.dump is not None:
            folder = self._config.dump / file_name(graph.name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "module.c").write_text(source, encoding="utf-8")

    def _dump(self, name: str, graph: Graph) -> None:
        if self._config.dump is not None:
            folder = self._config.dump / file_name(graph.name)
            folder.mkdir(parents=True, exist_ok=True)
            text = f"# after {name}\n{print_graph(graph, reasons=True)}"
            (folder / f"{self._count:02d}_{name}.txt").write_text(text, encoding="utf-8")
        self._count += 1
