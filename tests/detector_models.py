"""Tiny detectors and segmenters with random weights, saved in the hub's own layout."""

from pathlib import Path

import torch
import transformers as hub

CLASSES = {0: "disc", 1: "square"}
_RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 8, 8],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
_SET = {
    "encoder_hidden_dim": 16,
    "feat_strides": [8, 16, 32],
    "encoder_layers": 1,
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "d_model": 16,
    "num_queries": 9,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_denoising": 0,
}
_LEVELS = ["stage2", "stage3", "stage4"]


def _detr(names):
    config = hub.DetrConfig(
        backbone_config=hub.ResNetConfig(**_RESNET, out_features=["stage4"]),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        num_queries=9,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        **names,
    )
    processor = hub.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return hub.DetrForObjectDetection(config), processor


def _rt_detr_v2(names):
    backbone = hub.RTDetrResNetConfig(**_RESNET, out_features=_LEVELS)
    config = hub.RTDetrV2Config(backbone_config=backbone, encoder_in_channels=[8, 8, 8], **_SET, **names)
    return hub.RTDetrV2ForObjectDetection(config), hub.RTDetrImageProcessor(size={"height": 64, "width": 64})


def _d_fine(names):
    backbone = hub.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 8, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 16, 16],
        stage_num_blocks=[1, 1, 1, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[1, 1, 1, 1],
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        out_features=_LEVELS,
    )
    config = hub.DFineConfig(backbone_config=backbone, encoder_in_channels=[16, 16, 16], **_SET, **names)
    return hub.DFineForObjectDetection(config), hub.RTDetrImageProcessor(size={"height": 64, "width": 64})


def _owlv2(names):
    del names
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{a}</w>" for a in letters), "<|startoftext|>", "<|endoftext|>", "!"]
    ends = {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 54}
    config = hub.Owlv2Config(
        text_config=small | ends | {"vocab_size": len(words), "max_position_embeddings": 16},
        vision_config=small | {"image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    tokenizer = hub.CLIPTokenizer(
        vocab={word: n for n, word in enumerate(words)},
        merges=[],
        model_max_length=16,
        pad_token="!",  # noqa: S106
    )
    images = hub.Owlv2ImageProcessor(size={"height": 64, "width": 64})
    return hub.Owlv2ForObjectDetection(config), hub.Owlv2Processor(images, tokenizer)


def _grounding_dino(names):
    del names
    letters = "abcdefghijklmnopqrstuvwxyz"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?"]
    words = [*special, "disc", "square", "red", *letters, *(f"##{a}" for a in letters)]
    text = {
        "model_type": "bert",
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    backbone = hub.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=_LEVELS,
    )
    config = hub.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=9,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        d_model=32,
        max_text_len=32,
    )
    tokenizer = hub.BertTokenizer(vocab={word: n for n, word in enumerate(words)}, model_max_length=64)
    images = hub.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return hub.GroundingDinoForObjectDetection(config), hub.GroundingDinoProcessor(images, tokenizer)


def _sam(names):
    del names
    vision = hub.SamVisionConfig(
        hidden_size=16,
        output_channels=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        mlp_dim=16,
        window_size=2,
        global_attn_indexes=[0],
        num_pos_feats=8,
    )
    prompts = hub.SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    masks = hub.SamMaskDecoderConfig(
        hidden_size=16,
        mlp_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_downsample_rate=2,
        iou_head_hidden_dim=16,
    )
    config = hub.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks)
    images = hub.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    return hub.SamModel(config), hub.SamProcessor(images)


def _sam2(names):
    del names
    backbone = hub.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
    )
    vision = hub.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=16,
    )
    prompts = hub.Sam2PromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    masks = hub.Sam2MaskDecoderConfig(
        hidden_size=16,
        mlp_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_downsample_rate=2,
        iou_head_hidden_dim=16,
    )
    config = hub.Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks)
    images = hub.Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
    return hub.Sam2Model(config), hub.Sam2Processor(images)


SEGMENTERS = {"sam": _sam, "sam2": _sam2}
CLOSED = {"detr": _detr, "rt_detr_v2": _rt_detr_v2, "d_fine": _d_fine}
ZERO_SHOT = {"owlv2": _owlv2, "grounding_dino": _grounding_dino}


def save(folder: Path, name: str, classes: dict[int, str] = CLASSES) -> Path:
    """Write one; its weights follow from nothing else."""
    torch.manual_seed(0)
    names = {"id2label": classes, "label2id": {name: n for n, name in classes.items()}}
    model, processor = (CLOSED | ZERO_SHOT | SEGMENTERS)[name](names)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
