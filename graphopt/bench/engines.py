"""The one interface of every engine in a benchmark, and the engines that are torch itself."""

from __future__ import annotations

import abc
import copy
import importlib.metadata
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.dependencies import require
from graphopt.errors import BenchmarkError

if TYPE_CHECKING:
    from torch import Tensor, nn

Arrays = list[np.ndarray[Any, Any]]
NamedArrays = dict[str, np.ndarray[Any, Any]]
Call = Callable[..., Arrays]


@dataclass(frozen=True)
class Stage:
    """One module of a workload, with what an exporter has to know about it.

    Attributes:
        name: Short name, unique in the workload; names the exported file.
        module: The module, in eval mode.
        inputs: Example inputs.
        input_names: Names of the inputs, in order.
        output_names: Names of the outputs, in order.
        dynamic_axes: For each input or output name, its dynamic axes with their names.
        own: What graphopt compiles where it is another form of the same model, else None.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: Sequence[str]
    output_names: Sequence[str]
    dynamic_axes: dict[str, dict[int, str]]
    own: nn.Module | None = None


@dataclass(frozen=True)
class Workload:
    """Modules and how one pass goes through them.

    Attributes:
        title: What a pass is, for the head of the table.
        stages: The modules.
        run: ``run(calls)`` makes one pass through the loaded stages, keyed by stage name, and
            returns the outputs to compare, by name.
        folder: Folder for exported files of these stages, shared by the engines.
        compare: Errors of outputs against the reference's, by name; by default that of each
            output by :func:`relative_error`.
    """

    title: str
    stages: Sequence[Stage]
    run: Callable[[dict[str, Call]], dict[str, np.ndarray[Any, Any]]]
    folder: Path
    compare: Callable[[NamedArrays, NamedArrays], dict[str, float]] = field(
        default_factory=lambda: relative_errors
    )


def relative_error(value: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> float:
    """``|value - reference| / |reference|``, Euclidean norms in float64 over all elements.

    Raises:
        BenchmarkError: For arrays of different shapes.
    """
    if value.shape != reference.shape:
        raise BenchmarkError(f"its output has shape {value.shape}, that of torch {reference.shape}")
    exact = reference.astype(np.float64)
    return float(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def relative_errors(outputs: NamedArrays, reference: NamedArrays) -> dict[str, float]:
    """:func:`relative_error` of each output."""
    return {name: relative_error(value, reference[name]) for name, value in outputs.items()}


class Engine(abc.ABC):
    """Something that runs a workload: ``prepare`` once, then ``run`` as often as wanted."""

    name: str
    package: str  # distribution that must be installed
    threads_at_load = True  # or at each call, from ``threads``
    _loaded: tuple[int, list[int]] | None = None

    def prepare(self, workload: Workload, threads: int) -> None:
        """Load every stage for ``threads`` threads; nothing of this is timed.

        Raises:
            MissingDependencyError: If the engine's package is not installed.
        """
        self.threads = threads
        fixed = threads if self.threads_at_load else 0
        loaded = (fixed, [id(stage.module) for stage in workload.stages])
        if loaded != self._loaded:  # workloads of other sizes share modules
            self._calls = {stage.name: self.load(stage, workload) for stage in workload.stages}
            self._loaded = loaded
        self._workload = workload

    @abc.abstractmethod
    def load(self, stage: Stage, workload: Workload) -> Call:
        """Load one stage; the result takes and returns numpy arrays without copying them."""

    def run(self) -> dict[str, np.ndarray[Any, Any]]:
        """One pass; returns the outputs that the workload compares, by name."""
        return self._workload.run(self._calls)

    def version(self) -> str:
        """Version of the engine's package."""
        return importlib.metadata.version(self.package)

    def details(self) -> str:
        """Settings that matter for reading the figures."""
        return ""


