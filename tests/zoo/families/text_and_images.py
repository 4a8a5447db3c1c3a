"""Models of text and images, of transformers."""

from __future__ import annotations

import torch
from entry import IMAGE, TEXT
from small import DECODER, ENCODER, VISION, hf, pixels, text

Tensor = torch.Tensor

CLIP_TEXT = {
    **ENCODER,
    "max_position_embeddings": 32,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
CLIP = {"text_config": CLIP_TEXT, "vision_config": VISION, "projection_dim": 16}


def both(batch: int, length: int) -> dict[str, Tensor]:
    return {**text(batch, length), "pixel_values": torch.randn(batch, 3, 32, 32)}


def document(batch: int, length: int) -> dict[str, Tensor]:
    corners = torch.randint(0, 500, (batch, length, 2))
    return {**both(batch, length), "bbox": torch.cat([corners, corners + 9], -1)}


def image_tokens(batch: int, length: int) -> dict[str, Tensor]:
    """Sixteen places for an image's patches in front of a text."""
    given = both(batch, length + 16)
    given["input_ids"][:, :16] = 3
    given["attention_mask"][:] = 1
    return given


def regions(batch: int, length: int) -> dict[str, Tensor]:
    return {
        **text(batch, length),
        "visual_feats": torch.randn(batch, 4, 16),
        "visual_pos": torch.rand(batch, 4, 4),
    }


def visual_tokens(batch: int, length: int) -> dict[str, Tensor]:
    return {**text(batch, length), "visual_embeds": torch.randn(batch, 4, 16)}


MODELS = {
    "clip": hf("CLIPModel", both, TEXT, **CLIP),
    "clip-text": hf(
        "CLIPTextModelWithProjection", text, TEXT, config="CLIPTextConfig", **CLIP_TEXT
    ),
    "clip-vision": hf(
        "CLIPVisionModelWithProjection", pixels, IMAGE, config="CLIPVisionConfig", **VISION
    ),
    "siglip": hf("SiglipModel", both, TEXT, text_config=CLIP_TEXT, vision_config=VISION),
    "siglip-vision": hf("SiglipVisionModel", pixels, IMAGE, config="SiglipVisionConfig", **VISION),
    "chinese-clip": hf(
        "ChineseCLIPModel", both, TEXT, text_config=ENCODER, vision_config=VISION, projection_dim=16
    ),
    "altclip": hf(
        "AltCLIPModel",
        both,
        TEXT,
        text_config={**ENCODER, "project_dim": 16},
        vision_config=VISION,
        projection_dim=16,
    ),
    "clipseg": hf(
        "CLIPSegForImageSegmentation",
        both,
        TEXT,
        config="CLIPSegConfig",
        **CLIP,
        extract_layers=[0, 1],
        reduce_dim=16,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=32,
    ),
    "owlvit": hf("OwlViTModel", both, TEXT, **CLIP),
    "groupvit": hf(
        "GroupViTModel",
        both,
        TEXT,
        text_config=CLIP_TEXT,
        vision_config={
            **VISION,
            "depths": [1, 1],
            "num_group_tokens": [4, 0],
            "num_output_groups": [4, 2],
            "num_hidden_layers": 2,
        },
        projection_dim=16,
        projection_intermediate_dim=16,
    ),
    "blip-text": hf(
        "BlipTextModel",
        text,
        TEXT,
        config="BlipTextConfig",
        **ENCODER,
        encoder_hidden_size=32,
        is_decoder=False,
    ),
    "blip-vision": hf("BlipVisionModel", pixels, IMAGE, config="BlipVisionConfig", **VISION),
    "blip-2-vision": hf("Blip2VisionModel", pixels, IMAGE, config="Blip2VisionConfig", **VISION),
    "vilt": hf(
        "ViltModel", both, TEXT, **ENCODER, image_size=32, patch_size=8, max_image_length=-1
    ),
    "visual-bert": hf("VisualBertModel", visual_tokens, TEXT, visual_embedding_dim=16, **ENCODER),
    "lxmert": hf(
        "LxmertModel",
        regions,
        TEXT,
        **{k: v for k, v in ENCODER.items() if k != "num_hidden_layers"},
        l_layers=1,
        x_layers=1,
        r_layers=1,
        visual_feat_dim=16,
    ),
    "layoutlmv3": hf(
        "LayoutLMv3Model",
        document,
        TEXT,
        **ENCODER,
        input_size=32,
        patch_size=8,
        coordinate_size=5,
        shape_size=6,
        max_2d_position_embeddings=512,
        has_relative_attention_bias=True,
        has_spatial_attention_bias=True,
    ),
    "flava-text": hf("FlavaTextModel", text, TEXT, config="FlavaTextConfig", **ENCODER),
    "git": hf("GitForCausalLM", both, TEXT, vision_config=VISION, **ENCODER),
    "align-text": hf("AlignTextModel", text, TEXT, config="AlignTextConfig", **ENCODER),
    "bridgetower": hf(
        "BridgeTowerModel",
        both,
        TEXT,
        hidden_size=64,
        num_attention_heads=4,
        num_hidden_layers=2,
        text_config={**ENCODER, "hidden_size": 64},
        vision_config={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "patch_size": 8,
            "image_size": 32,
        },
    ),
    "aimv2-vision": hf("Aimv2VisionModel", pixels, IMAGE, config="Aimv2VisionConfig", **VISION),
    "llava": hf(
        "LlavaForConditionalGeneration",
        image_tokens,
        TEXT,
        text_config={"model_type": "llama", **DECODER},
        vision_config={"model_type": "clip_vision_model", **VISION},
        image_token_id=3,
        vision_feature_select_strategy="default",
    ),
    "paligemma": hf(
        "PaliGemmaForConditionalGeneration",
        image_tokens,
        TEXT,
        text_config={"model_type": "gemma", **DECODER},
        vision_config={"model_type": "siglip_vision_model", **VISION},
        projection_dim=32,
        image_token_id=3,
    ),
}
