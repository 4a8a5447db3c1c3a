"""Files of torch's own exporter get the kernels that the module itself gets."""

import io
import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from graphopt.compiler.pipeline import PassManager, lowering_passes  # noqa: E402
from graphopt.config import Config  # noqa: E402
from graphopt.ir import Graph  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.onnx.files import Model  # noqa: E402
from graphopt.onnx.importer import compiled_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE, relative_error  # noqa: E402


class Layer(nn.Module):
    """An encoder layer as FunASR writes it: attention with a memory of its values, by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.memory = nn.Conv1d(16, 16, 5, groups=16, bias=False)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Any, mask: Any) -> Any:
        batch, time, _ = x.shape
        q, k, v = torch.split(self.qkv(self.first(x)), 16, -1)
        column = mask[:, :, None]
        masked = (v * column).transpose(1, 2)
        kept = self.memory(nn.functional.pad(masked, (2, 2))).transpose(1, 2) + v * column
        q, k, v = (z.reshape(batch, time, 2, 8).transpose(1, 2) for z in (q, k, v))
        scores = torch.matmul(q * 8**-0.5, k.transpose(-2, -1))
        scores = scores + (1 - mask)[:, None, None, :] * -10000.0
        heard = torch.matmul(torch.softmax(scores, -1), v).transpose(1, 2)
        x = x + self.out(heard.reshape(batch, time, 16)) + kept * column
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True)
        self.last = nn.GRU(12, 5, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.last(self.both(x)[0])[0]


def exported(model: nn.Module, *args: Any, dynamo: bool = False) -> Graph:
    """The lowered graph of an export with open batch and time.

    Args:
        model: what is exported.
        args: of its forward.
        dynamo: whether by torch.export, as by default since torch 2.9; otherwise as FunASR does it,
            with opset 14.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = _by_tracing(model.eval(), args) if not dynamo else _by_dynamo(model.eval(), args)
    graph = compiled_graph(Model(content, "model")).graph
    return PassManager(Config()).run(graph, lowering_passes())


def _by_tracing(model: nn.Module, args: tuple[Any, ...]) -> onnx.ModelProto:
    names, content = [f"x{i}" for i in range(len(args))], io.BytesIO()
    torch.onnx.export(
        model,
        args,
        content,
        dynamo=False,
        opset_version=14,
        input_names=names,
        dynamic_axes={name: {0: "batch", 1: "time"} for name in names},
    )
    return onnx.load_from_string(content.getvalue())


def _by_dynamo(model: nn.Module, args: tuple[Any, ...]) -> onnx.ModelProto:
    pytest.importorskip("onnxscript")
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    shapes = tuple(axes for _ in args)
    program = torch.onnx.export(model, args, dynamo=True, dynamic_shapes=shapes, verbose=False)
    return program.model_proto


def agrees(model: nn.Module, graph: Graph, *args: Any) -> bool:
    (made,) = run_graph(graph, [a.numpy() for a in args])
    with torch.no_grad():
        wanted = model(*args).numpy()
    return bool(relative_error(np.asarray(made), wanted) < FP32_RELATIVE)


@pytest.mark.parametrize("dynamo", [False, True])
def test_norms_attention_and_memory_of_a_layer_are_recognized(dynamo: bool) -> None:
    torch.manual_seed(0)
    model = Layer()
    graph = exported(model, torch.randn(2, 7, 16), torch.ones(2, 7), dynamo=dynamo)
    ops = Counter(node.op.name for node in graph.nodes)
    wanted = {"go.norm": 2, "go.attention": 1, "go.depthwise": 1, "go.linear": 4}
    assert {name: ops[name] for name in wanted} == wanted
    assert not graph.conditions
    mask = torch.ones(3, 9)
    mask[1, 5:] = 0
    assert agrees(model, graph, torch.randn(3, 9, 16), mask)


def test_recurrent_layers_are_recognized() -> None:
    torch.manual_seed(0)
    model = Recurrent()
    graph = exported(model, torch.randn(2, 5, 8))
    assert sum(node.op.name == "go.recurrent" for node in graph.nodes) == 3
    assert agrees(model, graph, torch.randn(3, 4, 8))
