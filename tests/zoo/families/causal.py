"""Causal language models of transformers as plain modules, with caches and without."""

from __future__ import annotations

from dataclasses import replace

import torch
from entry import Entry
from small import DECODER, hf, text, tokens

GPT = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
MIXTURE = {**DECODER, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FALCON = {k: v for k, v in DECODER.items() if k not in ("head_dim", "num_key_value_heads")}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
LLAMA_LIKE = (
    *("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Phi", "Phi3", "StableLm"),
    *(
        "Starcoder2",
        "Olmo",
        "Olmo2",
        "Olmo3",
        "Cohere",
        "Cohere2",
        "Granite",
        "Persimmon",
        "SmolLM3",
    ),
    *("Helium", "Glm", "Glm4", "Exaone4", "Nemotron", "DiffLlama", "Ernie4_5", "HunYuanDenseV1"),
    *("Apertus", "Arcee", "BitNet", "SeedOss", "Ministral", "VaultGemma"),
)


def without_cache(entry: Entry) -> Entry:
    """A model that returns logits alone."""

    def make() -> torch.nn.Module:
        model = entry.make()
        model.config.use_cache = False
        return model

    return replace(entry, make=make)


WITH_CACHE = {
    **{name.lower(): hf(f"{name}ForCausalLM", text, **DECODER) for name in LLAMA_LIKE},
    "gemma3": hf("Gemma3ForCausalLM", text, config="Gemma3TextConfig", **DECODER),
    "gpt2": hf("GPT2LMHeadModel", text, config="GPT2Config", **GPT),
    "gpt2-classifier": hf("GPT2ForSequenceClassification", text, pad_token_id=0, **GPT),
    "gpt-neo": hf(
        "GPTNeoForCausalLM",
        text,
        vocab_size=60,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64,
        window_size=8,
    ),
    "gpt-neox": hf("GPTNeoXForCausalLM", text, **DECODER),
    "gptj": hf("GPTJForCausalLM", text, rotary_dim=4, **GPT),
    "gpt-bigcode": hf("GPTBigCodeForCausalLM", text, **GPT),
    "codegen": hf("CodeGenForCausalLM", text, rotary_dim=4, **GPT),
    "openai-gpt": hf("OpenAIGPTLMHeadModel", text, config="OpenAIGPTConfig", **GPT),
    "ctrl": hf("CTRLLMHeadModel", text, config="CTRLConfig", dff=48, **GPT),
    "opt": hf("OPTForCausalLM", text, ffn_dim=48, word_embed_proj_dim=32, **DECODER),
    "bloom": hf("BloomForCausalLM", text, vocab_size=60, hidden_size=32, n_layer=2, n_head=4),
    "mpt": hf(
        "MptForCausalLM", text, vocab_size=60, d_model=32, n_layers=2, n_heads=4, max_seq_len=64
    ),
    "falcon": hf("FalconForCausalLM", text, new_decoder_architecture=False, **FALCON),
    "falcon-new": hf(
        "FalconForCausalLM", text, new_decoder_architecture=True, num_kv_heads=2, **FALCON
    ),
    "falcon-alibi": hf("FalconForCausalLM", text, alibi=True, multi_query=False, **FALCON),
    "biogpt": hf("BioGptForCausalLM", text, **DECODER),
    "xglm": hf(
        "XGLMForCausalLM",
        text,
        vocab_size=60,
        d_model=32,
        num_layers=2,
        attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=64,
    ),
    "mixtral": hf("MixtralForCausalLM", text, **LOCAL, **DECODER),
    "phimoe": hf("PhimoeForCausalLM", text, **LOCAL, **DECODER),
    "qwen2-moe": hf("Qwen2MoeForCausalLM", text, shared_expert_intermediate_size=24, **MIXTURE),
    "qwen3-moe": hf("Qwen3MoeForCausalLM", text, **MIXTURE),
    "olmoe": hf("OlmoeForCausalLM", text, **MIXTURE),
    "granite-moe": hf("GraniteMoeForCausalLM", text, **LOCAL, **DECODER),
    "jetmoe": hf("JetMoeForCausalLM", text, kv_channels=8, **LOCAL, **DECODER),
    "gpt-oss": hf("GptOssForCausalLM", text, **LOCAL, **DECODER),
    "deepseek-v2": hf(
        "DeepseekV2ForCausalLM",
        text,
        **{**DECODER, "num_key_value_heads": 4},
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        moe_intermediate_size=24,
    ),
    "deepseek-v3": hf(
        "DeepseekV3ForCausalLM",
        text,
        **{**DECODER, "num_key_value_heads": 4, "head_dim": 4},
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        moe_intermediate_size=24,
    ),
    "mamba": hf(
        "MambaForCausalLM", tokens, vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4
    ),
    "mamba2": hf(
        "Mamba2ForCausalLM",
        tokens,
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
        num_heads=8,
        head_dim=8,
        n_groups=2,
        chunk_size=4,
    ),
    "falcon-mamba": hf(
        "FalconMambaForCausalLM",
        tokens,
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
    ),
    "jamba": hf(
        "JambaForCausalLM",
        text,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=4,
        use_mamba_kernels=False,
        num_experts=4,
        **DECODER,
    ),
    "lfm2": hf("Lfm2ForCausalLM", text, layer_types=["conv", "full_attention"], **DECODER),
    "recurrent-gemma": hf(
        "RecurrentGemmaForCausalLM",
        text,
        lru_width=32,
        attention_window_size=16,
        block_types=["recurrent", "attention"],
        **DECODER,
    ),
    "rwkv": hf(
        "RwkvForCausalLM",
        tokens,
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        context_length=64,
    ),
    "modernbert-decoder": hf(
        "ModernBertDecoderForCausalLM", text, global_attn_every_n_layers=2, **DECODER
    ),
}

MODELS = {
    **WITH_CACHE,
    **{f"{name}-no-cache": without_cache(entry) for name, entry in WITH_CACHE.items()},
}
