"""The table of classes of language models."""

import pytest
from decoders import SHAPE

from graphopt.llm.architectures.table import ARCHITECTURES, CUTS, IN_GGUF, IN_TRANSFORMERS
from graphopt.llm.decoder.traits import Traits


@pytest.mark.parametrize("one", ARCHITECTURES, ids=lambda one: one.name)
def test_every_part_of_a_layer_has_a_name_in_every_format(one):
    wanted = one.graph_class.extents(SHAPE).keys() - {"qkv_bias"}  # which has that of its matrix
    formats = [one.transformers and one.transformers.layer, one.gguf and one.gguf.layer, one.meta]
    assert any(formats)
    for layer in filter(None, formats):
        assert layer.keys() == wanted
    assert one.honours <= vars(Traits()).keys()


def test_no_two_classes_have_one_name():
    assert len(IN_TRANSFORMERS) == sum(one.transformers is not None for one in ARCHITECTURES)
    assert len(IN_GGUF) == sum(one.gguf is not None for one in ARCHITECTURES)
    assert len(CUTS) == 2 + sum(len(one.cuts) for one in ARCHITECTURES)
