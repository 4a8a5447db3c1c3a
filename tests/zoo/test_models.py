"""A part of the zoo: models of every family are whole, right, and serve other sizes."""

import pytest

pytest.importorskip("transformers")

from run import prepare
from table import models
from trial import WHOLE, attempts

from graphopt.compiler.bounds import BOUNDS
from graphopt.testing import FP32_RELATIVE

#: Planned and interpreted in f32, without code.
PLANNED = (
    *("wavenet", "mlp-mixer", "vit", "real-nvp", "dcgan", "gru-cell-decoder", "soft-tree"),
    *("gpt2-no-cache", "clip-vision", "dcn-v2"),
)
#: Built in every precision.
BUILT = ("stylegan", "lstm-states", "deepfm")


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    prepare()


@pytest.mark.parametrize("name", [*PLANNED, *BUILT])
def test_a_model_is_whole(name: str) -> None:
    precisions = ["fp32", "int8", "bf16"] if name in BUILT else ["fp32"]
    for row in attempts(name, models()[name], precisions, interpret=name in PLANNED):
        assert (row.kind, row.left, row.others) == (WHOLE, {}, ""), row
        # Of few layers: the bounds of one in f32, and of an example's check otherwise.
        bound = FP32_RELATIVE if row.precision == "fp32" else BOUNDS[row.precision]
        assert row.error <= bound, row
