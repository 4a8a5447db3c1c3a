"""A captured graph, planned for a target and built for the machines that run it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sympy import Symbol

from graphopt._version import VERSION
from graphopt.codegen.emit import Module, emit_module
from graphopt.compiler.options import Options
from graphopt.compiler.pipeline import PassManager, placement_passes, precision_passes
from graphopt.compiler.profile import Run, time_steps
from graphopt.compiler.schedule import StepBalance, balance_of, trace_tasks
from graphopt.errors import StorageError
from graphopt.ir import Graph, Value, learn_sizes
from graphopt.ir.cost import Call, memory_bytes, moved_bytes
from graphopt.ir.networks import critical_path
from graphopt.ir.ops import Attention, CachedAttention, Conv, Linear, Norm
from graphopt.ir.printer import print_graph
from graphopt.ir.symbolic import evaluate
from graphopt.kernels import registry
from graphopt.kernels.registry import Level
from graphopt.passes.support.rounding import Rounding
from graphopt.progress import announce
from graphopt.runtime import process, structure
from graphopt.runtime.cpus import usable_cpus
from graphopt.runtime.emulate import Emulation
from graphopt.runtime.library import ContextPool, Library
from graphopt.runtime.package import FORMAT, Manifest, Port, Step, write_package
from graphopt.runtime.sealed import copy_of
from graphopt.target import native
from graphopt.toolchain.build import Builder

Array = np.ndarray[Any, Any]


class OtherMachineWarning(UserWarning):
    """A module built for another machine runs its plan through this machine's kernels."""


@dataclass(frozen=True)
class Signature:
    """How a package is called.

    Attributes:
        call: positional and keyword arguments, with a `structure.Leaf` for each input.
        result: what a call gives, with a `structure.Leaf` for each output.
        parameters: names of the positional arguments.
        outputs: names of the outputs.
        changes_arguments: as a `Manifest` says.
    """

    call: Any
    result: Any
    parameters: tuple[str, ...]
    outputs: tuple[str, ...]
    changes_arguments: bool = False


