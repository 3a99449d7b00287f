"""Training of the embedded model from nothing: `python -m rarefill.generators.train vae|diffusion|export`.

Stage 1 trains the autoencoder (`vae`), stage 2 the denoising network, its ControlNet and its text encoder
together (`diffusion`). `docs/training.md` has the commands and what they gave. Nothing here runs at painting
time, except through `rarefill.generators.compact_conditioning`, which both sides share.
"""
