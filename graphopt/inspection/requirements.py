"""What a plan must be like: `int8>=95%,fallback=0`, and each node because of which it is not.

    int8>=95%       share of the multiply-adds of products that are int8; so fp32, bf16, int4
    fallback=0      nodes that torch runs, and modules that stay in Python
    portable=0      nodes whose kernel is plain C on the best level of the target
    compiled>=90%   share of the nodes that are compiled

`>=`, `<=`, `>`, `<` and `=` compare; a number is a share with `%`, else a count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from graphopt.compiler.stages import Stage, StageNode
from graphopt.errors import OptionError
from graphopt.inspection.models import Planned
from graphopt.ir import DType
from graphopt.ir.cost import Call
from graphopt.ir.symbolic import evaluate
from graphopt.printable import printable
from graphopt.target import Target

_FORMATS = ("fp32", "bf16", "int8", "int4")
_COUNTS = ("fallback", "portable")
_SHARES = (*_FORMATS, "compiled")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "=": lambda a, b: a == b,
}
_GRAMMAR = re.compile(r"\s*(\w+)\s*(>=|<=|>|<|==?)\s*(\d+(?:\.\d+)?)\s*(%?)\s*")


@dataclass(frozen=True)
class Requirement:
    """One condition.

    Attributes:
        what: a name of the module's text.
        how: `>=`, `<=`, `>`, `<` or `=`.
        number: with which it is compared; shares in percent.
    """

    what: str
    how: str
    number: float

    def __str__(self) -> str:
        unit = "%" if self.what in _SHARES else ""
        return f"{self.what}{self.how}{self.number:g}{unit}"


@dataclass(frozen=True)
class Miss:
    """A node because of which a condition does not hold.

    Attributes:
        requirement: the condition.
        node: name of the node.
        op: what it computes.
        module: path in the user's model.
        source: file and line of the user's model.
        why: in words.
        share: of the multiply-adds, in percent.
    """

    requirement: str
    node: str
    op: str
    module: str
    source: str
    why: str
    share: float


@dataclass(frozen=True)
class Verdict:
    """Whether all conditions hold. Prints as a table.

    Attributes:
        name: of the model.
        found: what each condition found, in its order.
        unmet: the conditions that do not hold.
        misses: nodes because of which they do not, the most work first.
    """

    name: str
    found: dict[str, float]
    unmet: tuple[str, ...]
    misses: tuple[Miss, ...]

    @property
    def holds(self) -> bool:
        """Whether all conditions do."""
        return not self.unmet

    def as_dict(self) -> dict[str, Any]:
        """What JSON shows."""
        return {"holds": self.holds, **asdict(self)}

    def __rich__(self) -> Table:
        facts = ", ".join(f"{condition}: {value:.4g}" for condition, value in self.found.items())
        title = f"{printable(self.name)}: {'holds' if self.holds else 'does not hold'} ({facts})"
        table = Table(title=Text(title), title_justify="left")
        for column in ("misses", "node", "work", "module", "why"):
            table.add_column(
                column, overflow="fold", justify="right" if column == "work" else "left"
            )
        for miss in self.misses:
            where = miss.module or miss.source
            cells = miss.requirement, miss.node, f"{miss.share:.1f} %", where, miss.why
            table.add_row(*map(Text, cells))
        return table


def parse_requirements(text: str) -> list[Requirement]:
    """Conditions between commas.

    Raises:
        OptionError: for one that is none, saying which there are.
    """
    found = []
    for part in text.split(","):
        match = _GRAMMAR.fullmatch(part)
        if match is None or match[1] not in (*_SHARES, *_COUNTS):
            known = ", ".join((*_SHARES, *_COUNTS))
            how = f"give conditions such as int8>=95%,fallback=0 on {known}"
            raise OptionError("require", part.strip(), how)
        what, how, number, percent = match.groups()
        if bool(percent) != (what in _SHARES):
            unit = "a share: end it with %" if what in _SHARES else "a count: leave out the %"
            raise OptionError("require", part.strip(), f"{what} is {unit}")
        found.append(Requirement(what, "=" if how == "==" else how, float(number)))
    return found


def check(graphs: Sequence[Planned], require: str) -> Verdict:
    """Compares plans with conditions.

    Args:
        graphs: of one model; what they hold is added up.
        require: conditions, see the module.

    Raises:
        OptionError: for conditions that are none.
    """
    conditions = parse_requirements(require)
    rows = [row for planned in graphs for row in _rows(planned)]
    work = sum(row.macs for row in rows)
    found: dict[str, float] = {}
    unmet: list[str] = []
    misses: list[Miss] = []
    for condition in conditions:
        bad = [row for row in rows if row.misses(condition)]
        value = _value(condition.what, rows, work)
        found[str(condition)] = value
        if _COMPARE[condition.how](value, condition.number):
            continue
        unmet.append(str(condition))
        bad.sort(key=lambda row: -row.macs)
        for row in bad:
            share = 100 * row.macs / work if work else 0.0
            why = row.why(condition.what)
            place = (row.node, row.op, row.module, row.source)
            misses.append(Miss(str(condition), *place, why, share))
    name = ", ".join(dict.fromkeys(planned.name for planned in graphs))
    return Verdict(name, found, tuple(unmet), tuple(misses))


@dataclass(frozen=True)
class _Row:
    """A node as conditions see it."""

    node: str
    op: str
    module: str
    source: str
    macs: int
    format: str
    is_compiled: bool
    symbol: str
    is_portable: bool
    reasons: tuple[str, ...]

    def misses(self, condition: Requirement) -> bool:
        """Whether it is a reason for a condition not to hold."""
        wants_more = condition.how in (">=", ">", "=")
        if condition.what in _FORMATS:
            has = self.format == condition.what
            return self.macs > 0 and (not has if wants_more else has)
        if condition.what == "portable":
            return self.is_portable
        if condition.what == "compiled" and not wants_more:
            return self.is_compiled
        return not self.is_compiled

    def why(self, what: str) -> str:
        """Why it is as it is: what passes said, or what it is."""
        if what == "portable":
            return f"{self.symbol} is portable C: the level has no kernel of its own"
        said = "; ".join(self.reasons)
        if what in _FORMATS and self.is_compiled:
            about = [r for r in self.reasons if "kept" in r or ": not " in r or ": f32: " in r]
            said = "; ".join(about) or f"no pass makes {self.op} {what}"
            return f"computes in {self.format}: {said}"
        return said or "no rule compiles it"


def _value(what: str, rows: Sequence[_Row], work: int) -> float:
    if what == "fallback":
        return sum(not row.is_compiled for row in rows)
    if what == "portable":
        return sum(row.is_portable for row in rows)
    if what == "compiled":
        return 100 * sum(row.is_compiled for row in rows) / len(rows) if rows else 100.0
    return 100 * sum(row.macs for row in rows if row.format == what) / work if work else 100.0


def _rows(planned: Planned) -> Iterator[_Row]:
    target = planned.options.target
    for part in planned.stages.parts:
        last = part[-1]
        call = _call(planned, last)
        for row in last.nodes:
            if row.node.is_lowered:
                yield _compiled(row, call, target)
    whole = [stage for stage in planned.stages if stage.graph.name == planned.stages.name][-1]
    for row in whole.nodes:
        if not row.node.is_lowered:
            origin = row.node.origin
            place = (printable(origin.module), printable(origin.source))
            yield _left(row.name, row.node.op.name, *place, tuple(row.node.reasons))
    for module in planned.in_python:
        place = (module.module, module.source)
        yield _left(module.module or planned.name, module.op, *place, module.reasons)


def _call(planned: Planned, stage: Stage) -> Call:
    """The sizes of the example, or hints; of a part, dims that it computes at their bounds."""
    graph = stage.graph
    sizes: dict[Any, int] = dict(graph.hints())
    numbers = {}
    inputs = planned.inputs or []
    if len(inputs) == len(graph.inputs) and graph.name == planned.stages.name:
        sizes |= graph.sizes([array.shape for array in inputs])
        pairs = zip(graph.inputs, inputs, strict=True)
        numbers = {value: array for value, array in pairs if array.dtype == np.int64}
    for info in graph.dims.values():
        if info.bound is not None:
            sizes[info.symbol] = evaluate(info.bound, sizes)
    return Call(sizes, planned.options.target.arch, numbers)


def _compiled(row: StageNode, call: Call, target: Target) -> _Row:
    node, origin = row.node, row.node.origin
    macs = node.op.macs(node, call)
    symbol, portable = "", False
    if node.kernel not in ("loop", "view", ""):
        kernel = target.isa_levels[-1].kernel(node.kernel)
        symbol = kernel.symbol
        portable = macs > 0 and kernel.source.startswith("scalar/")
    return _Row(
        row.name,
        node.op.name,
        printable(origin.module),
        printable(origin.source),
        macs,
        _format(row),
        True,
        symbol,
        portable,
        tuple(map(printable, node.reasons)),
    )


def _format(row: StageNode) -> str:
    """What a product multiplies."""
    if (decided := row.node.op.decided) is not None:
        name = str(decided)
        return next((known for known in _FORMATS if name.startswith(known)), "fp32")
    narrow = any(v.dtype is DType.BF16 or v.packed == "bf16" for v in row.node.inputs)
    return "bf16" if narrow else "fp32"


def _left(node: str, op: str, module: str, source: str, reasons: tuple[str, ...]) -> _Row:
    """A node of torch, or a module in Python."""
    said = tuple(map(printable, reasons))
    return _Row(node, op, module, source, 0, "", False, "", False, said)
