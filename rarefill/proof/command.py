"""What `rarefill evaluate` and `rarefill split` take from the command line, and what they print."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from rarefill.dataset import Dataset, load
from rarefill.errors import UsageError
from rarefill.progress import Progress
from rarefill.proof import evaluate as studies
from rarefill.proof import served
from rarefill.proof.evaluate import Question
from rarefill.proof.study import Study
from rarefill.proof.trainers import Settings
from rarefill.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Options:
    """As on the command line."""

    train: tuple[Path, ...]
    test: Path
    out: Path
    rare: tuple[str, ...] = ()
    arms: str = ""
    ratios: str = "1"
    seeds: int = 3
    objects: int = 200
    oracle: tuple[Path, ...] = ()
    runs: tuple[str, ...] = ()
    pictures: Path | None = None
    test_pictures: Path | None = None
    group_by: str = "similar"
    settings: Settings = field(default_factory=Settings)


def evaluate(options: Options, recipe: Recipe, progress: Progress) -> Study:
    """Read the parts and answer the question.

    Raises:
        RarefillError: one clear line.
    """
    if options.seeds < 1 or options.objects < 1:
        raise UsageError("--seeds and --objects are at least 1")

    def part(path: Path, pictures: Path | None, named: Sequence[str] = ()) -> Dataset:
        return load(path, pictures, lenient=recipe.lenient, named=named, progress=progress)

    trains = tuple(part(path, options.pictures, options.rare) for path in options.train)
    test = part(options.test, options.test_pictures or options.pictures, options.rare)
    rare = options.rare or studies.rare_by_default(trains[0])
    if not rare:
        raise UsageError(
            f"{trains[0].path.name}: no category is rare by the rule of 'rarefill gaps'; name one with --rare"
        )
    for name in rare:
        trains[0].category_row(name)
        test.category_row(name)
    arms = tuple(word.strip() for word in options.arms.split(",") if word.strip())
    if not arms:
        raise UsageError("--arms names no arm")
    question = Question(
        trains=trains,
        test=test,
        rare=tuple(dict.fromkeys(rare)),
        arms=arms,
        ratios=_numbers(options.ratios),
        seeds=tuple(range(options.seeds)),
        objects=options.objects,
        oracles=tuple(part(path, options.pictures) for path in options.oracle),
        runs=options.runs,
        recipe=recipe,
        settings=options.settings,
        group_by=options.group_by,
    )
    return studies.evaluate(question, options.out, progress)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(word) for word in text.split(",")))
    except ValueError:
        raise UsageError(f"--ratios takes numbers such as 0.25,0.5,1,2,4, got {text!r}") from None


def tables(study: Study) -> list[Table]:
    """The arms with the verdict, then the groups of objects where the study tells them apart."""
    groups = served_table(study)
    return [table(study)] + ([groups] if groups is not None else [])


def table(study: Study) -> Table:
    """One line for each arm, the verdict below."""
    rare = " + ".join(study.rare)
    n_runs = len(study.train) * len(study.seeds)
    splits = f", {len(study.train)} splits" if len(study.train) > 1 else ""
    out = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        title=Text(
            f"{rare} on {study.test}: {study.test_images} images; {_counted(n_runs, 'training')} an arm "
            f"({_counted(len(study.seeds), 'seed')}{splits})",
            "bold",
        ),
        title_justify="left",
        caption=Text("\n".join(["", *_captions(study)])),
        caption_style="",
        caption_justify="left",
    )
    out.add_column("arm", overflow="fold")
    for heading in (
        "AP [95 %]",
        "AP50",
        "S/M/L",
        "others AP",
        "against real",
        "against best free",
        "p (Holm)",
    ):
        out.add_column(heading, justify="right", no_wrap=True)
    baseline = study.verdict.baseline if study.verdict else ""
    for arm in study.arms:
        if arm.rare is None:
            out.add_row(
                Text(arm.name), Text(arm.failed.splitlines()[0] if arm.failed else "not trained", "red")
            )
            continue
        real, free = (study.compared(arm.name, other) for other in ("real", baseline))
        out.add_row(
            Text(arm.name, "bold" if arm.name == baseline else ""),
            str(arm.rare),
            _plain(study.mean(arm.name, "AP50")),
            "/".join(_plain(study.mean(arm.name, size)) for size in ("small", "medium", "large")),
            f"{arm.others.value:.3f}" if arm.others else "-",
            real.difference.signed() if real else "",
            free.difference.signed() if free and arm.kind == "generated" else "",
            f"{free.p_adjusted:.3f}"
            if free and free.p_adjusted is not None and arm.kind == "generated"
            else "",
        )
    return out


def served_table(study: Study) -> Table | None:
    """AP by groups of the rare categories' objects; None where the study does not tell them apart."""
    if not study.served or study.verdict is None:
        return None
    shown = study.verdict.shown
    out = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        title=Text("Who is served: AP by groups of the test's objects", "bold"),
        title_justify="left",
        caption=Text("\n".join(["", *served.says(study)])),
        caption_style="",
        caption_justify="left",
    )
    several = len(study.rare) > 1
    for heading in (*(("category",) if several else ()), "by", "group"):
        out.add_column(heading, overflow="fold")
    for heading in ("objects", *shown, "difference"):
        out.add_column(heading, justify="right", no_wrap=True)
    before = None
    for part in study.served:
        key = (part.category, part.attribute)
        out.add_row(
            *((part.category if key != before else "",) if several else ()),
            part.attribute if key != before else "",
            part.group,
            f"{part.objects:,}",
            *(_plain(part.ap.get(name)) for name in shown),
            part.difference.signed() if part.difference else "",
        )
        before = key
    return out


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _captions(study: Study) -> list[str]:
    lines = [
        "AP      COCO's, IoU 0.50 to 0.95, mean of the rare categories; final weights, same number of steps for all",
        "[95 %]  test images drawn anew (near-duplicates together) and the spread between trainings",
        "others  mean AP of all other categories",
        "",
    ]
    lines += [f"! {note}" for note in study.notes]
    return [
        *lines,
        *(study.verdict.lines if study.verdict else ("No generated arm was trained: no verdict.",)),
    ]


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
