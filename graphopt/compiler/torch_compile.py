"""`torch.compile(model, backend="graphopt")`: each graph that torch takes from Python, compiled.

torch.compile cuts a program where no graph can go on, and gives a backend every piece as a function
of tensors, sizes and weights. Here a piece becomes a module that is compiled as any other, at its
first call, with its weights as constants, and with its sizes read from the tensors that have them,
so that one compilation serves all lengths:

    def forward(weight, s0, x):          class Piece:
        y = linear(x, weight)      ->        def forward(self, x):
        return y.reshape(s0 * 2, -1)             y = linear(x, self.weight)
                                                 return y.reshape(x.size(0) * 2, -1)

What shares memory with an argument, or with another result, such as a view, is made by torch: what
the program writes to one must be seen in the other. A piece that is to be trained, or that cannot
be compiled, runs in torch, and a `LeftInTorchWarning` says why.
"""

from __future__ import annotations

import contextlib
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from graphopt.compiler.module import OptimizedModule
from graphopt.compiler.options import Options, narrow_options
from graphopt.errors import (
    CaptureError,
    InputError,
    InputValueError,
    ModelError,
    NondeterministicModelError,
    OptionError,
    TrainingModeError,
)

#: `options=` of torch.compile; those of `graphopt.optimize` that have a meaning for a piece.
OPTIONS = (
    "target",
    "precision",
    "num_threads",
    "strict",
    "check",
    "group_size",
    "activation_bits",
    "rounding",
)
#: A number of the program is the size of a tensor that has no other meaning; up to this.
_MOST_BYTES = 1 << 20
#: How often a piece is compiled because its weights are others.
_MOST_ATTEMPTS = 8
#: What says of a piece that it is not to be compiled.
_REFUSALS = (CaptureError, InputError, ModelError, NondeterministicModelError, TrainingModeError)


class LeftInTorchWarning(UserWarning):
    """A piece of a program that torch runs, and why."""


def backend(
    graph_module: GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
) -> Any:
    """The backend of `torch.compile`.

    Args:
        graph_module: a piece of a program, as torch gives it.
        example_inputs: weights, sizes and tensors in the order of its placeholders.
        mode: of torch.compile; graphopt has none.
        options: of torch.compile; see `OPTIONS`.

    Returns:
        A function of such inputs, which is compiled when it is first called, and raises then
        OptionError: for a mode, or an option that is unknown or has a value that it cannot have.
        CaptureError, UnsupportedNodesError: with the option `strict`, for what stays in torch.
    """
    return _Compiled(graph_module, example_inputs, mode, options or {})


def register() -> None:
    """Makes the backend known where graphopt is not installed with its entry points."""
    with contextlib.suppress(AssertionError):  # torch has it from the entry point
        torch._dynamo.register_backend(compiler_fn=backend, name="graphopt")


def _checked(mode: str | None, options: dict[str, Any]) -> Options:
    if mode is not None:
        raise OptionError("mode", mode, "graphopt has no modes; give options={...}")
    for name in options:
        if name not in OPTIONS:
            raise OptionError(name, options[name], f"there are {', '.join(OPTIONS)}")
    given = Options.of(**options)
    used = {"num_threads", "strict", "check", *narrow_options(given.precision)}
    given.refuse_unused(used, f"torch.compile in {given.precision}")
    return given


class _Compiled:
    """What torch calls in place of a piece.

    Args:
        graph_module: the piece.
        example_inputs: of its first call.
        mode: of torch.compile.
        options: of torch.compile.
    """

    def __init__(
        self,
        graph_module: GraphModule,
        example_inputs: Sequence[Any],
        mode: str | None,
        options: dict[str, Any],
    ) -> None:
        self._module, self._given = graph_module, (mode, options)
        self._options: Options | None = None
        self._piece: _Piece | None = None
        self._weights: list[Any] = []
        self._attempts = 0
        self._is_left = False
        self._warned: set[str] = set()
        self._floats = _floats(graph_module.graph)
        self._is_weight = [
            i in self._floats or _is_weight(value) for i, value in enumerate(example_inputs)
        ]
        self._trains = torch.is_grad_enabled() and any(
            isinstance(value, torch.Tensor) and value.requires_grad for value in example_inputs
        )

    def __call__(self, *inputs: Any) -> Any:
        """The piece's results."""
        if self._options is None:
            self._options = _checked(*self._given)
        if self._is_left or not self._is_ready(inputs, self._options):
            return self._module(*inputs)
        assert self._piece is not None
        try:
            return self._piece(inputs)
        except InputError as refusal:  # such as an empty batch, which torch takes
            if self._options.strict:
                raise
            self._warn(str(refusal))
            return self._module(*inputs)

    def _is_ready(self, inputs: Sequence[Any], options: Options) -> bool:
        """Compiles the piece where that has not been done with these weights."""
        weights = [
            repr(value.item()) if i in self._floats else _state(value)
            for i, value in enumerate(inputs)
            if self._is_weight[i]
        ]
        if self._piece is not None and weights == self._weights:
            return True
        try:
            self._check(options)
            self._piece = _Piece(self._module, inputs, self._is_weight, options)
            self._piece.prepare(inputs)
        except _REFUSALS as refusal:
            if options.strict:
                raise
            self._is_left = True
            self._warn(str(refusal))
            return False
        self._weights = weights
        return True

    def _check(self, options: Options) -> None:
        """Raises CaptureError for a piece that no code can be made of."""
        self._attempts += 1
        if self._trains:
            how = "call the model under torch.no_grad() or torch.inference_mode()"
            raise CaptureError("a piece", None, f"gradients are wanted of its results; {how}")
        if self._attempts > _MOST_ATTEMPTS:
            why = f"its weights have changed {_MOST_ATTEMPTS} times"
            raise CaptureError("a piece", None, f"{why}, and compiled code has them as constants")

    def _warn(self, why: str) -> None:
        if why not in self._warned:
            self._warned.add(why)
            text = f"torch runs a piece of the program: {why}"
            warnings.warn(text, LeftInTorchWarning, stacklevel=3)


