"""The arms of a study: what stands in the training list of each, by name.

    real  repeat  rfs                      the real images: as they are, rare ones repeated, repeat-factor sampling
    copy-paste                             plain copy-paste at random places: free, so a baseline too
    paste  compact  (any run folder)       what rarefill makes
    oracle                                 more real data

`compact+rfs` draws its real images by repeat-factor sampling; `compact@0.5` shows one generated image for two real ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rarefill.errors import UsageError
from rarefill.proof.study import Kind

PLAIN = ("real", "repeat", "rfs")
COPY_PASTE = "copy-paste"
GENERATORS = ("paste", "compact")
ORACLE = "oracle"
DEFAULT = (*PLAIN, COPY_PASTE, *GENERATORS)
ADVICE = {
    "real": "train on the real images as they are",
    "repeat": "repeat the rare images",
    "rfs": "use repeat-factor sampling",
    COPY_PASTE: "use plain copy-paste",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """One arm.

    Attributes:
        source: `real`, `repeat`, `copy-paste`, `oracle`, a generator or a run's name.
        rfs: whether real images are drawn by repeat-factor sampling.
        ratio: generated images for each real one; None where nothing is generated.
    """

    source: str
    rfs: bool = False
    ratio: float | None = None

    @property
    def name(self) -> str:
        """As it is asked for: `rfs`, `compact+rfs`, `paste@0.5`; a ratio of 1 is not said."""
        if self.source == "real" and self.rfs:
            return "rfs"
        ratio = "" if self.ratio in (None, 1) else f"@{self.ratio:g}"
        return f"{self.source}{'+rfs' if self.rfs else ''}{ratio}"

    @property
    def kind(self) -> Kind:
        """Whether it is free, generated, or more real data."""
        if self.source == ORACLE:
            return "oracle"
        return "baseline" if self.source in (*PLAIN, COPY_PASTE) else "generated"

    @property
    def generator(self) -> str:
        """What its new images come from; empty where it has none."""
        return "" if self.source in (*PLAIN, ORACLE) else self.source

    @property
    def without(self) -> str:
        """The arm that differs from it in having no new images."""
        return "rfs" if self.rfs else "real"


def parse(names: Iterable[str], ratios: Sequence[float], runs: Iterable[str] = ()) -> tuple[Spec, ...]:
    """Arms as named, each generated one at every ratio unless it names its own.

    Args:
        names: `SOURCE[+rfs][@RATIO]`.
        ratios: for generated arms.
        runs: names of run folders, which may be arms too.

    Raises:
        UsageError: a name means nothing, or there is no `real` or no ratio.
    """
    known = (*PLAIN, COPY_PASTE, *GENERATORS, ORACLE, *runs)
    out: dict[str, Spec] = {}
    for name in names:
        for spec in _one(name, ratios, known):
            out.setdefault(spec.name, spec)
    if not out:
        raise UsageError(f"no arms; --arms takes some of {', '.join(known)}")
    if "real" not in out:
        out = {"real": Spec("real"), **out}  # everything is held against it
    return tuple(out.values())


def _one(name: str, ratios: Sequence[float], known: Sequence[str]) -> list[Spec]:
    body, at, own = name.strip().partition("@")
    source, plus, sampling = body.partition("+")
    # A run's name may hold a plus.
    if body in known:
        source, plus, sampling = body, "", ""
    if source not in known or (plus and sampling != "rfs"):
        raise UsageError(f"no arm {name!r}; there are {', '.join(known)}, each also with +rfs and @RATIO")
    rfs = source == "rfs" or bool(plus)
    source = "real" if source == "rfs" else source
    generated = source not in (*PLAIN, ORACLE)
    if not generated:
        if at:
            raise UsageError(f"arm {name!r} has no generated images, so it takes no ratio")
        if source == "repeat" and rfs:
            raise UsageError("arm 'repeat+rfs' repeats rare images twice over; take repeat or rfs")
        return [Spec(source, rfs)]
    try:
        wanted = [float(own)] if at else list(ratios)
    except ValueError:
        raise UsageError(f"arm {name!r}: a ratio is a number such as 0.5, got {own!r}") from None
    if not all(0 < r <= 100 for r in wanted):
        raise UsageError(f"ratios lie above 0 and up to 100, got {', '.join(f'{r:g}' for r in wanted)}")
    return [Spec(source, rfs, r) for r in wanted]
