"""The model classes of FunASR that a model directory may name, and what of each is understood."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphopt.funasr.audio.vad import OPTIONS


@dataclass(frozen=True)
class Kind:
    """A model class.

    Attributes:
        modules: of FunASR, which define it; the model's first.
        parts: the classes that are understood of each part.
        settings: the values that are understood of a setting, the default first.
        least: the least value that is understood of a setting, which is its default too.
        passed: settings of `model_conf` that FunASR's class reads without naming them.
    """

    modules: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    settings: dict[str, tuple[object, ...]] = field(default_factory=dict)
    least: dict[str, int] = field(default_factory=dict)
    passed: tuple[str, ...] = ()


_PARAFORMER_MODULES = (
    "funasr.models.paraformer.cif_predictor",
    "funasr.models.bicif_paraformer.cif_predictor",
    "funasr.models.paraformer.decoder",
    "funasr.models.sanm.encoder",
)
_PARAFORMER_PARTS = {
    "encoder": ("SANMEncoder",),
    "decoder": ("ParaformerSANMDecoder",),
    "predictor": ("CifPredictor", "CifPredictorV2"),
    "frontend": ("WavFrontend",),
    "tokenizer": ("CharTokenizer",),
}
#: By the name of the class.
KINDS = {
    "Paraformer": Kind(("funasr.models.paraformer.model", *_PARAFORMER_MODULES), _PARAFORMER_PARTS),
    "BiCifParaformer": Kind(
        ("funasr.models.bicif_paraformer.model", *_PARAFORMER_MODULES),
        {**_PARAFORMER_PARTS, "predictor": ("CifPredictorV3",)},
    ),
    "ContextualParaformer": Kind(
        (
            "funasr.models.contextual_paraformer.model",
            "funasr.models.contextual_paraformer.decoder",
            *_PARAFORMER_MODULES,
        ),
        {**_PARAFORMER_PARTS, "decoder": ("ContextualParaformerDecoder",)},
        {"model_conf.bias_encoder_type": ("lstm",)},
        passed=(
            *("target_buffer_length", "inner_dim", "bias_encoder_type", "use_decoder_embedding"),
            *("crit_attn_weight", "crit_attn_smooth", "bias_encoder_dropout_rate"),
        ),
    ),
    "SeacoParaformer": Kind(
        ("funasr.models.seaco_paraformer.model", *_PARAFORMER_MODULES),
        {
            **_PARAFORMER_PARTS,
            "predictor": ("CifPredictor", "CifPredictorV2", "CifPredictorV3"),
            "seaco_decoder": ("ParaformerSANMDecoder",),
        },
        {
            "model_conf.bias_encoder_type": ("lstm",),
            "model_conf.bias_encoder_bid": (False,),
        },
        {"seaco_decoder_conf.att_layer_num": 6},
        (
            *("inner_dim", "bias_encoder_type", "bias_encoder_dropout_rate", "bias_encoder_bid"),
            *("seaco_lsm_weight", "seaco_length_normalized_loss", "seaco_weight"),
            *("train_decoder", "NO_BIAS"),
        ),
    ),
    "ParaformerStreaming": Kind(
        (
            "funasr.models.paraformer_streaming.model",
            "funasr.models.paraformer.cif_predictor",
            "funasr.models.paraformer.decoder",
            "funasr.models.scama.encoder",
        ),
        {
            "encoder": ("SANMEncoderChunkOpt",),
            "decoder": ("ParaformerSANMDecoder",),
            "predictor": ("CifPredictorV2",),
            "frontend": ("WavFrontendOnline",),
            "tokenizer": ("CharTokenizer",),
        },
        passed=("decoder_attention_chunk_type",),
    ),
    "FsmnVADStreaming": Kind(
        ("funasr.models.fsmn_vad_streaming.model", "funasr.models.fsmn_vad_streaming.encoder"),
        {"encoder": ("FSMN",), "frontend": ("WavFrontendOnline",)},
        passed=OPTIONS,
    ),
    "SenseVoiceSmall": Kind(
        ("funasr.models.sense_voice.model",),
        {
            "encoder": ("SenseVoiceEncoderSmall",),
            "frontend": ("WavFrontend",),
            "tokenizer": ("SentencepiecesTokenizer",),
        },
        passed=("lsm_weight",),
    ),
    "CTTransformer": Kind(
        ("funasr.models.ct_transformer.model", "funasr.models.sanm.encoder"),
        {"encoder": ("SANMEncoder",), "tokenizer": ("CharTokenizer",)},
        passed=("jieba_usr_dict",),
    ),
    "CTTransformerStreaming": Kind(
        (
            "funasr.models.ct_transformer_streaming.model",
            "funasr.models.ct_transformer_streaming.encoder",
        ),
        {"encoder": ("SANMVadEncoder",), "tokenizer": ("CharTokenizer",)},
        passed=("jieba_usr_dict",),
    ),
}
#: Settings of a tokenizer; others, such as dictionaries of pieces, change how it splits.
TOKENIZER = {"token_list", "bpemodel", "unk_symbol", "split_with_space"}
#: Settings of training and of FunASR's own loops, which change nothing that a model computes.
TRAINING = {
    *("specaug", "specaug_conf", "train_conf", "dataset", "dataset_conf", "optim", "optim_conf"),
    *("scheduler", "scheduler_conf", "ctc_conf", "normalize_conf", "seed", "ngpu"),
    *("input_size", "vocab_size", "batch_size", "disable_pbar", "init_param"),
}
