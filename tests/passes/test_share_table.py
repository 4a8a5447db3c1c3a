"""An embedding in the packed weights of a head: the rewrite, its rows, and what is left alone."""

from pathlib import Path

import numpy as np
from graphs import check_left_alone, check_native, tied

from graphopt.ir.interpret import run_graph
from graphopt.ir.printer import print_graph
from graphopt.kernels import reference
from graphopt.passes.quantize_dynamic_int8 import QuantizeDynamicInt8
from graphopt.passes.share_table import ShareTable


def test_the_table_is_that_of_the_linear(golden) -> None:
    graph = tied()
    QuantizeDynamicInt8().run(graph)
    assert ShareTable().run(graph)
    golden("share_table", print_graph(graph, reasons=True))
    check_left_alone(ShareTable(), graph)
    table = graph.nodes[0].inputs[0].data
    tokens = np.array([[3, 36, 0], [3, 3, 17]])
    found = run_graph(graph, [tokens, np.ones((2, 40), np.float32)])[0]
    whole = reference.quantize_channels(table)
    np.testing.assert_array_equal(found, (whole.scale[:, None] * whole.q)[tokens])


def test_packed_rows_are_read(tmp_path: Path) -> None:
    graph = tied()
    QuantizeDynamicInt8().run(graph)
    ShareTable().run(graph)
    module = check_native(graph, tmp_path, sizes=({}, {"B": 1, "T": 1}), bound=1e-6)
    assert module.memory.weights.bytes < 2 * 64 * 40  # the table is there once, in int8


def test_a_table_in_f32_is_left_alone() -> None:
    check_left_alone(ShareTable(), tied())
