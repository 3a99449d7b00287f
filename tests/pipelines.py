"""Tiny pipelines with random weights, saved in the layout that hubs and rarefill share."""

from pathlib import Path

import torch
from diffusers import StableDiffusionControlNetInpaintPipeline

from rarefill.generators.train import shapes, words

CHANNELS = (16, 16, 16)


def networks(size: int, seed: int, **changed):
    """The parts of a small pipeline whose windows have `size` px; the ControlNet's zero convolutions are woken up."""
    torch.manual_seed(seed)
    tokenizer = words.tokenizer(["disc", "square", "cell nucleus"])
    unet, controlnet = (make(CHANNELS, words_width=32) for make in (shapes.unet, shapes.controlnet))
    unet.register_to_config(sample_size=size // shapes.REDUCTION)
    vae = shapes.autoencoder((16, 16, 16))
    with torch.no_grad():
        for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
            block.weight.normal_(0, 0.2)
        embedding = controlnet.controlnet_cond_embedding
        embedding.conv_out.weight.normal_(0, 0.2)
        for layer in (embedding.conv_in, *embedding.blocks):  # or what a map shows is lost on the way
            torch.nn.init.kaiming_normal_(layer.weight)
        vae.quant_conv.weight[4:] = 0
        vae.quant_conv.bias[4:] = -30  # encoding is deterministic
    made = {
        "vae": vae,
        "unet": unet,
        "controlnet": controlnet,
        "text_encoder": shapes.text_encoder(len(tokenizer), width=32, layers=2),
        "tokenizer": tokenizer,
        "scheduler": shapes.scheduler(),
    }
    return made | changed


def save(folder: Path, *, size: int = 32, seed: int = 0, **changed) -> Path:
    """Write one; parts can be replaced."""
    pipeline = StableDiffusionControlNetInpaintPipeline(
        **networks(size, seed, **changed),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder
