"""The pictures to train on, decoded once into a file that is mapped into memory, with words for each."""

import csv
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from rarefill.errors import DataError

Rgb = NDArray[np.uint8]
"""uint8 (H, W, 3)."""

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
HELD_BACK = 20
"""One photograph in so many is never trained on: it measures."""

OVERHEAD = frozenset({"nuclei", "cellprofiler", "usgs", "kit_ais", "deepforest"})
"""Sets without an upright side: their windows may be turned by quarter turns."""

SCENES: Mapping[str, tuple[str, str]] = {
    # set: (scene, subject); "/" takes the folder that the picture came from, "." its file name
    "azure": ("photograph", "/"),
    "budgie": ("landscape", ""),
    "cards": ("table top", "playing card"),
    "cellprofiler": ("microscope image", "cell"),
    "clothing": ("indoors", "/"),
    "cxr": ("x-ray image", "chest"),
    "deepforest": ("aerial photograph", "forest"),
    "driving": ("road", ""),
    "elementary": ("landscape", ""),
    "flower_photos": ("garden", "/"),
    "grocery": ("shop", "/"),
    "kit_ais": ("aerial photograph", "road traffic"),
    "nuclei": ("microscope image", "cell nucleus"),
    "skimage": ("photograph", "."),
    "thermal": ("thermal image", ""),
    "trash": ("plain board", "/"),
    "usgs": ("satellite image", "land"),
    "wildlife": ("camera trap", "."),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the shelf.

    Attributes:
        name: its path under the shelf.
        group: the set it belongs to.
        scene: words for the kind of picture, possibly empty.
        subject: words for what is in it, possibly empty.
        held: whether it is kept out of training.
        start: where its bytes begin in the cache.
        height: in pixels.
        width: in pixels.
        channels: 1 (grey) or 3 (RGB), as cached.
    """

    name: str
    group: str
    scene: str
    subject: str
    held: bool
    start: int
    height: int
    width: int
    channels: int


class Shelf:
    """Decoded pictures, read through a memory map.

    Attributes:
        train: rows of pictures to train on.
        held: rows of pictures that only measure.
    """

    def __init__(self, pictures: tuple[Picture, ...], store: NDArray[np.uint8]) -> None:
        self.pictures = pictures
        self._store = store
        self.train = tuple(row for row, picture in enumerate(pictures) if not picture.held)
        self.held = tuple(row for row, picture in enumerate(pictures) if picture.held)
        if not self.train or not self.held:
            raise DataError(
                f"{len(pictures)} pictures leave {len(self.train)} to train on and {len(self.held)} to measure "
                "with; add pictures"
            )
        self._odds = {rows: self._balanced(rows) for rows in (self.train, self.held)}

    def _balanced(self, rows: tuple[int, ...]) -> NDArray[np.float64]:
        """A set counts with the square root of its size: 11 thermal pictures beside 280 of cards are seen, too."""
        sizes: dict[str, int] = {}
        for row in rows:
            sizes[self.pictures[row].group] = sizes.get(self.pictures[row].group, 0) + 1
        weights = np.array([sizes[self.pictures[row].group] ** -0.5 for row in rows])
        return np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator, *, held: bool = False) -> int:
        """A random row, small sets favoured."""
        rows = self.held if held else self.train
        return rows[min(int(np.searchsorted(self._odds[rows], rng.random())), len(rows) - 1)]

    def crop(self, row: int, top: int, left: int, side: int) -> Rgb:
        """uint8 (side, side, 3) RGB; what lies over the picture's edge is mirrored in."""
        picture = self.pictures[row]
        size = picture.height * picture.width * picture.channels
        pixels = self._store[picture.start : picture.start + size]
        pixels = pixels.reshape(picture.height, picture.width, picture.channels)
        part = np.ascontiguousarray(pixels[top : top + side, left : left + side])
        if part.shape[0] < side or part.shape[1] < side:
            grown = (0, side - part.shape[0], 0, side - part.shape[1])
            part = np.atleast_3d(cv2.copyMakeBorder(part, *grown, cv2.BORDER_REFLECT))
        return np.repeat(part, 3, axis=2) if picture.channels == 1 else part


def open_shelf(pictures: Path, cache: Path) -> Shelf:
    """The pictures below a folder, decoded into `cache` on first use.

    Args:
        pictures: the folder; a `SOURCES.csv` in it (columns file, set, domain, attribution) gives the words.
        cache: where `pictures.u8` and `pictures.json` go; some 0.5 GB for 2 300 pictures of 384 px.

    Raises:
        DataError: there are no pictures, or one cannot be decoded.
    """
    rows = _sources(pictures)
    if not rows:
        raise DataError(f"{pictures}: no pictures ({', '.join(sorted(ENDINGS))}); give a folder of pictures")
    fingerprint = hashlib.sha256(
        json.dumps([rows, sorted(SCENES.items()), sorted(held_back(rows))]).encode()
    ).hexdigest()
    index, store = cache / "pictures.json", cache / "pictures.u8"
    if not (
        index.exists() and store.exists() and json.loads(index.read_text())["fingerprint"] == fingerprint
    ):
        cache.mkdir(parents=True, exist_ok=True)
        _decode(pictures, rows, index, store, fingerprint)
    listed = msgspec.convert(json.loads(index.read_text())["pictures"], tuple[Picture, ...])
    return Shelf(listed, np.memmap(store, dtype=np.uint8, mode="r"))


def _sources(folder: Path) -> list[dict[str, str]]:
    table = folder / "SOURCES.csv"
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return [{"file": path.relative_to(folder).as_posix(), "set": path.parent.name} for path in found]


def _decode(folder: Path, rows: list[dict[str, str]], index: Path, store: Path, fingerprint: str) -> None:
    pictures: list[Picture] = []
    start, apart = 0, held_back(rows)
    aside = store.with_suffix(".part")
    with aside.open("wb") as file:
        for row in rows:
            pixels = cv2.imread(str(folder / row["file"]), cv2.IMREAD_UNCHANGED)
            if pixels is None or pixels.dtype != np.uint8:
                raise DataError(f"{row['file']}: not a picture of 8 bits that can be decoded")
            pixels = np.atleast_3d(pixels)
            pixels = pixels[..., :1] if pixels.shape[2] < 3 else pixels[..., 2::-1]
            height, width, channels = pixels.shape
            file.write(np.ascontiguousarray(pixels).tobytes())
            held = photograph(row) in apart
            pictures.append(_picture(row, start, height, width, channels, held=held))
            start += height * width * channels
    aside.rename(store)
    text = json.dumps({"fingerprint": fingerprint, "pictures": [asdict(picture) for picture in pictures]})
    index.write_text(text)


def _picture(
    row: Mapping[str, str], start: int, height: int, width: int, channels: int, *, held: bool
) -> Picture:
    group = row.get("set") or "pictures"
    scene, rule = SCENES.get(group, (row.get("domain") or "", group))
    said = subject(rule, photograph(row))
    return Picture(row["file"], group, scene, said, held, start, height, width, channels)


def photograph(row: Mapping[str, str]) -> str:
    """What a picture was cut from. Crops of one photograph are held back together, or they would have been seen."""
    return re.sub(r" crop .*$", "", row.get("attribution") or row["file"])


def held_back(rows: list[dict[str, str]]) -> frozenset[str]:
    """The photographs that only measure: a fixed share, at least one, chosen by a hash of what they are called."""
    names = sorted({photograph(row) for row in rows}, key=lambda name: (zlib.crc32(name.encode()), name))
    return frozenset(names[: max(len(names) // HELD_BACK, 1)])


def subject(rule: str, origin: str) -> str:
    """Words for what is in a picture, by its set's rule: "/" the folder's name, "." the file's, else the rule."""
    if rule not in {"/", "."}:
        return rule
    parts = origin.rsplit("|", maxsplit=1)[-1].strip().split("/")
    word = parts[-2] if rule == "/" and len(parts) > 1 else parts[-1].rsplit(".", 1)[0]
    word = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", word)
    return " ".join(word.lower().split())
