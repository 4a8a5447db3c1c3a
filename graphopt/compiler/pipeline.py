"""The way of a graph through the passes, as one list."""

from __future__ import annotations

import difflib
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from graphopt.codegen.plan_memory import MemoryPlan, print_memory
from graphopt.compiler.precision_plan import PrecisionPlan
from graphopt.compiler.stages import Stage, Stages, kept_stages
from graphopt.config import Config
from graphopt.errors import MissingToolError, OptionError, SwitchError, UnknownPrecisionError
from graphopt.ir import Graph, Node
from graphopt.ir.networks import dot, graphml
from graphopt.ir.numbers import QUANTIZED
from graphopt.ir.printer import file_name, print_graph
from graphopt.ir.verify import REQUIRED, verify
from graphopt.kernels.formats import BF16, F32, INT4_BLOCKS, INT4_CHANNELS, INT8, Format
from graphopt.passes.assign_layouts import AssignLayouts
from graphopt.passes.base import Choice, Pass
from graphopt.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from graphopt.passes.eliminate_dead_code import EliminateDeadCode
from graphopt.passes.fold_constants import FoldConstants
from graphopt.passes.fold_scales import FoldScales
from graphopt.passes.fuse_attention import FuseAttention
from graphopt.passes.fuse_casts import FuseCasts
from graphopt.passes.fuse_epilogue import FuseEpilogue
from graphopt.passes.fuse_fsmn import FuseFsmn
from graphopt.passes.fuse_im2col import FuseIm2col
from graphopt.passes.fuse_norm import FuseNorm
from graphopt.passes.fuse_padding import FusePadding
from graphopt.passes.fuse_pointwise import FusePointwise
from graphopt.passes.fuse_quantize import FuseQuantize
from graphopt.passes.lower_aten import LowerAten
from graphopt.passes.lower_bf16 import LowerBf16
from graphopt.passes.lower_depthwise import LowerDepthwise
from graphopt.passes.multiply_tables import MultiplyTables
from graphopt.passes.parallelize_conv import ParallelizeConv
from graphopt.passes.quantize_weights import QuantizeWeights
from graphopt.passes.quantize_weights_int4 import QuantizeWeightsInt4
from graphopt.passes.select_kernels import SelectKernels
from graphopt.passes.simplify_loads import SimplifyLoads
from graphopt.passes.simplify_views import SimplifyViews
from graphopt.passes.split_activations import SplitActivations
from graphopt.passes.spread_rows import SpreadRows
from graphopt.passes.support.rounding import NEAREST, Rounding
from graphopt.passes.transform_conv import TransformConv
from graphopt.passes.unfold_conv import UnfoldConv
from graphopt.printable import printable
from graphopt.progress import announce
from graphopt.target import Target, native


def lowering_passes() -> list[Pass]:
    """From aten nodes to fused `go.*` nodes: the same for every target and precision."""
    return [
        EliminateDeadCode(),
        LowerAten(),
        FoldConstants(),
        EliminateCommonSubexpressions(),
        EliminateDeadCode(),
        SimplifyLoads(),
        SimplifyViews(),
        LowerDepthwise(),
        FusePadding(),
        UnfoldConv(windows=False),
        MultiplyTables(),
        SimplifyViews(),
        FuseNorm(),
        EliminateDeadCode(),
        FuseAttention(),
        SimplifyViews(),
        FuseFsmn(),
        FoldScales(),
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
    precision: str,
    group: int = 32,
    activation_bits: int = 8,
    rounding: Rounding = NEAREST,
    plan: PrecisionPlan | None = None,
) -> list[Pass]:
    """Where numbers become narrower.

    Args:
        precision: one of `graphopt.target.PRECISIONS`.
        group: int4 weights that share a scale; 0 for a scale per channel.
        activation_bits: of quantized activations, 8, or 16 for two int8 rows.
        rounding: how weights become int4.
        plan: of the layers, if they are not all in that precision.

    Raises:
        UnknownPrecisionError: for rounding where nothing becomes int4, or other bits.
    """
    check_activation_bits(activation_bits)
    plan = plan or PrecisionPlan(precision)
    formats = plan.formats

    def chosen(format: Format) -> Choice:
        return lambda node: plan.gives(node.origin.module, format)

    def packs(node: Node) -> bool:
        return plan.packs_rows(node.origin.module)

    def named(node: Node) -> bool:
        return bool(plan.entry(node.origin.module))

    in_rows = any(format.rows for format in formats)
    quantized = any(format.rows == QUANTIZED for format in formats)
    if INT4_BLOCKS not in formats and rounding.method != NEAREST.method:
        raise UnknownPrecisionError(f"rounding={rounding.method} beside {plan.name}", ("int4",))
    passes: list[Pass] = []
    if in_rows and activation_bits == 8:  # windows are gathered as rows of 8 bits
        passes += [UnfoldConv(windows=True, chosen=packs), SimplifyViews()]
    narrow = [format for format in formats if format not in (F32, BF16, INT4_CHANNELS, INT4_BLOCKS)]
    if INT4_BLOCKS in formats:
        passes.append(QuantizeWeightsInt4(group, rounding, chosen(INT4_BLOCKS), named))
        narrow = narrow or [INT8]
    passes += [QuantizeWeights(format, chosen(format)) for format in narrow]
    if activation_bits == 16:
        passes.append(SplitActivations())
    if BF16 in formats:
        passes.append(LowerBf16(gemm=True, chosen=chosen(BF16)))
    passes.append(FuseCasts(attention=BF16 in formats))
    if quantized:
        passes.append(FuseQuantize())
    if in_rows:
        passes.append(FuseIm2col())
    return passes


