"""Tiny transformer pipelines with random weights, saved as hubs keep them. Nothing here was ever trained."""

from pathlib import Path

import diffusers
import hub_models
import torch
import transformers
from hub_models import SIZE, WIDTH, deterministic

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}{% endfor %}"
LAYERS = 28
"""FLUX.2 klein reads its words from the 9th, 18th and 27th layer."""


def schedule():
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)


def letters(**more):
    """A byte-level tokenizer of Qwen's kind without merges."""
    from rarefill.generators.train.words import _bytes

    vocabulary = {letter: n for n, letter in enumerate(_bytes())}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *more.pop("special", ())]
    for word in special:
        vocabulary[word] = len(vocabulary)
    made = transformers.Qwen2Tokenizer(vocab=vocabulary, merges=[], **more)
    made.add_special_tokens({"additional_special_tokens": special[1:]})
    made.chat_template = TEMPLATE
    return made


def qwen3(n, layers=LAYERS):
    shape = transformers.Qwen3Config(
        vocab_size=n,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=1024,
    )
    return transformers.Qwen3ForCausalLM(shape).eval()


def wide_vae(*, quant=True):
    made = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
        shift_factor=0.1,
        scaling_factor=0.5,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )
    return deterministic(made)


def z_image(folder: Path, seed=0) -> Path:
    torch.manual_seed(seed)
    words = letters()
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    ).eval()
    with torch.no_grad():  # left as they were in memory
        transformer.x_pad_token.zero_()
        transformer.cap_pad_token.zero_()
    diffusers.ZImageInpaintPipeline(
        vae=wide_vae(),
        text_encoder=qwen3(len(words), layers=2),
        tokenizer=words,
        transformer=transformer,
        scheduler=schedule(),
    ).save_pretrained(folder)
    return folder


def z_control(folder: Path, seed=4) -> Path:
    torch.manual_seed(seed)
    made = diffusers.ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=9,
        add_control_noise_refiner="control_noise_refiner",
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    ).eval()
    with torch.no_grad():
        for name, weights in made.named_parameters():
            if "_proj" in name and weights.ndim == 2:
                weights.normal_(0, 0.2)
    made.save_pretrained(folder)
    return folder


def klein(folder: Path, seed=0) -> Path:
    torch.manual_seed(seed)
    words = letters()
    vae = diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    )
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    diffusers.Flux2KleinInpaintPipeline(
        vae=vae.eval(),
        text_encoder=qwen3(len(words)),
        tokenizer=words,
        transformer=transformer.eval(),
        scheduler=schedule(),
        is_distilled=True,
    ).save_pretrained(folder)
    return folder


def _flux_shape():
    return {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 4, 8),
    }


def flux(folder: Path, seed=0, *, reads=1) -> Path:
    """FLUX.1; one that `reads` 2 times its latents is a Control model, 6 times Fill."""
    torch.manual_seed(seed)
    words = hub_models.tokenizer()
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    pieces += [(letter, -2.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    t5 = transformers.T5Config(
        vocab_size=160, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    diffusers.FluxInpaintPipeline(
        vae=wide_vae(quant=False),
        text_encoder=hub_models.clip(len(words)),
        tokenizer=words,
        text_encoder_2=transformers.T5EncoderModel(t5).eval(),
        tokenizer_2=transformers.T5TokenizerFast(vocab=pieces, model_max_length=32),
        transformer=diffusers.FluxTransformer2DModel(
            **_flux_shape() | {"in_channels": 16 * reads, "out_channels": 16}
        ).eval(),
        scheduler=schedule(),
    ).save_pretrained(folder)
    return folder


def flux_control(folder: Path, seed=4) -> Path:
    torch.manual_seed(seed)
    made = diffusers.FluxControlNetModel(**_flux_shape()).eval()
    with torch.no_grad():
        for block in (*made.controlnet_blocks, *made.controlnet_single_blocks, made.controlnet_x_embedder):
            block.weight.normal_(0, 0.2)
    made.save_pretrained(folder)
    return folder


def qwen_edit(folder: Path, seed=0) -> Path:
    torch.manual_seed(seed)
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    words = letters(special=vision)
    ids = {word: words.convert_tokens_to_ids(word) for word in vision}
    shape = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2], "rope_type": "default"},
            "rope_theta": 10000.0,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    diffusers.QwenImageEditInpaintPipeline(
        vae=vae.eval(),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(shape).eval(),
        tokenizer=words,
        processor=processor,
        transformer=transformer.eval(),
        scheduler=schedule(),
    ).save_pretrained(folder)
    return folder