class TorchFp32(Engine):
    """torch in eager mode, fp32."""

    name = "torch fp32"
    package = "torch"
    threads_at_load = False

    def load(self, stage: Stage, workload: Workload) -> Call:
        """Wrap the module between numpy arrays."""
        torch = require("torch", "the benchmark")
        module = self.convert(stage.module)

        def call(*arrays: np.ndarray[Any, Any]) -> Arrays:
            torch.set_num_threads(self.threads)
            with torch.inference_mode():
                outputs = module(*(torch.from_numpy(a) for a in arrays))
            return _arrays(outputs)

        return call

    def convert(self, module: nn.Module) -> nn.Module:
        """What runs in place of ``module``."""
        return module

    def details(self) -> str:
        """Eager mode, with oneDNN where torch has it."""
        return "eager"


class TorchDynamicInt8(TorchFp32):
    """``torch.ao.quantization.quantize_dynamic``: int8 weights of linear and recurrent layers."""

    name = "torch.ao int8"

    def convert(self, module: nn.Module) -> nn.Module:
        """Quantize a copy of ``module``."""
        torch = require("torch", "the benchmark")
        quantization = require("torch.ao.quantization", "the benchmark")
        kinds = {torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates its own quantized tensors
            quantized: nn.Module = quantization.quantize_dynamic(
                copy.deepcopy(module), kinds, dtype=torch.qint8
            )
        return quantized

    def details(self) -> str:
        """The quantized engine that torch uses."""
        torch = require("torch", "the benchmark")
        return f"linear, LSTM, GRU; engine {torch.backends.quantized.engine}"


class TorchCompile(TorchFp32):
    """``torch.compile`` with Inductor, which compiles C++ for fp32."""

    name = "torch.compile"
    threads_at_load = True  # Inductor writes them into its code

    def convert(self, module: nn.Module) -> nn.Module:
        """A module that compiles itself at the first call, for the sizes of that call."""
        torch = require("torch", "the benchmark")
        compiled: nn.Module = torch.compile(module, dynamic=False)
        return compiled

    def details(self) -> str:
        """How it was asked to compile."""
        return "inductor, static sizes"


class Graphopt(Engine):
    """graphopt itself, at one precision.

    Args:
        precision: ``fp32``, ``bf16``, ``int8`` or ``int8+bf16``.
        serial_conv: Leave each convolution in one task.

    Attributes:
        modules: The optimized modules by stage name, once loaded.
    """

    package = "graphopt"
    threads_at_load = False

    def __init__(self, precision: str, serial_conv: bool = False) -> None:
        self.precision = precision
        self.serial_conv = serial_conv
        self.name = f"graphopt {precision}{', serial convolutions' * serial_conv}"
        self.modules: dict[str, Any] = {}

    def load(self, stage: Stage, workload: Workload) -> Call:
        """Optimize the module for this machine."""
        torch = require("torch", "the benchmark")
        pipeline = require("graphopt", "the benchmark")
        with _environment("GRAPHOPT_SERIAL_CONV", "1" if self.serial_conv else "0"):
            fast = pipeline.optimize(
                stage.own or stage.module,
                target="native",
                precision=self.precision,
                example_inputs=stage.inputs,
            )
        self.modules[stage.name] = fast

        def call(*arrays: np.ndarray[Any, Any]) -> Arrays:
            pipeline.limit_threads(self.threads)
            with torch.inference_mode():
                outputs = fast(*(torch.from_numpy(a) for a in arrays))
            return _arrays(outputs)

        return call


def _arrays(outputs: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Arrays:
    """What a module returns, be it one tensor or several."""
    several = outputs if isinstance(outputs, tuple | list) else (outputs,)
    return [output.numpy() for output in several]


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable while the block lasts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def chosen(others: Sequence[Engine], wanted: Sequence[str]) -> list[Engine]:
    """The reference, torch fp32, and those engines whose name contains one of the wanted words.

    torch.compile takes minutes to compile and comes only if a word asks for it.

    Args:
        others: beside torch fp32 and torch.compile.
        wanted: words; all of the others if empty.
    """
    slow = [TorchCompile()] if any(word in TorchCompile.name for word in wanted) else []
    named = [e for e in others if not wanted or any(word in e.name for word in wanted)]
    return [TorchFp32(), *slow, *named]
