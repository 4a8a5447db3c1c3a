"""Sizes, and conditions on sizes, of an exported program as those of a `Graph`.

torch.export has symbols for sizes (`s0`) and for numbers that tensors decide (`u0`), a graph has
dims by name (`B`, `T`, `N`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from graphopt.errors import CaptureError, SizeError
from graphopt.frontend.data_sizes import sizes_of_inputs
from graphopt.frontend.guards import Guards
from graphopt.frontend.torch_sizes import translate, translate_float
from graphopt.frontend.user_lines import origin_of
from graphopt.ir import Dim, DimInfo, Graph, Shape, symbolic
from graphopt.ir.scalar import Scalar

_FEW = 4
"""A size in whose place nothing better is known."""

_SERVE_NONE: set[str] = set()


def serve_none(op: str) -> None:
    """Says that an operator may find a size of 0: what is made of it is then empty.

    Without that, a size of 0 is served as far as torch's own ops take it.

    Args:
        op: the operator, as `namespace::name`.
    """
    _SERVE_NONE.add(op)


class ProgramSizes:
    """What the sizes of a program are called in its graph, and what is known of them.

    Args:
        program: what torch.export returned.
        guards: of the program; receives what sizes turn out to be.
        graph: gets the dims, and conditions on them.
        input_names: a name for each tensor input.

    Attributes:
        symbols: ours by torch's.
    """

    def __init__(
        self, program: ExportedProgram, guards: Guards, graph: Graph, input_names: Sequence[str]
    ) -> None:
        self.symbols: dict[sympy.Symbol, sympy.Symbol] = {}
        self._program, self._guards, self._graph = program, guards, graph
        self._input_names = input_names
        self._fixed: dict[Dim, Dim] = {}
        self._some: dict[sympy.Symbol, sympy.Symbol] = {}
        self._declare_dims()
        self._learn_extents()
        self._learn_read_sizes()

    def _declare_dims(self) -> None:
        """Names every size that some input has as it is; others may be expressions of those."""
        specs = {spec.arg.name: spec for spec in self._program.graph_signature.input_specs}
        for node in self._program.graph.nodes:
            if node.op != "placeholder" or specs[node.name].kind is not InputKind.USER_INPUT:
                continue
            for axis, extent in enumerate(node.meta["val"].shape):
                expr = None if isinstance(extent, int) else extent.node.expr
                if expr in self._guards.aliases or expr in self.symbols:
                    continue
                if isinstance(expr, sympy.Symbol):
                    ours = symbolic.symbol(self._dim_name("B" if axis == 0 else "T"))
                    self.symbols[expr] = ours
                    self._graph.dims[str(ours)] = DimInfo(ours, int(extent.node.hint), ())

    def _learn_extents(self) -> None:
        """Notes which expressions of sizes must be a number, such as the rows of a linear.

        A size that must be one has been replaced already; of `T // 2`, say, it does not follow.
        """
        for condition in self._guards.conditions:
            if not isinstance(condition, sympy.Eq) or condition.free_symbols - set(self.symbols):
                continue
            for expr, number in (condition.args, condition.args[::-1]):
                if number.is_Integer:
                    self._fixed[symbolic.simplify(self._translate(expr))] = int(number)

    def _learn_read_sizes(self) -> None:
        """Notes which numbers read from tensors must be sizes of inputs, and of what follows."""
        hints = {theirs: self._graph.dims[str(ours)].hint for theirs, ours in self.symbols.items()}
        found = sizes_of_inputs(self._guards.asserts, hints)
        self._guards.aliases.update(found)
        for asserted in self._guards.asserts:
            if isinstance(asserted, sympy.Eq) and asserted.free_symbols & set(found):
                sides = [self._translate(side.xreplace(found)) for side in asserted.args]
                read = int(bool(asserted.rhs.free_symbols & set(found)))
                extent, other = (symbolic.simplify(sides[i]) for i in (read, 1 - read))
                if not isinstance(extent, sympy.Symbol):  # which an input has, whatever it equals
                    self._fixed[extent] = other

    def conditions(self) -> list[sympy.Basic]:
        """What must hold of the sizes of a call.

        Raises:
            CaptureError: for a condition that a call cannot know.
        """
        # Some are about sizes that a node computes.
        known = (c.xreplace(self._guards.aliases) for c in self._guards.conditions)
        given = [self._condition(c) for c in known]
        read = (a.xreplace(self._guards.aliases) for a in self._guards.asserts)
        given += [self._translate(a) for a in read if a.free_symbols <= set(self.symbols)]
        every = dict.fromkeys([*given, *self._graph.conditions])
        return [c for c in every if c.xreplace(self._some) != sympy.true]

    def input_shape(self, tensor: torch.Tensor, name: str) -> Shape:
        """The shape of the next input of the graph."""
        position = len(self._graph.inputs)
        shape: list[Dim] = []
        for axis, extent in enumerate(tensor.shape):
            if isinstance(extent, int):
                shape.append(extent)
                continue
            expr = self._expr(extent)
            if expr.free_symbols - set(self.symbols):
                raise CaptureError(
                    self._graph.name,
                    None,
                    f"the size of axis {axis} of {name} is made of one that no input has; give "
                    "that axis Dim.AUTO in dynamic_shapes, or its size",
                )
            size = self.of(extent)
            if isinstance(size, sympy.Symbol):
                info = self._graph.dims[str(size)]
                sources = (*info.sources, (position, axis))
                self._graph.dims[str(size)] = DimInfo(info.symbol, info.hint, sources)
            shape.append(size)
        return tuple(shape)

    def found_dim(self, result: Any, op: str) -> str:
        """Names the sizes that a node finds in data; returns the name of the first, or nothing.

        Args:
            result: of the node.
            op: its operator, as `namespace::name`.
        """
        results = result if isinstance(result, list | tuple) else [result]
        extents = [e for t in results for e in getattr(t, "shape", ())]
        numbers = [e.node.expr for e in (*extents, *results) if isinstance(e, torch.SymInt)]
        known = {*self.symbols, *self._guards.aliases}
        found = list(dict.fromkeys(n for n in numbers if n.is_Symbol and n not in known))
        names = []
        for number in found:
            names.append(self._dim_name("N"))
            self.symbols[number] = symbolic.found_symbol(names[-1])
            if op in _SERVE_NONE:
                self._some[self.symbols[number]] = symbolic.symbol(names[-1])
            hint = max(self._graph.hints().values(), default=_FEW)
            self._graph.dims[names[-1]] = DimInfo(self.symbols[number], hint, (), found=True)
        return names[0] if names else ""

    def _dim_name(self, base: str) -> str:
        count = sum(re.fullmatch(rf"{base}\d*", name) is not None for name in self._graph.dims)
        return base if count == 0 else f"{base}{count}"

    def of(self, value: Any, node: torch.fx.Node | None = None) -> Dim:
        """A torch size as ours; raises CaptureError if it depends on data."""
        if isinstance(value, int):
            return value
        size = symbolic.simplify(self._translate(self._known(value, node)))
        return self._fixed.get(size, size)

    def of_float(self, value: torch.SymFloat, node: torch.fx.Node) -> Scalar | float:
        """A float that torch computes from sizes; raises CaptureError if it depends on data."""
        number = self._translate(self._known(value, node), translate_float)
        return float(number.value) if number.op == "const" else number

    def _expr(self, value: Any) -> sympy.Expr:
        """The expression of a number of torch's, in sizes that are no other's name."""
        if isinstance(value, int):
            return sympy.Integer(value)
        return value.node.expr.xreplace(self._guards.aliases)

    def _known(self, value: Any, node: torch.fx.Node | None) -> sympy.Expr:
        """The expression of a number of torch's; raises CaptureError if it depends on data."""
        expr = self._expr(value)
        unknown = expr.free_symbols - set(self.symbols)
        if unknown:
            raise CaptureError(
                self._graph.name,
                (origin_of(node).source if node else "") or None,
                "a number depends on tensor values; compute it outside the model and pass "
                "a tensor of that size, or optimize the parts before and after it",
            )
        return expr

    def of_truth(self, value: torch.SymBool) -> sympy.Basic:
        """A condition that torch computes from sizes; raises CaptureError if it depends on data."""
        return self._condition(self._known(value, None))

    def _condition(self, expr: sympy.Basic) -> sympy.Basic:
        """A condition on sizes.

        A float that torch took as it was in the example fixes the sizes that it is made of. An
        extent that may be that of a result or 1, which would be repeated, is what it is there.
        """
        if isinstance(expr, sympy.Or) and expr.free_symbols <= set(self.symbols):
            same = sympy.Or(*(arg for arg in expr.args if not _is_one(arg)))
            if same not in (expr, sympy.false):
                condition = self._translate(same)
                if condition.subs(self._graph.hints()) == sympy.true:
                    return condition
        fixed = isinstance(expr, sympy.Eq) and any(arg.is_Float for arg in expr.args)
        if fixed and expr.free_symbols <= set(self.symbols):
            sizes = [self.symbols[s] for s in sorted(expr.free_symbols, key=str)]
            hints = self._graph.hints()
            return sympy.And(*(sympy.Eq(size, hints[size]) for size in sizes))
        return self._translate(expr)

    def _translate(self, expr: sympy.Basic, to: Callable[..., Any] = translate) -> Any:
        """A size, or a condition on sizes, of torch in ours."""
        try:
            return to(expr, self.symbols)
        except SizeError as error:
            text = str(error)
            for theirs, ours in self.symbols.items():
                sources = self._graph.dims[str(ours)].sources
                places = [f"axis {axis} of {self._input_names[n]}" for n, axis in sources]
                text = re.sub(rf"\b{theirs}\b", f"({(places or [ours])[0]})", text)
            raise CaptureError(self._graph.name, None, text) from None

    def is_size(self, number: sympy.Symbol) -> bool:
        """Whether a number of torch's is a size of anything that the program computes."""
        return number in self.symbols or number in self._guards.aliases or number in self._used

    @cached_property
    def _used(self) -> set[sympy.Symbol]:
        """The symbols of torch in the shapes of whatever the program computes."""
        tensors = (
            tensor
            for node in self._program.graph.nodes
            for tensor in torch.utils._pytree.tree_leaves(node.meta.get("val"))
            if isinstance(tensor, torch.Tensor)
        )
        sizes: Iterator[Any] = (extent for tensor in tensors for extent in tensor.shape)
        extents = (size for size in sizes if isinstance(size, torch.SymInt))
        return {symbol for extent in extents for symbol in extent.node.expr.free_symbols}

    def learn_slice(
        self,
        node: torch.fx.Node,
        source: torch.fx.Node,
        axis: int = 0,
        start: Any = None,
        end: Any = None,
        step: int = 1,
    ) -> None:
        """How long a part is that torch gave a size of its own, not knowing the sign of an end.

        Args:
            node: the slice.
            source: what it is a part of.
            axis: along which.
            start: first index, or None.
            end: index behind the last, or None.
            step: of indices.
        """
        size, whole = node.meta["val"].shape[axis], source.meta["val"].shape[axis]
        own = self._expr(size)
        if not own.free_symbols - set(self.symbols):
            return
        whole = self._expr(whole)

        def bound(given: Any, default: Any) -> Any:
            number = given.meta["val"] if isinstance(given, torch.fx.Node) else given
            if number is None:
                return default
            if isinstance(number, int):
                if number == sys.maxsize:
                    return default
                return sympy.Min(whole, number) if number >= 0 else sympy.Max(0, whole + number)
            expr, hint = self._expr(number), number.node.hint
            is_negative = hint is not None and hint < 0  # a size that is read is none below 0
            sign = sympy.Lt(expr, 0) if is_negative else sympy.Ge(expr, 0)
            self._graph.conditions.append(self._translate(sign))
            return sympy.Max(0, whole + expr) if is_negative else sympy.Min(whole, expr)

        first, last = bound(start, 0), bound(end, whole)
        extent = last if first == 0 else sympy.Max(0, last - first)
        self._guards.aliases[own] = sympy.ceiling(extent / step)


def _is_one(condition: sympy.Basic) -> bool:
    """Whether it says that a size is 1."""
    return isinstance(condition, sympy.Eq) and 1 in condition.args
