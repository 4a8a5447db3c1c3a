"""``graphopt bench funasr``: Paraformer beside its peers, its errors, the recipe, Neoverse, VAD."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from graphopt.bench import arm_model, layers, recipe, table, vad, whole_paraformer
from graphopt.bench.engines import TorchFp32
from graphopt.bench.machine import Machine
from graphopt.bench.measure import Result, measure
from graphopt.config import Config
from graphopt.dependencies import require
from graphopt.target import find_target
from graphopt.toolchain.build import Builder
from graphopt.zoo import paraformer

PARTS = ("whole", "error", "recipe", "arm", "vad")
ARM_CORES = (1, 16, 64)
Data = dict[str, Any]
Progress = Callable[[str], None]


class FunasrBench:
    """The parts of the benchmark on one model.

    Args:
        console: where tables go.
        folder: for exported files.
        blocks: encoder blocks.
        decoder_blocks: decoder blocks.
        progress: called with one line before each step.
    """

    def __init__(
        self, console: Console, folder: Path, blocks: int, decoder_blocks: int, progress: Progress
    ) -> None:
        self._console = console
        self._folder = folder
        self._progress = progress
        self._modules = whole_paraformer.parts(blocks, decoder_blocks)
        self._blocks = blocks, decoder_blocks
        self._name = f"Paraformer-large, {blocks} encoder and {decoder_blocks} decoder blocks"

    def whole(
        self,
        only: Sequence[str],
        threads: Sequence[int],
        rounds: int,
        seconds: Sequence[float],
        batches: Sequence[int],
    ) -> list[Data]:
        """Time of the whole graph in every engine, a table for each size.

        Args:
            only: words, of which an engine's name has to contain one; all if empty. torch fp32
                always runs, torch.compile only where a word asks for it.
            threads: numbers of threads.
            rounds: timed passes of each engine.
            seconds: lengths of speech, in seconds.
            batches: batch sizes.

        Returns:
            For each length and batch size, title and results.
        """
        engines = whole_paraformer.engines(only)
        works = [self._workload(s, b) for s in seconds for b in batches]
        found = measure(works, engines, threads, rounds, progress=self._progress)
        for work, results in zip(works, found, strict=True):
            title, note = f"{self._name}: {work.title}", whole_paraformer.NOTE
            table.print_results(self._console, title, results, rounds, note)
        return [_as_data(work.title, results) for work, results in zip(works, found, strict=True)]

    def error(self, threads: int, seconds: float) -> list[Data]:
        """Errors of int8 by block, ours and others'."""
        work = layers.workload(self._folder, _frames(seconds), *self._blocks)
        (results,) = measure([work], layers.engines(), [threads], 0, progress=self._progress)
        del results[0]  # the reference
        errors = {result.engine: result.errors for result in results if not result.missing}
        self._console.print(layers.table(f"Errors by block: {work.title}", errors))
        for result in results:
            if result.missing:
                self._console.print(f"{result.engine} is missing: {result.missing}")
        for name in [engine.name for engine in layers.own_engines() if engine.name in errors]:
            self._console.print(layers.verdict(name, errors))
        self._console.print(layers.NOTE)
        return [{"title": work.title, "errors": errors}]

    def recipe(self, threads: int, rounds: int, seconds: float, batch: int) -> list[Data]:
        """What each step of the recipe gives on this machine.

        Args:
            threads: number of threads.
            rounds: timed passes of each engine.
            seconds: length of speech, in seconds.
            batch: batch size.

        Returns:
            One item: title, results, and shares of each step.
        """
        work = self._workload(seconds, batch)
        engines = [TorchFp32(), *recipe.step_engines()]
        profile = partial(recipe.profile, inputs=self._inputs(seconds, batch))
        (results,) = measure(
            [work], engines, [threads], rounds, progress=self._progress, inspect=profile
        )
        del results[0]  # the reference
        shares = [recipe.shares(result.inspected or []) for result in results]
        title = f"The recipe on this machine, {threads} threads: {work.title}"
        self._console.print(recipe.host_table(title, results, shares))
        return [_as_data(title, results) | {"shares": shares}]

    def arm(self, target_name: str, seconds: float, batch: int) -> list[Data]:
        """What each step of the recipe is predicted to give on an Arm server.

        Args:
            target_name: the core, a name of `graphopt targets`.
            seconds: length of speech, in seconds.
            batch: batch size.

        Returns:
            For each number of cores title, cycles and shares of each step; the assumptions last.

        Raises:
            UnknownTargetError: for an unknown target.
            MissingToolError, MissingEmulatorError, PricingError: see `graphopt.n2sim.price`.
        """
        target, machine, config = (
            find_target(target_name),
            Machine(),
            Config.from_environment(),
        )
        builder = Builder(config.cache, 1)
        path = config.cache / "prices.json"
        prices = arm_model.Prices(target, builder, path, self._progress)
        inputs = self._inputs(seconds, batch)
        plans = {p: self._plan(target_name, p, inputs) for p in whole_paraformer.PRECISIONS}
        data: list[Data] = []
        for cores in ARM_CORES:
            totals, shares = [], []
            for step in recipe.STEPS:
                rows, balances = plans[step.precision]
                costs = arm_model.step_costs(
                    rows, balances.get(cores), prices, machine, cores, step.serial_conv
                )
                totals.append(sum(cost.cycles for cost in costs))
                shares.append(recipe.shares([(cost.op, cost.cycles) for cost in costs]))
            title = f"The recipe on {target_name}, {cores} cores, predicted: {seconds:.0f} s"
            self._console.print(recipe.model_table(f"{title}, batch {batch}", totals, shares))
            data.append({"title": title, "cores": cores, "cycles": totals, "shares": shares})
        self._console.print(arm_model.assumptions(machine))
        return [*data, {"assumptions": arm_model.assumptions(machine)}]

    def vad(self, threads: Sequence[int], rounds: int) -> list[Data]:
        """FSMN-VAD beside FunASR's own onnxruntime path."""
        work = vad.workload(self._folder)
        engines = vad.engines()
        (results,) = measure([work], engines, threads, rounds, progress=self._progress)
        table.print_results(self._console, work.title, results, rounds, vad.NOTE)
        return [_as_data(work.title, results)]

    def _workload(self, seconds: float, batch: int) -> Any:
        frames = _frames(seconds)
        return whole_paraformer.workload(self._folder, self._modules, frames, batch)

    def _inputs(self, seconds: float, batch: int) -> tuple[Any, ...]:
        return paraformer.example_inputs(_frames(seconds), batch)

    def _plan(self, target: str, precision: str, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
        """The steps of the model as planned for a target, and their balance by cores."""
        self._progress(f"{target}: planning {precision}")
        optimize = require("graphopt", "the benchmark").optimize
        example = paraformer.example_inputs(60, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this machine runs the plan in its own way
            fast = optimize(
                self._modules[1], target=target, precision=precision, example_inputs=example
            )
            rows = fast.profile(*inputs, repeats=1)
            balances = {
                cores: fast.balance(*inputs, cores=cores, repeats=2)
                for cores in ARM_CORES
                if cores > 1
            }
        return rows, balances


def _frames(seconds: float) -> int:
    return max(1, round(1000 * seconds / paraformer.FRAME_MS))


def _as_data(title: str, results: Sequence[Result]) -> Data:
    return {"title": title, "results": [result.as_dict() for result in results]}
