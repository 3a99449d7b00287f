"""The stages in the order in which they are run, each from what the one before left in the training folder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTokenizer

from rarefill.generators.detail import DetailNetwork
from rarefill.generators.pipelines import Network
from rarefill.generators.train import checkpoint, export, loop, record, shapes, start, words
from rarefill.generators.train.diffusion import Painting, Parts
from rarefill.generators.train.record import STATE
from rarefill.generators.train.rendered import Rendered, Renderer
from rarefill.generators.train.shelf import Shelf
from rarefill.generators.train.sources import Mixed, Source, Unlabelled
from rarefill.generators.train.upscale import Upscaling
from rarefill.generators.train.vae import Autoencoding, some
from rarefill.generators.upscale import Settings, save


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What every stage works with.

    Attributes:
        folder: the training folder.
        shelf: the pictures.
        device: "cpu" or "cuda".
        render: makes pictures of the project's own, of which
        rendered: this share of the windows of stage 2 is taken.
    """

    folder: Path
    shelf: Shelf
    device: str
    render: Renderer | None = None
    rendered: float = 0.0

    @property
    def frozen(self) -> Path:
        """The autoencoder whose latents are fixed."""
        return self.folder / "autoencoder"

    @property
    def source(self) -> Source:
        """Where stage 2 takes its windows from."""
        shelf = Unlabelled(self.shelf)
        if self.render is None or not self.rendered:
            return shelf
        return Mixed(shelf, Rendered(self.render, "microscope image"), self.rendered)


def vae(work: Work, settings: loop.Settings) -> int:
    """Stage 1. Returns the number of steps done in all, as do the others."""
    torch.manual_seed(settings.seed)
    model = shapes.autoencoder()
    if not (work.folder / "vae" / STATE).exists():
        start.linear(model, some(work.shelf, 256, 20_000))
    model = model.to(work.device, memory_format=torch.channels_last)
    stage = Autoencoding(model, work.shelf, settings, size=settings.window, device=work.device).stage()
    return loop.run(stage, work.folder / "vae", settings)


def decoder(work: Work, settings: loop.Settings) -> int:
    """Stage 3: the latents stay as they are, so it may run before, beside or after stage 2."""
    model = export.autoencoder(work.frozen).to(work.device, memory_format=torch.channels_last)
    stage = Autoencoding(
        model, work.shelf, settings, decoder_alone=True, size=settings.window, device=work.device
    ).stage()
    return loop.run(stage, work.folder / "decoder", settings)


def diffusion(work: Work, settings: loop.Settings) -> int:
    """Stage 2."""
    model = export.autoencoder(work.frozen).to(work.device, memory_format=torch.channels_last)
    tokenizer = vocabulary(work)
    torch.manual_seed(settings.seed)
    parts = networks(len(tokenizer))
    ready(parts, work.device)
    stage = Painting(
        parts, model, tokenizer, work.source, settings, size=settings.window, device=work.device
    ).stage()
    return loop.run(stage, work.folder / "diffusion", settings)


def upscale(work: Work, settings: loop.Settings) -> int:
    """Stage 4, with the text encoder that stage 2 has by now and the decoder of stage 3, where they ran."""
    tokenizer, model = vocabulary(work), autoencoder(work)
    torch.manual_seed(settings.seed)
    network, text = DetailNetwork(), shapes.text_encoder(len(tokenizer))
    base = work.folder / "diffusion" / STATE
    text_steps = checkpoint.load_averages(base, nn.ModuleDict({"text_encoder": text})) if base.exists() else 0
    stage = Upscaling(
        network.to(work.device).to(memory_format=torch.channels_last),
        model.to(work.device, memory_format=torch.channels_last),
        tokenizer,
        text,
        work.shelf,
        settings,
        size=settings.window,
        text_steps=text_steps,
        device=work.device,
    ).stage()
    return loop.run(stage, work.folder / "upscale", settings)


def write(work: Work, to: Path) -> int:
    """The shipped folder, from the averaged weights of stages 2 and, where it ran, 3; that of stage 4 beside it."""
    tokenizer = vocabulary(work)
    parts, model = networks(len(tokenizer)), autoencoder(work)
    step = checkpoint.load_averages(work.folder / "diffusion" / STATE, parts.module())
    export.write_pipeline(to, parts, model, tokenizer)
    record.write(to, work.folder, work.shelf)
    if (work.folder / "upscale" / STATE).exists():
        write_upscaler(work, to.parent / "upscaler")
        export.small_enough(to, to.parent / "upscaler")
    return step


def write_upscaler(work: Work, to: Path) -> int:
    """The upscaler's folder, from the averaged weights of stage 4."""
    network = DetailNetwork()
    step = checkpoint.load_averages(work.folder / "upscale" / STATE, nn.ModuleDict({"network": network}))
    save(to, network, Settings(trained_steps=step))
    return step


def autoencoder(work: Work) -> Network:
    """The autoencoder as it is shipped: with the decoder of stage 3, where it ran."""
    model = export.autoencoder(work.frozen)
    if (work.folder / "decoder" / STATE).exists():
        checkpoint.load_averages(work.folder / "decoder" / STATE, model)
    return model


def ready(parts: Parts, device: str) -> None:
    """Bring networks to where they learn, in place."""
    if device == "cpu":
        # At these sizes the fused kernel's backward pass takes a fifth of a step, plain products half of that.
        for part in (parts.unet, parts.controlnet):
            part.set_attn_processor(AttnProcessor())
    parts.module().to(device)


def networks(vocabulary_size: int) -> Parts:
    """The networks of stage 2 at their shipped size, untrained."""
    return Parts(shapes.unet(), shapes.controlnet(), shapes.text_encoder(vocabulary_size))


def vocabulary(work: Work) -> CLIPTokenizer:
    """Made of the shelf's words once; kept, since the text encoder is bound to it."""
    folder = work.folder / "tokenizer"
    if not folder.is_dir():
        captions = [f"{picture.subject} {picture.scene} grey" for picture in work.shelf.pictures]
        words.tokenizer(captions).save_pretrained(folder)
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer
