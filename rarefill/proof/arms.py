"""The arms of a study: what stands in the training list of each, by name.

    real  repeat  rfs                      the real images: as they are, rare ones repeated, repeat-factor sampling
    copy-paste                             plain copy-paste at random places: free, so a baseline too
    paste  compact  (any run folder)       what rarefill makes
    oracle                                 more real data

`compact+rfs` draws its real images by repeat-factor sampling, `compact+repeat` repeats the rare ones of them; `compact@0.5` shows
one generated image for two real ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from rarefill.errors import UsageError
from rarefill.proof.study import Kind

Sampling = Literal["", "rfs", "repeat"]
"""How real images are drawn: as they are, by repeat-factor sampling, or rare ones repeated until they are half of all."""
PLAIN = ("real", "repeat", "rfs")
COPY_PASTE = "copy-paste"
GENERATORS = ("paste", "compact")
ORACLE = "oracle"
DEFAULT = (*PLAIN, COPY_PASTE, *(f"{generator}+rfs" for generator in GENERATORS))
ADVICE = {
    "real": "train on the real images as they are",
    "repeat": "repeat the rare images",
    "rfs": "use repeat-factor sampling",
    COPY_PASTE: "use plain copy-paste",
}

SAMPLED = {"rfs": " with repeat-factor sampling", "repeat": " and repeat the rare images"}


@dataclass(frozen=True, slots=True)
class Spec:
    """One arm.

    Attributes:
        source: `real`, `copy-paste`, `oracle`, a generator or a run's name.
        sampling: how its real images are drawn.
        ratio: generated images for each real one; None where nothing is generated.
    """

    source: str
    sampling: Sampling = ""
    ratio: float | None = None

    @property
    def name(self) -> str:
        """As it is asked for: `rfs`, `compact+rfs`, `paste@0.5`; a ratio of 1 is not said."""
        if self.source == "real" and self.sampling:
            return self.sampling
        ratio = "" if self.ratio in (None, 1) else f"@{self.ratio:g}"
        return f"{self.line}{ratio}"

    @property
    def line(self) -> str:
        """Its name but for the ratio."""
        return "+".join(filter(None, (self.source, self.sampling)))

    @property
    def kind(self) -> Kind:
        """Whether it is free, generated, or more real data."""
        if self.source == ORACLE:
            return "oracle"
        return "baseline" if self.source in ("real", COPY_PASTE) else "generated"

    @property
    def generator(self) -> str:
        """What its new images come from; empty where it has none."""
        return "" if self.source in ("real", ORACLE) else self.source

    @property
    def without(self) -> str:
        """The arm that differs from it in having no new images."""
        return self.sampling or "real"


def parse(names: Iterable[str], ratios: Sequence[float], runs: Iterable[str] = ()) -> tuple[Spec, ...]:
    """Arms as named, each generated one at every ratio unless it names its own.

    Args:
        names: `SOURCE[+rfs|+repeat][@RATIO]`.
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
    source, plus, asked = body.partition("+")
    # A run's name may hold a plus.
    if body in known:
        source, plus, asked = body, "", ""
    if source not in known or (plus and (not asked or asked not in get_args(Sampling))):
        raise UsageError(
            f"no arm {name!r}; there are {', '.join(known)}, each also with +rfs or +repeat, and @RATIO"
        )
    if source in PLAIN and source != "real":
        if plus:
            raise UsageError(f"arm {name!r} draws its images in two ways; take one of them")
        source, asked = "real", source
    sampling = cast("Sampling", asked)
    if source in ("real", ORACLE):
        if at:
            raise UsageError(f"arm {name!r} has no generated images, so it takes no ratio")
        return [Spec(source, sampling)]
    try:
        wanted = [float(own)] if at else list(ratios)
    except ValueError:
        raise UsageError(f"arm {name!r}: a ratio is a number such as 0.5, got {own!r}") from None
    if not all(0 < r <= 100 for r in wanted):
        raise UsageError(f"ratios lie above 0 and up to 100, got {', '.join(f'{r:g}' for r in wanted)}")
    return [Spec(source, sampling, r) for r in wanted]
