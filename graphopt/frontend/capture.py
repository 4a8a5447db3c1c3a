"""From a torch module to a `Graph`, through torch.export.

The module is exported as a function of its tensors alone: containers (dict, list, tuple) are taken
apart, values that are no tensors are constants of the capture, and whatever the model puts into a
container of its arguments (a cache dict, say) becomes a further output that `CallSpec` writes back.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import re
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy
import torch
import torch.utils._pytree as pytree
from torch.export import Dim as ExportDim
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument

from graphopt.errors import (
    CaptureError,
    InputCountError,
    InputError,
    InputLayoutError,
    InputStridesError,
    OptionError,
)
from graphopt.frontend.guards import Guards, read_guards
from graphopt.frontend.held import Held
from graphopt.frontend.import_torch import WRITES_NOTHING, import_program
from graphopt.frontend.memory_questions import MemoryQuestions
from graphopt.frontend.model_check import check_model, check_weights
from graphopt.frontend.size_gate import SizeGate
from graphopt.ir import Graph
from graphopt.runtime import structure


@dataclass(eq=False)
class CallSpec:
    """How a call of the user's module maps to the graph's tensors and back.

    Attributes:
        in_spec: pytree structure of (args, kwargs).
        constants: leaves that are no tensors, by position among the flat arguments.
        out_spec: pytree structure of the result.
        out_leaves: for each leaf of the result, the graph output that it is, or the constant.
        changes_arguments: whether the result holds, beside the model's own, what its arguments'
            containers hold after the call.
        asks_layout: the line where the model asks how a tensor lies in memory, which depends on how
            its arguments do; empty if it does not.
    """

    in_spec: pytree.TreeSpec
    constants: dict[int, Any]
    out_spec: pytree.TreeSpec
    out_leaves: list[Any] = field(default_factory=list)
    changes_arguments: bool = False
    asks_layout: str = ""

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The graph's input tensors of a call with the captured structure.

        Raises:
            InputStridesError: for strides that the model asks for and was not captured with.
        """
        leaves, _ = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for i, leaf in enumerate(leaves) if i not in self.constants]
        if self.asks_layout:
            for tensor in tensors:
                if not tensor.is_contiguous():
                    raise InputStridesError(tuple(tensor.stride()), self.asks_layout)
        return tensors

    def unflatten(
        self, outputs: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The model's own result; containers in the arguments get what the model put there.

        Args:
            outputs: of the graph, in its order.
            args: positional arguments of the call.
            kwargs: keyword arguments of the call.
        """
        leaves = [
            outputs[leaf.index] if isinstance(leaf, Output) else leaf for leaf in self.out_leaves
        ]
        result = pytree.tree_unflatten(leaves, self.out_spec)
        if not self.changes_arguments:
            return result
        structure.write_back((args, kwargs), result[structure.AFTER])
        return result[structure.RESULT]


@dataclass(frozen=True)
class Output:
    """A leaf of the result that is output `index` of the graph."""

    index: int


@dataclass(eq=False)
class Captured:
    """A graph and the way to call it."""

    graph: Graph
    call: CallSpec


_VALUES = (
    *(bool, int, float, complex, str, bytes, type(None), type(...), slice, range, enum.Enum),
    *(np.generic, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, type),
    *(types.FunctionType, types.BuiltinFunctionType),
)
"""Arguments that are no tensors and that their text tells from others, or that never change."""


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What one capture is good for: structure, dtypes, ranks and values that are no tensors.

    Raises:
        InputCountError: for an argument that is neither a tensor nor a plain value.
        InputLayoutError: for a tensor that is not dense, or not on the CPU.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    if not all(map(_is_known, leaves)):
        raise _unknown(args, kwargs)
    described = tuple(
        (leaf.dtype, leaf.dim()) if isinstance(leaf, torch.Tensor) else repr(leaf)
        for leaf in leaves
    )
    return (str(spec), described)


def _is_known(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        return leaf.device.type == "cpu" and leaf.layout is torch.strided and not leaf.is_nested
    return isinstance(leaf, _VALUES)


def _unknown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> InputError:
    """The error of the first argument that no capture can take."""
    leaves, _ = pytree.tree_flatten_with_path((args, kwargs))
    path, leaf = next((path, leaf) for path, leaf in leaves if not _is_known(leaf))
    kind_of = "argument" if path[0] == pytree.SequenceKey(0) else "keyword argument"
    where = f"{kind_of}{pytree.keystr(path[1:])}"
    if isinstance(leaf, torch.Tensor):
        kind = "nested" if leaf.is_nested else str(leaf.layout).removeprefix("torch.")
        return InputLayoutError(where, kind, str(leaf.device))
    kind = type(leaf).__name__
    if isinstance(leaf, np.ndarray):
        return InputCountError("torch tensors", "a numpy array: torch.from_numpy makes one")
    return InputCountError(
        "tensors, plain values, and containers of them",
        f"a {kind} as {where}, which may hide tensors or change; pass what is in it, or make a "
        "container of it with torch.utils._pytree.register_pytree_node",
    )


class _TensorsOnly(torch.nn.Module):
    """The user's module as a function of a flat list of tensors.

    Args:
        model: the module.
        in_spec: structure of its arguments.
        constants: those that are no tensors, by position.
        note: receives the names of what a call changed in the model. All is put back but buffers,
            of which torch.export keeps account.
        note_question: receives the lines that ask how a tensor lies in memory.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        in_spec: pytree.TreeSpec,
        constants: dict[int, Any],
        note: Callable[[list[str]], None],
        note_question: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.model = model
        self._note = note
        self._note_question = note_question
        self.training = False
        self._in_spec = in_spec
        self._constants = constants

    def forward(self, *tensors: torch.Tensor) -> Any:
        rest = iter(tensors)
        count = len(tensors) + len(self._constants)
        leaves = [self._constants[i] if i in self._constants else next(rest) for i in range(count)]
        args, kwargs = pytree.tree_unflatten(leaves, self._in_spec)
        before = pytree.tree_unflatten(leaves, self._in_spec)
        held = Held(self.model, tracing=True)
        with MemoryQuestions(self._note_question):
            result = self.model(*args, **kwargs)
        self._note(held.put_back())
        _check_result(type(self.model).__name__, result)
        # By place: an argument that the model put somewhere else is something new there.
        given = dict(pytree.tree_flatten_with_path(before)[0])
        found, after_spec = pytree.tree_flatten_with_path((args, kwargs))
        changed = [
            structure.UNCHANGED if path in given and given[path] is leaf else leaf
            for path, leaf in found
        ]
        if after_spec == self._in_spec and all(leaf is structure.UNCHANGED for leaf in changed):
            return result
        after = pytree.tree_unflatten(changed, after_spec)
        return {structure.RESULT: result, structure.AFTER: after}


def capture(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> Captured:
    """Captures a module with example inputs.

    Args:
        model: a module in eval mode.
        args: example positional arguments; their sizes become the hints of the dims.
        kwargs: example keyword arguments.
        dynamic_shapes: which dims vary, in the format of torch.export. If None: the first of every
            tensor, and every other one that the model does not fix and that is not 1 here.

    torch.export runs the model once on stand-ins. Where it refuses (a model that keeps intermediate
    tensors as attributes, say), torch.fx traces the model symbolically and the trace is exported;
    nodes then know their module but no line.

    Raises:
        ModelError: if it is no module, or one that cannot be captured as it is.
        TrainingModeError: if it, or a module in it, is in training mode.
        CaptureError: if neither can capture the model, with the user's line and what to do.
    """
    check_model(model)
    check_weights(model)
    kwargs = kwargs or {}
    leaves, in_spec = pytree.tree_flatten((args, kwargs))
    constants = {i: v for i, v in enumerate(leaves) if not isinstance(v, torch.Tensor)}
    tensors = tuple(v for v in leaves if isinstance(v, torch.Tensor))
    dims = _dims_of_tensors(model, args, kwargs, tensors, dynamic_shapes)

    names = _tensor_names(model, args, kwargs)

    questions: list[str] = []

    def import_with(dims: Any) -> tuple[ExportedProgram, Graph, list[tuple[str, Any]]]:
        program, guards = _program(model, args, kwargs, dims, questions.append)
        return program, *import_program(program, guards, type(model).__name__, names)

    try:
        program, graph, out_leaves = import_with(dims)
        declared = _declared_ranges(graph, dims)
        graph.conditions = list(dict.fromkeys([*graph.conditions, *declared]))
    except CaptureError:
        # A batch of one that is broadcast, which torch.export does not see in an open size.
        ones = [spec for spec, t in zip(dims, tensors, strict=True) if t.dim() and t.shape[0] == 1]
        if dynamic_shapes is not None or not ones:
            raise
        for spec in ones:
            spec[0] = ExportDim.STATIC
        program, graph, out_leaves = import_with(dims)
    broken = SizeGate(graph).broken([t.shape for t in tensors])
    if broken:
        # torch.export takes a size for one that is not 1, which matters here, and it is 1.
        if dynamic_shapes is not None:
            raise _example_is_special(type(model).__name__, graph, broken[0])
        # That it is 1 may be what torch.export has found out later on the way.
        fixed = {s for c in broken for s in c.free_symbols}
        for spec, value in zip(dims, graph.inputs, strict=True):
            for axis, extent in enumerate(value.shape):
                if isinstance(extent, int) or extent in fixed:
                    spec[axis] = ExportDim.STATIC
        program, graph, out_leaves = import_with(dims)
    out_spec = program.call_spec.out_spec
    if out_spec is None:
        raise CaptureError(type(model).__name__, None, "it returns nothing; return a tensor")
    spec = CallSpec(
        in_spec,
        constants,
        out_spec,
        [Output(leaf[1]) if leaf[0] == "output" else leaf[1] for leaf in out_leaves],
        out_spec.type is dict and set(out_spec.context) == {structure.RESULT, structure.AFTER},
        next(iter(questions), ""),
    )
    return Captured(graph, spec)


def _program(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dims: Any,
    note_question: Callable[[str], None],
) -> tuple[ExportedProgram, Guards]:
    """Exports the model, or where that fails its trace, and leaves it as it was."""
    leaves, in_spec = pytree.tree_flatten((args, kwargs))
    constants = {i: v for i, v in enumerate(leaves) if not isinstance(v, torch.Tensor)}
    # Dense and apart: what two of them share in memory is no part of the model.
    tensors = tuple(
        v.detach().clone(memory_format=torch.contiguous_format)
        for v in leaves
        if isinstance(v, torch.Tensor)
    )
    changed: list[str] = []

    def export(traced: torch.nn.Module) -> tuple[ExportedProgram, Guards]:
        flat = _TensorsOnly(traced, in_spec, constants, changed.extend, note_question)
        return _export(flat, tensors, dims)

    held = Held(model)
    try:
        exported = export(model)
    except CaptureError:
        raise
    except Exception as refusal:
        held.put_back()
        try:
            traced = trace(model, args, kwargs)
            changed += held.put_back()
            exported = export(traced)
        except Exception:
            raise _refusal(type(model).__name__, refusal) from refusal
    finally:
        held.put_back()
    if changed:
        _refuse_state(model, args, kwargs, changed)
    return exported


def _declared_ranges(graph: Graph, dims: Sequence[Any]) -> Iterator[sympy.Basic]:
    """The ranges in `dynamic_shapes`, by which torch.export answers what a model asks of sizes."""
    for value, spec in zip(graph.inputs, dims, strict=True):
        each = spec.items() if isinstance(spec, dict) else enumerate(spec or ())
        for axis, varies in each:
            size, (low, high) = value.shape[axis], _range_of(varies)
            if isinstance(size, sympy.Expr):
                yield from ([sympy.Ge(size, low)] if low > 1 else [])
                yield from ([sympy.Le(size, high)] if high < math.inf else [])


def _range_of(varies: Any) -> tuple[int, float]:
    """The smallest and the largest size of a `Dim`, or whatever else says how an axis varies."""
    if isinstance(varies, int):
        return varies, varies
    low, high = (getattr(varies, name, None) for name in ("min", "max"))
    return low or 0, high if isinstance(high, int) else math.inf


def _example_is_special(name: str, graph: Graph, condition: sympy.Basic) -> CaptureError:
    """The error of an example of a size that the model treats otherwise than what is declared."""
    infos = (i for i in graph.dims.values() if i.symbol in condition.free_symbols)
    places = [f"axis {axis} of {graph.inputs[n].name}" for i in infos for n, axis in i.sources]
    return CaptureError(
        name,
        None,
        f"it treats the size of {' and '.join(places)} in the example inputs otherwise than other "
        "sizes; give an example of another size, or leave that axis out of dynamic_shapes",
    )


@contextmanager
def _without_log(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _export(
    wrapper: torch.nn.Module, tensors: tuple[torch.Tensor, ...], dims: Any
) -> tuple[ExportedProgram, Guards]:
    """Exports without specializing sizes 0 and 1, so that a batch of one stays a batch."""
    from torch.fx.experimental import _config as symbolic_config

    with (
        torch.no_grad(),
        warnings.catch_warnings(),
        _without_log("torch._subclasses.fake_tensor"),  # of what it raises, too
        symbolic_config.patch(backed_size_oblivious=True),  # type: ignore[attr-defined]
    ):
        warnings.simplefilter("ignore")
        program = torch.export.export(wrapper, tensors, dynamic_shapes=(tuple(dims),), strict=False)
        _inline_regions(program)
        if not _writes_in_place(program):
            return program, read_guards(program)
        functional = program.run_decompositions({})
        return functional, read_guards(program, functional)


def trace(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.fx.GraphModule:
    """Traces a model with torch.fx, without example values.

    Arguments that are no tensors are fixed; containers of tensors are not taken apart. What the
    model does to its attributes while it is traced stays done.

    Args:
        model: what is traced.
        args: positional arguments of an example call.
        kwargs: keyword arguments of the example call.
    """
    arguments = _by_parameter(model, args, kwargs)
    constants = {k: v for k, v in arguments.items() if not isinstance(v, torch.Tensor)}
    return torch.fx.symbolic_trace(model, concrete_args=constants)


_CALLS = 3
"""After so many, what a call leaves in the model has shown in a result, if it ever does."""


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _refuse_state(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], changed: list[str]
) -> None:
    """Raises CaptureError if what a call changes in the model shows in the result of the next."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    held = Held(model)
    results = []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            for _ in range(_CALLS):
                torch.manual_seed(0)
                copies = [v.clone() if isinstance(v, torch.Tensor) else v for v in leaves]
                again, named = pytree.tree_unflatten(copies, spec)
                results.append(pytree.tree_leaves(model(*again, **named)))
    finally:
        changed = held.put_back() or changed
    first, *others = ([v for v in r if isinstance(v, torch.Tensor)] for r in results)
    if all(len(first) == len(other) and all(map(_is_same, first, other)) for other in others):
        return
    raise CaptureError(
        type(model).__name__,
        None,
        f"each call changes {changed[0]!r}, on which the next result depends; take it as an "
        "argument and return the new value",
    )


def _check_result(name: str, result: Any) -> None:
    """Raises CaptureError for a part of a result that is no tensor and no plain value."""
    for path, leaf in pytree.tree_flatten_with_path(result)[0]:
        if isinstance(leaf, (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, *_VALUES)):
            continue
        kind, place = type(leaf).__name__, pytree.keystr(path)
        remedy = "return the tensors that it holds, in tuples, lists and dicts"
        if type(leaf).__module__.startswith("transformers"):
            remedy = "call the model with use_cache=False, or set it in its config"
        raise CaptureError(name, None, f"its result{place} is a {kind}; {remedy}")


_OTHERS = tuple(
    os.path.dirname(path) + os.sep for path in (torch.__file__, sympy.__file__, __file__)
)
"""Folders whose lines are not the user's."""


def _refusal(name: str, error: Exception) -> CaptureError:
    """A CaptureError with the user's line, from whatever torch.export raised."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [f for f in frames if f.line and not f.filename.startswith(("<", *_OTHERS))]
    users = [f for f in users if os.path.dirname(f.filename) != os.path.dirname(os.__file__)]
    location = f"{users[-1].filename}:{users[-1].lineno} ({users[-1].line})" if users else None
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "found a fake tensor" in first:
        return CaptureError(
            name,
            location,
            "it takes .data of a tensor, or keeps one outside of its arguments and results; use "
            ".detach() to read, and compute a new tensor instead of writing to .data",
        )
    if broken := re.search(r"Constraints violated \((.*?)\)", first):
        why = f"it fixes or limits the size {broken[1]} that dynamic_shapes says to vary; "
        return CaptureError(name, location, f"{why}give Dim.AUTO there, or the size")
    first = re.sub(r"\b(s\d+)\b", "(a size)", first)  # torch's symbols mean nothing to a user
    first = re.sub(r"\bz?uf?\d+\b", "(a value)", first).partition(" (unhinted")[0]
    return CaptureError(
        name,
        location,
        f"torch.export says: {first}; torch.fx cannot trace it either; rewrite that line "
        "without control flow or sizes that depend on tensor values, or optimize the submodules "
        "around it one by one",
    )


def _inline_regions(program: ExportedProgram) -> None:
    """Puts regions in which gradients are switched, or autocast is off, where they are called."""
    _inline_into(program.graph_module)
    (returned,) = next(n for n in program.graph.nodes if n.op == "output").args
    for spec, node in zip(program.graph_signature.output_specs, returned, strict=True):
        if isinstance(spec.arg, TensorArgument):
            spec.arg = TensorArgument(node.name)


def _inline_into(module: torch.fx.GraphModule) -> None:
    graph = module.graph
    for region in [node for node in graph.nodes if _is_plain_region(node)]:
        held = next(a for a in region.all_input_nodes if a.op == "get_attr")
        body = getattr(module, str(held.target))
        _inline_into(body)
        given = [node for node in body.graph.nodes if node.op == "placeholder"]
        operands = region.args[len(region.args) - len(given) :]
        with graph.inserting_before(region):
            results: Any = graph.graph_copy(body.graph, dict(zip(given, operands, strict=True)))
        for item in list(region.users):
            item.replace_all_uses_with(results[item.args[1]])
            graph.erase_node(item)
        graph.erase_node(region)
        graph.erase_node(held)
    module.recompile()


def _is_plain_region(node: torch.fx.Node) -> bool:
    """Whether a node calls a region that computes on a CPU what its ops say."""
    name = getattr(node.target, "__name__", "")
    if name == "wrap_with_autocast":
        device, _, enabled, *_ = node.args
        return device != "cpu" or not enabled
    return name == "wrap_with_set_grad_enabled"


def _writes_in_place(program: ExportedProgram) -> bool:
    """Whether an op writes to a tensor, of which others may be views."""
    targets = (node.target for node in program.graph.nodes)
    ops = (target for target in targets if isinstance(target, torch._ops.OpOverload))
    return any(op._schema.is_mutable and op._schema.name not in WRITES_NOTHING for op in ops)


def _dims_of_tensors(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: tuple[torch.Tensor, ...],
    dynamic_shapes: Any,
) -> list[Any]:
    """torch.export's dynamic_shapes of each flat tensor."""
    if dynamic_shapes is None:
        specs = [
            {
                a: ExportDim.AUTO if a == 0 or e != 1 else ExportDim.STATIC
                for a, e in enumerate(t.shape)
            }
            for t in tensors
        ]
    else:
        specs = []
        if isinstance(dynamic_shapes, dict):
            tree: Any = _by_parameter(model, args, kwargs)
        else:
            tree = tuple(args) + tuple(kwargs.values())
        _collect_specs(tree, dynamic_shapes, specs, "dynamic_shapes")
    return specs


def _collect_specs(tree: Any, spec: Any, out: list[Any], where: str) -> None:
    if isinstance(tree, torch.Tensor):
        _check_spec(tree, spec, where)
        out.append(spec)
    elif isinstance(tree, dict):
        _refuse_unknown_keys(tree, spec, where)
        for key, item in tree.items():
            _collect_specs(item, None if spec is None else spec.get(key), out, f"{where}[{key!r}]")
    elif isinstance(tree, list | tuple):
        if spec is not None and not isinstance(spec, list | tuple):
            raise OptionError("dynamic_shapes", spec, f"{where} takes a tuple, one entry each")
        if spec is not None and len(spec) != len(tree):
            raise CaptureError(
                where, None, f"it has {len(spec)} entries for {len(tree)} arguments: give one each"
            )
        for i, item in enumerate(tree):
            _collect_specs(item, None if spec is None else spec[i], out, f"{where}[{i}]")


#: What torch.export takes for an axis.
_WAYS = (ExportDim, type(ExportDim.AUTO), int, type(None))


def _check_spec(tensor: torch.Tensor, spec: Any, where: str) -> None:
    """Raises OptionError for what does not say how axes of a tensor vary."""
    rank = tensor.dim()
    if spec is None:
        return
    each = isinstance(spec, list | tuple) and len(spec) == rank
    if not each and not isinstance(spec, dict):
        raise OptionError(where, spec, f"give a dict by axis, or an entry for each of {rank} axes")
    for axis, varies in enumerate(spec) if each else spec.items():
        if axis not in range(rank):
            raise OptionError(where, axis, f"the tensor has no such axis, but 0 to {rank - 1}")
        if not isinstance(varies, _WAYS):
            how = "give a torch.export.Dim, Dim.DYNAMIC, Dim.AUTO, Dim.STATIC, its size, or None"
            raise OptionError(f"{where}[{axis}]", varies, how)
        size, (low, high) = tensor.shape[axis], _range_of(varies)
        if not low <= size <= high:
            how = f"the example has size {size} there, and this allows {low} to {high}"
            raise OptionError(f"{where}[{axis}]", varies, how)


def _refuse_unknown_keys(tree: dict[str, Any], spec: Any, where: str) -> None:
    if spec is None:
        return
    if not isinstance(spec, dict):
        raise OptionError("dynamic_shapes", spec, f"{where} takes a dict by {', '.join(tree)}")
    unknown = [key for key in spec if key not in tree]
    if unknown:
        raise OptionError(
            where, unknown[0], f"no such argument in the example; there are {', '.join(tree)}"
        )


def _by_parameter(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Arguments by the names of the parameters of `forward`."""
    import inspect

    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    return dict(bound.arguments)


def _tensor_names(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[str]:
    """A readable, unique name for each tensor argument."""
    names: list[str] = []

    def visit(tree: Any, name: str) -> None:
        if isinstance(tree, torch.Tensor):
            names.append(name)
        elif isinstance(tree, dict):
            for key, item in tree.items():
                visit(item, f"{name}_{key}")
        elif isinstance(tree, list | tuple):
            for i, item in enumerate(tree):
                visit(item, f"{name}_{i}")

    for parameter, argument in _by_parameter(model, args, kwargs).items():
        visit(argument, parameter)
    safe = ["".join(c if c.isalnum() else "_" for c in name) for name in names]
    return [name if safe.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(safe)]
