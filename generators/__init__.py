"""Generators paint one object into one window; cutting, mixing and taking back are common to all."""

from typing import assert_never

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.generators.render import Generator, Job, render, take_back
from rarefill.generators.window import Framing, Painted, Window
from rarefill.recipe import GeneratorConfig

__all__ = ["Framing", "Generator", "Job", "Painted", "Window", "build", "render", "take_back"]


def build(config: GeneratorConfig, dataset: Dataset, bank: Bank, *, device: str = "cpu") -> Generator:
    """Make the generator that the recipe names. Heavy imports happen here, on demand.

    Args:
        config: the recipe's section.
        dataset: whose objects and images.
        bank: its shapes.
        device: where a model runs; paste has none.
    """
    del device
    match config.generator:
        case "paste":
            from rarefill.generators.paste import Paste

            return Paste(config, dataset, bank)
        case _:
            assert_never(config)
