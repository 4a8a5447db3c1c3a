"""What every compiled model can be asked, whatever its arguments are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from graphopt.compiler.options import Options
from graphopt.compiler.profile import Baseline, Profile, Run, faster_half
from graphopt.compiler.program import Program
from graphopt.compiler.report import NodeReport, Report
from graphopt.compiler.schedule import StepBalance
from graphopt.errors import OptionError, PackageError
from graphopt.frontend.compiled import Compiled
from graphopt.runtime.library import check_threads


class Serving(Protocol):
    """What serves the calls of one structure of arguments; see `Specialization`."""

    checked: str

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call."""

    def interpret(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of the planned graphs in numpy."""

    def profile(self, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int) -> list[Run]:
        """A profile of every compiled graph that a call runs; see `Optimized.profile`.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            repeats: runs that are timed.
        """

    def balance(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cores: int, repeats: int
    ) -> list[StepBalance]:
        """A row for each step; see `Optimized.balance`.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            cores: on which the tasks fall.
            repeats: runs; of each task the shortest time counts.
        """

    def emulate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], level: str, sve_bits: int
    ) -> Any:
        """The result of the target's own code; see `Optimized.emulate`.

        Args:
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
            level: ISA level; the most capable of the target if empty.
            sve_bits: length of an SVE vector.
        """

    def programs(self) -> list[Program]:
        """All that is compiled, in the order in which it runs."""

    def reports(self) -> list[NodeReport]:
        """A row for each node."""

    def dumps(self, format: str) -> list[str]:
        """The planned graphs."""


class Optimized(Compiled):
    """A compiled model.

    Attributes:
        options: what it was compiled with.
    """

    options: Options

    def _name(self) -> str:
        """What reports call the model."""
        raise NotImplementedError

    def _captured(self) -> Sequence[Serving]:
        """All that was compiled by now."""
        raise NotImplementedError

    def _specialization(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Serving, tuple[Any, ...], dict[str, Any]]:
        """What serves a call, and the arguments as it takes them."""
        raise NotImplementedError

    def report(self) -> Report:
        """Every node: compiled or not, kernel, reasons."""
        options, captured = self.options, self._captured()
        return Report(
            self._name(),
            options.target.name,
            options.precision,
            options.target.levels,
            tuple(row for serving in captured for row in serving.reports()),
            tuple(serving.checked or "example: not compared" for serving in captured),
        )

    def profile(self, *args: Any, repeats: int = 5, baseline: Any = None, **kwargs: Any) -> Profile:
        """Times, multiply-adds and bytes of every compiled step on this machine.

        Times are means over the faster half of the runs, so that those of steps, and what lies
        outside of them, add up to that of a call. Runs that are not profiled take turns with them:
        `Profile.overhead` says what profiling added. Nothing is left of it in other calls.

        Args:
            args: positional arguments of the call.
            repeats: runs that are timed.
            baseline: the model that was compiled, to say what it takes in torch, op by op; None
                leaves that out.
            kwargs: keyword arguments of the call.

        Returns:
            A table, which is a sequence of one dict a step: `node`, `op`, `kernel`, `module`,
            `fused` (modules whose work it does too), `ms`, `macs`, `bytes`, `busy` (threads that
            worked, in the mean), and `critical`: whether it is on the critical path, which no
            number of cores shortens.

        Raises:
            InputError: as a call does.
            OptionError: for no runs, or another baseline.
        """
        if type(repeats) is not int or repeats < 1:
            raise OptionError("repeats", repeats, "give at least 1")
        before = None if baseline is None else self._baseline(baseline, args, kwargs, repeats)
        serving, args, kwargs = self._specialization(args, kwargs)
        runs = tuple(serving.profile(args, kwargs, repeats))
        call = None
        if len(runs) != 1:
            call = faster_half(lambda: serving.run(args, kwargs), repeats)
        return Profile(self._name(), runs, call, before)

    def _baseline(
        self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int
    ) -> Baseline:
        """Times of the model before it was compiled; see `profile`."""
        raise OptionError("baseline", type(model).__name__, "only torch modules have one; omit it")

    def balance(self, *args: Any, cores: int, repeats: int = 5, **kwargs: Any) -> list[StepBalance]:
        """How evenly the tasks of every step fall on `cores` cores; see `schedule.py`.

        Raises:
            ThreadCountError: for less than one core.
        """
        check_threads(cores)
        serving, args, kwargs = self._specialization(args, kwargs)
        return serving.balance(args, kwargs, cores, repeats)

    def emulate(self, *args: Any, sve_bits: int = 128, level: str = "", **kwargs: Any) -> Any:
        """Runs the code built for the target, under qemu where this machine differs.

        Args:
            *args: arguments of the model.
            sve_bits: length of an SVE vector.
            level: ISA level; the most capable of the target if empty.
            **kwargs: arguments of the model.

        Raises:
            MissingEmulatorError: if qemu is not installed.
        """
        serving, args, kwargs = self._specialization(args, kwargs)
        return serving.emulate(args, kwargs, level, sve_bits)

    def interpret(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the planned graphs in numpy, op by op: slow, and without generated code.

        Weights and activations are quantized as in the compiled model, so that what differs from it
        is the fault of generated code or kernels, up to the order of float sums.

        Raises:
            InputError: as a call does.
        """
        serving, args, kwargs = self._specialization(args, kwargs)
        return serving.interpret(args, kwargs)

    def dump(self, format: str = "text") -> str:
        """The planned graphs, with reasons.

        Args:
            format: `text`; `dot`, which Graphviz draws; or `graphml`, for yEd, Gephi or networkx.

        Raises:
            OptionError: for another format.
            PackageError: as `graphml`, which holds one graph, if there is not just one.
        """
        texts = [text for serving in self._captured() for text in serving.dumps(format)]
        if format == "graphml" and len(texts) != 1:
            raise PackageError(f"{len(texts)} graphs were compiled and GraphML holds one; use dot")
        return "\n".join(texts)
