"""FunASR's own export of a small Paraformer, and its int8 recipe: in parts, as onnxruntime."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("funasr")
ort = pytest.importorskip("onnxruntime")

import onnx  # noqa: E402
import torch  # noqa: E402
from funasr.models.paraformer.model import Paraformer  # noqa: E402
from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: E402

import graphopt  # noqa: E402
from graphopt.testing import FP32_RELATIVE, relative_error  # noqa: E402

LAYERS = {
    "attention_heads": 2,
    "linear_units": 48,
    "kernel_size": 5,
    "sanm_shfit": 0,
}
CONFIG: dict[str, Any] = {
    "encoder": "SANMEncoder",
    "encoder_conf": {
        **LAYERS,
        "output_size": 32,
        "num_blocks": 2,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "selfattention_layer_type": "sanm",
    },
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {**LAYERS, "num_blocks": 1, "att_layer_num": 1},
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": 32, "threshold": 1.0, "l_order": 1, "r_order": 1},
    "predictor_bias": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("paraformer")
    torch.manual_seed(0)
    model = Paraformer(input_size=560, vocab_size=20, ctc_weight=0.0, **CONFIG).eval()
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        part = model.export(type="onnx", **CONFIG)
        part = (part[0] if isinstance(part, list | tuple) else part).eval()
        torch.onnx.export(
            part,
            part.export_dummy_inputs(),
            place / "model.onnx",
            dynamo=False,
            opset_version=14,
            input_names=part.export_input_names(),
            output_names=part.export_output_names(),
            dynamic_axes=part.export_dynamic_axes(),
        )
        names = [node.name for node in onnx.load(place / "model.onnx").graph.node]
        quantize_dynamic(
            place / "model.onnx",
            place / "model_quant.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=[name for name in names if "output" in name],
        )
    logging.disable(logging.NOTSET)
    return place


@pytest.mark.parametrize(
    ("file", "precision", "bound"),
    [
        ("model.onnx", "fp32", FP32_RELATIVE),
        ("model_quant.onnx", "int8", 0.05),  # the file itself is that far from the floats
    ],
)
def test_a_recognizer_runs_in_parts(folder: Path, file: str, precision: str, bound: float) -> None:
    """Interpreted, so that no region has to be built."""
    fast = graphopt.optimize(folder / file, target="neoverse-n2", precision=precision)
    left = [row for row in fast.report() if not row.compiled]
    assert 0 < len(left) < 8
    session = ort.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for lengths in ([30, 21], [13]):
        speech = generator.standard_normal((len(lengths), max(lengths), 560), np.float32)
        feeds = {"speech": speech, "speech_lengths": np.array(lengths, np.int32)}
        logits, tokens = fast.interpret(**feeds)
        wanted, its = session.run(None, feeds)
        assert np.array_equal(tokens, its) and logits.shape == wanted.shape
        assert relative_error(logits, wanted) < bound
