"""What a plan asks beyond the limits that a planner keeps. A person's plan is obeyed all the same: this says what that means."""

from collections import Counter
from collections.abc import Iterator, Sequence

import shapely

from rarefill import geometry
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.layouts.backgrounds import most_uses
from rarefill.layouts.obstacles import region_of
from rarefill.recipe import LayoutConfig
from rarefill.scene import Layout, Placement

MOST = 8
"""Lines, at most; the rest is counted."""
_ROUNDING = 0.02  # masks are whole pixels: this much more than a limit is no one's wish


def notes(dataset: Dataset, layouts: Sequence[Layout], config: LayoutConfig) -> list[str]:
    """One line for each thing that a planner would not have done, in the plan's order, at most `MOST` and a count.

    Args:
        dataset: the real data.
        layouts: the plan.
        config: the limits.
    """
    found = [*_placed(dataset, layouts, config), *_used(dataset, layouts, config)]
    if len(found) > MOST:
        return [*found[:MOST], f"and {len(found) - MOST} more of the kind"]
    return found


def incomplete(dataset: Dataset) -> str | None:
    """What becomes of images that lost an annotation in lenient reading; None where none did."""
    n, n_images = len(dataset.incomplete), len(dataset.images)
    if not n:
        return None
    if n == n_images:
        return (
            "every image lost an annotation that was left out, so new ones are made of them all the same: "
            "objects that are not labelled there have no label on new images either"
        )
    images = "1 image" if n == 1 else f"{n} images"
    return (
        f"{images} of {n_images} lost an annotation that was left out, so something there has no label: "
        f"no new image is made of {'it' if n == 1 else 'them'}"
    )


def _placed(dataset: Dataset, layouts: Sequence[Layout], config: LayoutConfig) -> Iterator[str]:
    region = region_of(config.region)
    for number, layout in enumerate(layouts, 1):
        where = f"layout {number} ({dataset.images.file_name[layout.image]}, copy {layout.copy})"
        new = [(i, p) for i, p in enumerate(layout.placements) if p.redraws is None]
        hidden = [h for h in _hidden(dataset, layout.image, new) if h[0] > config.max_overlap + _ROUNDING]
        if hidden:
            share, row, i = max(hidden)
            name = dataset.names[int(dataset.annotations.category[row])]
            others = f", and parts of {len(hidden) - 1} more real ones" if len(hidden) > 1 else ""
            yield (
                f"{where}: placements[{i}] hides {share:.0%} of a real {name!r} (annotation "
                f"{dataset.annotations.id[row]}){others}; max_overlap is {config.max_overlap:g}, and what is hidden "
                "is measured again or loses its label"
            )
        for share, i, j in _covered(new):
            if share > config.max_overlap + _ROUNDING:
                yield (
                    f"{where}: placements[{i}] covers {share:.0%} of placements[{j}]; max_overlap is "
                    f"{config.max_overlap:g}, and what is covered may be refused or painted elsewhere"
                )
        if region is not None:
            width, height = int(dataset.images.width[layout.image]), int(dataset.images.height[layout.image])
            for i, placement in new:
                x, y = placement.box.center
                if not shapely.contains_xy(region, x / width, y / height):
                    yield f"{where}: placements[{i}] has its middle outside the region"


def _hidden(
    dataset: Dataset, image: int, new: Sequence[tuple[int, Placement]]
) -> Iterator[tuple[float, int, int]]:
    """For each real object under paint: the hidden share, its row, and which placement hides most of it."""
    for row in dataset.rows_in(image).tolist():
        if dataset.annotations.crowd[row]:
            continue
        box = dataset.box(row)
        near = [(i, p.mask) for i, p in new if _meet(box, p.box)]
        own = (dataset.mask(row) or geometry.box_mask(box)) if near else None
        if own is None:
            continue
        common = [(own.overlap_px(mask), i) for i, mask in near]
        if any(n for n, _ in common):
            yield min(1.0, sum(n for n, _ in common) / own.area), row, max(common)[1]


def _covered(new: Sequence[tuple[int, Placement]]) -> Iterator[tuple[float, int, int]]:
    """Pairs of placements that overlap: the share of the one behind, the one in front, the one behind."""
    order = sorted(new, key=lambda pair: pair[1].depth)
    for n, (i, behind) in enumerate(order):
        for j, front in order[n + 1 :]:
            common = front.mask.overlap_px(behind.mask) if _meet(front.box, behind.box) else 0
            if common:
                yield common / behind.mask.area, j, i


def _used(dataset: Dataset, layouts: Sequence[Layout], config: LayoutConfig) -> Iterator[str]:
    asked = {p.category for layout in layouts for p in layout.placements}
    for image, n in Counter(layout.image for layout in layouts).items():
        held = {dataset.names[c] for c in dataset.annotations.category[dataset.rows_in(image)].tolist()}
        most = most_uses(config, home=bool(held & asked))
        if image in dataset.incomplete:
            yield f"{dataset.images.file_name[image]} lost an annotation that was left out: that object has no label on new images"
        if n > most:
            yield f"{dataset.images.file_name[image]} is used {n} times; max_reuse is {most}"


def _meet(a: Box, b: Box) -> bool:
    return a.x1 < b.x2 and b.x1 < a.x2 and a.y1 < b.y2 and b.y1 < a.y2
