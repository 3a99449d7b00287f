"""The first plan of a run, then top-ups for the objects that it did not bring to life.

What holds is counted record by record, in the plan's order: a run that stops early stops at the same record for any
number of workers, and after any interruption.
"""

from collections import Counter
from collections.abc import Generator as Yields
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rarefill import chunks, engine
from rarefill.acceptance import CONFIDENCE, Acceptance
from rarefill.dataset import Dataset
from rarefill.layouts import Context, Covered, Planner, read_plan, write_plan
from rarefill.progress import Bar
from rarefill.recipe import Recipe
from rarefill.records import Record
from rarefill.rundir import RunDir
from rarefill.scene import Goal, Kind, Layout

if TYPE_CHECKING:
    from rarefill.annotators import Checker
    from rarefill.bank import Bank
    from rarefill.generators import Generator


_ADVICE = (
    "where paint is not found, adapt longer (--minutes) or stay nearer to real objects (--strength); where it is found "
    "elsewhere, mend the labels; --checker none trusts the paint, --floor 0 goes on"
)


def only(kind: Kind, goals: Mapping[Goal, int]) -> dict[str, int]:
    """The objects of one kind, by category."""
    return {goal.category: n for goal, n in goals.items() if goal.kind is kind}


class Rounds:
    """The first plan, then top-ups for what it did not bring to life."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        bank: "Bank",
        folder: RunDir,
        asked: Mapping[Goal, int],
        plan: Path | None,
        context: "Context | None" = None,
    ) -> None:
        self.recipe, self.dataset, self.bank, self.folder = recipe, dataset, bank, folder
        self.asked, self.plan, self.context = asked, plan, context
        self.covered: Mapping[str, Covered] = {}
        self.made: Counter[Goal] = Counter()
        self.images = self.paints = 0
        self.layouts: list[Layout] = []
        self.why: dict[Goal, str] = {}
        self.acceptance = Acceptance(recipe.floor)
        self.stopped = ""
        self.first = self._next(self._planner(0), 0)

    def work(self, generator: "Generator", checker: "Checker", bar: Bar) -> list[str]:
        """Run all rounds.

        Returns:
            Why objects are missing, one line for each category.
        """
        from rarefill.annotators.originals import Originals
        from rarefill.generators import fallback

        done = Counter(record.round for record in self.folder.read(self.dataset))
        past = self.folder.read(self.dataset)
        pasting = fallback(self.recipe.generator, self.dataset, self.bank)
        originals = Originals(self.dataset) if self.recipe.annotator.refuse_copies == "on" else None
        for number in range(self.recipe.top_ups + 1):
            planner = self._planner(number)
            layouts = self._next(planner, number) if number else self.first
            if not layouts:
                break
            pieces = chunks.cut(layouts, round=number, first=len(self.layouts) + 1)
            self.layouts += layouts
            write_plan(self.folder.layouts, self.dataset, self.layouts)
            for _ in range(done[number]):
                self._count(next(past), bar)
            stages = chunks.Stages(
                self.recipe, self.dataset, planner, generator, checker, self.folder, pasting, originals
            )
            self._run(stages, pieces[done[number] :], bar)
            if self.stopped or self.plan is not None or not self._missing():
                break
        return [
            f"{'made' if goal.kind is Kind.NEW else 'redrew'} {self.made[goal]} of {self.asked[goal]} "
            f"{goal.category!r}: {self._why(goal)}"
            for goal in self._missing()
        ]

    def _run(self, stages: chunks.Stages, pieces: Sequence[chunks.Chunk], bar: Bar) -> None:
        """Work on chunks until they are done, or until too little of it holds."""
        if self.stopped:
            pieces = ()  # an earlier call came this far
        running = engine.run(partial(chunks.process, stages), pieces, workers=self.recipe.workers)
        with closing(cast("Yields[Record]", running)) as records:
            for record in records:
                self.folder.append(record)
                self._count(record, bar)
                if self._over():
                    break
        if self._over():
            self._tidy()

    def _over(self) -> bool:
        """Whether the run was stopped by now."""
        return bool(self.stopped)

    def _tidy(self) -> None:
        """Images of chunks that other threads had begun when the run was stopped: no record names them."""
        named = {sample.file_name for sample in self.folder.samples(self.dataset)}
        for file in self.folder.images.glob("*"):
            if file.name not in named:
                file.unlink()

    def _why(self, goal: Goal) -> str:
        if self.stopped:
            return "the run was stopped"
        if self.recipe.images is not None and self.images >= self.recipe.images:
            return f"all {self.recipe.images} images are used; raise --images or --per-image"
        if goal in self.why:
            return self.why[goal]
        return "the rest was refused; look at preview.png, or raise --attempts or --top-ups"

    def _planner(self, number: int) -> Planner:
        config = self.recipe.layout
        if number > 0:
            config = config.model_copy(update={"untouched": 0.0})
        return Planner(self.dataset, self.bank, config, seed=self.recipe.seed, context=self.context)

    def _missing(self) -> dict[Goal, int]:
        return {goal: n - self.made[goal] for goal, n in self.asked.items() if n > self.made[goal]}

    def _next(self, planner: Planner, number: int) -> Sequence[Layout]:
        """The layouts of one round; empty when there is nothing to be gained by it."""
        if self.plan is not None:
            return read_plan(self.plan, self.dataset, self.bank)
        images = self.recipe.images
        if number > 0 and images is not None:
            images -= self.images
            if images < 1:
                return ()
        missing = self._missing()
        made = planner.plan(
            only(Kind.NEW, missing),
            redraw=only(Kind.REDRAWN, missing),
            images=images,
            used=Counter(layout.image for layout in self.layouts),
            redrawn=Counter(
                p.redraws for layout in self.layouts for p in layout.placements if p.redraws is not None
            ),
        )
        if number == 0:
            self.covered = made.covered
        self.why |= {Goal(s.category, s.kind): s.why for s in made.shortfalls}
        if number > 0 and not any(layout.placements for layout in made.layouts):
            return ()
        return made.layouts

    def _count(self, record: Record, bar: Bar) -> None:
        here = Counter(i.goal for s in record.samples for i in s.instances if i.annotation is None)
        self.made += here
        self.images += len(record.samples)
        self.paints += len(record.trials)
        last = {(trial.number, trial.verdict.index): trial.verdict.accepted for trial in record.trials}
        self.acceptance.add(len(last), sum(last.values()))
        if not self.stopped and self.acceptance.hopeless():
            self.stopped = (
                f"stopped early: {self.acceptance}, so that fewer than {self.recipe.floor:.0%} will "
                f"({CONFIDENCE:.0%} sure); what was made is kept. Look at preview.png and at the reasons below: "
                f"{_ADVICE}"
            )
        bar.advance(here.total(), f"{self.made.total()} of {self.paints} paints held" if self.paints else "")
