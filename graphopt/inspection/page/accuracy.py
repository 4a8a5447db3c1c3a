"""How far results are after each pass, and each node of the planned graph, for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphopt.inspection.accuracy import Difference, diff
from graphopt.inspection.bisection import StageError, stage_errors
from graphopt.inspection.models import Planned
from graphopt.inspection.page.columns import Columns
from graphopt.inspection.page.facts import fact
from graphopt.inspection.page.measures import values_of

#: Decibels that stand for results that are exact.
_EXACT = 200.0


@dataclass(frozen=True)
class Errors:
    """What was measured.

    Attributes:
        stages: by the number of a stage the error of the results after it.
        nodes: of the planned graph against the captured one.
        order: of the nodes in the planned graph.
    """

    stages: Mapping[int, StageError]
    nodes: Difference
    order: Mapping[str, int]

    @property
    def fact(self) -> dict[str, str]:
        """The worst error of a result."""
        worst = max((e.relative for e in self.nodes.outputs.values()), default=0.0)
        note = "of the largest magnitude of a result, against the model in fp32"
        return fact("Error", f"{worst:.2g}", note)

    def by_key(self, columns: Columns) -> tuple[dict[str, Any], list[tuple[int, float, float]]]:
        """Relative errors for the graph; and of each node its SQNR in dB and largest error.

        Args:
            columns: have the keys of nodes.
        """
        ordered = sorted(self.nodes, key=lambda row: self.order[row.node])
        rows = [(columns.key(row.node), row.error) for row in ordered]
        relative = {key: error.relative for key, error in rows}
        levels = [(key, max(0.0, min(error.sqnr, _EXACT)), error.largest) for key, error in rows]
        return values_of("Error", "", relative), levels


def errors_of(planned: Planned) -> Errors:
    """Runs the graph after each pass that changed it in numpy.

    Raises:
        InspectionError: if nodes stay in torch between compiled parts.
    """
    number = {stage.name: i for i, stage in enumerate(planned.stages)}
    stages = {number[one.stage]: one for one in stage_errors(planned)}
    order = {row.name: i for i, row in enumerate(planned.last.nodes)}
    return Errors(stages, diff(planned, alone=False), order)
