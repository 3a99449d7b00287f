"""Where a dataset's image files are, and whether they are what the annotations say: headers and ends, no decoding."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rarefill import jpegs
from rarefill.errors import DataError
from rarefill.progress import Bar

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What is taken for an image when a folder is listed."""
PROBED = 32
OUTSIDE = "is a link out of the image folder"
"""Said of each such image; datasets that keep their images elsewhere have nothing but these."""
_TAIL = 4096
_MODES = frozenset(
    {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L", "I;16N", "I"}
)
_ORIENTATION = 0x0112
_DRIVE = re.compile(r"[A-Za-z]:")
_SPLITS = ("train", "val", "test")


def unsafe(name: str) -> str | None:
    """Why a `file_name` may not be followed, or None."""
    if not name.strip():
        return "must name a file, got nothing"
    if "\0" in name:
        return "must name a file, got a zero byte in it"
    if name.startswith("/") or _DRIVE.match(name):
        return f"must be relative to the image folder, got {name!r}; write it without its folder and name that with --images-dir"
    if ".." in name.split("/"):
        return f"must stay inside the image folder, got {name!r}; name the folder that holds all images with --images-dir"
    return None


def annotations_in(path: Path) -> Path:
    """The annotation file that a path means: itself, or the one that a folder holds.

    Raises:
        DataError: there is none, or more than one.
    """
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path}: no such file; name a COCO file or YOLO's data.yaml")
        return path
    found = [f for f in sorted(path.iterdir()) if f.suffix.lower() in {".json", ".yaml", ".yml"}]
    if len(found) != 1:
        held = ", ".join(f.name for f in found[:6]) or "none"
        raise DataError(f"{path}: is a folder; name the COCO file or data.yaml itself (it holds {held})")
    return found[0]