def placement_passes(target: Target, serial_conv: bool = False) -> list[Pass]:
    """Memory layout, tasks and kernels; convolutions in one task each if `serial_conv`."""
    tasks = ParallelizeConv(target, serial_conv)
    return [AssignLayouts(), SpreadRows(), TransformConv(), tasks, SelectKernels(target)]


def pass_names() -> tuple[str, ...]:
    """Every pass that some pipeline has, in order of first use."""
    every = [
        *lowering_passes(),
        *precision_passes("int4", activation_bits=16),
        *precision_passes("int8+bf16"),
        *placement_passes(native()),
    ]
    return tuple(dict.fromkeys(step.name for step in every))


def _check_passes(variable: str, names: Iterable[str]) -> None:
    known = pass_names()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
            raise SwitchError(variable, name, f"no such pass; near it are {', '.join(near)}")


#: What a graph is exported as.
_EXPORTS: dict[str, Callable[[Graph], str]] = {
    "text": lambda graph: print_graph(graph, reasons=True),
    "graphml": graphml,
    "dot": dot,
}


def export(graph: Graph, format: str) -> str:
    """A graph as `text`, `graphml` or `dot`.

    Raises:
        OptionError: for another format.
    """
    if format not in _EXPORTS:
        raise OptionError("format", format, f"give one of {', '.join(_EXPORTS)}")
    return _EXPORTS[format](graph)


#: What the graph after a pass is dumped as (`GRAPHOPT_DUMP_FORMAT`).
_DUMPS: dict[str, Callable[[Stage], str]] = {
    "text": lambda stage: f"# after {stage.step or stage.name}\n{stage.text}",
    "graphml": lambda stage: graphml(stage.graph, stage.names),
    "dot": lambda stage: dot(stage.graph, stage.names),
}


class UnusedSwitchWarning(UserWarning):
    """A switch that names a pass which this precision does not have."""


