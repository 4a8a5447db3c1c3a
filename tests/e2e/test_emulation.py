"""Code built for neoverse-n2, run under qemu, against this machine's kernels on the same plan."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.errors import EmptyInputError, InputDtypeError, InputShapeError
from graphopt.target import Target

torch = pytest.importorskip("torch")
pytest.importorskip("funasr")

from graphopt.testing import EMULATED_BF16, EMULATED_INT8_BF16, relative_error  # noqa: E402
from graphopt.zoo import fsmn_vad, paraformer  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("captured_once"),
    pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="qemu-aarch64 is not installed"),
    pytest.mark.filterwarnings("ignore::graphopt.compiler.program.OtherMachineWarning"),
]

MODELS = ["vad", "encoder", "decoder"]
PRECISIONS = ["fp32", "int8", "int8+bf16"]
#: Of f32 products whose sums are rounded in another order and number, up to 96 deep.
EMULATED_F32_PAIRS = 96 * 2.0**-24
# (level, bits of an SVE vector)
MACHINES = [("sve2", 128), ("sve2", 256), ("neon_i8mm", 128), ("scalar", 128)]


@pytest.fixture(scope="module")
def models() -> Any:
    """Name -> model, and a function that makes its arguments anew."""
    vad = fsmn_vad.load_vad()
    features = torch.randn(2, 11, 400, generator=torch.Generator().manual_seed(0))
    encoder, decoder = paraformer.paraformer_large(blocks=2, decoder_blocks=2)
    speech = paraformer.example_inputs(frames=9, batch=2)
    with torch.inference_mode():
        memory, lengths = (t.clone() for t in encoder(*speech))
    words = paraformer.decoder_inputs(memory, lengths, tokens=3)
    return {
        "vad": (vad.model.encoder, lambda: fsmn_vad.encoder_inputs(vad, features)),
        "encoder": (encoder, lambda: speech),
        "decoder": (decoder, lambda: words),
    }


@pytest.fixture(scope="module")
def arm(models: Any) -> Any:
    """(name, precision) -> the module built for neoverse-n2 and this machine's result."""
    made: dict[Any, Any] = {}

    def build(name: str, precision: str) -> Any:
        if (name, precision) not in made:
            model, inputs = models[name]
            fast = graphopt.optimize(
                model,
                target="neoverse-n2",
                precision=precision,
                example_inputs=inputs(),
                strict=True,
            )
            made[name, precision] = fast, arrays(fast(*inputs()))
        return made[name, precision]

    return build


def arrays(result: Any) -> list[np.ndarray]:
    return [t.numpy() for t in torch.utils._pytree.tree_leaves(result)]


@pytest.mark.parametrize(("level", "sve_bits"), MACHINES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MODELS)
def test_arm_code_computes_what_this_machine_does(
    models: Any, arm: Any, name: str, precision: str, level: str, sve_bits: int
) -> None:
    """To the bit, but for attention in bf16: its products are BFMMLA's."""
    fast, expected = arm(name, precision)
    arguments = models[name][1]()
    got = arrays(fast.emulate(*arguments, level=level, sve_bits=sve_bits))
    assert len(got) == len(expected)
    matrices = precision == "int8+bf16" and level != "scalar" and name != "vad"
    for one, two in zip(got, expected, strict=True):
        assert one.dtype == two.dtype
        if matrices and one.dtype == np.float32:
            assert relative_error(one, two) < EMULATED_INT8_BF16
        else:
            assert np.array_equal(one, two)


@pytest.mark.parametrize(("level", "sve_bits"), MACHINES)
@pytest.mark.parametrize("name", ["vad", "encoder"])
def test_bf16_matrix_instructions_round_in_their_own_way(
    models: Any, arm: Any, name: str, level: str, sve_bits: int
) -> None:
    fast, expected = arm(name, "bf16")
    got = arrays(fast.emulate(*models[name][1](), level=level, sve_bits=sve_bits))
    assert relative_error(got[0], expected[0]) < EMULATED_BF16


#: For cores of other families: (target, level, bits of a vector, precisions).
SME = Target("sme", "aarch64", ("scalar", "sme"), True, True, 1)
FMMLA = Target("fmmla", "aarch64", ("scalar", "sve_f32mm"), True, True, 1)
FAMILIES = [
    *(("neoverse-n1", "neon_dotprod", 128, precision) for precision in ("fp32", "int8", "int4")),
    *(("neoverse-v1", "sve_i8mm", 256, precision) for precision in ("fp32", "int8", "int4")),
    (SME, "sme", 512, "fp32"),  # int8 needs SMOPA: tests/kernels/smopa.h
    (FMMLA, "sve_f32mm", 256, "fp32"),
]


@pytest.mark.parametrize(("target", "level", "bits", "precision"), FAMILIES)
def test_code_for_other_families_of_cores(
    target: str | Target, level: str, bits: int, precision: str
) -> None:
    """To the bit, but for the f32 products of FMMLA."""
    torch.manual_seed(0)
    layers = (
        torch.nn.Linear(96, 64),
        torch.nn.LayerNorm(64),
        torch.nn.GELU(),
        torch.nn.Linear(64, 40),
    )
    model, inputs = torch.nn.Sequential(*layers).eval(), (torch.randn(2, 11, 96),)
    fast = graphopt.optimize(model, target, inputs, precision=precision, strict=True)
    (one,) = arrays(fast.emulate(*inputs, level=level, sve_bits=bits))
    (two,) = arrays(fast(*inputs))
    if level == "sve_f32mm":
        assert relative_error(one, two) < EMULATED_F32_PAIRS
    else:
        assert np.array_equal(one, two)


def test_a_package_is_emulated_like_the_module(models: Any, arm: Any, tmp_path: Any) -> None:
    fast, expected = arm("vad", "int8")
    fast.save(tmp_path / "vad.gopt")
    loaded = graphopt.load(tmp_path / "vad.gopt")
    feats, cache = models["vad"][1]()
    kept = {name: value.clone() for name, value in cache.items()}
    scores = loaded.emulate(feats, cache)
    assert np.array_equal(scores.numpy(), expected[0])
    assert not any(torch.equal(cache[name], kept[name]) for name in kept)
    fast.emulate(feats, kept)
    assert all(torch.equal(cache[name], kept[name]) for name in kept)


def test_emulated_code_refuses_what_the_runtime_refuses(tmp_path: Path) -> None:
    model = torch.nn.Linear(16, 16).eval()
    inputs = (torch.randn(2, 3, 16),)
    arm = graphopt.optimize(model, "neoverse-n2", inputs, precision="fp32")
    arm.save(tmp_path / "linear.gopt")
    loaded = graphopt.load(tmp_path / "linear.gopt")
    with pytest.raises(InputShapeError, match="axis 2"):
        loaded.emulate(torch.randn(2, 3, 15))
    with pytest.raises(EmptyInputError, match="axis 1"):
        loaded.emulate(torch.randn(2, 0, 16))
    with pytest.raises(InputDtypeError, match="float32"):
        loaded.emulate(torch.randn(2, 3, 16).double())
