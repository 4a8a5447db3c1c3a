"""Tables of a profile, 80 columns wide: by step, by op and kernel, and by module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from graphopt.compiler.profile import Profile
from graphopt.errors import OptionError
from graphopt.inspection.profiling.limits import Limit
from graphopt.module_group import module_group
from graphopt.printable import printable

Row = dict[str, Any]
BY = ("op", "module", "step")
OUTSIDE = "(outside of steps)"
_TOP = "(model itself)"
_SENTENCES = 5


@dataclass
class Line:
    """What is added up in one line of a table.

    Attributes:
        name: of what is added up.
        ms: after.
        before: milliseconds in the baseline.
        macs: multiply-adds.
        moved: bytes.
        busy: threads that worked, times the milliseconds.
        roof: milliseconds that the roofs allow.
        steps: how many.
        fused: modules whose work is done here.
    """

    name: str
    ms: float = 0.0
    before: float = 0.0
    macs: int = 0
    moved: int = 0
    busy: float = 0.0
    roof: float = 0.0
    steps: int = 0
    fused: dict[str, None] = field(default_factory=dict)

    def add(self, row: Row, limit: Limit) -> None:
        """Adds a step."""
        self.ms += row["ms"]
        self.before += row.get("before_ms", 0.0)
        self.macs += row["macs"] or 0
        self.moved += row["bytes"]
        self.busy += row["busy"] * row["ms"]
        self.roof += limit.share * row["ms"]
        self.steps += 1
        self.fused |= dict.fromkeys(map(module_group, row["fused"]))


def lines_by(profile: Profile, limits: Sequence[Limit], by: str) -> list[Line]:
    """Steps added up, those that take longest first.

    Args:
        profile: a profile.
        limits: of its steps.
        by: `op`: op and kernel; `module`: module of the model, without numbers of blocks; `step`.

    Raises:
        OptionError: for another `by`.
    """
    if by not in BY:
        raise OptionError("by", by, f"give one of {', '.join(BY)}")
    keys: dict[str, Callable[[Row], str]] = {
        "op": lambda row: f"{_op(row)} {row['kernel'].removeprefix('go_')}",
        "module": lambda row: module_group(row["module"]),
        "step": lambda row: f"{row['node']} {_op(row)} {row['module']}".rstrip(),
    }
    lines: dict[str, Line] = {}
    for row, limit in zip(profile, limits, strict=True):
        name = keys[by](row)
        lines.setdefault(name, Line(name)).add(row, limit)
    if by == "module":
        _add_before(profile, lines)
    return sorted(lines.values(), key=lambda line: (-line.ms, -line.before))


def _add_before(profile: Profile, lines: dict[str, Line]) -> None:
    """Times of modules before are those of their own nodes, wherever their work is done now."""
    if profile.before is None or not profile.before.nodes:
        return
    times: dict[str, float] = defaultdict(float)
    for name, ms in profile.before.nodes.items():
        times[module_group(profile.before.modules[name])] += ms
    for line in lines.values():
        line.before = 0.0
    for module, ms in times.items():
        lines.setdefault(module, Line(module)).before = ms


def profile_tables(
    profile: Profile, limits: Sequence[Limit], roofs: str, by: Sequence[str], limit: int
) -> Group:
    """The tables, with sentences for the steps that take longest, and the roofs.

    Args:
        profile: a profile.
        limits: of its steps.
        roofs: what they were measured as, in words.
        by: the tables, as for `lines_by`.
        limit: lines of each.
    """
    tables = [_table(profile, lines_by(profile, limits, kind), kind, limit) for kind in by]
    return Group(*tables, _sentences(profile, limits), Text(f"roofs: {roofs}"))


def _table(profile: Profile, lines: Sequence[Line], by: str, limit: int) -> Table:
    """Modules have their place in the model, and those whose work is done elsewhere say where."""
    title = f"{printable(profile.name)}: time of a call by {by}, milliseconds"
    table = Table(title=Text(title), title_justify="left", width=80)
    table.add_column(by, overflow="fold", ratio=1)
    before = () if profile.before is None else ("before",)
    for column in (*before, "ms", "share", "GMAC/s", "GB/s", "busy", "roof"):
        table.add_column(column, justify="right", no_wrap=True)
    rest = lines[limit:]
    where = _fused_into(profile)
    for line in (*lines[:limit], *([_sum(f"{len(rest)} others", rest)] if rest else [])):
        name = printable(line.name or _TOP)
        if by == "module" and not line.steps:
            heirs = where.get(line.name)
            name += f"\n  in {', '.join(heirs)}" if heirs else "\n  gone, or in others"
        table.add_row(Text(name), *_cells(line, profile))
    table.add_section()
    whole, call = _sum("", lines), Line("", ms=profile.whole)
    if profile.before is not None:
        whole.before = sum(profile.before.nodes.values())
        call.before = profile.before.call
    table.add_row("all steps", *_cells(whole, profile), style="bold")
    table.add_row(OUTSIDE, *_cells(Line("", ms=profile.outside), profile))
    table.add_row("a call", *_cells(call, profile), style="bold")
    return table


def _fused_into(profile: Profile) -> dict[str, dict[str, None]]:
    """Of modules without a step of their own, the modules whose steps do their work."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for row in profile:
        for module in row["fused"]:
            found[module_group(module)][module_group(row["module"]) or _TOP] = None
    return found


def _sum(name: str, lines: Sequence[Line]) -> Line:
    total = Line(name)
    for line in lines:
        total.ms += line.ms
        total.before += line.before
        total.macs += line.macs
        total.moved += line.moved
        total.busy += line.busy
        total.roof += line.roof
        total.steps += line.steps
    return total


def _cells(line: Line, profile: Profile) -> list[str]:
    before = [] if profile.before is None else [_ms(line.before) if line.before else ""]
    if not line.ms:
        return [*before, "", "", "", "", "", ""]
    share = f"{line.ms / profile.whole:.1%}" if profile.whole else ""
    if not line.steps:
        return [*before, _ms(line.ms), share, "", "", "", ""]
    rate = f"{line.macs / line.ms / 1e6:.0f}" if line.macs else ""
    return [
        *before,
        _ms(line.ms),
        share,
        rate,
        f"{line.moved / line.ms / 1e6:.1f}",
        f"{line.busy / line.ms:.1f}",
        f"{line.roof / line.ms:.0%}",
    ]


def _ms(ms: float) -> str:
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}"


def _sentences(profile: Profile, limits: Sequence[Limit]) -> Text:
    """What limits the steps that take longest."""
    order = sorted(zip(profile, limits, strict=True), key=lambda pair: -pair[0]["ms"])
    lines = []
    for row, limit in order[:_SENTENCES]:
        share = f"{row['ms'] / profile.whole:.1%}" if profile.whole else ""
        where = printable(row["module"] or row["node"])
        lines.append(f"{share} {_op(row)} {where}: {limit.text}")
    if profile.before is not None and profile.whole:
        speed = profile.before.call / profile.whole
        lines.append(f"before: {profile.before.name}; a call is {speed:.2f} times as fast now")
    return Text("\n".join(lines))


def _op(row: Row) -> str:
    return str(row["op"]).removeprefix("go.")
