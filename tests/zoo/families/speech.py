"""Speech encoders, codecs and vocoders, of transformers."""

from __future__ import annotations

import torch
from entry import SIGNAL, TEXT
from small import ENCODER, SPEECH, hf, padded_samples, samples, text

Tensor = torch.Tensor
CODEC = ((2, 320), (3, 640))


def features(batch: int, length: int) -> dict[str, Tensor]:
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length - 3 :] = 0
    return {"input_features": torch.randn(batch, length, 16), "attention_mask": mask}


def unmasked_features(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(batch, length, 16)}


def sound(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(batch, 1, length)}


def patches(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(batch, 32, 16)}


def spectrogram(batch: int, length: int) -> dict[str, Tensor]:
    return {"spectrogram": torch.randn(batch, length, 16)}


def univnet_inputs(batch: int, length: int) -> dict[str, Tensor]:
    return {
        "input_features": torch.randn(batch, length, 16),
        "noise_sequence": torch.randn(batch, length, 8),
    }


VOCODER = {
    "model_in_dim": 16,
    "upsample_initial_channel": 16,
    "upsample_rates": [4, 4],
    "upsample_kernel_sizes": [8, 8],
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 3]],
    "normalize_before": True,
}
CONFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "subsampling_conv_channels": 16,
    "num_mel_bins": 16,
    "max_position_embeddings": 64,
}
STABLE = {**SPEECH, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}

MODELS = {
    "wav2vec2": hf("Wav2Vec2Model", samples, SIGNAL, **SPEECH),
    "wav2vec2-padded": hf("Wav2Vec2ForCTC", padded_samples, SIGNAL, **STABLE),
    "wav2vec2-classifier": hf(
        "Wav2Vec2ForSequenceClassification", samples, SIGNAL, classifier_proj_size=16, **SPEECH
    ),
    "wav2vec2-conformer": hf("Wav2Vec2ConformerModel", samples, SIGNAL, **SPEECH),
    "wav2vec2-conformer-rotary": hf(
        "Wav2Vec2ConformerModel", samples, SIGNAL, position_embeddings_type="rotary", **SPEECH
    ),
    "hubert": hf("HubertModel", samples, SIGNAL, **SPEECH),
    "hubert-ctc": hf("HubertForCTC", padded_samples, SIGNAL, **STABLE),
    "wavlm": hf("WavLMModel", samples, SIGNAL, num_buckets=16, max_bucket_distance=32, **SPEECH),
    "unispeech": hf("UniSpeechModel", samples, SIGNAL, **SPEECH),
    "unispeech-sat": hf("UniSpeechSatModel", samples, SIGNAL, **SPEECH),
    "sew": hf("SEWModel", samples, SIGNAL, squeeze_factor=2, **SPEECH),
    "sew-d": hf(
        "SEWDModel",
        samples,
        SIGNAL,
        squeeze_factor=2,
        max_position_embeddings=64,
        position_buckets=8,
        **SPEECH,
    ),
    "data2vec-audio": hf(
        "Data2VecAudioModel",
        samples,
        SIGNAL,
        **{**SPEECH, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3},
    ),
    "wav2vec2-bert": hf(
        "Wav2Vec2BertModel",
        features,
        ((2, 20), (3, 32)),
        feature_projection_input_dim=16,
        left_max_position_embeddings=8,
        right_max_position_embeddings=4,
        **{k: v for k, v in SPEECH.items() if "conv" not in k and "feat" not in k},
    ),
    "parakeet-ctc": hf(
        "ParakeetForCTC",
        features,
        ((2, 40), (3, 64)),
        config="ParakeetCTCConfig",
        encoder_config=CONFORMER,
        vocab_size=60,
        pad_token_id=59,
    ),
    "audio-spectrogram-transformer": hf(
        "ASTModel",
        patches,
        ((2, 32), (3, 32)),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        patch_size=8,
        frequency_stride=4,
        time_stride=4,
        max_length=32,
        num_mel_bins=16,
    ),
    "encodec": hf(
        "EncodecModel",
        sound,
        CODEC,
        upsampling_ratios=[4, 2],
        num_filters=8,
        hidden_size=16,
        codebook_size=32,
        codebook_dim=16,
        num_lstm_layers=1,
        target_bandwidths=[24.0],
        sampling_rate=24000,
    ),
    "dac": hf(
        "DacModel",
        sound,
        CODEC,
        encoder_hidden_size=8,
        downsampling_ratios=[2, 4],
        decoder_hidden_size=16,
        n_codebooks=2,
        codebook_size=32,
        codebook_dim=4,
        upsampling_ratios=[4, 2],
    ),
    "speecht5-hifigan": hf(
        "SpeechT5HifiGan", spectrogram, TEXT, config="SpeechT5HifiGanConfig", **VOCODER
    ),
    "fastspeech2-hifigan": hf(
        "FastSpeech2ConformerHifiGan",
        spectrogram,
        TEXT,
        config="FastSpeech2ConformerHifiGanConfig",
        **VOCODER,
    ),
    "univnet": hf(
        "UnivNetModel",
        univnet_inputs,
        TEXT,
        model_in_channels=8,
        model_hidden_channels=8,
        num_mel_bins=16,
        resblock_kernel_sizes=[3],
        resblock_stride_sizes=[4],
        resblock_dilation_sizes=[[1, 3]],
        kernel_predictor_hidden_channels=8,
        kernel_predictor_num_blocks=1,
    ),
    "clap-text": hf(
        "ClapTextModelWithProjection",
        text,
        TEXT,
        config="ClapTextConfig",
        projection_dim=16,
        **ENCODER,
    ),
}
