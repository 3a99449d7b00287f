"""What a report takes from pixels: tiles for eyes, what is computed of each object, and windows to look for copies in.

Every image is read once. Where there are too many, an even sample is looked at, and the report says so.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rarefill import audit_page, objects, pictures, windows
from rarefill.dataset import Dataset
from rarefill.geometry import Box
from rarefill.layouts import Context
from rarefill.objects import Objects, Surroundings
from rarefill.progress import SILENT, Progress
from rarefill.report.facts import Facts, Painted, spread
from rarefill.scene import Kind, Pixels
from rarefill.windows import Place, Windows

LOOKED_AT = 400
"""Objects of a category, real ones and painted ones each, that are looked at."""
LOOKED_AT_IN_ALL = 2400
REAL_TILES = 10
"""Real objects shown beside a category's painted ones."""
PICTURES_BYTES = 4_500_000
"""Of all tiles together, before base64 makes them a third larger."""
_MOST_BYTES = 20_000  # of one tile, where there are few

Tile = dict[str, Any]
"""As `audit_page.entry` gives it: picture, box and path in thousandths of it, category, note."""


@dataclass(frozen=True, slots=True, eq=False)
class Category:
    """One category's objects as they were looked at.

    Attributes:
        real: of the data.
        painted: of the run, new and redrawn.
        real_rows: rows of the real ones in `dataset.annotations`, in their order.
        painted_rows: rows of the painted ones in `Facts.painted`, in their order.
        real_windows: in the same order.
        painted_windows: in the same order.
    """

    real: Objects
    painted: Objects
    real_rows: tuple[int, ...]
    painted_rows: tuple[int, ...]
    real_windows: Windows
    painted_windows: Windows


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What pixels told.

    Attributes:
        categories: by name, in the order in which they were asked for.
        tiles: of painted objects, by their row in `Facts.painted`.
        real_tiles: of real objects, by their row in `dataset.annotations`.
    """

    categories: Mapping[str, Category]
    tiles: Mapping[int, Tile]
    real_tiles: Mapping[int, Tile]


def gather(facts: Facts, *, context: Context | None = None, progress: Progress = SILENT) -> Gathered:
    """Look at a run's objects, and at as many real ones of the same categories.

    Args:
        facts: of the run.
        context: knows the kinds of surroundings; without it they are left out.
        progress: shows the images.

    Raises:
        DataError: an image is gone or unreadable.
    """
    dataset, names = facts.dataset, facts.categories
    each = max(1, min(LOOKED_AT, LOOKED_AT_IN_ALL // max(1, len(names))))
    painted = {name: _painted_rows(facts, name, each) for name in names}
    real = {name: _real_rows(facts, name, painted[name], each) for name in names}
    shown = {name: [real[name][i] for i in spread(len(real[name]), REAL_TILES)] for name in names}
    n_tiles = len(facts.shown) + sum(map(len, shown.values()))
    most = min(_MOST_BYTES, PICTURES_BYTES // max(1, n_tiles))
    around = None if context is None else _kinds(context)
    look = _Look(dataset, around, most)
    with progress.bar("Report", _n_images(facts, painted, real), "images") as bar:
        tiles, own = _look_at_painted(facts, painted, look, bar.advance)
        real_tiles, theirs = _look_at_real(dataset, real, shown, look, bar.advance)
    return Gathered(
        {
            name: Category(
                theirs[name][0],
                own[name][0],
                tuple(theirs[name][2]),
                tuple(own[name][2]),
                theirs[name][1],
                own[name][1],
            )
            for name in names
        },
        tiles,
        real_tiles,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """How one picture is looked at."""

    dataset: Dataset
    around: Surroundings | None
    most: int

    def __call__(
        self, pixels: Pixels, image: int, boxes: Sequence[Box], ids: Sequence[int]
    ) -> tuple[Objects, Windows]:
        places = [Place(image, name, box) for name, box in zip(ids, boxes, strict=True)]
        return objects.seen(pixels, image, boxes, self.around), windows.cut(lambda _: pixels, places)


_Columns = dict[str, tuple[Objects, Windows, list[int]]]


def _painted_rows(facts: Facts, name: str, most: int) -> list[int]:
    own = [row for row, thing in enumerate(facts.painted) if thing.category == name]
    return [own[i] for i in spread(len(own), most)]


def _real_rows(facts: Facts, name: str, painted: Sequence[int], most: int) -> list[int]:
    """An even sample of the real objects; those that were painted from are in it first."""
    rows = [int(r) for r in facts.dataset.rows_of(name)]
    if len(rows) <= most:
        return rows
    row_of = {int(name): row for row, name in enumerate(facts.dataset.annotations.id)}
    named = {row_of.get(int(facts.painted[p].how.get("exemplar", -1)), -1) for p in painted}
    used = [row for row in rows if row in named][:most]
    rest = [row for row in rows if row not in named]
    return sorted([*used, *(rest[i] for i in spread(len(rest), most - len(used)))])


def _n_images(facts: Facts, painted: Mapping[str, list[int]], real: Mapping[str, list[int]]) -> int:
    files = {facts.painted[row].file for rows in (*painted.values(), facts.shown) for row in rows}
    images = {int(facts.dataset.annotations.image[row]) for rows in real.values() for row in rows}
    return len(files) + len(images)


def _kinds(context: Context) -> Surroundings:
    return lambda image, boxes: context.cells(image, boxes)[:, 0]


def _look_at_painted(
    facts: Facts, rows: Mapping[str, list[int]], look: _Look, advance: Callable[[], None]
) -> tuple[dict[int, Tile], _Columns]:
    looked = {row for held in rows.values() for row in held}
    files: dict[str, list[int]] = defaultdict(list)
    for row in sorted(looked | set(facts.shown)):
        files[facts.painted[row].file].append(row)
    shown, tiles, parts = set(facts.shown), {}, _Parts(rows)
    for file, held in files.items():
        pixels = pictures.read(facts.folder.images / file)
        for row in held:
            if row in shown:
                tiles[row] = _tile(facts.painted[row], pixels, look.most)
        for name, own in _by(held, lambda row: facts.painted[row].category):
            kept = [row for row in own if row in looked]
            things = [facts.painted[row] for row in kept]
            if things:
                ids = [int(thing.how.get("exemplar", -1)) for thing in things]
                parts.add(name, kept, look(pixels, things[0].image, [t.box for t in things], ids))
        advance()
    return tiles, parts.joined()


def _look_at_real(
    dataset: Dataset,
    rows: Mapping[str, list[int]],
    shown: Mapping[str, list[int]],
    look: _Look,
    advance: Callable[[], None],
) -> tuple[dict[int, Tile], _Columns]:
    category = {row: name for name, held in rows.items() for row in held}
    images: dict[int, list[int]] = defaultdict(list)
    for row in sorted(category):
        images[int(dataset.annotations.image[row])].append(row)
    wanted = {row for held in shown.values() for row in held}
    tiles, parts = {}, _Parts(rows)
    for image, held in images.items():
        pixels = dataset.read(image)
        for row in held:
            if row in wanted:
                box = dataset.box(row)
                tiles[row] = audit_page.entry(
                    f"real-{row}", category[row], _size(box), pixels, box, None, look.most
                )
        for name, own in _by(held, category.__getitem__):
            ids = [int(dataset.annotations.id[row]) for row in own]
            parts.add(name, own, look(pixels, image, [dataset.box(row) for row in own], ids))
        advance()
    return tiles, parts.joined()


class _Parts:
    """Columns as they come, picture by picture."""

    def __init__(self, names: Mapping[str, object]) -> None:
        self._held: dict[str, list[tuple[Objects, Windows, list[int]]]] = {name: [] for name in names}

    def add(self, name: str, rows: list[int], found: tuple[Objects, Windows]) -> None:
        self._held[name].append((*found, rows))

    def joined(self) -> _Columns:
        return {
            name: (
                Objects.joined(o for o, _, _ in held),
                windows.joined([w for _, w, _ in held]),
                [row for _, _, rows in held for row in rows],
            )
            for name, held in self._held.items()
        }


def _by(rows: Sequence[int], name: Callable[[int], str]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        found[name(row)].append(row)
    return list(found.items())


def _tile(thing: Painted, pixels: Pixels, most: int) -> Tile:
    """A painted object's tile, with the box asked for where one was."""
    asked = thing.asked if thing.kind is Kind.NEW else None
    return audit_page.entry(
        thing.id, thing.category, _size(thing.box), pixels, thing.box, thing.mask, most, asked=asked
    )


def _size(box: Box) -> str:
    return f"{box.width:.0f} × {box.height:.0f} px"  # noqa: RUF001
