"""What fewer bits, a step cache and compiling do to a transformer's steps.

A FLUX.1 transformer of random weights, reduced, takes the same steps each time; on a processor the process's own seconds on
one thread are counted, so that a busy machine does not. How often first-block leaves the other blocks out is for real weights to
say; the table has how often it did here, and what it saves where it does so in every step but the first.

    python benchmarks/hub_light.py [--steps 20] [--layers 4] [--width 512] [--compile] [--device cuda]
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import diffusers
import torch

from rarefill.generators.hub import faster, quantise

TOKENS, WORDS, POOLED = 256, 128, 64
HEAD = 128
REPEATS = 8
"""The first may compile; of the others the quickest counts."""


def transformer(layers: int, width: int, device: str) -> Any:
    torch.manual_seed(0)
    made = diffusers.FluxTransformer2DModel(
        in_channels=64,
        num_layers=layers,
        num_single_layers=2 * layers,
        attention_head_dim=HEAD,
        num_attention_heads=width // HEAD,
        joint_attention_dim=width,
        pooled_projection_dim=POOLED,
        guidance_embeds=False,
    )
    return made.to(device, torch.bfloat16).eval()


@torch.no_grad()
def steps(net: Any, n: int, width: int, device: str) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    given = {
        "encoder_hidden_states": torch.randn(1, WORDS, width, generator=rng),
        "pooled_projections": torch.randn(1, POOLED, generator=rng),
        "txt_ids": torch.zeros(WORDS, 3),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(16.0), torch.arange(16.0)),
    }
    given = {k: v.to(device, torch.bfloat16) for k, v in given.items()}
    latents = torch.randn(1, TOKENS, 64, generator=rng).to(device, torch.bfloat16)
    with net.cache_context("cond"):
        for k in range(n):
            t = torch.full((1,), 1 - k / n, device=device)
            latents = latents - net(hidden_states=latents, timestep=t, return_dict=False, **given)[0] / n
    return latents


@contextmanager
def timed(device: str, into: list[float]) -> Iterator[None]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    begun = clock()
    yield
    if device != "cpu":
        torch.cuda.synchronize()
    into.append(clock() - begun)


def counted(block: Any) -> list[None]:
    """Grows by one whenever a block's attention is computed, not only asked for."""
    asked: list[None] = []
    block.attn.to_q.register_forward_hook(lambda *_: asked.append(None))
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    rows = [
        ("plain", "none", "none", False),
        ("float8", "float8", "none", False),
        ("taylor", "none", "taylor", False),
        ("first-block", "none", "first-block", False),
        ("first-block, as if nothing changed", "none", "first-block", False),
    ]
    rows += [("compiled", "none", "none", True)] if args.compile else []
    print(
        "| | MB of weights | s for the steps | against plain | first call, s | last block computed |\n|---|---|---|---|---|---|"
    )
    plain, like = None, faster._LIKE  # noqa: SLF001 (as below)
    for name, bits, cache, compiled in rows:
        net = transformer(args.layers, args.width, args.device)
        pipe = SimpleNamespace(transformer=net)
        quantise.stored(pipe, bits, torch.bfloat16)  # type: ignore[arg-type]
        faster._LIKE = 1e9 if "nothing" in name else like  # noqa: SLF001 (no option: only to show the bound)
        faster.enable(pipe, "flux", cache, compiled=compiled)  # type: ignore[arg-type]
        spent: list[float] = []
        asked = counted(net.single_transformer_blocks[-1])
        for _ in range(REPEATS):
            asked.clear()
            if cache != "none":
                net._reset_stateful_cache()  # noqa: SLF001 (as a pipeline does after a call)
            with timed(args.device, spent):
                steps(net, args.steps, args.width, args.device)
        held = sum(p.numel() * p.element_size() for p in net.parameters()) / 1e6
        best = min(spent[1:])
        plain = plain or best
        print(
            f"| {name} | {held:.0f} | {best:.2f} | {plain / best:.2f} | {spent[0]:.1f} | {'-' if compiled else f'{len(asked)} of {args.steps}'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
