"""A folder of pictures to train on, in the layout of the real one: files, and SOURCES.csv that says what each is."""

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np


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
