"""The table of ``graphopt balance``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table

from graphopt.schedule import StepBalance


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
    return table