@dataclass(eq=False)
class Program:
    """A graph of `go.*` nodes and everything that can be made of it.

    Attributes:
        graph: lowered, not yet planned; planned in place by `plan`.
        options: what it is planned for.
        manager: runs passes and shows what they do.
        rounding: how weights become int4, where that takes more than the options say.
    """

    graph: Graph
    options: Options
    manager: PassManager
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        self._contexts = ContextPool(self.options.num_threads)
        self._opening = threading.RLock()
        self._folder = process.Folder("graphopt-")

    def plan(self) -> None:
        """Runs the passes that depend on precision and target."""
        options = self.options
        rounding = self.rounding or Rounding(options.rounding)
        passes = [
            *precision_passes(
                options.precision, options.group, options.activation_bits, rounding, options.plan
            ),
            *placement_passes(options.target, self.manager.config.serial_conv),
        ]
        self.manager.run(self.graph, passes)
        self.manager.warn_of_unused()
        self.manager.show_decisions(self.graph)

    @cached_property
    def builder(self) -> Builder:
        """The compiler, with this process's share of CPUs."""
        return Builder(self.manager.config.cache, usable_cpus())

    @cached_property
    def module(self) -> Module:
        """C and weights for the target."""
        return self._emit(self.options.target.arch)

    @cached_property
    def _host_module(self) -> Module:
        host = native()
        return self.module if self.options.target.arch == host.arch else self._emit(host.arch)

    def _emit(self, arch: str) -> Module:
        announce(f"{self.graph.name}: C for {arch}")
        module = emit_module(self.graph, arch)
        self.manager.show_memory(self.graph, module.memory.plan, arch)
        self.manager.show_source(self.graph, module.source, arch)
        return module

    def _build(self, module: Module, level: Level) -> Path:
        path = self.builder.library(module.source, level)
        self.manager.show_library(self.graph, path)
        return path

    def weights_file(self, module: Module) -> Path:
        """The packed weights of a module, written once while this program lives.

        Raises:
            StorageError: if there is no room for them.
        """
        try:
            path = self._folder.path / f"{module.arch}.bin"
            if not path.exists():
                announce(f"{self.graph.name}: pack weights for {module.arch}")
                part = path.with_suffix(".part")
                module.write_weights(part, self.builder.jobs)
                part.rename(path)
        except OSError as error:
            folder = "the folder of temporary files"
            raise StorageError(folder, error.strerror or error, "TMPDIR") from error
        return path

    def write(self, folder: Path, signature: Signature, texts: Mapping[str, str] = {}) -> None:
        """Writes the package of this program into a new folder.

        Args:
            folder: to make, or empty.
            signature: how the package is called.
            texts: more files for it, by name.

        Raises:
            StorageError: if there is no room.
        """
        target = self.options.target
        files: dict[str, Path | str] = {
            "module.c": self.module.source,
            "weights.bin": self.weights_file(self.module),
            "passes/3_planned.txt": print_graph(self.graph, reasons=True),
        }
        for level in target.isa_levels:
            files[f"lib/{level.name}.so"] = self._build(self.module, level)
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            name=self.graph.name,
            target=target.name,
            arch=target.arch,
            precision=self.options.precision,
            levels=target.levels,
            inputs=tuple(_port(value, value.name) for value in self.graph.inputs),
            outputs=tuple(map(_port, self.graph.outputs, signature.outputs)),
            call=structure.describe(signature.call),
            parameters=signature.parameters,
            result=structure.describe(signature.result),
            changes_arguments=signature.changes_arguments,
            steps=self._steps(),
        )
        announce(f"{self.graph.name}: write the package")
        write_package(folder, manifest, {**files, **texts})

    def _steps(self) -> tuple[Step, ...]:
        return tuple(
            Step(
                step.comment.partition(" = ")[0],
                step.node.op.name,
                step.node.kernel,
                step.node.origin.module,
            )
            for step in self.module.steps
        )

    @property
    def library(self) -> Library:
        """The module on this machine, on the best level that target and machine share."""
        with process.changes, self._opening:
            return self._library

    @cached_property
    def _library(self) -> Library:
        target, mine = self.options.target, native()
        if target.name != mine.name:
            shared = [name for name in target.levels if name in mine.levels]
            if target.arch != mine.arch or shared != list(target.levels):
                warnings.warn(
                    f"{self.graph.name} is built for {target.name}; this machine runs the "
                    f"same plan through its own {mine.levels[-1]} kernels",
                    OtherMachineWarning,
                    stacklevel=3,
                )
        level = registry.level(mine.arch, mine.levels[-1])
        path = self._build(self._host_module, level)
        return Library(
            copy_of(path),  # the cache may be cleaned or mended while this process runs
            self.weights_file(self._host_module),
            [v.name for v in self.graph.inputs],
            [v.shape for v in self.graph.inputs],
        )

    def run(self, inputs: Sequence[Array], seconds: Array | None = None) -> list[Array]:
        """Runs on this machine; callers on several threads get a context each."""
        return self._contexts.run(lambda: self.library, inputs, seconds)

    def profile(self, inputs: Sequence[Array], repeats: int) -> Run:
        """The time of each step, with its work.

        Returns:
            The rows of `work`, with what `Optimized.profile` adds.
        """
        outputs = self.run(inputs)

        def run(seconds: Array | None, marks: list[Array] | None) -> None:
            self._contexts.run(lambda: self.library, inputs, seconds, marks)

        timed = time_steps(run, self.library.step_count, repeats)
        nodes = [step.node for step in self._host_module.steps]
        longest = set(critical_path(self.graph.nodes, dict(zip(nodes, timed.steps, strict=True))))
        columns = zip(nodes, timed.steps, timed.busy, strict=True)
        found = [
            {"ms": ms, "busy": busy, "threads": timed.threads, "critical": node in longest}
            for node, ms, busy in columns
        ]
        work = self.work(inputs, outputs)
        return Run([{**row, **more} for row, more in zip(work, found, strict=True)], timed)

    def work(self, inputs: Sequence[Array], outputs: Sequence[Array] = ()) -> list[dict[str, Any]]:
        """What each step has to do, without a run.

        Args:
            inputs: of a call; of a state only the shape counts.
            outputs: of the same call, where they show dims that a node computes; else those are at
                their bounds.

        Returns:
            One dict a step: `node`, `op`, `kernel`, `module`, `fused` (modules whose work it does
            beside its own), `macs`, `bytes` (all that it moves),
            `memory_bytes` (of those, constants and cached rows), shapes with dtypes of its `inputs`
            and `outputs`; of a product the format of the weights (`scheme`) and their `group`, of
            attention whether it is `causal`, over a cache its `keys`, of a norm whether it is
            `rms`.
        """
        integers = zip(self.graph.inputs, inputs, strict=True)
        numbers = {value: array for value, array in integers if array.dtype == np.int64}
        call = Call(self._sizes(inputs, outputs), self.options.target.arch, numbers)
        rows = []
        for step in self._host_module.steps:
            node = step.node
            row: dict[str, Any] = {
                "node": step.comment.partition(" = ")[0],
                "op": node.op.name,
                "kernel": node.kernel,
                "module": node.origin.module,
                "fused": [origin.module for origin in node.fused if origin.module],
                "macs": node.op.macs(node, call),
                "bytes": moved_bytes(node, call),
                "memory_bytes": memory_bytes(node, call),
                "inputs": [_shape_and_dtype(value, call.sizes) for value in node.inputs],
                "outputs": [_shape_and_dtype(value, call.sizes) for value in node.outputs],
            }
            match node.op:
                case Linear(group=group):
                    row |= {"scheme": str(node.op.decided), "group": group}
                case Conv(winograd=tiles):
                    row |= {"scheme": str(node.op.decided), "group": 0, "winograd": tiles}
                case Norm(rms=rms):
                    row["rms"] = rms
                case Attention(causal=causal):
                    row["causal"] = causal
                case CachedAttention():
                    row["keys"] = int(call.keys(node).max())
            rows.append(row)
        return rows

    def _sizes(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> dict[Symbol, int]:
        """All dims of a run; a computed one that no output shows at its bound."""
        sizes = self.graph.sizes([array.shape for array in inputs])
        for value, array in zip(self.graph.outputs, outputs, strict=False):
            learn_sizes(sizes, value, array.shape)
        for info in self.graph.dims.values():
            if info.bound is not None:
                sizes.setdefault(info.symbol, evaluate(info.bound, sizes))
        return sizes

    def balance(self, inputs: Sequence[Array], cores: int, repeats: int) -> list[StepBalance]:
        """How evenly each step's tasks fall on the cores, by this machine's kernels.

        Args:
            inputs: stored arrays (bf16 as uint16) in the order of the graph.
            cores: number of cores.
            repeats: runs; of each task the shortest time counts.

        Raises:
            MissingCompilerError: without a compiler.
            InputError: if an input does not fit.
        """
        module, mine = self._host_module, native()
        level = registry.level(mine.arch, mine.levels[-1])
        weights = self.weights_file(module)
        traced = trace_tasks(self.builder, module, level, weights, inputs, cores, repeats)
        return balance_of(module, traced, cores)

    def emulate(self, inputs: Sequence[Array], level: str, sve_bits: int) -> list[Array]:
        """Runs the target's own code under an emulator; like `run`, it writes to states.

        Args:
            inputs: stored arrays (bf16 as uint16) in the order of the graph.
            level: ISA level; the most capable of the target if empty.
            sve_bits: length of an SVE vector.

        Raises:
            MissingEmulatorError: if qemu is not installed.
            InputError: if an input does not fit.
            RunError: if the program fails.
        """
        target = self.options.target
        emulation = Emulation(
            self.builder,
            self.module.source,
            target.arch,
            [v.name for v in self.graph.inputs],
            [v.shape for v in self.graph.inputs],
            [number for number, v in enumerate(self.graph.inputs) if v.is_state],
        )
        return emulation.run(
            self.weights_file(self.module),
            inputs,
            level or target.levels[-1],
            sve_bits,
        )


def _shape_and_dtype(value: Value, sizes: Mapping[Symbol, int]) -> tuple[tuple[int, ...], str]:
    shape = tuple(evaluate(extent, sizes) for extent in value.shape)
    return shape, value.packed or value.dtype.value


def _port(value: Value, name: str) -> Port:
    shape = tuple(e if isinstance(e, int) else str(e) for e in value.shape)
    return Port(name, value.dtype.value, shape, value.is_state)
