"""Measuring what was painted: what moves an outline, what does not, and that the silhouette is never far."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from rarefill import bank
from rarefill.annotators import measure, outline
from rarefill.annotators.outline import Source
from rarefill.geometry import Mask, iou, mask_iou
from rarefill.recipe import CheckerConfig
from rarefill.scene import FEATHER_PX, Layout, Paint, Placement, Reason, Render
from tests.gallery import SHAPES

SIDE = 160


def disc(x: float, y: float, rx: float, ry: float) -> Mask:
    rows, cols = np.mgrid[:SIDE, :SIDE] + 0.5
    found = Mask.of(((cols - x) / rx) ** 2 + ((rows - y) / ry) ** 2 <= 1)
    assert found is not None
    return found


def scene(objects: list[tuple[Mask, tuple[int, int, int]]], *, seed: int = 0, dtype: str = "uint8"):
    """A noisy background, and the same with soft-edged objects, all within the second's noise."""
    rng = np.random.default_rng(seed)
    background = np.linspace(60, 160, SIDE)[:, None, None] + rng.normal(0, 2, (SIDE, SIDE, 3))
    pixels = background.copy()
    for mask, colour in objects:
        soft = cv2.GaussianBlur(mask.full(SIDE, SIDE).astype(np.float32), (0, 0), 0.8)[:, :, None]
        pixels = pixels * (1 - soft) + soft * np.array(colour)
    scale = 257 if dtype == "uint16" else 1
    return tuple((p.clip(0, 255).round() * scale).astype(dtype) for p in (pixels, background))


def touched(planned: Mask, by: int = FEATHER_PX) -> Mask:
    near = cv2.distanceTransform(1 - planned.full(SIDE, SIDE).astype(np.uint8), cv2.DIST_L2, 3) <= by
    found = Mask.of(near)
    assert found is not None
    return found


def rendered(true: Mask, planned: Mask, *, generator: str = "compact", colour=(200, 60, 40)) -> Render:
    """A scene in which a generator painted `true` where `planned` was asked, and repainted the ring."""
    pixels, background = scene([(true, colour)])
    allowed = touched(planned)
    pixels = np.where(allowed.full(SIDE, SIDE)[:, :, None], pixels, background)
    layout = Layout(0, 0, (Placement("disc", planned),))
    return Render(layout, background, pixels, (Paint(0, planned, allowed, generator),))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("rx", "ry"), [(20, 20), (26, 18), (60, 45)])
def test_a_silhouette_that_is_off_moves_to_the_object(rx, ry, dtype) -> None:
    true, planned = disc(80, 80, rx, ry), disc(80 + 0.12 * rx, 80 - 0.08 * ry, 0.86 * rx, 1.1 * ry)
    pixels, background = scene([(true, (200, 60, 40))], dtype=dtype)
    found = outline.measured(pixels, background, planned, touched(planned, 12))
    assert found.source is Source.EVIDENCE
    assert mask_iou(found.mask, true) > mask_iou(planned, true) + 0.05
    assert mask_iou(found.mask, true) > 0.9
    assert iou(found.mask.box, true.box) > iou(planned.box, true.box) + 0.05


def test_a_silhouette_that_is_right_stays_as_it_is() -> None:
    true = disc(80, 80, 26, 20)
    pixels, background = scene([(true, (200, 60, 40))])
    assert outline.measured(pixels, background, true, touched(true)).mask is true


def test_where_nothing_stands_out_the_silhouette_stands() -> None:
    planned = disc(80, 80, 24, 24)
    pixels, background = scene([], seed=1)[0], scene([], seed=2)[1]
    found = outline.measured(pixels, background, planned, touched(planned))
    assert found.mask is planned
    assert found.source is not Source.EVIDENCE


def test_evidence_of_something_else_is_said_and_not_obeyed() -> None:
    planned = disc(80, 80, 50, 12)
    ends = Mask.of(disc(38, 80, 7, 7).full(SIDE, SIDE) | disc(122, 80, 7, 7).full(SIDE, SIDE))
    assert ends is not None
    render = rendered(ends, planned)
    found, silhouette = measure.measured(render, 0), measure.painted(render, 0)
    assert found is not None
    assert silhouette is not None
    assert found.source is Source.DEPARTS
    assert found.mask.box == silhouette.box
    verdict = measure.verdict(render, 0, bank.Bank([]), CheckerConfig())
    assert verdict.reason is Reason.UNCHECKED
    assert verdict.asked_overlap == found.agreement < 0.6
    assert verdict.box == silhouette.box


def test_the_label_is_the_measured_box_and_the_verdict_tells_how_far_it_is_from_the_asked() -> None:
    true, planned = disc(82, 80, 26, 22), disc(80, 80, 22, 26)
    verdict = measure.verdict(rendered(true, planned), 0, bank.Bank([]), CheckerConfig())
    assert verdict.box is not None
    assert verdict.mask is not None
    assert iou(verdict.box, true.box) > iou(planned.box, true.box)
    assert verdict.asked_overlap == round(iou(planned.box, verdict.mask.box), 4) < 0.95


def test_a_generator_that_knows_its_pixels_is_believed() -> None:
    true, planned = disc(82, 80, 26, 22), disc(80, 80, 22, 26)
    render = rendered(true, planned, generator="paste")
    found, alpha = measure.measured(render, 0), measure.painted(render, 0)
    assert found is not None
    assert alpha is not None
    assert (found.mask.x, found.mask.y) == (alpha.x, alpha.y)
    assert (found.mask.pixels == alpha.pixels).all()


def test_nothing_outside_the_paint_is_the_object() -> None:
    true, planned = disc(80, 80, 40, 40), disc(80, 80, 30, 30)
    render = rendered(true, planned)
    found = measure.measured(render, 0)
    assert found is not None
    assert found.mask.minus(render.paints[0].touched) is None


def test_pixels_behind_another_paint_are_as_planned() -> None:
    true, planned, front = disc(70, 80, 28, 24), disc(72, 80, 25, 26), disc(100, 80, 16, 16)
    pixels, background = scene([(true, (200, 60, 40)), (front, (40, 60, 220))])
    found = outline.measured(pixels, background, planned, touched(planned), unknown=front)
    there = front.window(0, 0, SIDE, SIDE)
    differs = found.mask.full(SIDE, SIDE) ^ planned.full(SIDE, SIDE)
    inner = cv2.erode(there.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert not (differs & inner).any()


def test_one_answer_on_any_thread() -> None:
    true, planned = disc(82, 80, 26, 22), disc(80, 80, 22, 26)
    render = rendered(true, planned)
    first = measure.measured(render, 0)
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: measure.measured(render, 0), range(12)))
    for other in others:
        assert (other.mask.pixels == first.mask.pixels).all()
        assert (other.mask.x, other.mask.y, other.agreement) == (first.mask.x, first.mask.y, first.agreement)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_shape_gets_an_outline_inside_its_paint(shape) -> None:
    rng = np.random.default_rng(5)
    background = rng.integers(0, 256, (*shape.shape, 3), dtype=np.uint8)
    pixels = background.copy()
    pixels[shape] = (250, 20, 20)
    mask = Mask.of(shape)
    assert mask is not None
    found = outline.measured(pixels, background, mask, mask)
    assert found.mask.minus(mask) is None
    large = Mask.of(np.kron(shape, np.ones((4, 4), bool)))
    assert large is not None
    pixels, background = (np.kron(p, np.ones((4, 4, 1), np.uint8)) for p in (pixels, background))
    assert outline.measured(pixels, background, large, large).mask.minus(large) is None
