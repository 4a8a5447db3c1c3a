"""The drop-in module for any torch module, compiled specialization by specialization."""

from __future__ import annotations

import inspect
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from graphopt.compiler.baseline import time_model, time_nodes
from graphopt.compiler.example_check import check_example, check_pieces
from graphopt.compiler.inspected import Inspected
from graphopt.compiler.options import Options
from graphopt.compiler.pieces import Pieces
from graphopt.compiler.profile import Baseline
from graphopt.compiler.specialization import Specialization
from graphopt.compiler.stages import Stages, keep_stages
from graphopt.compiler.tensor_calls import TensorCalls
from graphopt.errors import (
    CaptureError,
    EmptyInputError,
    InputCountError,
    InputError,
    OptionError,
    PackageError,
    StagesError,
)
from graphopt.frontend import nesting
from graphopt.frontend.arguments import bind, call_key
from graphopt.frontend.import_torch import to_numpy
from graphopt.runtime import process
from graphopt.runtime.library import MachineCode

MOST_SPECIALIZATIONS = 8
"""How often a module captures its model for calls that differ in sizes alone."""


class OptimizedModule(Inspected, MachineCode, torch.nn.Module):
    """A compiled model: the signature, structure and dtypes of the original.

    Attributes:
        options: what it was compiled with.
    """

    # As it is now: while a thread traces, torch.fx replaces that of the base class for all threads.
    __call__ = torch.nn.Module.__call__

    def __new__(cls, model: torch.nn.Module, options: Options) -> Self:
        """A module of a class of its own, whose `forward` has the signature of the model's."""

        def forward(self: OptimizedModule, *args: Any, **kwargs: Any) -> Any:
            return cls.forward(self, *args, **kwargs)

        own = type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})
        signature = inspect.signature(model.forward)
        itself = inspect.Parameter("_module", inspect.Parameter.POSITIONAL_ONLY)
        forward.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[itself, *signature.parameters.values()]
        )
        return super().__new__(own)

    def __init__(self, model: torch.nn.Module, options: Options) -> None:
        super().__init__()
        # In a tuple, so that the model's parameters are not parameters of this module too.
        self._model = (model,)
        self.options = options
        self._specializations: dict[tuple[Any, ...], list[Specialization | Pieces]] = {}
        self._states: set[str] = set()  # buffers that some specialization writes to
        self._pieces: Pieces | None = None  # for calls that no graph holds
        self._signature = inspect.signature(model.forward)
        self._tensor_calls = TensorCalls(self._signature)
        self._capturing = threading.RLock()
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the compiled model, in the types that it was compiled for: autocast is off in it.

        Raises:
            InputError: if an argument does not fit what was compiled.
        """
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self.forward(*args, **kwargs)
        if (found := self._tensor_calls.find(args, kwargs)) is not None:
            key, tensors = found
            for captured in self._specializations.get(key, ()):
                if not isinstance(captured, Specialization) or not captured.call.is_plain:
                    break
                if captured.misfit_of(tensors) is None:
                    return captured.run_tensors(tensors)
        specialization, args, kwargs = self._specialization(args, kwargs)
        return specialization.run(args, kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Captures and builds for calls of the structure of these arguments."""
        self._specialization(args, kwargs)[0].build()

    def save(self, path: str | Path) -> None:
        """Writes a package that `graphopt.load` runs without torch and compiler.

        Args:
            path: the folder to make; an older package there is replaced, in one step.

        Raises:
            PackageError: if nothing, or more than one specialization, was captured, if something
                that is no package is in the way, or if the system does not let the folder be
                written.
            UnsupportedNodesError: if a node needs torch.
        """
        specialization = self._only_one()
        with process.changes:
            specialization.save(path)

    def to_onnx(self, path: str | Path, plain: bool | None = None) -> None:
        """Writes an ONNX file whose one node, `graphopt::Run`, is the compiled model.

        What the node runs is a package in a folder beside it: `model.onnx` and `model.graphopt`,
        together with the library that onnxruntime (from 1.17 on) takes the node from. Such
        packages for several targets may lie there. The file also says what the node computes in
        plain ONNX, for runtimes without the library.

        Args:
            path: of the file, which is replaced.
            plain: whether with the plain form, which holds the weights once more: True refuses a
                model without one; None warns (`PlainFormWarning`); False leaves it out.

        Raises:
            PackageError: if nothing, or more than one specialization, was captured; if the weights
                have changed since; if something that is no package is in the way.
            UnsupportedNodesError: if a node needs torch.
            OnnxExportError: with `plain`, for a model without such a form.
            MissingDependencyError: without `onnx`, or with `plain` without `onnxscript`.
            StorageError: if the file cannot be written.
        """
        specialization = self._only_one()
        with process.changes:
            specialization.write_onnx(path, self._model[0], plain)

    def _only_one(self) -> Specialization | Pieces:
        """What was captured, if a package can hold it."""
        specializations = self._captured()
        if len(specializations) != 1:
            raise PackageError(
                f"{len(specializations)} specializations were captured and a package holds one; "
                "optimize with example_inputs= and save before other calls"
            )
        return specializations[0]

    @property
    def original(self) -> torch.nn.Module:
        """The model that was compiled."""
        return self._model[0]

    def stages(self) -> list[Stages]:
        """The graph after each pass, of every graph that was compiled.

        If they were not kept, the model is captured once more with its example inputs.

        Raises:
            StagesError: without example inputs, or if the weights have changed since.
        """
        model, captured = self._model[0], self._captured()
        kept = [stages for one in captured for stages in one.kept_stages()]
        if captured and None not in kept:
            return [stages for stages in kept if stages is not None]
        example = self.options.example_inputs
        if example is None or any(
            isinstance(one, Specialization) and not one.has_weights_of(model) for one in captured
        ):
            raise StagesError(type(model).__name__)
        with keep_stages() as again:
            OptimizedModule(model, replace(self.options, check=False)).capture_example()
        return again

    def capture_example(self) -> None:
        """Captures and plans for the example inputs, if there are any; does not build."""
        match self.options.example_inputs:
            case None:
                return
            case dict() as named:
                self._specialization((), named)
            case given:
                self._specialization(tuple(given), {})

    def stored_inputs(self, *args: Any, **kwargs: Any) -> list[np.ndarray[Any, Any]]:
        """The tensors of a call as the graph takes them: stored arrays (bf16 as uint16), in order.

        Raises:
            InputError: as a call does.
            PackageError: for a model of which no one graph holds the whole.
        """
        specialization, args, kwargs = self._specialization(args, kwargs)
        if isinstance(specialization, Pieces):
            raise PackageError(
                f"no graph holds the whole of {type(self._model[0]).__name__}, whose Python runs "
                "around compiled submodules; give one of those"
            )
        return [to_numpy(t) for t in specialization.call.flatten(args, kwargs)]

    def _baseline(
        self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int
    ) -> Baseline:
        if model is not self.original:
            name = type(model).__name__
            raise OptionError("baseline", name, "give the very model that was compiled")
        specialization, args, kwargs = self._specialization(args, kwargs)

        def call() -> Any:
            return model(*args, **kwargs)

        captured = self._captured()
        if captured != [specialization] or isinstance(specialization, Pieces):
            return time_model(model, call, repeats)
        stages = specialization.stages or self.stages()[0]
        tensors = specialization.call.flatten(args, kwargs)
        return time_nodes(model, call, stages, specialization.programs(), tensors, repeats)

    def _name(self) -> str:
        return type(self._model[0]).__name__

    def _captured(self) -> list[Specialization | Pieces]:
        return list(
            dict.fromkeys(
                specialization
                for specializations in self._specializations.values()
                for specialization in specializations
            )
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> OptimizedModule:
        """A module that shares the compiled code, which never changes."""
        copied = OptimizedModule(self._model[0], self.options)
        copied._specializations.update(
            {key: list(specializations) for key, specializations in self._specializations.items()}
        )
        copied._states |= self._states
        copied._pieces = self._pieces
        return copied

    def _specialization(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Specialization | Pieces, tuple[Any, ...], dict[str, Any]]:
        """The specialization of a call, and its arguments in the one order that this one knows."""
        args, kwargs = bind(self._signature, args, kwargs)
        key = call_key(args, kwargs)
        specialization = self._find(key, args, kwargs)
        if specialization is None:
            specialization = self._capture(key, args, kwargs)
        return specialization, args, kwargs

    def _find(
        self, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Specialization | Pieces | None:
        specializations = self._specializations.get(key, ())
        fitting = (
            specialization
            for specialization in specializations
            if specialization.misfit(args, kwargs) is None
        )
        return next(fitting, None)

    @torch.compiler.disable(reason="graphopt captures with torch.export")  # type: ignore[no-untyped-call, untyped-decorator]
    def _capture(
        self, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Specialization | Pieces:
        with (
            process.calls,
            process.changes,
            self._capturing,
            _disable_current_modes(),
            torch.autocast("cpu", enabled=False),
        ):
            found = self._find(key, args, kwargs)
            if found is not None:
                return found
            specializations = self._specializations.get(key, [])
            if not specializations:
                self._refuse_near_miss(args, kwargs)
            misfit = specializations[0].misfit(args, kwargs) if specializations else None
            if misfit is not None and not self._may_differ(specializations, misfit):
                raise misfit
            try:
                specialization = Specialization(
                    self._model[0], args, kwargs, self.options, self._states
                )
            except CaptureError as refusal:
                if misfit is not None:
                    raise misfit from None  # no model takes such sizes
                self._pieces = self._in_pieces(refusal, args, kwargs)
                self._check_plan(self._pieces)
                self._specializations[key] = [self._pieces]
                return self._pieces
            if (misfit := specialization.misfit(args, kwargs)) is not None:
                raise misfit
            self._check_plan(specialization)
            if self.options.check:
                specialization.checked = check_example(self._model[0], specialization, args, kwargs)
            if written := specialization.states - self._states:
                # What else was captured may hold those buffers as constants.
                self._states |= written
                self._specializations, specializations = {}, []
            self._specializations[key] = [*specializations, specialization]
            return specialization

    def _check_plan(self, first: Specialization | Pieces) -> None:
        """Raises PlanError for an entry that decides nothing in what is captured first."""
        if self.options.plan is not None and not self._captured():
            self.options.plan.check(first.reports())

    def _in_pieces(
        self, refusal: CaptureError, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Pieces:
        """The model in Python around compiled submodules; raises the refusal if there are none."""
        if self.options.strict or self.options.dynamic_shapes is not None:
            raise refusal
        model, options = self._model[0], self.options
        pieces = self._pieces or Pieces(
            model, lambda path, part: _Submodule(part, options.within(path))
        )
        checked = check_pieces(model, pieces, options, args, kwargs)
        if checked is None or not pieces.specializations():
            raise refusal
        pieces.add(refusal, checked)
        return pieces

    def _may_differ(
        self, specializations: list[Specialization | Pieces], misfit: InputError
    ) -> bool:
        """Whether sizes that no specialization was captured for may have one of their own."""
        is_open = self.options.dynamic_shapes is None and not isinstance(misfit, EmptyInputError)
        return is_open and len(specializations) < MOST_SPECIALIZATIONS

    def _refuse_near_miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuses a likely mistake, such as another dtype or rank, instead of capturing it."""
        leaves, spec = nesting.flatten((args, kwargs))
        if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
            kinds = ", ".join(type(a).__name__ for a in (*args, *kwargs.values())) or "nothing"
            raise InputCountError("at least one tensor", kinds)
        for specialization in self._captured():
            if isinstance(specialization, Specialization) and specialization.call.in_spec == spec:
                specialization.check(leaves)


class _Submodule(OptimizedModule):
    """A submodule of a model that runs in Python, which knows how it calls it."""

    def specialization(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Specialization, tuple[Any, ...], dict[str, Any]]:
        """The specialization of a call, and its arguments as the specialization takes them.

        Raises:
            CaptureError: if no graph holds it.
            InputError: for arguments that are captured no more.
        """
        specialization, args, kwargs = self._specialization(args, kwargs)
        assert isinstance(specialization, Specialization)
        return specialization, args, kwargs

    def specializations(self) -> list[Specialization]:
        """What was captured."""
        return [
            specialization
            for specialization in self._captured()
            if isinstance(specialization, Specialization)
        ]

    def _check_plan(self, first: Specialization | Pieces) -> None:
        """Nothing: an entry may be about another submodule."""

    def _in_pieces(
        self, refusal: CaptureError, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Pieces:
        raise refusal

    def _refuse_near_miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves, _ = nesting.flatten((args, kwargs))
        if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
            raise InputCountError("at least one tensor", "none")
