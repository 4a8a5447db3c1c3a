"""The tables of `graphopt balance`."""

import io

from rich.console import Console

from graphopt.bench.balance import balance_table, overview_table
from graphopt.compiler.schedule import StepBalance


def steps(cores, linear, norm):
    """Two equal products and a norm that take so long, of 8 and 2 seconds of work."""
    return [
        *(
            StepBalance("linear", "go_gemm_qa8", "[8]", (4,), 6.0, 8.0, linear, cores)
            for _ in range(2)
        ),
        StepBalance("norm", "go_norm", "[8]", (2, 3), 2.0, 2.0, norm, cores),
        StepBalance("view", "", "[8]", (), 0.0, 0.0, 0.0, cores),
    ]


def lines(table):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]


def test_equal_steps_are_one_line():
    text = lines(balance_table("t", steps(4, 2.5, 1.0)))
    assert "linear gemm_qa8 [8] 2 4 2500000.0 83.3 % 80.0 %" in text
    assert "norm norm [8] 1 2 + 3 1000000.0 16.7 % 50.0 %" in text


def test_overview_has_a_line_for_each_op_and_the_speed_up():
    text = lines(overview_table("t", {4: steps(4, 2.5, 1.0)}))
    assert "linear 85.7 % 83.3 % 80.0 %" in text
    assert "norm 14.3 % 16.7 % 50.0 %" in text
    assert "all 14000.0 ms 2.3 x 75.0 %" in text
    assert not any(line.startswith("view") for line in text)
