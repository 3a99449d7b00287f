"""Random square windows of the shelf's pictures: scale, place, turn, tone, caption."""

from dataclasses import dataclass

import cv2
import numpy as np

from rarefill.generators.train.shelf import OVERHEAD, Rgb, Shelf

SHRINK = (0.75, 3.0)
"""A window's pixel stands for so many of the picture's: below 1 it is enlarged a little."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One window to learn from.

    Attributes:
        pixels: uint8 (size, size, 3) RGB.
        caption: what a person might call it; possibly empty.
        group: the set of the picture that it is of.
    """

    pixels: Rgb
    caption: str
    group: str


def draw(
    shelf: Shelf,
    rng: np.random.Generator,
    size: int,
    *,
    held: bool = False,
    shrink: tuple[float, float] = SHRINK,
) -> Sample:
    """A random window of `size` pixels; `held` takes it from the pictures that only measure."""
    row = shelf.draw(rng, held=held)
    picture = shelf.pictures[row]
    shortest = min(picture.height, picture.width)
    most = max(min(shrink[1], shortest / size), shrink[0])
    side = round(size * float(np.exp(rng.uniform(np.log(shrink[0]), np.log(most)))))
    top = int(rng.integers(max(picture.height - side, 0) + 1))
    left = int(rng.integers(max(picture.width - side, 0) + 1))
    pixels = shelf.crop(row, top, left, side)
    if side != size:
        how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
        pixels = np.asarray(cv2.resize(pixels, (size, size), interpolation=how), np.uint8)
    pixels, grey = toned(_turned(pixels, rng, overhead=picture.group in OVERHEAD), rng)
    said = caption(picture.subject, picture.scene, rng, grey=grey or picture.channels == 1)
    return Sample(np.ascontiguousarray(pixels), said, picture.group)


def _turned(pixels: Rgb, rng: np.random.Generator, *, overhead: bool) -> Rgb:
    flip, turns = rng.random() < 0.5, int(rng.integers(4))
    if flip:
        pixels = pixels[:, ::-1]
    return np.rot90(pixels, turns) if overhead else pixels


def toned(pixels: Rgb, rng: np.random.Generator) -> tuple[Rgb, bool]:
    """Grey, turned in hue, inverted or of another contrast, now and then: sensors differ more than the shelf does.

    Returns:
        The pixels, and whether they were made grey.
    """
    draws = rng.random(4)
    if draws[0] < 0.15:
        weights = rng.dirichlet((2.0, 3.0, 1.0))
        pixels = np.repeat(np.clip(pixels @ weights, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    elif draws[1] < 0.1:
        hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(180))) % 180
        pixels = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    if draws[2] < 0.03:
        pixels = 255 - pixels
    if draws[3] < 0.4:
        gamma, gain, lift = np.exp(rng.normal(0, 0.2)), np.exp(rng.normal(0, 0.15)), rng.normal(0, 0.04)
        table = np.clip(np.linspace(0, 1, 256) ** gamma * gain + lift, 0, 1) * 255
        pixels = table.round().astype(np.uint8)[pixels]
    return pixels, bool(draws[0] < 0.15)


def caption(subject: str, scene: str, rng: np.random.Generator, *, grey: bool) -> str:
    """Subject and scene in one of several orders: at painting time the words are a category's name, mostly."""
    words = [word for word in (subject, scene) if word]
    if len(words) == 2:
        both = [words[0], words[0], f"{words[0]}, {words[1]}", f"{words[1]}, {words[0]}"]
        words = [both[int(rng.integers(4))]]
    if grey and rng.random() < 0.5:
        words.append("grey")
    return ", ".join(words)
