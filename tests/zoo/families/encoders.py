"""Encoders of text, of transformers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from small import ENCODER, hf, text, tokens
from torch import nn

Tensor = torch.Tensor


class Embedder(nn.Module):
    """Sentence embeddings as E5 or BGE are used: a mean over tokens or the first, of length 1."""

    def __init__(self, model: nn.Module, mean: bool) -> None:
        super().__init__()
        self.model, self.mean = model, mean

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.mean:
            kept = hidden.masked_fill(~attention_mask[..., None].bool(), 0.0)
            hidden = kept.sum(dim=1) / attention_mask.sum(dim=1)[..., None]
        else:
            hidden = hidden[:, 0]
        return F.normalize(hidden, p=2, dim=1)


class LateInteraction(nn.Module):
    """ColBERT: the largest product of each token of a query with those of a document."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.down = model, nn.Linear(32, 8, bias=False)

    def forward(self, query: Tensor, document: Tensor, mask: Tensor) -> Tensor:
        q = F.normalize(self.down(self.model(query)[0]), dim=-1)
        d = F.normalize(self.down(self.model(document, mask)[0]), dim=-1)
        scores = (q @ d.transpose(-1, -2)).masked_fill(mask[:, None] == 0, -9999.0)
        return scores.max(-1).values.sum(-1)


def query_and_document(batch: int, length: int) -> dict[str, Tensor]:
    document = text(batch, length)
    query = tokens(batch, 5)["input_ids"]
    return {"query": query, "document": document["input_ids"], "mask": document["attention_mask"]}


def boxes(batch: int, length: int) -> dict[str, Tensor]:
    corners = torch.randint(0, 500, (batch, length, 2))
    return {**text(batch, length), "bbox": torch.cat([corners, corners + 9], -1)}


