"""Encoders with decoders: of text, and of speech to text; of transformers."""

from __future__ import annotations

import torch
from small import ENCODER, PAIR, hf, text, two_texts
from torch import nn

Tensor = torch.Tensor

T5 = {
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}


class Encoder(nn.Module):
    """The encoder of a pair alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.encoder(**inputs).last_hidden_state


class TextEncoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class MelEncoder(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, input_features: Tensor) -> Tensor:
        return self.encoder(input_features).last_hidden_state


class MelDecoder(nn.Module):
    """A decoder that reads what an encoder made."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.decoder = model.get_decoder()

    def forward(self, input_ids: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        hidden = encoder_hidden_states
        return self.decoder(input_ids, encoder_hidden_states=hidden).last_hidden_state


class DecoderStep(nn.Module):
    """One token of a decoder that keeps keys and values in its arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.decoder = model.get_decoder()

    def forward(
        self, input_ids: Tensor, hidden: Tensor, keys: list[Tensor], values: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        from transformers import DynamicCache, EncoderDecoderCache

        past = DynamicCache()
        for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
            past.update(key, value, layer)
        cache = EncoderDecoderCache(past, DynamicCache())
        made = self.decoder(input_ids, encoder_hidden_states=hidden, past_key_values=cache)
        layers = cache.self_attention_cache.layers
        return made.last_hidden_state, [x.keys for x in layers], [x.values for x in layers]


WHISPER = {
    **{k: v for k, v in PAIR.items() if k != "max_position_embeddings"},
    "num_mel_bins": 16,
    "max_source_positions": 20,
    "max_target_positions": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def mel(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(batch, 16, 40)}


def mel_and_text(batch: int, length: int) -> dict[str, Tensor]:
    return {**mel(batch, length), "decoder_input_ids": torch.randint(5, 60, (batch, length))}


def text_and_hidden(batch: int, length: int) -> dict[str, Tensor]:
    ids = torch.randint(5, 60, (batch, length))
    return {"input_ids": ids, "encoder_hidden_states": torch.randn(batch, 20, 32)}


def step(batch: int, length: int) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    keys, values = ([torch.randn(batch, 4, length, 8) for _ in range(2)] for _ in range(2))
    return torch.randint(5, 60, (batch, 1)), torch.randn(batch, 20, 32), keys, values


def frames_and_text(batch: int, length: int) -> dict[str, Tensor]:
    mask = torch.ones(batch, 4 * length, dtype=torch.long)
    ids = torch.randint(5, 60, (batch, length - 3))
    features = torch.randn(batch, 4 * length, 16)
    return {"input_features": features, "attention_mask": mask, "decoder_input_ids": ids}


def signal_and_text(batch: int, length: int) -> dict[str, Tensor]:
    ids = torch.randint(5, 60, (batch, 6))
    return {"input_values": torch.randn(batch, 200 * length), "decoder_input_ids": ids}


STARTS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
LED = {k: v for k, v in PAIR.items() if k != "max_position_embeddings"}

MODELS = {
    "t5-encoder": hf("T5EncoderModel", text, config="T5Config", **T5),
    "t5": hf("T5ForConditionalGeneration", two_texts, **T5),
    "flan-t5": hf(
        "T5ForConditionalGeneration",
        two_texts,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        **T5,
    ),
    "mt5-encoder": hf("MT5EncoderModel", text, config="MT5Config", **T5),
    "umt5": hf("UMT5ForConditionalGeneration", two_texts, **T5),
    "long-t5": hf("LongT5Model", two_texts, local_radius=7, **T5),
    "switch-transformers": hf(
        "SwitchTransformersModel", two_texts, num_sparse_encoder_layers=1, num_experts=4, **T5
    ),
    "bart": hf("BartModel", two_texts, **PAIR, **STARTS),
    "bart-generation": hf("BartForConditionalGeneration", two_texts, **PAIR, **STARTS),
    "bart-encoder": hf("BartModel", text, wrap=TextEncoder, **PAIR, **STARTS),
    "mbart": hf("MBartForConditionalGeneration", two_texts, **PAIR, **STARTS),
    "marian": hf("MarianMTModel", two_texts, config="MarianConfig", **PAIR, **STARTS),
    "pegasus": hf("PegasusForConditionalGeneration", two_texts, **PAIR, **STARTS),
    "pegasus-x": hf(
        "PegasusXModel",
        two_texts,
        ((2, 16), (3, 32)),
        num_global_tokens=4,
        block_size=8,
        **PAIR,
        **STARTS,
    ),
    "blenderbot": hf("BlenderbotForConditionalGeneration", two_texts, **PAIR, **STARTS),
    "blenderbot-small": hf("BlenderbotSmallModel", two_texts, **PAIR, **STARTS),
    "m2m100": hf("M2M100ForConditionalGeneration", two_texts, **PAIR, **STARTS),
    "nllb-moe": hf(
        "NllbMoeModel",
        two_texts,
        num_experts=4,
        encoder_sparse_step=1,
        decoder_sparse_step=2,
        **PAIR,
        **STARTS,
    ),
    "plbart": hf("PLBartModel", two_texts, **PAIR, **STARTS),
    "led": hf(
        "LEDModel",
        two_texts,
        ((2, 16), (3, 32)),
        max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64,
        attention_window=8,
        **LED,
        **STARTS,
    ),
    "fsmt": hf(
        "FSMTModel",
        two_texts,
        src_vocab_size=60,
        tgt_vocab_size=60,
        langs=["en", "de"],
        **{k: v for k, v in PAIR.items() if k != "vocab_size"},
        **STARTS,
    ),
    "prophetnet": hf(
        "ProphetNetModel",
        two_texts,
        vocab_size=60,
        hidden_size=32,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        **STARTS,
    ),
    "bert-generation": hf("BertGenerationEncoder", text, config="BertGenerationConfig", **ENCODER),
    "whisper-encoder": hf("WhisperModel", mel, wrap=MelEncoder, **WHISPER),
    "whisper-decoder": hf("WhisperModel", text_and_hidden, wrap=MelDecoder, **WHISPER),
    "whisper-decoder-step": hf("WhisperModel", step, wrap=DecoderStep, **WHISPER),
    "whisper": hf("WhisperForConditionalGeneration", mel_and_text, **WHISPER),
    "speech-to-text": hf(
        "Speech2TextModel",
        frames_and_text,
        input_feat_per_channel=16,
        num_conv_layers=2,
        conv_channels=16,
        max_source_positions=64,
        max_target_positions=32,
        **LED,
        **STARTS,
    ),
    "moonshine": hf(
        "MoonshineForConditionalGeneration",
        signal_and_text,
        ((2, 12), (3, 16)),
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        encoder_num_hidden_layers=1,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        pad_token_id=0,
    ),
}
