"""What the demo and the command line print: names of groups, sums, rates."""

import io
import time

import pytest
from rich.console import Console
from rich.table import Table

from graphopt.bench import profile
from graphopt.compiler.report import NodeReport, Report
from graphopt.module_group import module_group
from graphopt.progress import announce, progress_to


def shown(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=160).print(table)
    return text.getvalue()


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("model.encoders.31.self_attn.linear_out", "model.encoders.*.self_attn"),
        ("model.encoders.31", "model.encoders.*"),
        ("model.encoders0.0.norm1", "model.encoders0.*.norm1"),
        ("layers.2.experts.7.up", "layers.*.experts"),
        ("0", "*"),
        ("3.1", "*"),
        ("0.layers.4.up", "*.layers"),
        ("output_layer", "output_layer"),
        ("in_linear1.linear", "in_linear1.linear"),
        ("", ""),
    ],
)
def test_module_group(path: str, group: str) -> None:
    assert module_group(path) == group


def test_nodes_add_up_by_op_and_kernel() -> None:
    node = {"op": "go.linear", "kernel": "go_gemm_qa8", "module": "a.0.b", "ms": 1.5, "macs": 10**9}
    other = {"op": "go.cat", "kernel": "loop", "module": "", "ms": 0.5}
    rows = profile.profile_compiled([other, node, {**node, "module": "a.1.b"}])
    assert rows == [
        profile.OpTime("linear", "gemm_qa8", 2, 3.0, 2 * 10**9),
        profile.OpTime("cat", "loop", 1, 0.5, 0),
    ]
    assert profile.modules_of([other, node, node]) == {"": 0.5, "a.*.b": 3.0}
    table = shown(profile.op_table("t", rows))
    assert "667" in table and "85.7 %" in table  # 2e9 MACs in 3 ms; 3 of 3.5 ms
    assert "571" in table and "100.0 %" in table  # 2e9 MACs in 3.5 ms


def test_long_tables_add_up_the_rest() -> None:
    rows = [profile.OpTime(f"op{i}", "", 1, 10.0 - i, 0) for i in range(6)]
    table = shown(profile.op_table("t", rows, limit=3))
    assert "op2" in table and "op3" not in table and "3 others" in table
    assert "18.00" in table and "45.00" in table
    assert "GMAC/s" not in table


def test_modules_side_by_side() -> None:
    table = shown(profile.module_table("t", {"a": 3.0, "b": 0.5}, {"a": 1.5, "": 0.1}))
    line = {row.split()[1]: row for row in table.splitlines() if row.startswith("│")}
    assert "2.0" in line["a"] and "fused" in line["b"] and "0.10" in line["(outside"]


def test_equal_nodes_share_a_row_and_torch_comes_first() -> None:
    row = NodeReport("%1", "go.linear", True, "go_gemm_f32", "f32[B]", "a.0.b", "", ("p: why",))
    view = NodeReport("%2", "go.permute", True, "view", "f32[B]", "", "", ())
    torch = NodeReport("%3", "aten.sort", False, "torch", "f32[B]", "c", "m.py:7", ("no rule",))
    rows = (row, NodeReport(**{**row.__dict__, "module": "a.1.b"}), view, torch)
    table = shown(Report("m", "native", "fp32", ("scalar",), rows).summary())
    lines = [line for line in table.splitlines() if line.startswith("│")]
    assert "aten.sort" in lines[0] and "m.py:7" in lines[0] and "no rule" in lines[0]
    assert lines[1].split("│")[1:5] == [" linear    ", " gemm_f32 ", "     2 ", " a.*.b  "]
    assert len(lines) == 2 and "3 of 4 nodes compiled" in table


def test_progress_reaches_listeners_while_they_listen() -> None:
    heard: list[str] = []
    announce("before")
    with progress_to(heard.append):
        announce("during")
    announce("after")
    assert heard == ["during"]


def test_torch_times_belong_to_the_module_that_spends_them() -> None:
    torch = pytest.importorskip("torch")

    class Slow(torch.nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(self.seconds)
            return x

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([Slow(0.01), Slow(0.01)])
            self.last = Slow(0.03)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.blocks[1](self.blocks[0](x)))

    model = Outer()
    times = profile.profile_torch_modules(model, (torch.zeros(1),))
    assert times["blocks.*"] > 19 and times["last"] > 29 and times[""] < 10
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_torch_operators_with_their_rate() -> None:
    torch = pytest.importorskip("torch")
    rows = profile.profile_torch(torch.nn.Linear(64, 32).eval(), (torch.ones(8, 64),))
    (product,) = [row for row in rows if row.op == "aten::addmm"]
    assert product.calls == 1 and product.macs == 8 * 64 * 32 and product.ms > 0
    assert rows == sorted(rows, key=lambda row: -row.ms)
