"""What people look at after a run of versions: images beside their versions, as a sheet and as a page with the counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2
import numpy as np

from rarefill import __version__, files, pictures
from rarefill.dataset import Dataset
from rarefill.plan_page import data_url
from rarefill.rundir import RunDir
from rarefill.scene import Pixels, Sample
from rarefill.versions.summary import Summary, counted, spread

PAIRS = 24
"""On the page, at most."""
SHEET_PAIRS = 12
_SHOWN_PX = 640  # longer side of a picture on the page, and
_SIDE_PX = 360  # on the sheet
_GAP_PX = 6
_PAPER = 250
_KEPT, _DROPPED = (255, 255, 255), (230, 60, 60)
_BYTES = 60_000  # of one picture on the page


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An image beside a version of it, uint8 (H, W, 3) each, labels drawn."""

    before: Pixels
    after: Pixels
    sample: Sample


def write(folder: RunDir, dataset: Dataset, summary: Summary, *, seed: int) -> None:
    """Write `preview.png` and `report.html`.

    Raises:
        DataError: an image is gone.
        RunError: they cannot be written.
    """
    samples = list(folder.samples(dataset))
    drawn = [pair(dataset, folder, samples[k]) for k in spread(range(len(samples)), PAIRS)]
    sheet_of = [drawn[k] for k in spread(range(len(drawn)), SHEET_PAIRS)]
    files.write_bytes(folder.path / "preview.png", pictures.encode(sheet(sheet_of), "png"))
    refused = [take for record in folder.read(dataset) for take in record.takes if not take.outcome.accepted]
    rows = [
        {
            "number": f"{take.number:06d}",
            "image": dataset.images.file_name[take.image],
            "attempt": take.attempt + 1,
            "why": str(take.outcome),
            "words": take.how.get("prompt", ""),
            "what": _what(dataset, take.gone, take.spoiled, [e[0] for e in take.extras]),
        }
        for take in refused[:200]
    ]
    text = page(folder.path.resolve().name, dataset, summary, drawn, rows, len(refused), seed=seed)
    files.write_bytes(folder.path / "report.html", text.encode())


def _what(dataset: Dataset, gone: Sequence[int], spoiled: Sequence[int], extras: Sequence[str]) -> str:
    """What was wrong with a take, in words."""

    def named(rows: Sequence[int]) -> str:
        return ", ".join(
            f"{dataset.names[int(dataset.annotations.category[row])]} {dataset.annotations.id[row]}"
            for row in rows
        )

    said = {"gone": named(gone), "spoiled": named(spoiled), "extra": ", ".join(extras)}
    return "; ".join(f"{key}: {value}" for key, value in said.items() if value)


def pair(dataset: Dataset, folder: RunDir, sample: Sample) -> Pair:
    """An image and its version with their labels, both shown in the image's own range of values."""
    original = dataset.read(sample.image)
    between = pictures.limits(original)
    before = pictures.rgb(original, between)
    after = pictures.rgb(pictures.read(folder.images / sample.file_name), between)
    zoom = _SHOWN_PX / max(before.shape[:2])
    before, after = _scaled(before, zoom), _scaled(after, zoom)
    gone = {row for row, _ in sample.dropped}
    for row in map(int, dataset.rows_in(sample.image)):
        box = [round(v * zoom) for v in dataset.box(row).xyxy]
        for picture in (before, after):
            _box(picture, box, _DROPPED if row in gone else _KEPT)
    return Pair(before, after, sample)


def _scaled(picture: Pixels, zoom: float) -> Pixels:
    size = max(1, round(picture.shape[1] * zoom)), max(1, round(picture.shape[0] * zoom))
    return np.asarray(
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    )


def _box(picture: Pixels, box: Sequence[int], colour: tuple[int, int, int]) -> None:
    """Draw a label: thin, on a dark line, so that it shows on any ground."""
    corners = (box[0], box[1]), (box[2] - 1, box[3] - 1)
    cv2.rectangle(picture, *corners, (0, 0, 0), 3)
    cv2.rectangle(picture, *corners, colour, 1)


def sheet(pairs: Sequence[Pair]) -> Pixels:
    """Pairs below each other, two a row: uint8 (H, W, 3)."""
    cells = [np.concatenate([_fitted(p.before), _fitted(p.after)], axis=1) for p in pairs]
    if len(cells) % 2:
        cells.append(np.full_like(cells[0], _PAPER))
    rows = [np.concatenate(cells[k : k + 2], axis=1) for k in range(0, len(cells), 2)]
    return np.concatenate(rows)


def _fitted(picture: Pixels) -> Pixels:
    """A picture in a square with a margin."""
    small = _scaled(picture, _SIDE_PX / max(picture.shape[:2]))
    out = np.full((_SIDE_PX + _GAP_PX, _SIDE_PX + _GAP_PX, 3), _PAPER, np.uint8)
    top, left = (_SIDE_PX - small.shape[0]) // 2, (_SIDE_PX - small.shape[1]) // 2
    out[top : top + small.shape[0], left : left + small.shape[1]] = small
    return out


def page(
    name: str,
    dataset: Dataset,
    summary: Summary,
    pairs: Sequence[Pair],
    refused: Sequence[dict[str, Any]],
    n_refused: int,
    *,
    seed: int,
) -> str:
    """The page's text; it loads nothing and runs no script."""
    import jinja2
    from markupsafe import Markup

    place = resources.files("rarefill") / "templates"
    css = "".join((place / file).read_text(encoding="utf-8") for file in ("plan.css", "report.css"))
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(
        (place / "versions.html").read_text(encoding="utf-8")
    )
    return template.render(
        css=Markup(css),  # noqa: S704 # our own files
        version=__version__,
        name=name,
        data=dataset.path.name,
        seed=seed,
        summary=summary,
        why_refused=counted(summary.refused),
        why_given_up=counted(summary.given_up),
        pairs=[_shown(dataset, one) for one in pairs],
        refused=refused,
        n_refused=n_refused,
    )


def _shown(dataset: Dataset, one: Pair) -> dict[str, Any]:
    sample = one.sample
    how = sample.how
    return {
        "before": data_url(one.before, _BYTES),
        "after": data_url(one.after, _BYTES),
        "file": sample.file_name,
        "image": dataset.images.file_name[sample.image],
        "words": how.get("prompt") or "no words",
        "strength": how.get("strength", ""),
        "verdict": how.get("verdict", ""),
        "dropped": len(sample.dropped),
        "labels": len(sample.instances),
    }
