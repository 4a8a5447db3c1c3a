"""The parts of ``graphopt bench funasr`` on a tiny model, and the model of Arm cores by hand."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.bench import arm_model, recipe
from graphopt.bench.arm_model import arithmetic_cycles, step_costs
from graphopt.bench.arm_specs import spec_of, specs_of
from graphopt.bench.engines import Graphopt
from graphopt.bench.machine import Machine
from graphopt.compiler.schedule import StepBalance

LINEAR = {
    "op": "go.linear",
    "scheme": "int8",
    "group": 0,
    "memory_bytes": 2048 * 512,
    "bytes": 0,
    "inputs": [((1, 100, 512), "qa8r"), ((2048, 512), "f32")],
    "outputs": [((1, 100, 2048), "f32")],
}
CONV = {
    "op": "go.depthwise",
    "scheme": "f32",
    "memory_bytes": 0,
    "bytes": 0,
    "inputs": [((2, 100, 512), "f32"), ((11, 512), "f32")],
    "outputs": [((2, 100, 512), "f32")],
}
LOOP = {"op": "go.pointwise", "memory_bytes": 0, "bytes": 1600, "inputs": [], "outputs": []}


def product(rows: int, n: int, k: int, group: int = 0) -> dict[str, Any]:
    """A step with int4 weights."""
    sizes = {"inputs": [((rows, k), "qa8r"), ((n, k), "i8")], "outputs": [((rows, n), "f32")]}
    return {"op": "go.linear", "scheme": "int4", "group": group, **sizes}


class FixedPrices:
    """A thousand cycles for any kernel."""

    def cycles(self, spec: Any) -> int:
        return 1000


def balance(value: float, cores: int) -> StepBalance:
    return StepBalance("", "", "", (1,), value * cores, value * cores, 1.0, cores)


@pytest.mark.parametrize(
    ("step", "name", "times"),
    [
        (LINEAR, "int8 48x256x512", 104 / 48 * 8),
        (product(9, 64, 32), "int4 16x64x32", 1),
        (product(1, 2048, 8192, 32), "int4 1x256x8192 g32", 8),
        (product(1, 1000, 2048, 64), "int4 1x1000x2048 g64", 1),
        (product(4, 5000, 1024), "int4 4x512x1024", 5008 / 512),
    ],
)
def test_a_sample_of_whole_tiles_of_a_product_is_priced(
    step: dict[str, Any], name: str, times: float
) -> None:
    spec, found = spec_of(step)
    assert spec is not None and (spec.name, found) == (name, times)


def test_a_dozen_tiles_of_a_convolution_are_priced() -> None:
    result, weight = ((2, 128, 28, 27), "f32"), ((128, 64, 3, 3), "f32")
    step = {"op": "go.conv", "inputs": [result, weight], "outputs": [result], "winograd": True}
    spec, times = spec_of(step)
    assert spec is not None
    assert spec.name == "conv f32 64-64 3x3 of 12x16 /1 winograd"
    assert times == 2 * 7 * 7 / 12 * 128 / 64


def test_one_head_of_keys_is_priced() -> None:
    heads = [((2, 4, 40, 128), "f32"), ((2, 4, 167, 128), "f32")]
    step = {"op": "go.attention", "inputs": heads, "outputs": heads[:1], "causal": False}
    spec, times = spec_of(step)
    assert spec is not None and (spec.name, times) == ("attention f32 1/1x128 T=40:167", 8)
    q, cache = ((1, 3, 9, 64), "bf16"), ((30, 2, 1, 512, 3, 64), "bf16")
    step = {"op": "go.cached_attention", "inputs": [q, (), (), cache], "outputs": [q], "keys": 163}
    spec, times = spec_of(step)
    assert spec is not None and (spec.name, times) == ("attention bf16 3/1x64 T=3:163 causal", 3)
    step = {"op": "go.rope", "inputs": [q, ((1, 3, 3, 64), "f32")], "outputs": [q]}
    spec, times = spec_of(step)
    assert spec is not None and (spec.name, times) == ("rope bf16 3x9/3x64", 1)


def test_rows_of_a_norm_are_priced() -> None:
    rows = [((2, 48, 64), "f32")]
    step = {"op": "go.norm", "inputs": rows, "outputs": [((2, 48, 64), "qa8r")], "rms": True}
    spec, times = spec_of(step)
    assert spec is not None and (spec.name, times) == ("rms norm+quantize 48x64", 2)


@pytest.mark.parametrize("op", ["go.quantize_rows", "go.pointwise"])
def test_rows_that_are_quantized_are_priced(op: str) -> None:
    operands = [((2, 48, 1), "f32"), ((2, 48, 64), "f32")]
    step = {"op": op, "inputs": operands, "outputs": [((2, 48, 64), "qa8r")], "bytes": 320}
    spec, times = spec_of(step)
    assert spec is not None and (spec.name, times) == ("quantize 48x64", 2)
    prices: Any = FixedPrices()
    cycles = arithmetic_cycles(step, prices, machine_of(bytes_per_cycle=16))
    assert cycles == 2000 + (20 if op == "go.pointwise" else 0)  # it computes them too


def test_a_product_that_quantizes_costs_both() -> None:
    step = {**LINEAR, "outputs": [((2, 96, 2048), "qa8r")]}
    assert [(s.name, n) for s, n in specs_of(step)] == [
        ("int8 48x256x512", 4 * 8),
        ("quantize 48x2048", 4),
    ]
    assert specs_of(LOOP) == []


def machine_of(**values: float) -> Machine:
    machine = Machine()
    for name, value in values.items():
        machine = machine.known(name, value, "made up")
    return machine


def test_arithmetic_and_weights_on_cores() -> None:
    prices: Any = FixedPrices()
    machine = machine_of(clock=1e9, core_bandwidth=1e9, socket_bandwidth=4e9, bytes_per_cycle=16)
    one = [c.cycles for c in step_costs([LINEAR, CONV, LOOP], None, prices, machine, 1)]
    assert one == [2048 * 512, 2000, 100]  # a product of so few cycles waits for its weights
    shared = [balance(0.5, 16)] * 3
    many = [c.cycles for c in step_costs([LINEAR, CONV, LOOP], shared, prices, machine, 16)]
    assert many == [2048 * 512 / 4, 2000 / 8, 100 / 8]
    serial = step_costs([LINEAR, CONV, LOOP], shared, prices, machine, 16, serial_conv=True)
    assert serial[1].cycles == 2000


def test_shares_add_up() -> None:
    found = recipe.shares([("go.linear", 3.0), ("go.conv", 1.0), ("go.pointwise", 4.0)])
    assert found["GEMM"] == 3 / 8 and found["other"] == 0.5
    assert sum(found.values()) == 1.0


def test_prices_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.bench.kernels.workloads import Gemm
    from graphopt.target import find_target
    from graphopt.toolchain.build import Builder

    asked = []

    def price_step(*given: Any) -> Any:
        asked.append(given)
        return type("Price", (), {"cycles": 7})

    monkeypatch.setattr(arm_model, "price_step", price_step)
    monkeypatch.setattr(Builder, "kernel_object", lambda *_: Path("gemm-0123.o"))
    target, file = find_target("neoverse-n2"), tmp_path / "prices.json"
    for _ in range(2):
        prices = arm_model.Prices(target, Builder(tmp_path, 1), file)
        assert prices.cycles(Gemm("f32", 8, 16, 16)) == 7
    assert len(asked) == 1
    prices, other = (arm_model.Prices(target, Builder(tmp_path, 1), file) for _ in range(2))
    prices.cycles(Gemm("f32", 9, 16, 16))
    other.cycles(Gemm("f32", 10, 16, 16))
    assert len(arm_model.Prices(target, Builder(tmp_path, 1), file).known) == 3
    assert list(tmp_path.glob("prices.*")) == [file]
    monkeypatch.setattr(Gemm, "build", None)  # no operands are made for a size that is known
    assert prices.cycles(Gemm("f32", 9, 16, 16)) == 7


def test_recipe_and_whole_graph_of_a_tiny_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("funasr")
    from rich.console import Console

    from graphopt.bench.funasr import FunasrBench

    console = Console(record=True, width=180, quiet=True)
    bench = FunasrBench(console, tmp_path, 2, 1, lambda _: None)
    whole = bench.whole(["graphopt fp32"], [1], 1, [3], [2])
    engines = {one["engine"]: one for one in whole[0]["results"]}
    assert engines["graphopt fp32"]["errors"]["hidden"] < 1e-5
    assert engines["graphopt fp32"]["errors"]["tokens"] == 0
    monkeypatch.setattr(recipe, "STEPS", (recipe.STEPS[0], recipe.STEPS[-1]))
    (found,) = bench.recipe(1, 1, 3, 1)
    assert len(found["results"]) == len(recipe.STEPS)
    for result, shares in zip(found["results"], found["shares"], strict=True):
        assert not result["missing"]
        assert sum(shares.values()) == pytest.approx(1)
        assert result["errors"]["hidden"] < 0.1


def test_speech_has_about_four_tokens_a_second() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("funasr")
    from graphopt.funasr.layers.paraformer import Paraformer
    from graphopt.zoo import paraformer

    model = Paraformer(paraformer.whole_paraformer(2, 1))
    with torch.inference_mode():
        counts = model(*paraformer.example_inputs(200, 2))[1].numpy()
    assert np.all((counts > [30, 20]) & (counts < [70, 55])), counts  # 12 and 9 seconds


def test_errors_by_block_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("funasr")
    from rich.console import Console

    from graphopt.bench import layers
    from graphopt.bench.funasr import FunasrBench

    monkeypatch.setattr(layers, "own_engines", lambda: [Graphopt("int8")])
    console = Console(record=True, width=180, file=io.StringIO())
    (found,) = FunasrBench(console, tmp_path, 2, 1, lambda _: None).error(1, 3)
    blocks = [f"encoder_block_{i}" for i in (1, 2)] + ["encoder_output"]
    blocks += [f"decoder_block_{i}" for i in (1, 2)] + [
        "decoder_output"
    ]  # the last has no attention
    for name, errors in found["errors"].items():
        assert list(errors) == blocks, name
        assert all(0 < error < 0.3 for error in errors.values()), name
    assert {"graphopt int8", "torch.ao int8"} <= set(found["errors"])
    assert "graphopt int8: error no larger than that of torch.ao int8" in console.export_text()


def test_verdict_names_where_a_peer_is_closer() -> None:
    from graphopt.bench.layers import verdict

    errors = {"graphopt int8": {"a": 1.0, "b": 3.0}, "torch.ao int8": {"a": 2.0, "b": 2.0}}
    assert verdict("graphopt int8", errors).endswith("larger than a peer's at b (torch.ao int8)")
    errors["torch.ao int8"]["b"] = 3.0
    assert "no larger than that of torch.ao int8 at each of 2" in verdict("graphopt int8", errors)
