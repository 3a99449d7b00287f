"""What is known of each category, learned once: how large and where, in which outlines, and where it is cut off."""

import threading
from dataclasses import dataclass

from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.layouts.partly import Edges
from rarefill.layouts.priors import Prior, Priors
from rarefill.layouts.shapes import Shapes
from rarefill.recipe import LayoutConfig


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of one category.

    Attributes:
        category: its name.
        prior: of its boxes.
        shapes: its silhouettes.
        edges: where it is cut off.
        least_px: the smallest side an object of it may have.
    """

    category: str
    prior: Prior
    shapes: Shapes
    edges: Edges
    least_px: float


class Knowledge:
    """All categories, each learned when it is first asked for. May be used from many threads."""

    def __init__(self, dataset: Dataset, bank: Bank, config: LayoutConfig) -> None:
        self._dataset, self._bank, self._config = dataset, bank, config
        self._priors = Priors(dataset)
        self._lock = threading.Lock()
        self._held: dict[str, Known] = {}

    def of(self, category: str) -> Known:
        """What is known of a category: the same whichever thread asks first.

        Raises:
            DataError: the dataset has no such category.
            ValueError: the category has no box.
        """
        found = self._held.get(category)
        if found is not None:
            return found
        with self._lock:
            if category not in self._held:
                self._held[category] = self._learned(category)
            return self._held[category]

    def _learned(self, category: str) -> Known:
        prior = self._priors.of(category)
        mirror = category not in self._config.no_mirror
        shapes = Shapes(self._dataset, self._bank, category, mirror=mirror)
        least = min(self._config.min_px, prior.least_px)
        return Known(category, prior, shapes, Edges.of(self._dataset, category), least)
