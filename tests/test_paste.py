"""The paste generator: real pixels in, real pixels kept, nothing else touched."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rarefill import bank
from rarefill.generators import Job, render
from rarefill.generators.paste import Paste
from rarefill.geometry import Box, Mask, box_mask
from rarefill.recipe import GeneratorConfig
from rarefill.scene import FEATHER_PX, Layout, Placement, Shape, changed_pixels

BLENDS = ("hard", "feather", "pyramid", "poisson")


def placed(shapes, category, image, box, *, seed=0, turn=0.0, flip=False, size=(96, 80)) -> Placement:
    """An exemplar of another image, stretched to a box."""
    exemplar = next(e for e in shapes.of(category) if e.image != image)
    shape = Shape(exemplar.annotation, flip, turn)
    mask = bank.silhouette(exemplar.mask, shape, Box(*box)).clipped(*size)
    assert mask is not None
    return Placement(category, mask, seed=seed, shape=shape)


def painted(data, shapes, placements, *, image=0, attempt=0, seed=0, **options):
    generator = Paste(GeneratorConfig(generator="paste", **options), data, shapes)
    layout = Layout(image, 0, tuple(placements))
    n = len(placements)
    job = Job(layout, data.read(image), (attempt,) * n, None, tuple(range(n)))
    return render(generator, [job], seed=seed)[0]


HARD_CASES = {
    "one pixel": (40, 40, 41, 41),
    "three pixels": (40, 40, 43, 43),
    "a line": (10, 20, 70, 22),
    "first corner": (0, 0, 20, 16),
    "last corner": (80, 70, 96, 80),
    "usual": (30, 30, 48, 50),
    "full frame": (0, 0, 96, 80),
}


@pytest.mark.parametrize("blend", BLENDS)
def test_every_pixel_outside_touched_is_the_backgrounds(any_bands, blend) -> None:
    data, shapes = any_bands
    generator = Paste(GeneratorConfig(generator="paste", blends=(blend,)), data, shapes)
    pixels = data.read(0)
    for name, box in HARD_CASES.items():
        placement = placed(shapes, "disc", 0, box, turn=20.0)
        (done,) = render(generator, [Job(Layout(0, 0, (placement,)), pixels, (0,), None, (0,))], seed=4)
        paint = done.paints[0]
        assert paint.mask is not None, name
        assert paint.touched is not None, name
        assert not (changed_pixels(done) & ~paint.touched.full(80, 96)).any(), name
        assert paint.mask.minus(paint.touched) is None, name
        assert done.pixels.dtype == pixels.dtype
        assert (done.pixels[:, :, 3:] == pixels[:, :, 3:]).all()
        x1, y1, x2, y2 = placement.box.xyxy
        far = paint.touched.box
        assert far.x1 >= x1 - FEATHER_PX, name
        assert far.y1 >= y1 - FEATHER_PX, name
        assert far.x2 <= x2 + FEATHER_PX, name
        assert far.y2 <= y2 + FEATHER_PX, name


@pytest.mark.parametrize("blend", BLENDS)
def test_the_mask_painted_is_the_mask_asked_for(tiny_bank, blend) -> None:
    data, shapes = tiny_bank
    for attempt in (0, 1, 2):
        placement = placed(shapes, "disc", 0, (30, 30, 50, 48), turn=10.0, flip=True)
        paint = painted(data, shapes, [placement], attempt=attempt, blends=(blend,)).paints[0]
        assert paint.mask is not None
        assert paint.mask.box == placement.box
        assert np.array_equal(paint.mask.pixels, placement.mask.pixels)


@pytest.mark.parametrize("blend", BLENDS)
def test_the_object_looks_like_its_class(tiny_bank, blend) -> None:
    data, shapes = tiny_bank
    placement = placed(shapes, "square", 0, (10, 40, 28, 58))
    done = painted(data, shapes, [placement], blends=(blend,))
    colour = done.pixels[placement.mask.full(80, 96)].mean(axis=0)
    assert colour == pytest.approx(np.array([0.2, 0.75, 0.9]) * 255, abs=40)


def test_what_was_drawn_is_recorded_as_json(tiny_bank) -> None:
    data, shapes = tiny_bank
    placement = placed(shapes, "disc", 0, (30, 30, 48, 50), turn=12.0, flip=True)
    assert placement.shape is not None
    how = painted(data, shapes, [placement]).paints[0].how
    assert json.loads(json.dumps(how)) == how
    assert how["exemplar"] == int(data.annotations.id[placement.shape.annotation])
    assert (how["flip"], how["rotation_deg"]) == (True, 12.0)
    assert how["blend"] in BLENDS


def test_an_object_is_never_pasted_back_into_its_own_image(tiny_bank) -> None:
    data, shapes = tiny_bank
    home = {int(data.annotations.id[e.annotation]): e.image for e in shapes.of("disc")}
    for seed in range(12):
        own = next(e for e in shapes.of("disc") if e.image == 3)
        mask = own.mask.shifted(1, 1).clipped(96, 80)
        assert mask is not None
        placement = Placement("disc", mask, seed=seed, shape=Shape(own.annotation))
        how = painted(data, shapes, [placement], image=3).paints[0].how
        assert home[int(how["exemplar"])] != 3


def test_a_refused_object_is_painted_from_another_exemplar(tiny_bank) -> None:
    data, shapes = tiny_bank
    placement = placed(shapes, "disc", 0, (30, 30, 48, 50))
    drawn = [painted(data, shapes, [placement], attempt=a).paints[0].how["exemplar"] for a in range(3)]
    assert drawn[1] != drawn[0]
    assert drawn[2] != drawn[0]


def test_a_mask_that_a_person_drew_is_filled(tiny_bank) -> None:
    data, shapes = tiny_bank
    mask = box_mask(Box(20, 20, 50, 35))
    assert mask is not None
    paint = painted(data, shapes, [Placement("disc", mask)]).paints[0]
    assert paint.mask is not None
    assert np.array_equal(paint.mask.pixels, mask.pixels)


def test_without_any_exemplar_nothing_is_painted(tiny_bank) -> None:
    data, _ = tiny_bank
    mask = Mask(10, 10, np.ones((9, 9), bool))
    done = painted(data, bank.Bank([]), [Placement("disc", mask)])
    assert done.paints[0].mask is None
    assert not changed_pixels(done).any()


def test_the_same_seed_gives_the_same_picture_in_any_grouping_and_thread(tiny_bank) -> None:
    data, shapes = tiny_bank
    generator = Paste(GeneratorConfig(generator="paste"), data, shapes)
    jobs = []
    for image in range(6):
        placements = tuple(
            placed(shapes, "disc", image, (x, 25, x + 18, 45), seed=x, turn=x / 3) for x in (5, 40, 70)
        )
        jobs.append(Job(Layout(image, 0, placements), data.read(image), (0, 0, 0), None, (0, 1, 2)))
    together = render(generator, jobs, seed=9)
    fresh = Paste(GeneratorConfig(generator="paste"), data, shapes)
    with ThreadPoolExecutor(3) as pool:
        threads = list(pool.map(lambda job: render(fresh, [job], seed=9)[0], jobs[::-1]))[::-1]
    for a, b in zip(together, threads, strict=True):
        assert np.array_equal(a.pixels, b.pixels)
        assert [p.how for p in a.paints] == [p.how for p in b.paints]
    other = render(generator, jobs, seed=10)
    assert any(not np.array_equal(a.pixels, b.pixels) for a, b in zip(together, other, strict=True))


def test_no_photometry_and_no_noise_leave_a_hard_paste_as_the_exemplar_was(tiny_bank) -> None:
    data, shapes = tiny_bank
    exemplar = next(e for e in shapes.of("disc") if e.image != 0)
    mask = exemplar.mask
    placement = Placement("disc", mask, shape=Shape(exemplar.annotation))
    done = painted(data, shapes, [placement], blends=("hard",), photometric=0.0, match_noise=False)
    inner = mask.full(80, 96)
    old = data.read(exemplar.image)[inner].astype(float)
    new = done.pixels[inner].astype(float)
    assert np.corrcoef(old.mean(axis=1), new.mean(axis=1))[0, 1] > 0.95
    assert np.abs(old.mean(axis=0) - new.mean(axis=0)).max() < 12


def test_blurred_places_get_blurred_objects(tiny_bank) -> None:
    import cv2

    data, shapes = tiny_bank
    placement = placed(shapes, "disc", 0, (30, 30, 50, 50))
    generator = Paste(GeneratorConfig(generator="paste", blends=("hard",)), data, shapes)
    sharp = data.read(0)
    soft = cv2.GaussianBlur(sharp, (0, 0), 2.0)
    how = [
        render(generator, [Job(Layout(0, 0, (placement,)), p, (0,), None, (0,))], seed=1)[0].paints[0].how
        for p in (sharp, soft)
    ]
    assert float(how[1]["blur_px"]) > float(how[0]["blur_px"])


def test_noisy_places_get_noisy_objects(tiny_bank) -> None:
    data, shapes = tiny_bank
    placement = placed(shapes, "disc", 0, (30, 30, 50, 50))
    generator = Paste(GeneratorConfig(generator="paste", blends=("hard",)), data, shapes)
    clean = data.read(0)
    rough = np.random.default_rng(0).normal(clean.astype(float), 25).clip(0, 255).astype(np.uint8)
    noise = [
        float(
            render(generator, [Job(Layout(0, 0, (placement,)), p, (0,), None, (0,))], seed=1)[0]
            .paints[0]
            .how["noise"]
        )
        for p in (clean, rough)
    ]
    assert noise[1] > noise[0] + 8


def test_grey_images_among_coloured_ones_take_coloured_objects(tiny_bank) -> None:
    data, shapes = tiny_bank
    grey = data.read(0)[:, :, :1].copy()
    placement = placed(shapes, "disc", 0, (30, 30, 50, 50))
    generator = Paste(GeneratorConfig(generator="paste"), data, shapes)
    (done,) = render(generator, [Job(Layout(0, 0, (placement,)), grey, (0,), None, (0,))], seed=1)
    assert done.pixels.shape == grey.shape
    assert done.paints[0].mask is not None


def test_building_asks_no_network() -> None:
    code = (
        "import os, socket\n"
        "def refuse(*a, **k): raise SystemExit('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from rarefill.generators.photometry import Photometry\n"
        "Photometry()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
