"""A model whose Python runs as it is, around submodules that are compiled.

Where a branch depends on data, say, no graph holds the whole model. Then its `forward` runs on a
copy of the tree of modules that shares all tensors with the user's model. A call of a module in
there is compiled if it can be; else it runs in Python too, and the modules that it calls are tried.

    def forward(self, x):
        x = self.encoder(x)              compiled
        if x.mean() > 0:                 in Python
            x = self.head(x)             compiled
        return x
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import torch

from graphopt.compiler.profile import Run
from graphopt.compiler.report import NodeReport
from graphopt.errors import (
    CaptureError,
    GraphoptError,
    InputError,
    NondeterministicModelError,
    UnsupportedNodesError,
)
from graphopt.printable import printable

if TYPE_CHECKING:
    from graphopt.compiler.program import Program
    from graphopt.compiler.schedule import StepBalance
    from graphopt.compiler.specialization import Specialization
    from graphopt.compiler.stages import Stages

Call = tuple[tuple[Any, ...], dict[str, Any]]
RunOne = Callable[["Specialization", tuple[Any, ...], dict[str, Any]], Any]

_run_one: ContextVar[RunOne] = ContextVar(
    "run_one", default=lambda specialization, args, kwargs: specialization.run(args, kwargs)
)
"""How a compiled submodule is called: built, in numpy, or timed."""


class Compilable(Protocol):
    """A submodule that is captured when it is called; see `OptimizedModule`."""

    def specialization(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Specialization, Any, Any]:
        """The specialization of a call, and its arguments as the specialization takes them."""

    def specializations(self) -> list[Specialization]:
        """What was captured."""


class Pieces:
    """What stands in for a `Specialization` where no graph holds the whole model.

    Args:
        model: the user's module, which is left as it is.
        compilable: makes what captures a submodule, of its path and itself.

    Attributes:
        model: the copy that runs.
        checked: what the check of the example found; empty without one.
    """

    def __init__(
        self, model: torch.nn.Module, compilable: Callable[[str, torch.nn.Module], Compilable]
    ) -> None:
        self.checked = ""
        self._name = type(model).__name__
        self._refusals: dict[str, CaptureError] = {}
        self._pieces: list[_Piece] = []
        self._copies: dict[torch.nn.Module, torch.nn.Module] = {}
        self._compilable = compilable
        self.model = self._copy("", model, is_root=True)

    def _copy(self, path: str, module: torch.nn.Module, is_root: bool = False) -> torch.nn.Module:
        if module in self._copies:
            return self._copies[module]
        if isinstance(module, torch.jit.ScriptModule):
            return module
        copied = self._copies[module] = object.__new__(type(module))
        # The same parameters and buffers under the same names, also if others are assigned.
        vars(copied).update(vars(module))
        copied._modules = {
            name: None if child is None else self._copy(f"{path}.{name}".strip("."), child)
            for name, child in module._modules.items()
        }
        if not is_root:
            piece = _Piece(path, module, copied, self._compilable(path, module))
            self._pieces.append(piece)
            # What torch calls in the place of hooks and forward. A method, which nobody looks into.
            copied._compiled_call_impl = piece.call
        return copied

    def add(self, refusal: CaptureError, checked: str) -> None:
        """Takes note of why a structure of arguments cannot be captured, and of its check."""
        self._refusals.setdefault(str(refusal), refusal)
        self.checked = checked

    def specializations(self) -> list[Specialization]:
        """What is compiled by now."""
        return [
            specialization
            for piece in self._pieces
            for specialization in piece.compilable.specializations()
        ]

    def misfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> InputError | None:
        """Nothing: the model's own Python says what it takes."""
        return None

    def build(self) -> None:
        """Nothing: submodules are built when they are first called."""

    @torch.compiler.disable(reason="the model runs in Python")  # type: ignore[no-untyped-call, untyped-decorator]
    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the model's Python; calls of compiled submodules run their code."""
        with torch.no_grad():
            return self.model(*args, **kwargs)

    def _run_by(self, run: RunOne, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        token = _run_one.set(run)
        try:
            return self.run(args, kwargs)
        finally:
            _run_one.reset(token)

    def interpret(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`run` with the planned graphs in numpy."""
        return self._run_by(
            lambda specialization, *call: specialization.interpret(*call), args, kwargs
        )

    def profile(self, args: tuple[Any, ...], kwargs: dict[str, Any], repeats: int) -> list[Run]:
        """Those of all compiled submodules, in the order of their calls; see `Specialization`."""
        found: list[Run] = []

        def run(
            specialization: Specialization, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            found.extend(specialization.profile(args, kwargs, repeats))
            return specialization.run(args, kwargs)

        self._run_by(run, args, kwargs)
        return found

    def balance(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], cores: int, repeats: int
    ) -> list[StepBalance]:
        """Raises UnsupportedNodesError: there is no one graph; see `Specialization`."""
        raise self._error()

    def emulate(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], level: str, sve_bits: int
    ) -> Any:
        """Raises UnsupportedNodesError: this is not the whole model; see `Specialization`."""
        raise self._error()

    def save(self, path: object) -> None:
        """Raises UnsupportedNodesError: a package holds no Python."""
        raise self._error()

    def write_onnx(self, path: object, model: object, plain: object) -> None:
        """Raises UnsupportedNodesError, because a package holds no Python.

        Args:
            path: as of `Specialization.write_onnx`.
            model: likewise.
            plain: likewise.
        """
        raise self._error()

    def _error(self) -> UnsupportedNodesError:
        left = [row for row in self.reports() if not row.compiled]
        return UnsupportedNodesError([(r.op, r.source or r.module, r.reasons[-1]) for r in left])

    def reports(self) -> list[NodeReport]:
        """A row for every module that runs in Python, and those of compiled submodules."""
        rows = [_python_row(self._name, "", refusal) for refusal in self._refusals.values()]
        for piece in self._pieces:
            rows += piece.reports()
        return rows

    def programs(self) -> list[Program]:
        """Those of all submodules."""
        return [program for one in self.specializations() for program in one.programs()]

    def kept_stages(self) -> list[Stages | None]:
        """Those of all submodules; see `Specialization.kept_stages`."""
        return [stages for one in self.specializations() for stages in one.kept_stages()]

    def dumps(self, format: str) -> list[str]:
        """The planned graphs of all submodules; see `Specialization.dumps`."""
        return [
            text
            for specialization in self.specializations()
            for text in specialization.dumps(format)
        ]


class _Piece:
    """A submodule of a model that runs in Python.

    Args:
        path: of the submodule in the model.
        module: the user's.
        copied: its copy, which runs in Python if the submodule cannot be compiled.
        compilable: captures it.
    """

    def __init__(
        self, path: str, module: torch.nn.Module, copied: torch.nn.Module, compilable: Compilable
    ) -> None:
        self.compilable = compilable
        self._path, self._module, self._copied = path, module, copied
        self._refusals: dict[str, GraphoptError] = {}
        self._held: _Attributes | None = None
        self._is_refused = False

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The submodule's result, by compiled code if it can be."""
        found = None if self._is_refused else self._find(args, kwargs)
        if found is None:
            return self._copied._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
        return _run_one.get()(*found)

    def _find(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Specialization, Any, Any] | None:
        if not any(True for _ in _tensors(self._module)):
            self._refuse(CaptureError(self._path, None, "it has no weights, and runs in torch"))
            return None
        if self._held is not None and (name := self._held.changed()):
            why = f"{name!r} of it changes between calls, which compiled code would not see"
            self._refuse(CaptureError(self._path, None, f"{why}; take it as an argument"))
            return None
        try:
            found = self.compilable.specialization(args, kwargs)
        except (CaptureError, InputError, NondeterministicModelError) as error:
            # Of other arguments it may be captured. Nothing was, and Python will do that again.
            self._refusals.setdefault(str(error), error)
            self._is_refused = not self.compilable.specializations() and isinstance(
                error, CaptureError
            )
            return None
        if self._held is None:
            states = {
                name
                for specialization in self.compilable.specializations()
                for name in specialization.states
            }
            self._held = _Attributes(self._copied, states)
        return found

    def _refuse(self, why: CaptureError) -> None:
        self._refusals.setdefault(str(why), why)
        self._is_refused = True

    def reports(self) -> list[NodeReport]:
        """The rows of the submodule, with paths in the model."""
        rows = [
            _python_row(type(self._module).__name__, self._path, e) for e in self._refusals.values()
        ]
        if self._is_refused:
            return rows
        return rows + [
            row.within(self._path)
            for specialization in self.compilable.specializations()
            for row in specialization.reports()
        ]


class _Attributes:
    """What the modules of a tree hold, to see that it is still the same.

    Args:
        module: root of the tree.
        states: names of tensors that may change.
    """

    def __init__(self, module: torch.nn.Module, states: set[str]) -> None:
        self._held = [(path, content, [*content.values()]) for path, content in _contents(module)]
        self._tensors = [
            (name, tensor, _version(tensor))
            for name, tensor in _tensors(module)
            if name not in states
        ]

    def changed(self) -> str:
        """The name of something that is another object, or has other values; empty if none is."""
        for path, content, before in self._held:
            if len(content) != len(before) or not all(map(operator.is_, content.values(), before)):
                names = zip(content.items(), before, strict=False)
                name = next((k for (k, now), old in names if now is not old), "")
                return f"{path}.{name}".strip(".")
        return next((n for n, tensor, version in self._tensors if _version(tensor) != version), "")


def _contents(module: torch.nn.Module) -> Iterator[tuple[str, dict[Any, Any]]]:
    """The dicts of attributes, parameters and buffers of a tree, and the dicts among attributes."""
    own = vars(torch.nn.Module()).keys()
    for path, owner in module.named_modules():
        yield from ((path, d) for d in (vars(owner), owner._parameters, owner._buffers))
        for name, value in vars(owner).items():
            if isinstance(value, dict) and name not in own:
                yield f"{path}.{name}", value


def _tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for path, owner in module.named_modules():
        for held in (owner._parameters, owner._buffers, vars(owner)):
            for name, value in held.items():
                if isinstance(value, torch.Tensor):
                    yield f"{path}.{name}".strip("."), value


def _version(tensor: torch.Tensor) -> int:
    """Grows with every write in place."""
    return 0 if tensor.is_inference() else tensor._version


def _python_row(name: str, path: str, refusal: GraphoptError) -> NodeReport:
    place = getattr(refusal, "location", None) or ""
    return NodeReport(
        node="_",
        op=f"python {printable(name)}",
        compiled=False,
        kernel="python",
        result="",
        module=printable(path),
        source=printable(place),
        reasons=(printable(str(refusal)),),
    )
