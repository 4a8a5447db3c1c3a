"""Helium: pairs of a head that are neighbours, which transformers turns as they are."""

import tiny
from test_phi3 import in_numpy, logits
from tiny import prompts, torch

from graphopt.llm.readers.transformers_model import read_decoder


def test_the_graph_gives_the_logits_of_transformers():
    model, ids = tiny.model("Helium"), prompts(2, 30)
    torch.testing.assert_close(
        in_numpy(read_decoder(model), ids), logits(model, ids), rtol=1e-4, atol=2e-5
    )
