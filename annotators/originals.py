"""Real objects that painted ones may not copy, where a recipe asks for that."""

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rarefill import likeness, windows
from rarefill.dataset import Dataset
from rarefill.scene import Reason, Render, Verdict
from rarefill.windows import Place

MOST = 400
"""Real objects of a category that painted ones are compared with; an even sample where there are more."""


class Originals:
    """Finds near-copies among painted objects. May be used from several threads."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._lock = threading.Lock()
        self._known: dict[str, tuple[likeness.Pool, float | None]] = {}

    def judged(
        self, renders: Sequence[Render], verdicts: Sequence[tuple[Verdict, ...]]
    ) -> list[tuple[Verdict, ...]]:
        """The same verdicts, with those accepted refused that are more like a real object than real ones are.

        Where too few real objects tell what is usual, nothing is refused.

        Raises:
            DataError: an image with a real object cannot be read.
        """
        return [self._judged(render, held) for render, held in zip(renders, verdicts, strict=True)]

    def _judged(self, render: Render, verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        return tuple(
            replace(v, reason=Reason.COPY) if v.accepted and self._near(render, v) else v for v in verdicts
        )

    def _near(self, render: Render, verdict: Verdict) -> bool:
        if verdict.box is None:
            return False
        pool, mark = self._of(render.layout.placements[verdict.index].category)
        if mark is None:
            return False
        place = Place(0, -1, verdict.box)
        cut = windows.cut(lambda _: render.pixels, [place])
        found, _ = pool.most_alike(windows.stretched(cut, likeness.SIDE_PX))
        return bool(found[0] > mark)

    def _of(self, category: str) -> tuple[likeness.Pool, float | None]:
        """A category's real objects, and the likeness that is too much."""
        with self._lock:
            if category not in self._known:
                self._known[category] = self._looked(category)
            return self._known[category]

    def _looked(self, category: str) -> tuple[likeness.Pool, float | None]:
        data = self._dataset
        rows = data.rows_of(category)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int))]
        images = data.annotations.image[rows].astype(np.int64)
        order = np.argsort(images, kind="stable")
        places = [Place(int(images[i]), -1, data.box(int(rows[i]))) for i in order]
        held = windows.cut(data.read, places)
        pool = likeness.Pool(windows.stretched(held, likeness.SIDE_PX))
        return pool, likeness.mark(pool.mutual(images[order]))
