"""How many objects to make: the rules alone, on columns with one row for each category.

Synthetic images help from about one for two real images up to about three for one; below, a detector hardly sees them,
above, it learns the paint more than the world. Split evenly over the classes that are weak, a budget does about as well
as one that is weighted by how weak they are. (Ablations on the share of generated images in detector training.)
"""

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LEAST_RATIO, MOST_RATIO = 0.5, 3.0
"""Images with new objects for each real image, between which they are worth their time."""
RATIO = 1.0
"""What the budget of weak categories comes to: as many images with new objects as there are real ones."""
WEAK = 0.9
"""A category is weak when its AP is below this share of the categories' median: a tenth is more than a second training
with another seed moves it (two standard deviations of one run are about 0.02 to 0.06 where APs are about 0.4)."""
PER_EXEMPLAR = 10
"""The most objects that `auto` makes for each real one: more would only repeat it."""


def weak(ap: Floats) -> NDArray[np.bool_]:
    """bool (C,): AP (C,) clearly below the median; never where it is NaN."""
    return np.asarray(ap < WEAK * median(ap))


def median(ap: Floats) -> float:
    """The median of the categories that have an AP; NaN without one."""
    known = ap[~np.isnan(ap)]
    return float(np.median(known)) if known.size else math.nan


def raised(images: Ints, objects: Ints, wanted_images: float, per_exemplar: int) -> Ints:
    """Objects that bring each category to `wanted_images`, by count alone.

    Args:
        images: (C,), that show the category.
        objects: (C,).
        wanted_images: that shall show each.
        per_exemplar: the most objects for each real one.

    Returns:
        (C,): none for those that have no object or are on so many images already.
    """
    lacking = np.maximum(0.0, wanted_images - images)
    made = np.ceil(np.round(lacking * _per_image(images, objects), 6)).astype(np.int64)
    return np.asarray(np.minimum(made, per_exemplar * objects))


def shared(
    chosen: NDArray[np.bool_], images: Ints, objects: Ints, wanted_images: float, per_exemplar: int
) -> Ints:
    """The same number of objects for each chosen category, so that together they fill `wanted_images`.

    An image is taken to hold as many objects of a category as its real ones do.

    Args:
        chosen: (C,), the categories to make more of.
        images: (C,), that show the category.
        objects: (C,).
        wanted_images: to fill in all.
        per_exemplar: the most objects for each real one; what that takes from one category no other one gets.
    """
    chosen = chosen & (objects > 0)
    images_each = np.where(chosen, 1 / _per_image(images, objects), 0.0).sum()
    each = math.ceil(round(wanted_images / images_each, 6)) if images_each else 0
    return np.asarray(np.where(chosen, np.minimum(each, per_exemplar * objects), 0))


def capped(made: Ints, images: Ints, objects: Ints, most_images: float) -> Ints:
    """Objects (C,), all lowered by one factor where they would fill more than `most_images`; at least one stays of each."""
    filled = images_for(made, images, objects)
    if filled <= most_images:
        return made
    lowered = np.floor(made * (most_images / filled)).astype(np.int64)
    return np.asarray(np.where(made > 0, np.maximum(1, lowered), 0))


def images_for(made: Ints, images: Ints, objects: Ints, per_image: int | None = None) -> float:
    """Images that `made` objects (C,) fill, as many on each as on real ones and `per_image` at most.

    Categories are counted as if they never shared an image: it may come to less.
    """
    held = _per_image(images, objects)
    if per_image is not None:
        held = np.minimum(held, per_image)
    return float((made / held).sum())


def growth(made: Ints, images: Ints, objects: Ints, per_image: int | None = None) -> float:
    """The most that a category's images grow by: those that `made` objects (C,) fill, for each real one that shows it."""
    held = _per_image(images, objects)
    if per_image is not None:
        held = np.minimum(held, per_image)
    return float((made / held / np.maximum(1, images)).max(initial=0.0))


def _per_image(images: Ints, objects: Ints) -> Floats:
    """float64 (C,): objects on an image that shows the category; 1 where none does."""
    return np.asarray(np.maximum(1.0, objects / np.maximum(1, images)))