def _state(weight: torch.Tensor) -> tuple[int, int, int]:
    """What changes when a weight is written to, or another takes its place."""
    return id(weight), weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _floats(graph: Graph) -> set[int]:
    """Placeholders that torch makes of floats of the program, such as the epsilon of a norm."""
    return {
        i
        for i, node in enumerate(_placeholders(graph))
        if any(user.op == "call_method" and user.target == "item" for user in node.users)
    }


def _is_weight(value: Any) -> bool:
    """Whether an example input is held by a module, so that torch gives the same in every call."""
    return isinstance(value, torch.Tensor) and (
        isinstance(value, torch.nn.Parameter) or hasattr(value, "_dynamo_static_input_type")
    )


@dataclass(frozen=True)
class _Number:
    """A placeholder that is a number: the size of an axis of another one, if it has one.

    Attributes:
        index: among the placeholders.
        tensor: the placeholder that has it as a size, or -1.
        axis: of that.
    """

    index: int
    tensor: int
    axis: int


class _Piece:
    """A piece with weights that stay: compiled results, and those that torch makes.

    Args:
        module: the piece.
        inputs: of a call.
        is_weight: which of them are weights.
        options: what to compile it with.

    Raises:
        CaptureError: if it cannot be compiled.
    """

    def __init__(
        self,
        module: GraphModule,
        inputs: Sequence[Any],
        is_weight: Sequence[bool],
        options: Options,
    ) -> None:
        graph = module.graph
        self._numbers = _numbers(graph, is_weight)
        self._tensors = [
            i
            for i, value in enumerate(inputs)
            if isinstance(value, torch.Tensor) and not is_weight[i]
        ]
        results = _results(graph)
        viewed = _viewed(graph, results)
        self._compiled = [i for i, node in enumerate(results) if i not in viewed]
        self._viewed = list(viewed)
        bases = [i for i in dict.fromkeys(viewed.values()) if i is not None]
        self._bases = [self._compiled.index(i) for i in bases]
        self._views: GraphModule | None = None
        if viewed:
            self._views = _views(module, [results[i] for i in viewed], [results[i] for i in bases])
        constants = {i: value for i, value in enumerate(inputs) if is_weight[i]}
        function = _function(module, [results[i] for i in self._compiled], constants, self._numbers)
        self._fast = OptimizedModule(function, options)

    def prepare(self, inputs: Sequence[Any]) -> None:
        """Captures and builds for calls such as this one."""
        if self._compiled:
            self._fast.prepare(*self._arguments(inputs))

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """The results, in their order."""
        made = self._fast(*self._arguments(inputs)) if self._compiled else ()
        if self._views is None:
            return made
        with torch.no_grad():
            views = self._views(*inputs, *(made[i] for i in self._bases))
        results = dict(zip(self._compiled, made, strict=True))
        results |= dict(zip(self._viewed, views, strict=True))
        return tuple(results[i] for i in range(len(results)))

    def _arguments(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        return [
            *(inputs[i] for i in self._tensors),
            *(_as_size(inputs[n.index]) for n in self._numbers if n.tensor < 0),
        ]


def _as_size(number: int) -> torch.Tensor:
    """A tensor that has a number of the program as its size."""
    if not 0 <= number <= _MOST_BYTES:
        text = "a number of the program is no size, which a tensor could have instead"
        raise InputValueError(text, _MOST_BYTES, number)
    return torch.zeros(number, dtype=torch.uint8)


def _placeholders(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "placeholder"]


def _value(node: Any) -> Any:
    """What torch knows of a result: a tensor without memory, or a number."""
    return node.meta.get("example_value") if isinstance(node, Node) else node


def _results(graph: Graph) -> list[Any]:
    """What a graph gives: nodes and constants."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    given: Any = output.args[0]
    return list(given) if isinstance(given, tuple | list) else [given]


def _numbers(graph: Graph, is_weight: Sequence[bool]) -> list[_Number]:
    nodes = _placeholders(graph)
    sizes: dict[Any, tuple[int, int]] = {}
    for i, node in enumerate(nodes):
        value = _value(node)
        if isinstance(value, torch.Tensor) and not is_weight[i]:
            for axis, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt):
                    sizes.setdefault(size.node.expr, (i, axis))
    found = []
    for i, node in enumerate(nodes):
        value = _value(node)
        if isinstance(value, torch.SymInt):
            found.append(_Number(i, *sizes.get(value.node.expr, (-1, 0))))
        elif not isinstance(value, torch.Tensor):
            why = f"it takes a {type(value).__name__}; give it as a tensor"
            raise CaptureError("a piece", None, why)
    return found


def _memory(node: Any) -> Any:
    value = _value(node)
    is_dense = isinstance(value, torch.Tensor) and value.layout is torch.strided
    return value.untyped_storage()._cdata if is_dense else None


def _viewed(graph: Graph, results: Sequence[Any]) -> dict[int, int | None]:
    """The results that share memory: with an argument (None), or with a result, by its number."""
    given = {_memory(node) for node in _placeholders(graph)} - {None}
    first: dict[Any, int] = {}
    viewed: dict[int, int | None] = {}
    for i, node in enumerate(results):
        memory = _memory(node)
        if memory is None:
            continue
        if memory in given:
            viewed[i] = None
        elif (base := first.setdefault(memory, i)) != i and node is not results[base]:
            viewed[i] = base
            if not _follows(node, results[base]):
                raise CaptureError("a piece", None, "two of its results share memory")
    if viewed and (writer := next(filter(_writes, graph.nodes), None)) is not None:
        why = f"it writes in place ({writer}), and a result shares memory with another tensor"
        raise CaptureError("a piece", None, why)
    return viewed


def _follows(node: Node, base: Node) -> bool:
    """Whether a node is computed from another one."""
    seen, left = {node}, [node]
    while left:
        for other in left.pop().all_input_nodes:
            if other is base:
                return True
            if other not in seen:
                seen.add(other)
                left.append(other)
    return False


def _writes(node: Node) -> bool:
    """Whether a node of torch's Python writes to an operand."""
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    of_operator = getattr(operator, f"__{name}__", None) is node.target and name.startswith("i")
    return in_place or of_operator or node.target is operator.setitem or "out" in node.kwargs


def _copied(module: GraphModule, results: Sequence[Any], given: Sequence[Node]) -> GraphModule:
    """A module that computes some results; nodes that are given are further arguments.

    Args:
        module: the whole.
        results: nodes and constants.
        given: nodes of which the values are known.
    """
    graph, mapped = Graph(), dict[Node, Node]()
    for node in _placeholders(module.graph):
        mapped[node] = graph.node_copy(node)
    for node in given:
        mapped[node] = graph.placeholder(f"given_{node.name}")
    for node in module.graph.nodes:
        if node not in mapped and node.op != "output":
            mapped[node] = graph.node_copy(node, mapped.__getitem__)
    graph.output(tuple(mapped[r] if isinstance(r, Node) else r for r in results))
    return GraphModule(module, graph)


def _views(module: GraphModule, results: Sequence[Any], bases: Sequence[Node]) -> GraphModule:
    """What torch makes of arguments and compiled results: views of them."""
    views = _copied(module, results, bases)
    views.graph.eliminate_dead_code()
    views.recompile()
    return views


def _insert(number: float | int, node: Node) -> None:
    """Puts a number where a node is used."""
    for user in list(node.users):
        user.args = map_arg(user.args, lambda used: number if used is node else used)
        user.kwargs = map_arg(user.kwargs, lambda used: number if used is node else used)
    node.graph.erase_node(node)


def _function(
    module: GraphModule,
    results: Sequence[Any],
    constants: dict[int, torch.Tensor],
    numbers: Sequence[_Number],
) -> GraphModule:
    """A module of tensors alone that computes some results.

    Args:
        module: the piece.
        results: nodes and constants that it shall give.
        constants: placeholders that become attributes, and numbers where they are read.
        numbers: placeholders that become sizes.
    """
    function = _copied(module, results, ())
    graph = function.graph
    nodes = _placeholders(graph)
    body = next(node for node in graph.nodes if node.op != "placeholder")
    for i, tensor in constants.items():
        for item in [user for user in nodes[i].users if user.target == "item"]:
            _insert(tensor.item(), item)
        function.register_buffer(f"constant_{i}", tensor.detach())
        with graph.inserting_before(nodes[i]):
            nodes[i].replace_all_uses_with(graph.get_attr(f"constant_{i}"))
        graph.erase_node(nodes[i])
    with graph.inserting_before(body):
        for number in numbers:
            node = nodes[number.index]
            owner = nodes[number.tensor] if number.tensor >= 0 else graph.placeholder(node.name)
            node.replace_all_uses_with(graph.call_method("size", (owner, number.axis)))
            graph.erase_node(node)
    graph.lint()
    function.recompile()
    return function.eval()