class PassManager:
    """Runs passes one after the other, checks and shows what they did.

    Attributes:
        config: what to check and show.
        stages: the graph after each pass, if they are kept.

    Args:
        config: as above.
        report: receives a line per pass (`GRAPHOPT_DEBUG`); standard error by default.
        keep: whether stages are kept if somebody asks for those of what is compiled
            (`graphopt.compiler.stages.keep_stages`).

    Raises:
        SwitchError: for a pass to skip or to stop after that is unknown, or cannot be left out,
            and for an unknown format of dumps.
    """

    def __init__(
        self, config: Config, report: Callable[[str], None] | None = None, keep: bool = False
    ) -> None:
        _check_passes("GRAPHOPT_STOP_AFTER", [config.stop_after] if config.stop_after else [])
        _check_passes("GRAPHOPT_SKIP", sorted(config.skip))
        if required := sorted(config.skip & REQUIRED):
            free = ", ".join(name for name in pass_names() if name not in REQUIRED)
            why = f"no code can be made without it; passes that may be left out are {free}"
            raise SwitchError("GRAPHOPT_SKIP", required[0], why)
        self._kind = config.dump_format or next(iter(_DUMPS))
        if self._kind not in _DUMPS:
            remedy = f"give one of {', '.join(_DUMPS)}"
            raise SwitchError("GRAPHOPT_DUMP_FORMAT", self._kind, remedy)
        self.config = config
        self.stages: Stages | None = None
        self._keep = keep
        self._begun: set[Graph] = set()
        self._seen: set[str] = set()
        self._report = report or (lambda text: print(text, file=sys.stderr))
        self._stopped = False

    def run(self, graph: Graph, passes: list[Pass]) -> Graph:
        """Runs the passes on the graph in place and returns it."""
        if graph not in self._begun:
            self._begin(graph)
        for step in passes:
            self._seen.add(step.name)
            left_out = self._stopped or step.name in self.config.skip
            if left_out and step.name not in REQUIRED:
                continue
            announce(f"{graph.name}: {step.name}")
            before = print_graph(graph) if self.config.debug >= 3 else ""
            nodes, start = len(graph.nodes), time.perf_counter()
            modified = step.run(graph)
            seconds = time.perf_counter() - start
            if self.config.verify:
                verify(graph, step.name)
            if self.config.debug >= 1:
                what = "changed" if modified else "no change"
                size = f"{nodes} -> {len(graph.nodes)} nodes, {seconds * 1e3:.1f} ms"
                self._report(f"{printable(graph.name)}: {step.name}: {what}, {size}")
            if self.config.debug >= 3 and modified:
                after = print_graph(graph)
                diff = difflib.unified_diff(
                    before.splitlines(), after.splitlines(), lineterm="", n=1
                )
                self._report("\n".join(diff))
            self._take(graph, step.name, seconds)
            self._stopped = self._stopped or step.name == self.config.stop_after
        return graph

    def _begin(self, graph: Graph) -> None:
        """Shows a graph that was captured, or a part that was cut off, as it comes."""
        if not self._begun:
            self.stages = kept_stages(graph.name) if self._keep else None
            if self.stages is None and self.config.dump is not None:
                self.stages = Stages(graph.name)
        self._begun.add(graph)
        self._take(graph, "")

    def _take(self, graph: Graph, step: str, seconds: float = 0.0) -> None:
        """Keeps a graph as it is now, and dumps it where a pass changed it."""
        if self.stages is None:
            return
        stage = self.stages.take(graph, step, seconds)
        if self.config.dump is not None and stage.changed:
            ending = "txt" if self._kind == "text" else self._kind
            name = f"{len(self.stages) - 1:02d}_{stage.name.rpartition('/')[2]}.{ending}"
            self._write(graph, name, _DUMPS[self._kind](stage))

    def warn_of_unused(self) -> None:
        """Warns of passes to skip or to stop after that were not among those that ran."""
        for name in sorted({*self.config.skip, self.config.stop_after} - {"", *self._seen}):
            variable = "GRAPHOPT_SKIP" if name in self.config.skip else "GRAPHOPT_STOP_AFTER"
            message = f"{variable}={name} has no effect: this precision has no such pass"
            warnings.warn(message, UnusedSwitchWarning, stacklevel=2)

    def show_decisions(self, graph: Graph) -> None:
        """Lists kernels and reasons (`GRAPHOPT_DEBUG=2`)."""
        if self.config.debug >= 2:
            self._report(print_graph(graph, reasons=True))

    def show_memory(self, graph: Graph, plan: MemoryPlan, arch: str) -> None:
        """Dumps which values share memory, and reports the number of slots (`GRAPHOPT_DEBUG=1`).

        Args:
            graph: what was planned.
            plan: where its values are.
            arch: whose layouts packed values have; names the dump.
        """
        if self.config.debug >= 1:
            count = f"{len(plan.slots)} slots for {len(plan.slot_of)} values and scratch memories"
            self._report(f"{printable(graph.name)}: plan_memory: {count}")
        if self.config.dump is not None:
            text = f"# after plan_memory\n{print_memory(graph, plan)}"
            self._write(graph, f"plan_memory_{arch}.txt", text)

    def show_source(self, graph: Graph, source: str, arch: str) -> None:
        """Shows generated C (`GRAPHOPT_DEBUG=4`), and dumps it.

        Args:
            graph: from which it was generated.
            source: the C.
            arch: for which it is; names the dump.
        """
        if self.config.debug >= 4:
            self._report(source)
        if self.config.dump is not None:
            self._write(graph, f"module_{arch}.c", source)

    def show_library(self, graph: Graph, library: Path) -> None:
        """Says where a library lies (`GRAPHOPT_DEBUG=4`), and shows its code (5)."""
        if self.config.debug >= 4:
            self._report(f"{printable(graph.name)}: built {library}")
        if self.config.debug >= 5:
            command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
            try:
                shown = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                raise MissingToolError("objdump", "binutils") from None
            self._report(shown.stdout or shown.stderr)

    def _write(self, graph: Graph, name: str, text: str) -> None:
        assert self.config.dump is not None
        folder = self.config.dump / file_name(graph.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise SwitchError("GRAPHOPT_DUMP", str(self.config.dump), str(error)) from error
