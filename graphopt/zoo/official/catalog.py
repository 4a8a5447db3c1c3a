"""Networks by name, with what a pass of them takes.

Weights are random, of a fixed seed. Running means and variances of batch norms are too: those
of a new network would do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphopt.dependencies import keep_process_settings, require

Build = Callable[[], Any]


@dataclass(frozen=True)
class Network:
    """A network and its input.

    Attributes:
        title: What a pass is.
        build: Makes the network, which takes one tensor.
        shape: Of the input.
        vocabulary: Of its whole numbers; 0 where it is f32.
        result: What the network's result calls the tensor to compare; "" if it is the result.
    """

    title: str
    build: Build
    shape: tuple[int, ...]
    vocabulary: int = 0
    result: str = "last_hidden_state"


def _transformers(model: str, config: str, **settings: Any) -> Build:
    def build() -> Any:
        transformers = require("transformers", model)
        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return build


def _own(name: str) -> Build:
    return lambda: getattr(require("graphopt.zoo.official.networks", name), name)()


def _efficientnet() -> Any:
    """EfficientNet-B0, whose last mean is one.

    In transformers it is a pooling of 1280 x 1280 pixels, whatever the image, cut off at its
    edges, which OpenVINO does not take.
    """
    model = _transformers(
        "EfficientNetForImageClassification",
        "EfficientNetConfig",
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_size=224,
        hidden_dim=1280,
        **_CLASSES,
    )()
    model.efficientnet.pooler = require("torch", "EfficientNet").nn.AdaptiveAvgPool2d(1)
    return model


def _campplus() -> Any:
    module = require("funasr.models.campplus.model", "CAM++")
    with keep_process_settings():
        return module.CAMPPlus(feat_dim=80, embedding_size=192)


_IMAGE = (1, 3, 224, 224)
_ENCODER: dict[str, Any] = {"attn_implementation": "sdpa"}
_CLASSES: dict[str, Any] = {"num_labels": 1000}
_image = partial(Network, shape=_IMAGE, result="logits")

NETWORKS: dict[str, Network] = {
    "bert-base": Network(
        "BERT-base, 1 x 128 tokens",
        _transformers("BertModel", "BertConfig", **_ENCODER),
        (1, 128),
        30522,
    ),
    "resnet-50": _image(
        "ResNet-50, 224 x 224",
        _transformers("ResNetForImageClassification", "ResNetConfig", **_CLASSES),
    ),
    "mobilenet-v2": _image(
        "MobileNetV2, 224 x 224",
        _transformers(
            "MobileNetV2ForImageClassification", "MobileNetV2Config", tf_padding=False, **_CLASSES
        ),
    ),
    "vit-base": Network(
        "ViT-base, 224 x 224", _transformers("ViTModel", "ViTConfig", **_ENCODER), _IMAGE
    ),
    "wav2vec2-base": Network(
        "wav2vec2-base, 5 s",
        _transformers("Wav2Vec2Model", "Wav2Vec2Config", **_ENCODER),
        (1, 80_000),
    ),
    "bilstm": Network("BiLSTM, 3 x 512, 4 x 200 frames", _own("BiLstm"), (4, 200, 512), result=""),
    "conformer": Network(
        "Conformer (wav2vec2-BERT, 12 blocks), 300 frames",
        _transformers("Wav2Vec2BertModel", "Wav2Vec2BertConfig", num_hidden_layers=12),
        (1, 300, 160),
    ),
    "convnext-tiny": _image(
        "ConvNeXt-tiny, 224 x 224",
        _transformers("ConvNextForImageClassification", "ConvNextConfig", **_CLASSES),
    ),
    "hubert-base": Network(
        "HuBERT-base, 5 s", _transformers("HubertModel", "HubertConfig", **_ENCODER), (1, 80_000)
    ),
    "mobilenet-v3": _image("MobileNetV3-Large, 224 x 224", _own("MobileNetV3"), result=""),
    "efficientnet-b0": _image("EfficientNet-B0, 224 x 224", _efficientnet),
    "unet": Network(
        "U-Net, 64 to 1024 channels, 256 x 256", _own("UNet"), (1, 3, 256, 256), result=""
    ),
    "hifi-gan": Network(
        "HiFi-GAN V1, 100 frames",
        _transformers(
            "FastSpeech2ConformerHifiGan",
            "FastSpeech2ConformerHifiGanConfig",
        ),
        (1, 100, 80),
        result="",
    ),
    "campplus": Network("CAM++, 300 frames", _campplus, (1, 300, 80), result=""),
}


def build(name: str) -> tuple[Any, tuple[Any, ...]]:
    """A network in eval mode, which takes one tensor and returns one, and its input.

    Args:
        name: A key of `NETWORKS`.

    Raises:
        MissingDependencyError: If torch or the network's package is not installed.
    """
    torch = require("torch", "building a network")
    network = NETWORKS[name]
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(0)
        module = _one_result(network.build(), network.result)
        for part in module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
        given = (
            torch.randint(network.vocabulary, network.shape)
            if network.vocabulary
            else torch.randn(network.shape)
        )
    return module.eval().requires_grad_(False), (given,)


def _one_result(module: Any, name: str) -> Any:
    nn = require("torch.nn", "building a network")

    class OneResult(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, x: Any) -> Any:
            result = self.network(x)
            return getattr(result, name) if name else result

    return OneResult()
