"""How large the embedded model's parts are: diffusers' and transformers' own classes, only small."""

from collections.abc import Sequence
from typing import Any, Final

from diffusers import AutoencoderKL, ControlNetModel, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from rarefill.generators.pipelines import Network

REDUCTION: Final = 4
"""Pixels of a window to one of its latents, each way."""
LATENTS: Final = 4
"""Channels of a latent."""
WORDS: Final = 24
"""Tokens of a prompt, begin and end included."""


def autoencoder(channels: Sequence[int] = (32, 64, 128)) -> Network:
    """Reduces by 4 in three blocks. Without attention, it treats a window of any size alike, and is fast."""
    n = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * n,
        up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=tuple(channels),
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=1.0,
    )


def unet(channels: Sequence[int] = (96, 128, 192), *, words_width: int = 128) -> Network:
    """The denoising network: latents, mask and masked latents in (9 channels), velocity out.

    No attention at the highest resolution: there it costs most and a texture needs it least.
    """
    return UNet2DConditionModel(
        **_denoiser(channels, words_width), in_channels=2 * LATENTS + 1, **_upward(channels)
    )


def controlnet(channels: Sequence[int] = (96, 128, 192), *, words_width: int = 128) -> Network:
    """The UNet's downward half again, for the map of the layout, which a stem of three convolutions reduces by 4."""
    stem = (16, 32, 64)
    shape = _denoiser(channels, words_width)
    return ControlNetModel(**shape, in_channels=LATENTS, conditioning_embedding_out_channels=stem)


def _denoiser(channels: Sequence[int], words_width: int) -> dict[str, Any]:
    attention = ["CrossAttnDownBlock2D"] * (len(channels) - 1)
    return {
        "down_block_types": ("DownBlock2D", *attention),
        "block_out_channels": tuple(channels),
        "layers_per_block": 1,
        "cross_attention_dim": words_width,
        # diffusers reads this as the number of heads.
        "attention_head_dim": tuple(max(width // 32, 1) for width in channels),
        "norm_num_groups": min(32, channels[0] // 2),
    }


def _upward(channels: Sequence[int]) -> dict[str, Any]:
    attention = ["CrossAttnUpBlock2D"] * (len(channels) - 1)
    return {"up_block_types": (*attention, "UpBlock2D"), "out_channels": LATENTS, "sample_size": 32}


def text_encoder(vocabulary: int, *, width: int = 128, layers: int = 4) -> Network:
    """Reads prompts of up to `WORDS` tokens of `words.tokenizer`, whose begin and end are tokens 0 and 1."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 32, 1),
        max_position_embeddings=WORDS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModel(config)


def scheduler() -> Any:
    """Velocity prediction, down to a signal of nothing, so that a sample may be darker than its noise; steps of second order.

    Source: Lin et al. 2024, Common Diffusion Noise Schedules and Sample Steps are Flawed, sections 3.1 to 3.3; Lu et al. 2022, DPM-Solver++.
    """
    return DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
