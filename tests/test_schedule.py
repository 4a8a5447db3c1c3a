"""How tasks fall on cores: the simulator, and what it sees of real kernels."""

import numpy as np
import pytest

from graphopt.compiler.schedule import Phase, StepBalance, makespan


def test_a_core_works_through_its_own_share_and_then_through_the_others() -> None:
    assert makespan(Phase((3.0, 1.0, 1.0, 1.0)), 2) == 3.0
    assert makespan(Phase((1.0, 1.0, 1.0, 3.0)), 2) == 4.0
    assert makespan(Phase((2.0, 2.0, 1.0, 1.0)), 2) == 4.0
    assert makespan(Phase((2.0, 2.0, 2.0, 1.0, 0.0, 0.0)), 2) == 4.0
    assert makespan(Phase(()), 4) == 0.0


def test_every_core_that_works_begins_cold() -> None:
    phase = Phase((1.0, 1.0, 1.0), 0.5)
    assert [makespan(phase, cores) for cores in (1, 2, 3, 4)] == [3.5, 2.5, 1.5, 1.5]
    assert [phase.work(cores) for cores in (1, 2, 3, 4)] == [3.5, 4.0, 4.5, 4.5]


def test_balance_is_work_over_what_the_cores_could_do() -> None:
    row = StepBalance("norm", "go_norm", "[8]", (3,), 2.5, work=3.0, makespan=2.0, cores=2)
    assert row.balance == 0.75
    assert StepBalance("view", "view", "", (), 0.0, 0.0, 0.0, 2).balance == 1.0


@pytest.fixture(scope="module")
def layer():
    torch = pytest.importorskip("torch")
    import graphopt

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.LayerNorm(2048)).eval()
    x = torch.randn(167, 512)
    return graphopt.optimize(model, precision="int8", example_inputs=(x,), strict=True), x


def test_real_kernels_cut_their_work_for_the_cores(layer) -> None:
    fast, x = layer
    one, many = fast.balance(x, cores=1, repeats=1), fast.balance(x, cores=16, repeats=3)
    assert [row.op for row in one] == [row.op for row in many]
    linear = next(i for i, row in enumerate(one) if row.op == "linear")
    assert one[linear].balance == pytest.approx(1)
    assert sum(many[linear].tasks) >= 16 > sum(one[linear].tasks)
    for cores in (16, 24, 48):  # no core idles while others do a last round of tasks
        row = fast.balance(x, cores=cores, repeats=1)[linear]
        tasks = sum(row.tasks)
        assert tasks >= 0.85 * cores * -(-tasks // cores), (cores, tasks)
    for row in many:
        assert 0 < row.balance <= 1 and row.cores == 16


def test_a_product_that_quantizes_has_a_phase_or_two() -> None:
    """One core owns its rows; 16 share few rows and quantize them behind a barrier."""
    torch = pytest.importorskip("torch")
    import graphopt

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 64)
    )
    x = torch.randn(50, 256)
    fast = graphopt.optimize(model.eval(), precision="int8", example_inputs=(x,), strict=True)
    one, many = (
        next(row for row in fast.balance(x, cores=n, repeats=1) if row.op == "linear")
        for n in (1, 16)
    )
    assert len(one.tasks) == 1 and len(many.tasks) == 2


def test_tracing_leaves_the_module_alone(layer) -> None:
    fast, x = layer
    before = fast(x).numpy()
    fast.balance(x, cores=3, repeats=1)
    assert np.array_equal(fast(x).numpy(), before)


def test_no_cores_are_refused(layer) -> None:
    from graphopt.errors import ThreadCountError

    fast, x = layer
    with pytest.raises(ThreadCountError):
        fast.balance(x, cores=0)
