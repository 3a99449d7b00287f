"""What is said of each object: a description of its category, in which words are drawn by the object's own seed."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from rarefill import seeds
from rarefill.errors import RecipeError
from rarefill.generators.window import Window
from rarefill.hub_options import LISTS
from rarefill.seeds import Stage

_CHOICE = re.compile(r"\{([^{}]*)\}")
_WORD = "word"
"""In a description: what stands for the category, its learned word where a fit has taught one."""
_KEY = 1
"""After the object's own key: a stream apart from the one that paints it."""


class Describer:
    """Says of each window what shall be in it."""

    def __init__(
        self,
        names: Sequence[str],
        describe: Mapping[str, str],
        vary: Mapping[str, tuple[str, ...]],
        words: Mapping[str, str],
    ) -> None:
        """Check descriptions.

        Args:
            names: the dataset's categories.
            describe: descriptions of some of them.
            vary: lists of words by name, beside the usual ones.
            words: what stands for a category that is not described; its name where nothing does.

        Raises:
            RecipeError: no such category or list, or braces that do not pair.
        """
        for name in describe:
            if name not in names:
                raise RecipeError(
                    f"recipe: hub.describe: no category named {name!r}; the data has {', '.join(names)}"
                )
        self._lists = {**LISTS, **vary}
        self._words = {name: words.get(name) or name for name in names}
        self._texts = {name: describe.get(name) or "{word}" for name in names}
        for name, text in describe.items():
            check(text, self._lists | {_WORD: ()}, f"recipe: hub.describe: {name}")

    def __call__(self, window: Window) -> str:
        """The words of a window; a plan's own prompt is taken as a description, too."""
        category = window.placement.category
        text = window.placement.prompt or self._texts[category]
        lists = self._lists | {_WORD: (self._words[category],)}
        rng = seeds.rng(window.seed, Stage.PAINT, *window.key, window.placement.seed, _KEY)
        return drawn(text, lists, rng)


def drawn(text: str, lists: Mapping[str, Sequence[str]], rng: np.random.Generator) -> str:
    """A description with one word of each choice: {a|b}, or {name} of a list; an unknown name stays as it is."""

    def one(match: "re.Match[str]") -> str:
        inside = match.group(1)
        options = inside.split("|") if "|" in inside else lists.get(inside.strip())
        if options is None:
            return match.group(0)
        return options[int(rng.integers(len(options)))].strip()

    return " ".join(_CHOICE.sub(one, text).replace(" ,", ",").split()).strip(" ,")


def check(text: str, lists: Mapping[str, Sequence[str]], where: str) -> None:
    """Refuse a description that could not be drawn from.

    Raises:
        RecipeError: braces that do not pair, or a list that nobody named.
    """
    for inside in _CHOICE.findall(text):
        if "|" not in inside and inside.strip() not in lists:
            raise RecipeError(
                f"{where}: no list named {inside.strip()!r}; there are {', '.join(lists)}, or write {{one|other}}"
            )
    if any(brace in _CHOICE.sub("", text) for brace in "{}"):
        raise RecipeError(f"{where}: braces must pair and not nest: {text!r}")
