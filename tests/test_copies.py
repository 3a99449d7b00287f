"""Near-copies: what was pasted is found again, what is only alike is not."""

import cv2
import numpy as np
import pytest

from rarefill import likeness
from rarefill.fidelity import copies, windows
from rarefill.fidelity.windows import Windows


def grains(n: int, seed: int) -> np.ndarray:
    """Objects with a grain of their own, uint8 (n, 32, 32, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n, 32, 32, 3))
    fine = np.stack([cv2.GaussianBlur(one, (0, 0), 1.0) for one in coarse])
    return np.clip(128 + 90 * fine, 0, 255).astype(np.uint8)


def held(objects: np.ndarray, images) -> Windows:
    """Windows whose objects fill the middle 32 px, so that `stretched` finds them again."""
    n = len(objects)
    pixels = np.full((n, windows.WINDOW_PX, windows.WINDOW_PX, 3), 128, np.uint8)
    side = 96
    for one, o in zip(pixels, objects, strict=True):
        one[16 : 16 + side, 16 : 16 + side] = cv2.resize(o, (side, side), interpolation=cv2.INTER_CUBIC)
    share = np.tile([16 / 128, 16 / 128, 112 / 128, 112 / 128], (n, 1))
    return Windows(
        pixels, np.zeros((n, 48, 48, 3), np.uint8), np.asarray(images), np.arange(n), share * 128, share
    )


def test_the_quick_way_is_the_whole_one_where_something_is_a_copy():
    pool = grains(30, 1)
    turned = np.stack([np.rot90(pool[7]), pool[12][:, ::-1], pool[3]])
    lit = np.clip(turned * 0.8 + 20, 0, 255).astype(np.uint8)
    best, which = likeness.most_alike(lit, pool)
    whole = likeness.likeness(lit, pool)
    assert which.tolist() == [7, 12, 3] == whole.argmax(axis=1).tolist()
    assert np.allclose(best, whole.max(axis=1), atol=0.02)
    assert (best > 0.9).all()


def test_the_quick_way_is_never_above_the_whole_one():
    objects, pool = grains(12, 2), grains(20, 3)
    best, _ = likeness.most_alike(objects, pool)
    assert (best <= likeness.likeness(objects, pool).max(axis=1) + 1e-5).all()


def test_what_may_not_be_compared_is_not():
    pool = grains(6, 4)
    allowed = ~np.eye(6, dtype=bool)
    best, which = likeness.most_alike(pool, pool, allowed=allowed)
    assert (which != np.arange(6)).all()
    assert (best < 0.9).all()
    none, _ = likeness.most_alike(pool[:1], pool, allowed=np.zeros((1, 6), bool))
    assert none.tolist() == [-1.0]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0)])
def test_nothing_is_like_nothing(n, m):
    best, which = likeness.most_alike(
        grains(n, 1) if n else np.zeros((0, 32, 32, 3), np.uint8),
        grains(m, 2) if m else np.zeros((0, 32, 32, 3), np.uint8),
    )
    assert len(best) == len(which) == n


def test_copies_are_found_and_new_objects_are_not():
    real = grains(40, 50)
    painted = np.concatenate([real[[4, 9]][:, ::-1], grains(20, 200)])
    found = copies.find(held(painted, np.arange(22)), held(real, np.arange(40) // 2))
    assert found.near[:2].all()
    assert found.nearest[:2].tolist() == [4, 9]
    assert found.near[2:].mean() < 0.3
    assert found.mark is not None
    assert (found.real_alike > found.mark).mean() == pytest.approx(copies.CHANCE, abs=0.03)


def test_objects_of_one_image_set_no_mark():
    found = copies.find(held(grains(3, 7), [0, 1, 2]), held(grains(12, 8), np.zeros(12, int)))
    assert found.mark is None
    assert not found.near.any()
    assert len(found.real_alike) == 0
