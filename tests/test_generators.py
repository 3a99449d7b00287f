"""What holds for every generator: windows, mixing, taking back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarefill.generators import Job, render, take_back
from rarefill.generators.window import Framing, Painted, bands, cut
from rarefill.geometry import Box, Mask, box_mask
from rarefill.scene import FEATHER_PX, Layout, Placement, changed_pixels


class Flat:
    """Paints every window in one colour that the random stream draws, with ripples far beyond what is allowed."""

    name = "flat"

    def __init__(self, framing: Framing | None = None) -> None:
        self.framing = framing or Framing()
        self.calls = 0

    def paint(self, windows):
        self.calls += 1
        return [self._one(w) for w in windows]

    def _one(self, window):
        colour = window.rng().uniform(0, np.iinfo(window.pixels.dtype).max, bands(window.pixels))
        colours = np.full((*window.mask.shape, len(colour)), colour, np.float32)
        alpha = window.mask.astype(np.float32)
        return window.answered(
            Painted(colours, alpha, np.full_like(alpha, 0.3) + 0.7 * alpha, {"flat": True})
        )


def background(height=60, width=80, n=3, dtype=np.uint8):
    return np.random.default_rng(5).integers(
        0, np.iinfo(dtype).max, (height, width, n), dtype=dtype, endpoint=True
    )


def at(x1, y1, x2, y2, depth=0, seed=0) -> Placement:
    mask = box_mask(Box(x1, y1, x2, y2))
    assert mask is not None
    return Placement("thing", mask, depth=depth, seed=seed)


def job(layout, pixels, todo=None, before=None, attempts=None) -> Job:
    n = len(layout.placements)
    return Job(layout, pixels, attempts or (0,) * n, before, tuple(range(n)) if todo is None else todo)


def ring(mask: Mask, height: int, width: int) -> np.ndarray:
    """Slow and obvious: every pixel within FEATHER_PX of the mask."""
    yy, xx = np.nonzero(mask.full(height, width))
    rows, cols = np.mgrid[:height, :width]
    away = np.min([np.hypot(rows - y, cols - x) for y, x in zip(yy, xx, strict=True)], axis=0)
    return np.asarray(away <= FEATHER_PX + 0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_nothing_outside_touched_changes_and_alpha_bands_never_do(n, dtype) -> None:
    pixels = background(n=n, dtype=dtype)
    layout = Layout(0, 0, (at(0, 0, 9, 7), at(40, 30, 52, 44), at(79, 59, 80, 60)))
    (done,) = render(Flat(Framing()), [job(layout, pixels)], seed=1)
    touched = np.zeros(pixels.shape[:2], bool)
    for paint, placement in zip(done.paints, layout.placements, strict=True):
        assert paint.touched is not None
        assert not (paint.touched.full(60, 80) & ~ring(placement.mask, 60, 80)).any()
        touched |= paint.touched.full(60, 80)
    assert not (changed_pixels(done) & ~touched).any()
    assert changed_pixels(done).any()
    assert (done.background == pixels).all()
    assert (done.pixels[:, :, 3:] == pixels[:, :, 3:]).all()
    assert done.pixels.dtype == dtype


def test_the_mask_is_what_was_asked_at_native_resolution() -> None:
    layout = Layout(0, 0, (at(10, 10, 25, 30),))
    (done,) = render(Flat(), [job(layout, background())], seed=1)
    assert done.paints[0].mask is not None
    assert done.paints[0].mask.box == layout.placements[0].box
    assert done.paints[0].how == {"flat": True}


def test_grouping_and_order_of_jobs_change_nothing() -> None:
    layouts = [Layout(i, i % 2, (at(5, 5, 20, 20, seed=i), at(40, 30, 60, 50))) for i in range(4)]
    jobs = [job(layout, background(width=80 + layout.image)) for layout in layouts]
    together = render(Flat(), jobs, seed=3)
    alone = [render(Flat(), [j], seed=3)[0] for j in jobs]
    backwards = render(Flat(), jobs[::-1], seed=3)[::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert np.array_equal(a.pixels, c.pixels)


def test_all_windows_of_all_jobs_are_painted_in_one_call() -> None:
    generator = Flat()
    layouts = [Layout(i, 0, (at(5, 5, 20, 20), at(40, 30, 60, 50))) for i in range(3)]
    render(generator, [job(layout, background()) for layout in layouts], seed=0)
    assert generator.calls == 1


def test_other_images_copies_attempts_and_seeds_look_different() -> None:
    base = Layout(0, 0, (at(5, 5, 20, 20),))
    variants = [
        render(Flat(), [job(layout, background(), attempts=attempts)], seed=seed)[0].pixels[10, 10].tolist()
        for layout, attempts, seed in [
            (base, (0,), 0),
            (replace(base, image=1), (0,), 0),
            (replace(base, copy=1), (0,), 0),
            (base, (1,), 0),
            (base, (0,), 1),
            (Layout(0, 0, (at(5, 5, 20, 20, seed=9),)), (0,), 0),
        ]
    ]
    assert len({tuple(v) for v in variants}) == len(variants)


def test_the_deeper_object_hides_the_other() -> None:
    near, far = at(10, 10, 40, 40, depth=5), at(30, 10, 60, 40, depth=1)
    (done,) = render(Flat(), [job(Layout(0, 0, (near, far)), background())], seed=1)
    assert done.paints[0].mask is not None
    assert done.paints[1].mask is not None
    assert done.paints[0].mask.area == near.mask.area
    assert done.paints[1].mask.area == far.mask.area - near.mask.overlap_px(far.mask)
    assert (done.pixels[20, 35] == done.pixels[20, 15]).all()


def test_an_image_without_placements_stays_as_it_is() -> None:
    pixels = background()
    (done,) = render(Flat(), [job(Layout(0, 0), pixels)], seed=1)
    assert np.array_equal(done.pixels, pixels)
    assert done.paints == ()


def test_what_is_not_to_do_stays_and_what_is_was_taken_back_first() -> None:
    pixels = background()
    layout = Layout(0, 0, (at(5, 5, 20, 20), at(50, 30, 70, 50)))
    (first,) = render(Flat(), [job(layout, pixels)], seed=1)
    moved = Layout(0, 0, (layout.placements[0], at(50, 5, 60, 15)))
    (second,) = render(Flat(), [job(moved, pixels, (1,), first, (0, 1))], seed=1)
    assert np.array_equal(second.pixels[:30, :35], first.pixels[:30, :35])
    assert second.paints[0] is first.paints[0]
    assert np.array_equal(second.pixels[30:], pixels[30:])
    assert (second.pixels[10, 55] != pixels[10, 55]).any()
    assert second.layout is moved
    assert (first.pixels[40, 60] != pixels[40, 60]).any(), "the earlier render is not written into"


def test_taking_everything_back_gives_the_background() -> None:
    pixels = background()
    layout = Layout(0, 0, (at(5, 5, 30, 30), at(20, 20, 50, 50, depth=2), at(25, 0, 35, 59, depth=1)))
    (done,) = render(Flat(), [job(layout, pixels)], seed=1)
    back = take_back(done, [0, 1, 2])
    assert np.array_equal(back.pixels, pixels)
    assert all(p.mask is None and p.touched is None for p in back.paints)
    assert take_back(done, []) is done


@given(gone=st.sets(st.integers(0, 3)), seed=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_after_taking_back_what_is_outside_the_rest_is_the_background(gone, seed) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 40, (4, 2))
    placements = tuple(
        at(x, y, x + 20, y + 18, depth=int(d)) for (x, y), d in zip(corners, rng.permutation(4), strict=True)
    )
    pixels = background()
    (done,) = render(Flat(), [job(Layout(0, 0, placements), pixels)], seed=seed)
    back = take_back(done, gone)
    rest = np.zeros(pixels.shape[:2], bool)
    for paint in back.paints:
        if paint.touched is not None:
            assert paint.index not in gone
            rest |= paint.touched.full(60, 80)
    assert not (changed_pixels(back) & ~rest).any()
    for paint in back.paints:
        if paint.mask is not None:  # what still counts as the object shows the object
            shown = paint.mask.full(60, 80)
            assert (back.pixels[shown] == done.pixels[shown]).all()


def test_a_window_left_without_an_answer_is_not_painted() -> None:
    class Mute(Flat):
        def paint(self, windows):
            return list(windows)

    pixels = background()
    (done,) = render(Mute(), [job(Layout(0, 0, (at(5, 5, 20, 20),)), pixels)], seed=1)
    assert done.paints[0].mask is None
    assert np.array_equal(done.pixels, pixels)


@pytest.mark.parametrize(
    "box", [(0, 0, 3, 3), (77, 57, 80, 60), (0, 0, 80, 60), (30, 0, 50, 60), (20, 20, 40, 30)]
)
@pytest.mark.parametrize("shifted", [True, False])
def test_windows_are_square_and_show_the_background(box, shifted) -> None:
    pixels = background()
    window = cut(pixels, at(*box), Framing(shifted=shifted), image=0, key=(0, 0, 0, 0), seed=0)
    assert window.pixels.shape == (window.side, window.side, 3)
    x1, y1 = max(0, window.x), max(0, window.y)
    x2, y2 = min(80, window.x + window.side), min(60, window.y + window.side)
    inside = window.pixels[y1 - window.y : y2 - window.y, x1 - window.x : x2 - window.x]
    assert np.array_equal(inside, pixels[y1:y2, x1:x2])
    assert window.mask.sum() == window.placement.mask.area
