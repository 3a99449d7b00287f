"""What `rarefill fidelity` found, as one file: `RUN/fidelity.json`."""

from pathlib import Path

import msgspec

from rarefill.errors import DataError
from rarefill.files import write_bytes

FILE = "fidelity.json"
FORMAT = 1
CAVEAT = (
    "Figures like these say how alike two sets of pictures are. They do not predict whether training on them helps: "
    "only 'rarefill evaluate' does."
)


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel distance to real windows or scenes.

    Attributes:
        category: its name; empty for scenes.
        view: `object` (close crop), `window` (with surroundings) or `scene` (the whole image).
        value: unbiased squared MMD of the cubic kernel; 0 on average for one distribution.
        se: its standard error, by leaving out one image at a time; None where there are too few.
        floor: the same between two halves of the real ones, on average over halvings; `floor_se` is their spread.
        empty: of places without such an object, as a mark; None for scenes.
        real, painted: how many of each.
    """

    category: str
    view: str
    value: float
    se: float | None
    floor: float | None
    floor_se: float | None
    empty: float | None
    real: int
    painted: int


class TwoSample(msgspec.Struct, frozen=True, kw_only=True):
    """How well a classifier tells painted from real, on images that it did not learn from.

    Attributes:
        category: its name; empty for scenes.
        view: `object`, `window` or `scene`.
        how: `features` (linear) or `pixels` (a small network of its own).
        auc: 0.5 is guessing; `low` and `high` are its 95 % interval.
        floor: the same between two halves of the real ones; None where it was not measured.
    """

    category: str
    view: str
    how: str
    auc: float
    low: float
    high: float
    floor: float | None


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """One statistic of boxes: quarter, median and three quarters, and the gap between the distributions, 0 to 1."""

    category: str
    name: str
    real: tuple[float, float, float]
    painted: tuple[float, float, float]
    distance: float
    floor: float


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Variety by number: see `saturation.Saturation`."""

    category: str
    points: tuple[tuple[int, float], ...]
    last: float
    stop: int | None
    says: str


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """Near-copies: see `copies.Copies`."""

    category: str
    painted: int
    near: int | None
    mark: float | None
    median: float
    real_median: float | None


class Cross(msgspec.Struct, frozen=True, kw_only=True):
    """A detector trained on one side, scored on the other: how well it tells objects from empty places (AUC).

    Attributes:
        category: its name.
        trained: `real` or `painted`.
        scored: `real` or `painted`.
        auc: 0.5 is guessing.
        objects, places: how many of each were shown.
    """

    category: str
    trained: str
    scored: str
    auc: float
    objects: int
    places: int


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        format: of this file.
        version: of rarefill.
        run: first 16 hex digits of the hash of the run's records: whose figures these are.
        reference: the real data's file name.
        own_data: whether that is what the run was made from.
        features: what pictures were compared by.
        notes: what a reader should know.
    """

    format: int = FORMAT
    version: str
    run: str
    reference: str
    own_data: bool
    features: str
    distances: tuple[Distance, ...] = ()
    two_samples: tuple[TwoSample, ...] = ()
    layouts: tuple[Layout, ...] = ()
    curves: tuple[Curve, ...] = ()
    copies: tuple[Copied, ...] = ()
    cross: tuple[Cross, ...] = ()
    notes: tuple[str, ...] = ()


def write(path: Path, found: Fidelity) -> None:
    """Write it as JSON, aside and renamed."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def read(path: Path) -> Fidelity:
    """The figures as written.

    Raises:
        DataError: there are none, or another version's.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Fidelity)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror or e}; 'rarefill fidelity' writes it") from e
    except msgspec.MsgspecError as e:
        raise DataError(f"{path}: not this version's figures: {e}; run 'rarefill fidelity' again") from e


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One table for people.

    Attributes:
        title: what it shows.
        about: how to read it.
        head: of the columns.
        rows: cells, the first of each names it.
    """

    title: str
    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_VIEWS = {"object": "object alone", "window": "with surroundings", "scene": "whole image"}
_LAYOUTS = {
    "size": "size, px",
    "aspect": "width / height",
    "across": "place across, share of width",
    "down": "place down, share of height",
    "per image": "objects on an image that has any",
}


def tables(found: Fidelity) -> list[Table]:
    """The figures as tables, the real floor beside each."""
    made = [_distances(found), _two_samples(found), _layouts(found), _copies(found), _cross(found)]
    return [table for table in made if table.rows]


def _distances(found: Fidelity) -> Table:
    return Table(
        title="Kernel distance to real ones",
        about="Unbiased squared MMD with a cubic kernel; near its floor (real to real) is alike. Empty places are a mark, "
        "not a ceiling. Compare within a line, never between datasets or features.",
        head=("what", "distance", "± (one image out)", "real to real", "empty places", "painted", "real"),
        rows=tuple(
            (
                _what(d.category, d.view),
                f"{d.value:.3f}",
                _number(d.se),
                "" if d.floor is None else f"{d.floor:.3f} ± {_number(d.floor_se)}",
                _number(d.empty),
                f"{d.painted:,}",
                f"{d.real:,}",
            )
            for d in found.distances
        ),
    )


def _two_samples(found: Fidelity) -> Table:
    return Table(
        title="Told from real ones",
        about="Chance that a classifier ranks a painted one above a real one, on images it did not learn from; 0.5 is guessing.",
        head=("what", "by", "AUC", "95 % interval", "real to real"),
        rows=tuple(
            (
                _what(t.category, t.view),
                t.how,
                f"{t.auc:.2f}",
                f"{t.low:.2f} to {t.high:.2f}",
                "" if t.floor is None else f"{t.floor:.2f}",
            )
            for t in found.two_samples
        ),
    )


def _layouts(found: Fidelity) -> Table:
    return Table(
        title="Layouts",
        about="Median (quarter to three quarters), and the largest gap between the running shares, 0 to 1.",
        head=("what", "real", "painted", "gap", "real to real"),
        rows=tuple(
            (
                f"{one.category}: {_LAYOUTS.get(one.name, one.name)}",
                _spread(one.real),
                _spread(one.painted),
                f"{one.distance:.2f}",
                f"{one.floor:.2f}",
            )
            for one in found.layouts
        ),
    )


def _copies(found: Fidelity) -> Table:
    return Table(
        title="Copies",
        about="Likeness of each painted object to the most alike real one of the run's own data; near-copies are beyond the "
        "mark, as 5 % of real ones are.",
        head=("what", "painted", "near-copies", "likeness", "real to real", "mark"),
        rows=tuple(
            (
                c.category,
                f"{c.painted:,}",
                "unknown" if c.near is None else f"{c.near:,} ({c.near / max(c.painted, 1):.0%})",
                f"{c.median:.2f}",
                _number(c.real_median, 2),
                _number(c.mark, 2),
            )
            for c in found.copies
        ),
    )


def _cross(found: Fidelity) -> Table:
    return Table(
        title="Trained on one, scored on the other",
        about="How well a detector trained on one side tells the other's objects from empty places (AUC).",
        head=("what", "trained on", "scored on", "AUC", "objects", "empty places"),
        rows=tuple(
            (c.category, c.trained, c.scored, f"{c.auc:.2f}", f"{c.objects:,}", f"{c.places:,}")
            for c in found.cross
        ),
    )


def _what(category: str, view: str) -> str:
    return f"{category}: {_VIEWS[view]}" if category else _VIEWS[view]


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _spread(three: tuple[float, float, float]) -> str:
    low, middle, high = (f"{v:.3g}" for v in three)
    return f"{middle} ({low} to {high})"
