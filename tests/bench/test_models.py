"""``graphopt bench models`` on tiny networks; times are not looked at."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch import nn

from graphopt.bench import models
from graphopt.bench.engines import relative_error
from graphopt.bench.measure import Result
from graphopt.errors import BenchmarkError
from graphopt.zoo.official import catalog


def tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))


def absent() -> nn.Module:
    return catalog.require("funasr_onnx", "a network of somebody else's")


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (2, 3, 10, 12)
    monkeypatch.setitem(
        catalog.NETWORKS, "tiny", catalog.Network("a tiny one", tiny, shape, result="")
    )
    monkeypatch.setitem(catalog.NETWORKS, "absent", catalog.Network("no one", absent, shape))


def test_networks_are_measured_and_compared(networks: None, tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    words = ["onnxruntime", "openvino fp32", "graphopt fp32"]
    found = models.bench(console, ["absent", "tiny"], words, [1], 1, tmp_path, lambda _: None)
    assert "funasr_onnx" in found[0]["missing"] and "results" not in found[0]
    rows: dict[str, Any] = {row["engine"]: row for row in found[1]["results"]}
    exact = ["onnxruntime fp32", "onnxruntime int8", "openvino fp32", "graphopt fp32"]
    assert list(rows) == [
        "torch fp32",
        *exact[:2],
        "onnxruntime int8 of convolutions",
        *exact[2:],
    ]
    assert not any(row["missing"] for row in rows.values())
    assert all(rows[name]["errors"]["y"] < 1e-5 for name in exact)
    # 8-bit weights and activations
    assert 1e-5 < rows["onnxruntime int8 of convolutions"]["errors"]["y"] < 5e-2
    text = console.export_text()
    assert "no one: missing" in text and "a tiny one" in text


def test_outputs_of_other_shapes_are_not_compared() -> None:
    outputs = np.ones((2, 3))
    assert relative_error(outputs, outputs) == 0
    with pytest.raises(BenchmarkError, match=r"shape \(3,\), that of torch \(2, 3\)"):
        relative_error(outputs[0], outputs)


def test_overview_sets_the_fastest_beside_each_other() -> None:
    def row(engine: str, milliseconds: float, missing: str = "") -> Result:
        return Result(engine, 1, seconds=[milliseconds / 1000], missing=missing)

    results = [
        row("torch fp32", 9),
        row("openvino fp32", 3),
        row("openvino default", 2),
        row("onnxruntime int8", 0, "no memory"),
        row("graphopt fp32", 4),
        row("graphopt int8", 1),
    ]
    console = Console(record=True, width=200)
    console.print(models.overview({"net": results, "alone": results[:1]}, 1))
    text = console.export_text()
    for cell in ("4.0 graphopt fp32", "3.0 openvino fp32", "0.75", "1.0 graphopt int8", "2.00"):
        assert cell in text


def test_statistics_of_batch_norms_matter() -> None:
    """Those of a new network would leave out what batch norms do."""
    module, (x,) = catalog.build("mobilenet-v3")
    assert x.shape == (1, 3, 224, 224)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and all(part.running_var.std() > 0.1 for part in norms)
    assert not module.training
