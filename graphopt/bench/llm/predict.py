"""Predicted speed of a language model on Neoverse cores, by op; nothing is timed there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from graphopt.bench.arm_model import Prices, assumptions, step_costs
from graphopt.bench.llm.prepare import weights_of
from graphopt.bench.llm.published import PUBLISHED
from graphopt.bench.machine import Machine
from graphopt.compiler.options import Options
from graphopt.compiler.program import Program
from graphopt.config import Config
from graphopt.llm.compiled import compile_decoder
from graphopt.llm.generate.cache import KeyValueCache
from graphopt.llm.generate.chat import CHUNK
from graphopt.llm.generate.engine import Engine
from graphopt.toolchain.build import Builder

CORES = (1, 16, 64)
#: Tokens before a chunk, and tokens of it; decoding in the middle of 64 tokens behind 128.
PHASES: dict[str, tuple[tuple[int, int], ...]] = {
    "prefill_128": ((0, 128),),
    "prefill_512": tuple((first, CHUNK) for first in range(0, 512, CHUNK)),
    "decode": ((160, 1),),
}
COLUMNS = ("GEMM", "head", "attention", "rope", "norm", "quantize", "other")
_GROUPS = {
    "go.linear": "GEMM",
    "go.cached_attention": "attention",
    "go.rope": "rope",
    "go.norm": "norm",
    "go.split_rows": "quantize",
    "go.pack_rows": "quantize",
}
_REPEATS = 3
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Phase:
    """One phase on a number of cores; all figures are of one token.

    Attributes:
        cycles: until the token is done.
        by_op: of them, by column.
        bytes: from memory.
        bound: cycles until memory has sent these bytes, if nothing else took time.
        steps: of the graph, each of which all cores begin and end together.
    """

    cycles: float
    by_op: dict[str, float]
    bytes: float
    bound: float
    steps: float


@dataclass(frozen=True)
class Prediction:
    """A model on a number of cores.

    Attributes:
        model: its name.
        target: the CPU.
        cores: how many.
        clock: Hz, to turn cycles into tokens a second.
        phases: by name, as in `PHASES`.
    """

    model: str
    target: str
    cores: int
    clock: float
    phases: dict[str, Phase]

    def as_dict(self) -> dict[str, Any]:
        """A row as `graphopt.bench.llm.speed` has them: tokens a second, and what they are of."""
        rates = {name: round(self.clock / p.cycles, 2) for name, p in self.phases.items()}
        row = {
            "engine": "graphopt, predicted",
            "model": self.model,
            "target": self.target,
            "threads": self.cores,
            **rates,
        }
        for key in ("cycles", "bytes", "bound", "steps"):
            figures = {name: round(getattr(p, key), 1) for name, p in self.phases.items()}
            row[f"{key}_per_token"] = figures
        row["by_op"] = {
            name: {op: round(cycles) for op, cycles in p.by_op.items()}
            for name, p in self.phases.items()
        }
        return row


def predict(
    model: str, folder: Path, options: Options, progress: Callable[[str], None] = lambda _: None
) -> list[Prediction]:
    """Cycles per token of a model on 1, 16 and 64 cores of an Arm target.

    Args:
        model: a name of `graphopt.bench.llm.models`, or a GGUF file.
        folder: for files that are made.
        options: target and precision.
        progress: told what is done now.

    Raises:
        BenchmarkError: for an unknown model.
        MissingToolError, MissingEmulatorError, PricingError: see `graphopt.n2sim.price`.
    """
    target, config, machine = options.target, Config.from_environment(), Machine()
    progress(f"{target.name}: planning {model}")
    weights = weights_of(model, folder, options)
    program, engine = compile_decoder(weights, replace(options, num_threads=1))
    prices = Prices(target, Builder(config.cache, 1), config.cache / "prices.json", progress)
    found: dict[int, dict[str, Phase]] = {cores: {} for cores in CORES}
    for name, chunks in PHASES.items():
        calls = [(count, _inputs(engine, past, count)) for past, count in chunks]
        for cores in CORES:
            progress(f"{target.name}: {name} on {cores} cores")
            parts = [_costs(program, inputs, prices, machine, cores) for _, inputs in calls]
            tokens = sum(count for count, _ in calls)
            found[cores][name] = _phase(parts, tokens, machine, cores)
    return [
        Prediction(model, target.name, cores, machine.clock, phases)
        for cores, phases in found.items()
    ]


def _inputs(engine: Engine, past: int, count: int) -> list[Any]:
    """Inputs of the graph for `count` tokens behind `past` others, in a cache that they fill."""
    cache = KeyValueCache(replace(engine.cache_shape, context=past + count))
    cache.past[:] = past
    tokens = np.zeros((1, count), np.int64)
    return [tokens, cache.past, cache.start, np.array([count - 1]), *cache.states]


def _costs(
    program: Program, inputs: Sequence[Any], prices: Prices, machine: Machine, cores: int
) -> Rows:
    """Steps with their column and cycles."""
    steps = program.work(inputs)
    balances = program.balance(inputs, cores, _REPEATS) if cores > 1 else None
    costs = step_costs(steps, balances, prices, machine, cores)
    return [
        {"column": _column(step), "cycles": cost.cycles, "bytes": step["memory_bytes"]}
        for step, cost in zip(steps, costs, strict=True)
    ]


def _column(step: dict[str, Any]) -> str:
    if step["op"] == "go.linear" and step["module"] == "head":
        return "head"
    if step["kernel"] == "go_quantize_rows":
        return "quantize"
    return _GROUPS.get(step["op"], "other")


def _phase(parts: Sequence[Rows], tokens: int, machine: Machine, cores: int) -> Phase:
    by_op: dict[str, float] = defaultdict(float)
    steps = [step for part in parts for step in part]
    for step in steps:
        by_op[step["column"]] += step["cycles"] / tokens
    read = sum(step["bytes"] for step in steps) / tokens
    return Phase(
        cycles=sum(by_op.values()),
        by_op={column: by_op[column] for column in COLUMNS},
        bytes=read,
        bound=read / machine.bandwidth(cores) * machine.clock,
        steps=len(steps) / tokens,
    )


def tables(predictions: Sequence[Prediction]) -> list[Table]:
    """A table a phase, and what others publish."""
    shown = []
    for name in PHASES:
        first = predictions[0]
        title = f"{first.model} on {first.target}, predicted: {name.replace('_', ' of ')}"
        table = Table(title=title, title_justify="left")
        heads = ("cores", "million cycles a token", "tokens/s", "if memory alone", "MB a token")
        for column in (*heads, *COLUMNS):
            table.add_column(column, justify="right")
        for one in predictions:
            phase = one.phases[name]
            table.add_row(
                str(one.cores),
                f"{phase.cycles / 1e6:.3f}",
                f"{one.clock / phase.cycles:.1f}",
                f"{one.clock / phase.bound:.1f}",
                f"{phase.bytes / 1e6:.1f}",
                *(f"{100 * phase.by_op[c] / phase.cycles:.1f} %" for c in COLUMNS),
            )
        shown.append(table)
    return [*shown, _published()]


def _published() -> Table:
    table = Table(title="Published by others, on other machines", title_justify="left")
    for column in ("engine", "model", "machine", "prefill tok/s", "decode tok/s", "source"):
        table.add_column(column, overflow="fold")
    for one in PUBLISHED:
        table.add_row(one.engine, one.model, one.machine, one.prefill, one.decode, one.source)
    return table


def note(predictions: Sequence[Prediction]) -> str:
    """The assumptions, and what the start of steps would cost."""
    one = predictions[-1]
    phase = one.phases["decode"]
    share = phase.steps * 1e-6 * one.clock / phase.cycles
    return (
        f"{assumptions(Machine())} A token decoded takes {phase.steps:.0f} steps: each "
        f"microsecond that {one.cores} cores need to begin and end one adds {100 * share:.0f} %."
    )
