"""The tables of ``graphopt balance``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.table import Table

from graphopt.compiler.schedule import StepBalance


def balance_table(title: str, rows: Sequence[StepBalance]) -> Table:
    """Equal steps added up, those that take longest on the cores first.

    ``of all`` is a kind of step's part of the time of all steps; ``balance`` the work of its
    tasks over what the cores could have done in its time.
    """
    groups: dict[tuple[str, str, str, tuple[int, ...]], list[StepBalance]] = defaultdict(list)
    for row in rows:
        groups[row.op, row.kernel.removeprefix("go_"), row.shape, row.tasks].append(row)
    total = sum(row.makespan for row in rows)
    work = sum(row.work for row in rows)
    table = Table(title=title, title_justify="left")
    for column in ("op", "kernel", "result"):
        table.add_column(column)
    for column in ("steps", "tasks", "µs a step", "of all", "balance"):
        table.add_column(column, justify="right")
    for key, members in sorted(groups.items(), key=lambda g: -sum(m.makespan for m in g[1])):
        op, kernel, shape, tasks = key
        time, share = sum(m.makespan for m in members), sum(m.work for m in members)
        if not time:
            continue
        count = len(members)
        table.add_row(
            op,
            kernel,
            shape,
            str(count),
            " + ".join(map(str, tasks)),
            f"{1e6 * time / count:.1f}",
            f"{100 * time / total:.1f} %",
            f"{100 * share / (members[0].cores * time):.1f} %",
        )
    table.add_section()
    overall = f"{100 * work / (rows[0].cores * total):.1f} %" if total else ""
    cells = ("all", "", "", str(len(rows)), "", f"{1e6 * total:.1f}", "", overall)
    table.add_row(*cells, style="bold")
    if total:
        path = [row for row in rows if row.critical]
        time = sum(row.makespan for row in path)
        part = f"{100 * time / total:.1f} %"
        table.add_row("critical path", "", "", str(len(path)), "", f"{1e6 * time:.1f}", part, "")
    return table


def overview_table(title: str, tables: Mapping[int, Sequence[StepBalance]]) -> Table:
    """A line for each kind of op: its part of the time, and its balance, on numbers of cores.

    The part on one core is that of the first table's tasks. The last line has that core's time, and
    the speed-up of several cores over one that does the same tasks.

    Args:
        title: of the table.
        tables: the steps of a model by the number of cores, the same steps each time.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("op")
    table.add_column("of all, 1 core", justify="right")
    for cores in tables:
        table.add_column(f"of all, {cores} cores", justify="right")
        table.add_column("balance", justify="right")
    alone = next(iter(tables.values()))
    parts = {op: _alone(_of(op, alone)) / _alone(alone) for op in {row.op for row in alone}}
    for op in sorted(filter(parts.get, parts), key=lambda op: -parts[op]):
        cells = [f"{100 * parts[op]:.1f} %"]
        for rows in tables.values():
            some = _of(op, rows)
            cells += [f"{100 * _time(some) / _time(rows):.1f} %", f"{100 * _balance(some):.1f} %"]
        table.add_row(op, *cells)
    table.add_section()
    cells = [f"{1e3 * _alone(alone):.1f} ms"]
    for rows in tables.values():
        cells += [f"{_alone(rows) / _time(rows):.1f} x", f"{100 * _balance(rows):.1f} %"]
    table.add_row("all", *cells, style="bold")
    return table


def _of(op: str, rows: Sequence[StepBalance]) -> list[StepBalance]:
    return [row for row in rows if row.op == op]


def _alone(rows: Sequence[StepBalance]) -> float:
    return sum(row.alone for row in rows)


def _time(rows: Sequence[StepBalance]) -> float:
    return sum(row.makespan for row in rows)


def _balance(rows: Sequence[StepBalance]) -> float:
    return sum(row.work for row in rows) / (rows[0].cores * _time(rows))
