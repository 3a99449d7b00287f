"""A folder of pictures to train on, in the layout of the real one: files, and SOURCES.csv that says what each is."""

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from rarefill.generators.train import loop


def write(folder: Path, picture: Callable[[int, str], np.ndarray], origin: Callable[[int], str]) -> Path:
    """Forty pictures, uint8 (H, W, 3) RGB by number and set, of the sets trash and nuclei in turn; `origin` names the file behind each."""
    with (folder / "SOURCES.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "set", "domain", "attribution"])
        for n in range(40):
            group = ("trash", "nuclei")[n % 2]
            cv2.imwrite(str(folder / f"{n:02}.png"), picture(n, group)[..., ::-1])
            table.writerow([f"{n:02}.png", group, "things", f"someone | {origin(n)}"])
    return folder


def cells_and_stripes(folder: Path) -> Path:
    """Microscope pictures with cells that stand out, and stripes under every other name."""
    return write(folder, lambda n, group: _picture(n, cells=group == "nuclei"), lambda n: f"{n}.png")


def _picture(n: int, *, cells: bool) -> np.ndarray:
    """uint8 (150, 160, 3): bright discs on black, or noise in stripes."""
    draw = np.random.default_rng([3, n])
    if not cells:
        stripes = np.sin(np.arange(160) / (2 + n % 5))[None, :, None] * 60 + 120
        return np.clip(stripes + draw.normal(0, 20, (150, 160, 3)), 0, 255).astype(np.uint8)
    pixels = np.full((150, 160, 3), 12, np.uint8)
    for y in range(20, 150, 36):
        for x in range(20, 160, 36):
            cv2.circle(
                pixels, (x + int(draw.integers(-4, 5)), y), int(draw.integers(6, 11)), (200, 190, 210), -1
            )
    return pixels


def stopped_and_gone_on(
    stage: loop.Stage, folder: Path, first: loop.Settings, then: loop.Settings
) -> list[float]:
    """The loss of each step of a training that stops at `first.until` and goes on to `then.until`."""
    losses: list[float] = []

    def counted(step: int) -> loop.Losses:
        found = stage.losses(step)
        losses.append(float(found["loss"].detach()))
        return found

    whole = loop.Stage(stage.module, counted, stage.sheet)
    for part in (first, then):
        assert loop.run(whole, folder, part) == part.until
    return losses
