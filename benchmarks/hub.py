"""Objects a second: our batched windows against one call of diffusers for each object, same networks, steps and size.

Weights are random: nothing is downloaded, and speed does not depend on them.

    python benchmarks/hub.py                     # the processor, a reduced SD 1.5
    python benchmarks/hub.py --schedulers        # the same, with every scheduler, and in few steps
    python benchmarks/hub.py --device cuda       # full-size SD 1.5 and SDXL, and the share of the device's matrix rate

On the processor, times are those of the process on one thread (`time.process_time`), so that other work on the
machine counts less; on a GPU they are wall clock after a warm-up.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from rarefill.generators.denoise import Canvas, Sampling
from rarefill.generators.hub.stack import Stack
from rarefill.generators.hub.unet import UNetPainter
from rarefill.generators.train import words
from rarefill.hub_options import HubConfig

WORDS = 77


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is.

    Attributes:
        channels: of the UNet's blocks.
        text: width of the words.
        autoencoder: channels of its blocks.
        px: of a window.
    """

    channels: tuple[int, ...]
    text: int
    autoencoder: tuple[int, ...]
    px: int


REDUCED = Size((64, 128, 256, 256), 128, (32, 64, 128, 128), 128)
FULL = Size((320, 640, 1280, 1280), 768, (128, 256, 512, 512), 512)
XL = Size((320, 640, 1280), 768, (128, 256, 512, 512), 1024)


