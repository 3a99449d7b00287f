"""A study as docs/proof.md shows it: Markdown, every training of every arm, those that lose too."""

from pathlib import Path

from rarefill.proof import study as studies
from rarefill.proof.study import Estimate, Study


def show(folder: Path) -> str:
    """The table of arms, each training's own figure, and the verdict."""
    study = studies.read(folder)
    rare = ", ".join(study.rare)
    baseline = study.verdict.baseline if study.verdict else ""
    lines = [
        f"| arm | AP of {rare} [95 %] | each training | AP50 | others AP | against real | against best free ({baseline}) | p (Holm) |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(study, arm.name, baseline) for arm in study.arms),
    ]
    lines += [
        "",
        f"{study.test_images} test images with {study.test_objects}; in training: {study.train_objects}.",
    ]
    lines += ["", *(f"> {line}" for line in (study.verdict.lines if study.verdict else ()))]
    return "\n".join(lines)


def _row(study: Study, name: str, baseline: str) -> str:
    arm = next(a for a in study.arms if a.name == name)
    if arm.rare is None:
        return f"| {name} | {arm.failed or 'not trained'} |||||||"
    runs = [run for run in study.runs if run.arm == name]
    real, free = study.compared(name, "real"), study.compared(name, baseline)
    cells = [
        name,
        str(arm.rare),
        " ".join(_plain(run.rare.AP) for run in runs),
        _plain(study.mean(name, "AP50")),
        _plain(arm.others.value if arm.others else None),
        _signed(real.difference if real else None),
        _signed(free.difference if free else None),
        f"{free.p_adjusted:.3f}" if free and free.p_adjusted is not None else "",
    ]
    return f"| {' | '.join(cells)} |"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: Estimate | None) -> str:
    return "" if value is None else value.signed()