def find_root(annotations: Path, names: Sequence[str], images: Path | None, *, needed: bool = True) -> Path:
    """The folder that the `file_name`s are relative to: the one of the usual places that holds most of them.

    Args:
        annotations: the COCO file.
        names: the file names; a sample of them is tried.
        images: the folder that the user named, or None.
        needed: whether it is an error to find none; else the first place stands.

    Raises:
        DataError: no place holds any of the images.
    """
    sample = names[:: max(1, len(names) // PROBED)]
    safe = [name for name in sample if unsafe(name) is None]
    probes = safe or [""]
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: not a folder; --images-dir names the folder that holds the image files")
    # Names like images/001.jpg are relative to the folder above the one that people name.
    places = [images, images.parent] if images is not None else list(_usual(annotations))
    held = [sum((place / name).is_file() for name in probes) for place in places]
    best = max(range(len(places)), key=lambda at: (held[at], -at))
    if held[best] or not safe or not needed:
        return places[best]
    if images is not None:
        raise DataError(
            f"{images}: holds none of the images, such as {probes[0]!r}; --images-dir names their folder"
        )
    looked = ", ".join(os.path.relpath(place, annotations.parent) for place in places)
    raise DataError(
        f"{annotations.name}: found none of its images, such as {probes[0]!r}, in {looked} (seen from the file); "
        f"name their folder with --images-dir"
    )


def _usual(annotations: Path) -> Iterator[Path]:
    """Beside the file and above it: its folder, images/, the folder of its own name, split folders, VOC's JPEGImages."""
    folder, stem = annotations.parent, annotations.stem
    own = [stem, stem.removeprefix("instances_"), stem.rpartition("_")[2]]
    own += [split for split in _SPLITS if split in stem.lower()]
    inside = ["", "images", *(f"images/{name}" for name in own), *own, "JPEGImages", "data", "imgs", "img"]
    seen = set()
    for base in (folder, folder.parent):
        for name in (*inside, "train", "images/train", "train2017", "images/train2017"):
            place = base / name
            if place not in seen and place.is_dir():
                seen.add(place)
                yield place


def size(path: Path) -> tuple[int, int]:
    """Width and height as the header says.

    Raises:
        DataError: the file is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(_unreadable(path, e)) from e


def check(
    root: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]], bar: Bar, *, inside: bool = False
) -> Iterator[tuple[int, str, str]]:
    """What is wrong with each image file: its row, the key that it contradicts, and the line's text.

    Args:
        root: the image folder.
        names: N safe file names.
        sizes: N pairs of width and height as annotated; 0 where that is not known.
        bar: counts the images.
        inside: whether to read JPEG files whole, so that damage between their ends is found now and not when they are used.
    """
    real = os.path.realpath(root)

    def one(row: int) -> tuple[str, str] | None:
        return examine(root / names[row], real, sizes[row], inside=inside)

    workers = min(32, 4 * (os.cpu_count() or 1))
    # Size limits of Pillow are about decoding, which happens elsewhere. The filter is global: set it once, outside.
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")
        for row, said in enumerate(pool.map(one, range(len(names)), chunksize=64)):
            bar.advance()
            if said is not None:
                yield row, *said


def examine(
    path: Path, real_root: str, wanted: tuple[int, int], *, inside: bool = False
) -> tuple[str, str] | None:
    """One file: the key and what is wrong, or None."""
    from PIL import Image

    real = os.path.realpath(path)
    if os.path.commonpath((real, real_root)) != real_root:
        return (
            "file_name",
            f"{path.name!r} {OUTSIDE}, to {real}; copy the file, or name its folder with --images-dir",
        )
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            said = _contradiction(path, image.size, image.mode, wanted, orientation)
            if said is None and not _ends(path, image.format):
                image.load()
            if said is None and inside and image.format == "JPEG":
                said = _lost(path)
            return said
    except Image.DecompressionBombError:
        return "file_name", f"{path} is too large to be read as one image; cut it into tiles"
    except (OSError, SyntaxError, ValueError, EOFError) as e:
        return "file_name", _unreadable(path, e)


def _lost(path: Path) -> tuple[str, str] | None:
    """What a JPEG file has lost between its ends."""
    data = np.fromfile(path, dtype=np.uint8)
    if not jpegs.looks_damaged(data):
        return None
    from rarefill import pictures  # cv2 is slow to load, and few files come here

    _, complaint = pictures.decoded(data)
    return ("file_name", f"{path} {jpegs.damage(complaint)}") if complaint else None


def _contradiction(
    path: Path, size: tuple[int, int], mode: str, wanted: tuple[int, int], orientation: object
) -> tuple[str, str] | None:
    if orientation not in (0, 1):
        return "file_name", (
            f"{path} asks viewers to turn it (EXIF orientation {orientation}), so labels may mean either picture; "
            f"rewrite it without the tag, turned as it was labelled"
        )
    if all(wanted) and size != wanted:
        return "width", (
            f"expected {wanted[0]}x{wanted[1]} as annotated, but {path.name} is {size[0]}x{size[1]}; "
            f"correct the entry or restore the file"
        )
    if mode not in _MODES:
        return "file_name", f"{path} has {mode} pixels; 8 or 16 bit, with 1, 3 or 4 bands, are supported"
    return None


def _unreadable(path: Path, e: BaseException) -> str:
    if isinstance(e, FileNotFoundError):
        return f"no file {path}"
    if isinstance(e, OSError) and e.strerror:
        return f"{path} cannot be read: {e.strerror}"
    n_bytes = path.stat().st_size if path.is_file() else 0
    if "truncated" in str(e) or "broken" in str(e).lower():
        return f"{path} is cut off after {n_bytes} bytes; restore the file"
    return f"{path} is not a readable image ({n_bytes} bytes); restore the file or remove its entry"


def _ends(path: Path, format: str | None) -> bool:
    """Whether a JPEG or PNG file has its end marker near its end; other formats are taken on trust."""
    marker = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(format or "")
    if marker is None:
        return True
    with path.open("rb") as f:
        f.seek(0, os.SEEK_END)
        f.seek(max(0, f.tell() - _TAIL))
        return marker in f.read()