def parts(size: Size, *, xl: bool) -> dict[str, Any]:
    """The networks that both pipelines share."""
    torch.manual_seed(0)
    tokenizer = words.tokenizer(["a small red disc at dusk"])
    tokenizer.model_max_length = WORDS
    shape = {
        "sample_size": size.px // 8,
        "block_out_channels": size.channels,
        "cross_attention_dim": 2048 if xl else size.text,
        "attention_head_dim": (5, 10, 20) if xl else 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
        if xl
        else ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    }
    if xl:
        shape |= {
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
    up = (
        ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
        if xl
        else ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    )
    unet = diffusers.UNet2DConditionModel(in_channels=9, out_channels=4, up_block_types=up, **shape)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text,
        intermediate_size=4 * size.text,
        num_hidden_layers=12,
        num_attention_heads=size.text // 64,
        max_position_embeddings=WORDS,
        bos_token_id=0,
        eos_token_id=1,
    )
    made = {
        "vae": diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=size.autoencoder,
            layers_per_block=2,
            latent_channels=4,
        ),
        "unet": unet,
        "text_encoder": CLIPTextModel(text),
        "tokenizer": tokenizer,
        "scheduler": diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            steps_offset=1,
        ),
    }
    shape.pop("sample_size")
    made["controlnet"] = diffusers.ControlNetModel(in_channels=4, **shape)
    if not xl:
        return made | {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    wide = CLIPTextConfig(
        **{**text.to_dict(), "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20}
        | {"num_hidden_layers": 32, "projection_dim": 1280}
    )
    return made | {
        "text_encoder_2": CLIPTextModelWithProjection(wide),
        "tokenizer_2": tokenizer,
        "add_watermarker": False,
    }


def canvas(n: int, px: int) -> Canvas:
    rng = np.random.default_rng([1, n])
    pixels = rng.integers(0, 256, (px, px, 3), dtype=np.uint8)
    hidden = np.zeros((px, px), bool)
    hidden[px // 4 : 3 * px // 4, px // 4 : 3 * px // 4] = True
    control = rng.integers(0, 2, (px, px, 3), dtype=np.uint8) * np.uint8(255)
    noise = rng.standard_normal((4, px // 8, px // 8), dtype=np.float32)
    return Canvas(pixels, hidden, control, f"disc {n % 4}", noise, n)


def seconds(work: Callable[[], object], device: str) -> float:
    """Of the process on a processor, by the clock on a GPU."""
    if device == "cpu":
        begun = time.process_time()
        work()
        return time.process_time() - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def one_by_one(pipe: Any, canvases: Sequence[Canvas], sampling: Sampling, px: int) -> None:
    """As diffusers' own examples do it."""
    for c in canvases:
        pipe(
            prompt=c.prompt,
            image=Image.fromarray(c.pixels),
            mask_image=Image.fromarray(c.hidden),
            control_image=Image.fromarray(c.control),
            height=px,
            width=px,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
            strength=1.0,
            generator=torch.Generator().manual_seed(c.seed),
        )


def batched(painter: UNetPainter, canvases: Sequence[Canvas], sampling: Sampling, batch: int) -> None:
    """As a run paints."""
    for first in range(0, len(canvases), batch):
        painter.paint(canvases[first : first + batch], sampling)


def matrix_rate() -> float:
    """Multiplications and additions a second of a large product in 16 bits, as the device reaches it."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    n = 20
    took = seconds(lambda: [a @ a for _ in range(n)], "cuda")
    return 2 * 8192**3 * n / took


def measure(
    name: str, size: Size, *, xl: bool, device: str, batches: list[int], steps: int, objects: int
) -> None:
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    cls = (
        diffusers.StableDiffusionXLControlNetInpaintPipeline
        if xl
        else diffusers.StableDiffusionControlNetInpaintPipeline
    )
    pipe = cls(**parts(size, xl=xl)).to(device, dtype)
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(requires_grad=False)
    stack = Stack(pipe, "sdxl" if xl else "sd15", ("canny",), (None,), device)
    canvases = [canvas(n, size.px) for n in range(objects)]
    sampling = Sampling(steps, guidance_scale=5.0)
    few = max(1, objects // 8)
    one_by_one(pipe, canvases[:1], sampling, size.px)
    alone = few / seconds(lambda: one_by_one(pipe, canvases[:few], sampling, size.px), device)
    print(
        f"{name}, {size.px} px, {steps} guided steps, {dtype}: diffusers, one call an object: {alone:.3f} objects/s"
    )
    for batch in batches:
        painter = UNetPainter(stack, HubConfig(paint_batch=batch, window_px=size.px))
        for guided in (1.0, 0.5):
            said = Sampling(steps, 5.0, 0.0, guided)

            painter.paint(canvases[:batch], Sampling(1, 5.0))
            rate = objects / seconds(partial(batched, painter, canvases, said, batch), device)
            share = (
                ""
                if device == "cpu"
                else f", {100 * rate * flops(painter, canvases[0], said) / matrix_rate():.0f} % of the matrix rate"
            )
            how = "guided throughout" if guided == 1 else "guided for the first half"
            print(f"  ours, batches of {batch}, {how}: {rate:.3f} objects/s, {rate / alone:.2f} times{share}")


SCHEDULES = (
    ("ddim", 20, 6.0),
    ("dpm", 20, 6.0),
    ("euler", 20, 6.0),
    ("euler-a", 20, 6.0),
    ("unipc", 20, 6.0),
    ("lcm", 6, 1.0),
    ("tcd", 6, 1.0),
)
"""As presets have them: SD 1.5's own 20 guided steps, and 6 without guidance of one with an adapter for few steps."""


def schedulers(objects: int) -> None:
    """Seconds of an object by scheduler. An adapter is melted into the weights, so it costs no time and none is read here."""
    pipe = diffusers.StableDiffusionControlNetInpaintPipeline(**parts(REDUCED, xl=False))
    stack = Stack(pipe, "sd15", ("canny",), (None,), "cpu")
    canvases = [canvas(n, REDUCED.px) for n in range(objects)]
    print("| scheduler | steps | guided | s an object | against ddim |\n|---|---|---|---|---|")
    first = None
    for name, steps, guidance in SCHEDULES:
        painter = UNetPainter(stack, HubConfig(paint_batch=objects, window_px=REDUCED.px, scheduler=name))
        painter.paint(canvases, Sampling(1, guidance))
        took = seconds(partial(painter.paint, canvases, Sampling(steps, guidance)), "cpu") / objects
        first = first or took
        print(
            f"| {name} | {steps} | {'yes' if guidance > 1 else 'no'} | {took:.2f} | {first / took:.2f} |",
            flush=True,
        )


def flops(painter: UNetPainter, one: Canvas, sampling: Sampling) -> float:
    """Of one object, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        painter.paint([one], sampling)
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--objects", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--schedulers", action="store_true")
    options = parser.parse_args()
    given = {
        "batches": options.batch,
        "steps": options.steps,
        "objects": options.objects,
        "device": options.device,
    }
    if options.device == "cpu":
        torch.set_num_threads(1)
        if options.schedulers:
            schedulers(options.objects)
            return
        measure("reduced SD 1.5", REDUCED, xl=False, **given)
        return
    measure("SD 1.5, full size", FULL, xl=False, **given)
    measure("SDXL, full size", XL, xl=True, **given)


if __name__ == "__main__":
    main()
