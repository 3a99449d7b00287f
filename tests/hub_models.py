"""Tiny pipelines of every family with random weights, saved as hubs keep them. Nothing here was ever trained."""

from pathlib import Path

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from rarefill.generators.train import words

SIZE = 32
REDUCTION = 4
WIDTH = 32
CHANNELS = (16, 32)


def tokenizer():
    return words.tokenizer(["disc", "square", "a small red disc at dusk", "cell nucleus"])


def vae(**changed):
    made = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
        **changed,
    )
    return deterministic(made)


def deterministic(made):
    """Its encoder's deviation is next to nothing, so that a sample and the mode are one."""
    n = made.config.latent_channels
    with torch.no_grad():
        last = made.quant_conv if made.quant_conv is not None else made.encoder.conv_out
        last.weight[n:] = 0
        last.bias[n:] = -30
    return made


def clip(n, *, projected=False):
    shape = CLIPTextConfig(
        vocab_size=n,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(shape).eval()


def _shape(*, xl: bool) -> dict:
    shape = {
        "sample_size": SIZE // REDUCTION,
        "block_out_channels": CHANNELS,
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 2 * WIDTH if xl else WIDTH,
        "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    }
    if xl:
        shape |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
            "transformer_layers_per_block": 1,
            "use_linear_projection": True,
        }
    return shape


def unet(*, xl=False, channels=4, **changed):
    return diffusers.UNet2DConditionModel(
        in_channels=channels,
        out_channels=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **_shape(xl=xl) | changed,
    ).eval()


def controlnet(*, xl=False, seed=3, **changed):
    torch.manual_seed(seed)
    shape = {k: v for k, v in _shape(xl=xl).items() if k != "sample_size"}
    made = diffusers.ControlNetModel(
        in_channels=4, conditioning_embedding_out_channels=(8, 8, 8), **shape | changed
    )
    return awake(made.eval())


def union(seed=3):
    torch.manual_seed(seed)
    shape = {k: v for k, v in _shape(xl=True).items() if k != "sample_size"}
    made = diffusers.ControlNetUnionModel(
        in_channels=4,
        conditioning_embedding_out_channels=(8, 8, 8),
        num_control_type=8,
        num_trans_channel=CHANNELS[0],
        num_proj_channel=CHANNELS[0],
        num_trans_head=2,
        num_trans_layer=1,
        **shape,
    )
    return awake(made.eval())


def awake(made):
    """Zero convolutions have no effect until something is learned; here it is drawn."""
    with torch.no_grad():
        for block in (*made.controlnet_down_blocks, made.controlnet_mid_block):
            block.weight.normal_(0, 0.2)
        made.controlnet_cond_embedding.conv_out.weight.normal_(0, 0.2)
        if hasattr(made, "spatial_ch_projs"):
            made.spatial_ch_projs.weight.normal_(0, 0.2)
    return made


def scheduler():
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def sd15(folder: Path, *, channels=9, seed=0, net=None, **changed) -> Path:
    """Stable Diffusion 1.5; with `net` a ControlNet of its own."""
    torch.manual_seed(seed)
    words = tokenizer()
    parts = {
        "vae": vae(),
        "text_encoder": clip(len(words)),
        "tokenizer": words,
        "unet": unet(channels=channels),
        "scheduler": scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    } | changed
    if net is not None:
        diffusers.StableDiffusionControlNetInpaintPipeline(**parts, controlnet=net).save_pretrained(folder)
    else:
        diffusers.StableDiffusionInpaintPipeline(**parts).save_pretrained(folder)
    return folder


def sdxl(folder: Path, *, channels=4, seed=0, **changed) -> Path:
    """Stable Diffusion XL."""
    torch.manual_seed(seed)
    words = tokenizer()
    diffusers.StableDiffusionXLInpaintPipeline(
        **{
            "vae": vae(force_upcast=False),
            "text_encoder": clip(len(words)),
            "text_encoder_2": clip(len(words), projected=True),
            "tokenizer": words,
            "tokenizer_2": tokenizer(),
            "unet": unet(xl=True, channels=channels),
            "scheduler": diffusers.EulerDiscreteScheduler.from_config(scheduler().config),
            "add_watermarker": False,
        }
        | changed
    ).save_pretrained(folder)
    return folder


def save_net(net, folder: Path) -> Path:
    net.save_pretrained(folder)
    return folder
