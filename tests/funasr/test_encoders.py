"""FunASR's encoders as modules: masks by lengths that a call gives, whole and right at any size."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
nets_utils = pytest.importorskip("funasr.models.transformer.utils.nets_utils")

from captured import arrays, lowered  # noqa: E402
from funasr.models.sanm.encoder import SANMEncoder  # noqa: E402
from funasr.models.transformer.encoder import TransformerEncoder  # noqa: E402
from graphs import assert_close  # noqa: E402

import graphopt.funasr.adapter  # noqa: E402, F401
from graphopt.frontend.capture import capture  # noqa: E402
from graphopt.frontend.replaced_functions import replaced_functions  # noqa: E402
from graphopt.ir.interpret import run_graph  # noqa: E402
from graphopt.testing import FP32_RELATIVE  # noqa: E402

SIZES = {
    "input_size": 20,
    "output_size": 16,
    "attention_heads": 2,
    "linear_units": 32,
    "num_blocks": 1,
}


def example(time: int, *lengths: int) -> tuple[Any, Any]:
    torch.manual_seed(time)
    return torch.randn(len(lengths), time, 20), torch.tensor(lengths)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TransformerEncoder(**SIZES),  # a mask that is cut as two convolutions cut
        lambda: SANMEncoder(input_layer="pe", **SIZES),
    ],
    ids=["transformer", "sanm"],
)
def test_an_encoder_is_captured_whole_with_lengths_of_their_own(make: Any) -> None:
    torch.manual_seed(0)
    model = make().eval()
    graph = lowered(capture(model, example(33, 33, 20)).graph)
    assert all(node.is_lowered for node in graph.nodes)
    for given in (example(33, 33, 20), example(41, 17, 41, 30)):
        with torch.no_grad():
            encoded, lengths, *_ = model(*given)
        made = run_graph(graph, arrays(given))
        assert_close(made[:2], [encoded.numpy(), lengths.numpy()], FP32_RELATIVE)


@pytest.mark.parametrize(
    "arguments", [{}, {"maxlen": 7}, {"xs": torch.zeros(2, 6, 3), "length_dim": 1}]
)
def test_masks_are_those_of_funasr(arguments: Any) -> None:
    lengths, own = torch.tensor([5, 2]), nets_utils.make_pad_mask
    with replaced_functions():
        assert nets_utils.make_pad_mask is not own
        mask = nets_utils.make_pad_mask(lengths, **arguments)
    assert nets_utils.make_pad_mask is own
    assert torch.equal(mask, own(lengths, **arguments))