def pair(batch: int, length: int) -> dict[str, Tensor]:
    kinds = (torch.arange(length) > length // 2).long().expand(batch, -1).clone()
    return {**text(batch, length), "token_type_ids": kinds}


DISTIL = {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
DEBERTA = {
    **ENCODER,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": 16,
}

MODELS = {
    "bert": hf("BertModel", text, **ENCODER),
    "bert-pair": hf("BertForSequenceClassification", pair, **ENCODER),
    "bert-mask-filling": hf("BertForMaskedLM", text, **ENCODER),
    "bert-tagging": hf("BertForTokenClassification", text, **ENCODER),
    "bert-answers": hf("BertForQuestionAnswering", text, **ENCODER),
    "e5": hf("BertModel", text, wrap=lambda m: Embedder(m, True), **ENCODER),
    "bge": hf("BertModel", text, wrap=lambda m: Embedder(m, False), **ENCODER),
    "bge-m3": hf("XLMRobertaModel", text, wrap=lambda m: Embedder(m, False), **ENCODER),
    "colbert": hf("BertModel", query_and_document, wrap=LateInteraction, **ENCODER),
    "roberta": hf("RobertaModel", text, **ENCODER),
    "roberta-classifier": hf("RobertaForSequenceClassification", text, **ENCODER),
    "xlm-roberta": hf("XLMRobertaModel", text, **ENCODER),
    "xlm-roberta-xl": hf("XLMRobertaXLModel", text, **ENCODER),
    "camembert": hf("CamembertForMaskedLM", text, **ENCODER),
    "distilbert": hf("DistilBertModel", text, **DISTIL),
    "distilbert-classifier": hf("DistilBertForSequenceClassification", text, **DISTIL),
    "albert": hf("AlbertModel", text, embedding_size=16, **ENCODER),
    "electra": hf("ElectraModel", text, embedding_size=16, **ENCODER),
    "deberta": hf("DebertaModel", text, **DEBERTA),
    "deberta-v2": hf("DebertaV2Model", text, **DEBERTA),
    "deberta-v3": hf(
        "DebertaV2ForSequenceClassification",
        text,
        position_buckets=8,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        **DEBERTA,
    ),
    "mpnet": hf("MPNetModel", text, **ENCODER),
    "ernie": hf("ErnieModel", text, **ENCODER),
    "rembert": hf("RemBertModel", text, input_embedding_size=16, **ENCODER),
    "megatron-bert": hf("MegatronBertModel", text, **ENCODER),
    "roberta-prelayernorm": hf("RobertaPreLayerNormModel", text, **ENCODER),
    "data2vec-text": hf("Data2VecTextModel", text, **ENCODER),
    "esm": hf("EsmModel", text, pad_token_id=1, mask_token_id=2, token_dropout=True, **ENCODER),
    "modernbert": hf(
        "ModernBertModel", text, pad_token_id=0, global_attn_every_n_layers=2, **ENCODER
    ),
    "nomic-bert": hf("NomicBertModel", text, **ENCODER),
    "jina-embeddings-v3": hf("JinaEmbeddingsV3Model", text, **ENCODER),
    "eurobert": hf("EuroBertModel", text, pad_token_id=0, num_key_value_heads=2, **ENCODER),
    "convbert": hf("ConvBertModel", text, embedding_size=32, **ENCODER),
    "squeezebert": hf("SqueezeBertModel", text, embedding_size=32, **ENCODER),
    "mobilebert": hf(
        "MobileBertModel",
        text,
        embedding_size=16,
        intra_bottleneck_size=16,
        true_hidden_size=16,
        **ENCODER,
    ),
    "fnet": hf("FNetModel", tokens, **ENCODER),
    "roformer": hf("RoFormerModel", text, **ENCODER),
    "nystromformer": hf(
        "NystromformerModel",
        text,
        ((2, 16), (3, 16)),
        num_landmarks=16,
        segment_means_seq_len=16,
        **ENCODER,
    ),
    "longformer": hf("LongformerModel", text, ((2, 16), (3, 32)), attention_window=8, **ENCODER),
    "big-bird": hf("BigBirdModel", text, attention_type="original_full", **ENCODER),
    "funnel": hf(
        "FunnelModel",
        text,
        ((2, 8), (3, 16)),
        vocab_size=60,
        block_sizes=[1, 1],
        num_decoder_layers=1,
        d_model=32,
        n_head=4,
        d_head=8,
        d_inner=48,
    ),
    "xlnet": hf("XLNetModel", text, vocab_size=60, d_model=32, n_layer=2, n_head=4, d_inner=48),
    "xlm": hf("XLMModel", text, vocab_size=60, emb_dim=32, n_layers=2, n_heads=4),
    "flaubert": hf("FlaubertModel", text, vocab_size=60, emb_dim=32, n_layers=2, n_heads=4),
    "layoutlm": hf("LayoutLMModel", boxes, **ENCODER),
    "lilt": hf("LiltModel", boxes, channel_shrink_ratio=2, **{**ENCODER, "hidden_size": 48}),
    "splinter": hf("SplinterModel", text, **ENCODER),
    "ibert": hf("IBertModel", text, **ENCODER),
    "canine": hf(
        "CanineModel",
        text,
        ((2, 16), (3, 32)),
        num_hash_buckets=50,
        downsampling_rate=4,
        local_transformer_stride=8,
        **ENCODER,
    ),
    "luke": hf("LukeModel", text, entity_vocab_size=20, entity_emb_size=16, **ENCODER),
    "perceiver": hf(
        "PerceiverForMaskedLM",
        text,
        ((2, 16), (3, 16)),
        d_model=16,
        d_latents=32,
        num_latents=8,
        num_self_attends_per_block=1,
        num_self_attention_heads=4,
        num_cross_attention_heads=4,
        vocab_size=60,
        max_position_embeddings=16,
    ),
    "dpr": hf("DPRQuestionEncoder", text, config="DPRConfig", **ENCODER),
}
