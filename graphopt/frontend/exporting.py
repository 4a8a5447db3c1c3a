"""A module through torch.export, as a function of its tensors alone, and why it refuses."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.export import ExportedProgram

from graphopt.errors import CaptureError
from graphopt.frontend import nesting
from graphopt.frontend.arguments import Arguments
from graphopt.frontend.assigned import Assigned, drop_constant_writes
from graphopt.frontend.complex_numbers import ComplexNumbers, whole
from graphopt.frontend.conversions import idle_conversions
from graphopt.frontend.dynamic_shapes import fixes
from graphopt.frontend.guards import Guards, read_guards
from graphopt.frontend.held import Held, restore
from graphopt.frontend.in_place import write_apart
from graphopt.frontend.memory_questions import MemoryQuestions
from graphopt.frontend.recurrent_layers import RecurrentLayers
from graphopt.frontend.regions import functional, inline_regions, needs_retracing
from graphopt.frontend.replaced_functions import replaced_functions
from graphopt.frontend.size_flags import size_flags
from graphopt.frontend.size_tensors import ChangedNumberError, SizeTensors, numbers_of_buffers
from graphopt.frontend.tracing_questions import TracingQuestions
from graphopt.frontend.user_lines import raising_line
from graphopt.frontend.whole_numbers import asking_module, symbolic_int
from graphopt.frontend.written_out import WrittenOut
from graphopt.runtime import structure

#: Stands in a result for a tensor or a size, which the graph computes.
COMPUTED = object()


@dataclass(frozen=True)
class Result:
    """What a model returned.

    Attributes:
        leaves: its constants and objects of the arguments; all else is `COMPUTED`.
        spec: its structure. If the model changed containers of its arguments, that of a dict with
            the result and the arguments after the call.
        changes_arguments: whether it did.
    """

    leaves: list[Any]
    spec: pytree.TreeSpec
    changes_arguments: bool


@dataclass(frozen=True)
class Exported:
    """What torch.export made of a model.

    Attributes:
        program: a function of flat tensors that returns the computed leaves of the result.
        guards: of the program.
        result: of the model.
        question: the first line that asks how a tensor lies in memory; empty without one.
        tracing_question: the last line that asks whether it is traced; empty without one.
    """

    program: ExportedProgram
    guards: Guards
    result: Result
    question: str
    tracing_question: str


@dataclass(eq=False)
class _Seen:
    """What calls of a module showed, beside tensors.

    Attributes:
        result: of the last call.
        changed: the names of what was changed in the model. All is put back but buffers, of which
            torch.export keeps account.
        questions: the lines that ask how a tensor lies in memory.
        tracing_questions: the lines that ask whether the model is traced.
    """

    result: Result = field(init=False)
    changed: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    tracing_questions: list[str] = field(default_factory=list)


class _TensorsOnly(torch.nn.Module):
    """The user's module as a function of a flat list of tensors.

    Args:
        model: the module.
        in_spec: structure of its arguments.
        constants: those that are no tensors, by position.
        traced: what the model is told when it asks whether it is traced.
        changing: names of buffers whose numbers are not known, because the model changes them.

    Attributes:
        seen: what calls showed.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        in_spec: pytree.TreeSpec,
        constants: dict[int, Any],
        traced: bool,
        changing: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.seen = _Seen()
        self.training = False
        self._in_spec = in_spec
        self._constants = constants
        self._numbers = numbers_of_buffers(model, changing)
        self._traced = traced

    def forward(self, *tensors: torch.Tensor) -> Any:
        rest = iter(tensors)
        count = len(tensors) + len(self._constants)
        leaves = [self._constants[i] if i in self._constants else next(rest) for i in range(count)]
        args, kwargs = pytree.tree_unflatten(leaves, self._in_spec)
        before = pytree.tree_unflatten(leaves, self._in_spec)
        held, assigned = Held(self.model, tracing=True), Assigned(self.model)
        sizes = SizeTensors(self.model, self._numbers)
        with (
            MemoryQuestions(self.seen.questions.append),
            RecurrentLayers() as recurrent,
            size_flags(),
            ComplexNumbers(),
            WrittenOut(),
            sizes,
            idle_conversions(),
            TracingQuestions(self._traced) as asked,
        ):
            result = self.model(*args, **kwargs)
        sizes.refuse_changed()
        self.seen.tracing_questions += asked.lines
        assigned.write()
        self.seen.changed += held.put_back()
        if held.by_hooks:
            why = f"{held.by_hooks[0]} changes with every call; leave that hook out"
            raise CaptureError(type(self.model).__name__, None, why)
        # By place: an argument that the model put somewhere else is something new there.
        given = dict(nesting.flatten_with_path(before)[0])
        found, after_spec = nesting.flatten_with_path((args, kwargs))
        changed = [
            structure.UNCHANGED if path in given and given[path] is leaf else leaf
            for path, leaf in found
        ]
        changes = after_spec != self._in_spec or any(x is not structure.UNCHANGED for x in changed)
        own = {id(x): nesting.Given(i) for i, x in enumerate(nesting.objects((args, kwargs)))}
        _check_result(type(self.model).__name__, result, own)
        if changes:
            after = pytree.tree_unflatten(changed, after_spec)
            result = {structure.RESULT: result, structure.AFTER: after}
        leaves, spec = nesting.flatten(result, own)
        recurrent.refuse_packed(leaves)
        computed = tuple(whole(leaf) for leaf in leaves if isinstance(leaf, _COMPUTED))
        kept = [COMPUTED if isinstance(leaf, _COMPUTED) else leaf for leaf in leaves]
        self.seen.result = Result(kept, spec, changes)
        return computed


