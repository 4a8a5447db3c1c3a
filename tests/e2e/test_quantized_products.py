"""Products that quantize their own rows, in whole models: the bits of two steps."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphopt

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt.frontend.import_torch import to_numpy  # noqa: E402
from graphopt.ir.ops import Linear, QuantizeRows  # noqa: E402
from graphopt.passes import fuse_quantize  # noqa: E402
from graphopt.zoo import fsmn_vad, paraformer  # noqa: E402

pytestmark = pytest.mark.usefixtures("captured_once")
FRAMES = 700  # more than the buffers of one, two and five threads hold


@cache
def vad() -> tuple[Any, Any]:
    features = torch.randn(1, FRAMES, 400, generator=torch.Generator().manual_seed(0))
    model = fsmn_vad.load_vad()
    return model.model.encoder, fsmn_vad.encoder_inputs(model, features)


@cache
def encoder() -> tuple[Any, Any]:
    return paraformer.paraformer_large(2, 1)[0], paraformer.example_inputs(frames=90, batch=2)


def program_of(model: Any, inputs: Any, precision: str) -> Any:
    fast = graphopt.optimize(model, precision=precision, example_inputs=inputs, strict=True)
    fast(*inputs)
    (form,) = fast._captured()
    ((_, program, _),) = form._programs()
    return program


def quantizing(program: Any) -> int:
    """Products that quantize their rows."""
    return sum(isinstance(n.op, Linear) and n.output.packed == "qa8r" for n in program.graph.nodes)


@pytest.mark.parametrize("precision", ["int8", "int8+bf16"])
@pytest.mark.parametrize(("make", "fewest"), [(vad, 6), (encoder, 2)])
def test_one_step_has_the_bits_of_two(
    make: Any, fewest: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two steps pass on f32: no other value in front of a quantization is bf16 either."""
    monkeypatch.setattr(QuantizeRows, "OPERANDS", (replace(QuantizeRows.OPERANDS[0], bf16=False),))
    monkeypatch.setattr(fuse_quantize, "LARGEST_WEIGHT", 1 << 20)  # Paraformer's 512 to 2048
    model, inputs = make()
    fused = program_of(model, inputs, precision)
    monkeypatch.setenv("GRAPHOPT_SKIP", "fuse_quantize")
    stored = program_of(model, inputs, precision)
    assert quantizing(fused) >= fewest and quantizing(stored) == 0
    arrays = [to_numpy(t) for t in torch.utils._pytree.tree_leaves(inputs)]
    want = stored.run(arrays)
    for threads in (1, 2, 5):
        for got, expected in zip(fused.library.context(threads).run(arrays), want, strict=True):
            assert np.array_equal(got, expected)
