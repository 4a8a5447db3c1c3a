"""Products by expert: captured from transformers, in numpy and in generated code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers.integrations.moe  # noqa: E402, F401  (registers grouped_mm_fallback)
from captured import arrays, captured  # noqa: E402
from graphs import Maker, build, emit, native_levels, random_inputs  # noqa: E402

from graphopt.errors import InputValueError  # noqa: E402
from graphopt.frontend.import_torch import schema_text  # noqa: E402
from graphopt.ir import DType, Graph  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.ir.ops import GroupedMatmul  # noqa: E402
from graphopt.passes.lower_aten import LowerAten  # noqa: E402
from graphopt.passes.lowering import experts  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

GROUPED = torch.ops.transformers.grouped_mm_fallback
ENDS = [[2, 2, 5], [0, 5, 5], [5, 5, 5], [0, 0, 3]]


def test_rule_has_the_schema_of_this_transformers() -> None:
    (rule,) = experts.RULES.values()
    assert schema_text(GROUPED.default._schema) == rule.schema


@pytest.mark.parametrize("ends", ENDS, ids=str)
def test_rows_are_multiplied_by_their_expert(ends: list[int]) -> None:
    x, weight = torch.randn(5, 4), torch.randn(3, 4, 6)
    given = (x, torch.tensor(ends, dtype=torch.int32))
    graph = captured(lambda x, e: GROUPED(x, weight, e), *given).graph
    LowerAten().run(graph)
    assert any(isinstance(n.op, GroupedMatmul) for n in graph.nodes)
    (got,) = run_graph(graph, arrays(given))
    np.testing.assert_allclose(got, GROUPED(x, weight, given[1]), FP32_RELATIVE, FP32_RELATIVE)


def _sorted_rows(columns: int) -> Graph:
    m = Maker()
    ends, x = m.input("ends", 3, dtype=DType.I64), m.input("x", "B", 4)
    return m.output(m.op(GroupedMatmul(), x, m.constant("w", 3, columns, 4), ends))


@pytest.mark.parametrize("columns", [6, 64, 150])
def test_code_finds_the_rows_of_each_expert(columns: int, tmp_path: Path) -> None:
    graph = _sorted_rows(columns)
    _, x = random_inputs(graph, B=5)
    context = build(emit(graph), native_levels()[-1], tmp_path).context(2)
    for ends in ENDS:
        given = [np.array(ends), x]
        (expected,) = run_graph(graph, given)
        np.testing.assert_allclose(context.run(given)[0], expected, FP32_RELATIVE, FP32_RELATIVE)


@pytest.mark.parametrize("ends", [[2, 1, 5], [2, 3, 6], [-1, 2, 5]], ids=str)
def test_ends_that_do_not_ascend_to_the_rows(ends: list[int], tmp_path: Path) -> None:
    graph = _sorted_rows(6)
    _, x = random_inputs(graph, B=5)
    given: list[Any] = [np.array(ends), x]
    with pytest.raises(InputValueError, match="rows of an expert"):
        run_graph(graph, given)
    with pytest.raises(InputValueError, match="rows of an expert"):
        build(emit(graph), native_levels()[-1], tmp_path).context(2).run(given)