_COMPUTED = (torch.Tensor, *nesting.SIZES)


def export_model(
    model: torch.nn.Module, call: Arguments, dims: Any, traced: bool = True
) -> Exported:
    """Exports the model, or where that fails its trace, and leaves it as it was.

    Args:
        model: the module.
        call: example arguments.
        dims: torch.export's dynamic_shapes of each tensor among them.
        traced: what the model is told when it asks whether it is traced.

    Raises:
        CaptureError: if neither can be exported.
    """
    # Dense and apart: what two of them share in memory is no part of the model.
    tensors = tuple(
        tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in call.tensors
    )
    changed: list[str] = []
    changing: list[str] = []

    def export(module: torch.nn.Module) -> Exported:
        flat = _TensorsOnly(module, call.spec, call.constants, traced, changing)
        program, guards = _export(flat, tensors, dims)
        changed.extend(flat.seen.changed)
        seen = flat.seen
        asked = ([*lines, ""] for lines in (seen.questions, seen.tracing_questions[::-1]))
        return Exported(program, guards, seen.result, *(lines[0] for lines in asked))

    asking: list[dict[str, Any]] = []

    def export_as_it_is() -> Exported:
        while True:
            try:
                with replaced_functions(), symbolic_int(asking):
                    return export(model)
            except ChangedNumberError as buffer:
                held.put_back()
                changing.append(buffer.name)
            except Exception as refusal:
                names = asking_module(refusal)
                if names is None or any(names is known for known in asking):
                    raise
                held.put_back()
                asking.append(names)

    held = Held(model)
    try:
        exported = export_as_it_is()
    except CaptureError:
        raise
    except Exception as refusal:
        held.put_back()
        try:
            with held:
                symbolic = trace(model, call)
            changed += held.changed
            exported = export(symbolic)
        except Exception:
            raise _refusal(type(model).__name__, call.tensor_names, refusal) from refusal
    finally:
        held.put_back()
    if changed:
        _refuse_state(model, call, changed)
    return exported


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing is printed of what torch raises, which becomes a typed error."""
    names = (
        "torch._subclasses.fake_tensor",
        "torch.export._trace",
        "torch.fx.experimental.symbolic_shapes",
    )
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    printing = [
        vars(import_module(name)) for name in ("torch.export._trace", "torch.fx.graph_module")
    ]
    try:
        for logger in loggers:
            logger.disabled = True
        for module in printing:
            module["print"] = lambda *_, **__: None  # the graph up to the error, on stderr
        yield
    finally:
        for module in printing:
            module.pop("print", None)
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _export(
    wrapper: torch.nn.Module, tensors: tuple[torch.Tensor, ...], dims: Any
) -> tuple[ExportedProgram, Guards]:
    """Exports without specializing sizes 0 and 1, so that a batch of one stays a batch."""
    from torch.fx.experimental import _config as symbolic_config

    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        _silence(),
        symbolic_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
    ):
        warnings.simplefilter("ignore")
        program = torch.export.export(wrapper, tensors, dynamic_shapes=(tuple(dims),), strict=False)
        inline_regions(program)
        drop_constant_writes(program)
        write_apart(program.graph)
        if not needs_retracing(program):
            return program, read_guards(program)
        made = functional(program)
        return made, read_guards(program, made)


def trace(model: torch.nn.Module, call: Arguments) -> torch.fx.GraphModule:
    """Traces a model with torch.fx, without example values.

    Arguments that are no tensors are fixed; containers of tensors are not taken apart. What the
    model does to its attributes while it is traced stays done.

    Args:
        model: what is traced.
        call: of an example.
    """
    given = inspect.signature(model.forward).bind(*call.args, **call.kwargs).arguments
    constants = {k: v for k, v in given.items() if not isinstance(v, torch.Tensor)}
    return torch.fx.symbolic_trace(model, concrete_args=constants)


_CALLS = 3
"""After so many, what a call leaves in the model has shown in a result, if it ever does."""


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and repr(one) == repr(other)


def _refuse_state(model: torch.nn.Module, call: Arguments, changed: list[str]) -> None:
    """Raises CaptureError if what a call changes in the model shows in the result of the next.

    Buffers are the same before every call: what is written to them is part of the graph.
    """
    results: list[list[Any]] = []
    with Held(model), torch.no_grad(), torch.random.fork_rng(devices=()):
        buffers = [(owner, dict(owner._buffers)) for owner in model.modules()]
        values = [buffer.clone() for buffer in model.buffers()]
        for _ in range(_CALLS):
            torch.manual_seed(0)
            args, kwargs = call.copied()
            result = nesting.flatten(model(*args, **kwargs))[0]
            results.append([v.clone() if isinstance(v, torch.Tensor) else v for v in result])
            for owner, own in buffers:
                owner._buffers.update(own)
            for buffer, value in zip(model.buffers(), values, strict=True):
                restore(buffer, value)
    first, *others = results
    if all(len(first) == len(other) and all(map(_is_same, first, other)) for other in others):
        return
    raise CaptureError(
        type(model).__name__,
        None,
        f"each call changes {changed[0]!r}, on which the next result depends; take it as an "
        "argument and return the new value",
    )


def _check_result(name: str, result: Any, own: Mapping[int, nesting.Given]) -> None:
    """Raises CaptureError for a part of a result that is no tensor and no plain value."""
    for path, leaf in nesting.flatten_with_path(result)[0]:
        if not isinstance(leaf, (*_COMPUTED, *nesting.VALUES)) and id(leaf) not in own:
            kind, place = type(leaf).__name__, pytree.keystr(path)
            remedy = "return the tensors that it holds, in tuples, lists and dicts"
            raise CaptureError(name, None, f"its result{place} is a {kind}; {remedy}")


def _refusal(name: str, tensors: Sequence[str], error: Exception) -> CaptureError:
    """A CaptureError with the user's line, from whatever torch.export raised.

    Args:
        name: of the model.
        tensors: their names, in the order in which torch.export got them.
        error: what it raised.
    """
    location = raising_line(error)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "found a fake tensor" in first:
        return CaptureError(
            name,
            location,
            "it takes .data of a tensor, or keeps one outside of its arguments and results; use "
            ".detach() to read, and compute a new tensor instead of writing to .data",
        )
    if broken := re.search(r"Constraints violated \((.*)\)!", first):
        named = re.sub(
            r"L\['tensors'\]\[(\d+)\]\.size\(\)\[(\d+)\]",
            lambda size: f"axis {size[2]} of {tensors[int(size[1])]}",
            broken[1],
        )
        return CaptureError(name, location, fixes(named))
    first = re.sub(r"\b(s\d+)\b", "(a size)", first)  # torch's symbols mean nothing to a user
    first = re.sub(r"\bz?uf?\d+\b", "(a value)", first).partition(" (unhinted")[0]
    return CaptureError(
        name,
        location,
        f"torch.export says: {first}; torch.fx cannot trace it either; rewrite that line "
        "without control flow or sizes that depend on tensor values, or optimize the submodules "
        "around it one by one",
    )
