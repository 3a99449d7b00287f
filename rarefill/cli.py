"""The command line. Results on stdout, progress and errors on stderr; exit 2 for usage and data, 1 for a failed run."""

import io
import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rarefill import __version__, console, flags
from rarefill.errors import DataError, LayoutError, MissingError, RarefillError, RecipeError, UsageError
from rarefill.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from rarefill.summary import Summary

app = typer.Typer(
    name="rarefill",
    help="Label-aware synthetic data for object detection: fills the rare classes of a COCO dataset.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Data = Annotated[Path, typer.Argument(help="the COCO file, or YOLO's data.yaml", show_default=False)]
Pictures = Annotated[
    Path | None, typer.Option("--images-dir", help="image folder, when not found beside the file")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for machines")]


def _version(value: bool) -> None:  # noqa: FBT001
    if value:
        sys.stdout.write(f"rarefill {__version__}\n")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[  # noqa: FBT002
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,  # noqa: FBT002
) -> None:
    del version, debug  # main() reads --debug itself: errors may come before parsing ends


@app.command()
@flags.with_recipe()
def generate(
    recipe: Recipe,
    data: Annotated[
        Path | None, typer.Argument(help="the COCO file, or YOLO's data.yaml", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="the run folder to make or to continue")] = None,
    pictures: Pictures = None,
    plan: Annotated[Path | None, typer.Option(help="obey this layouts.jsonl instead of planning")] = None,
    overwrite: Annotated[bool, typer.Option(help="throw away another run that stands in --out")] = False,  # noqa: FBT002
    prove: Annotated[  # noqa: FBT002
        bool,
        typer.Option("--prove", help="then a short study: does training on such images help? (RUN/proof)"),
    ] = False,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Fill rare classes: plan, paint, check and export, in one go. Run it again to continue."""
    del data, out, pictures
    from rarefill import pipeline

    summary = pipeline.run(recipe, plan=plan, overwrite=overwrite, progress=console.on_stderr())
    if not (prove and as_json):
        _result(_summary_json(summary) if as_json else _summary_text(summary))
    if prove:
        _prove(recipe, summary, as_json=as_json)


@app.command()
@flags.with_recipe(
    sections=("run", "generator", "hub", "annotator", "versions"),
    leave_out=flags.NOT_OF_VERSIONS,
    called={"version_strength": "strength"},
)
def vary(
    recipe: Recipe,
    data: Annotated[
        Path | None, typer.Argument(help="the COCO file, or YOLO's data.yaml", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="the run folder to make or to continue")] = None,
    pictures: Pictures = None,
    overwrite: Annotated[bool, typer.Option(help="throw away another run that stands in --out")] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Make versions of your own images with a published checkpoint: other weather, light, backgrounds; labels kept."""
    del data, out, pictures
    from rarefill.versions import run as versions
    from rarefill.versions.summary import table

    summary = versions.run(recipe, overwrite=overwrite, progress=console.on_stderr())
    if as_json:
        _result(json.dumps({"run": str(summary.run), **summary.as_json()}, indent=2))
        return
    _result(f"{table(summary)}\n\nLook at {summary.run / 'report.html'} and {summary.run / 'preview.png'}")


@app.command()
def gaps(
    data: Data,
    pictures: Pictures = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(help="per-class AP (JSON or CSV): what is weak is made more of, not what is rare"),
    ] = None,
    fill: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N|auto", help="the budget to weigh [auto]")
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002
    lenient: bool = False,  # noqa: FBT001, FBT002
) -> None:
    """Show what is rare, weak and missing, what --fill auto would make, and what a budget comes to."""
    from rarefill import evaluation as evaluations
    from rarefill import gaps as measure
    from rarefill.dataset import load

    asked = flags.counts_of(fill or ["auto"])
    named = () if isinstance(asked, str) else tuple(asked)
    dataset = load(data, pictures, lenient=lenient, named=named, progress=console.on_stderr())
    found = measure.survey(dataset, evaluation=evaluations.read(evaluation, dataset) if evaluation else None)
    if as_json:
        _result(json.dumps(measure.as_json(found, asked), indent=2))
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(measure.table(found, asked))


@app.command()
@flags.with_recipe(sections=("run", "layout"))
def plan(
    recipe: Recipe,
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="the layouts.jsonl to write")],
    pictures: Pictures = None,
) -> None:
    """Write the plan alone, for reading, editing and `generate --plan`."""
    del data, pictures
    if out.exists():
        raise UsageError(f"{out} exists; choose another --out")
    from rarefill import pipeline
    from rarefill.layouts import write_plan

    dataset, made = pipeline.make_plan(recipe, console.on_stderr())
    write_plan(out, dataset, made.layouts)
    placed = sum(len(layout.placements) for layout in made.layouts)
    covered = [f"{name}: {what}" for name, what in made.covered.items()]
    lines = [f"{placed} objects on {len(made.layouts)} images: {out}", *covered, *map(str, made.shortfalls)]
    _result("\n".join(lines))


@app.command()
@flags.with_recipe(sections=())
def preview(
    recipe: Recipe,
    data: Data,
    plan: Annotated[Path, typer.Option(help="the layouts.jsonl to draw")],
    out: Annotated[Path, typer.Option("--out", help="folder for the sheets")],
    pictures: Pictures = None,
) -> None:
    """Draw a plan: the boxes and silhouettes asked for, on their backgrounds."""
    del data, pictures
    from rarefill import pipeline

    _result("\n".join(map(str, pipeline.draw_plan(recipe, plan, out, console.on_stderr()))))


@app.command()
@flags.with_recipe(sections=("run", "generator", "hub", "annotator"))
def fit(recipe: Recipe, data: Data, pictures: Pictures = None, as_json: AsJson = False) -> None:  # noqa: FBT002
    """Adapt the model and train the checker on your data now; `generate` does it by itself when needed."""
    del data, pictures
    from rarefill import pipeline

    table = pipeline.fit(recipe, console.on_stderr())
    _result(json.dumps([asdict(s) for s in table], indent=2) if as_json else "\n".join(map(str, table)))


@app.command()
@flags.with_recipe(sections=("run", "annotator"))
def calibrate(recipe: Recipe, data: Data, pictures: Pictures = None, as_json: AsJson = False) -> None:  # noqa: FBT002
    """Show how well the checker knows each category: what it keeps of real objects and lets pass of planted errors."""
    del data, pictures
    from rarefill import calibration_table

    table = calibration_table.standings(recipe, console.on_stderr())
    if as_json:
        _result(json.dumps([asdict(s) for s in table], indent=2))
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(calibration_table.drawn(table))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="a finished run folder")],
    formats: Annotated[
        str, typer.Option("--format", help="coco, merged, yolo, yolo-seg; several with commas")
    ] = "coco,merged,yolo",
) -> None:
    """Write a finished run's labels again."""
    from rarefill import pipeline
    from rarefill import recipe as recipes

    wanted = recipes.resolve({"formats": formats}, where="--format").formats
    pipeline.export(run, wanted, console.on_stderr())
    _result("\n".join(f"{name}: {run / recipes.FILES[name]}" for name in wanted))


@app.command()
def audit(
    run: Annotated[Path, typer.Argument(help="a finished run folder; with --real a run or the data itself")],
    n: Annotated[int, typer.Option("--n", min=1, help="objects to look at")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="names the sample")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="the page to write [RUN/audit.html]")] = None,
    answers: Annotated[Path | None, typer.Option(help="the page's download: print the error rates")] = None,
    real: Annotated[bool, typer.Option("--real", help="the data's suspicious labels instead")] = False,  # noqa: FBT002
    pictures: Pictures = None,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Look at a sample of painted objects by eye, and turn the answers into an error rate."""
    from rarefill import audit_command

    options = audit_command.Options(run, n, seed, out, answers, pictures, as_json=as_json)
    _result((audit_command.real if real else audit_command.painted)(options, console.on_stderr()))


@app.command()
def models(as_json: AsJson = False) -> None:  # noqa: FBT002
    """List the published checkpoints to paint with: licence, size, and which of them this machine can hold."""
    from rich.console import Console

    from rarefill import models_command

    machine = models_command.Machine.this()
    if as_json:
        _result(models_command.as_json(machine))
        return
    Console(width=None if sys.stdout.isatty() else 170).print(models_command.listed(machine))
    _result("\n".join(models_command.notes()))


@app.command()
def split(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="folder for the parts")],
    pictures: Pictures = None,
    group_by: Annotated[
        str,
        typer.Option(
            metavar="similar|none|key=NAME|REGEX",
            help="what may not be torn: near-duplicates, an image's key, what a pattern finds in file names",
        ),
    ] = "similar",
    shares: Annotated[
        str | None,
        typer.Option(help="of training, validation, test; by default 0.7,0.15,0.15, with --k 0.65,0,0.35"),
    ] = None,
    floor: Annotated[
        int, typer.Option(min=0, help="images of each category that the test part is to have")
    ] = 10,
    rare: Annotated[
        str | None, typer.Option(metavar="NAME", help="with --k: the category of a few-shot split")
    ] = None,
    k: Annotated[int | None, typer.Option("--k", min=1, help="training images that hold it, exactly")] = None,
    train_images: Annotated[int, typer.Option(min=1, help="with --k: training images in all")] = 120,
    draws: Annotated[int, typer.Option(min=1, help="with --k: few-shot drawings of one test part")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="names the split")] = 0,
    lenient: bool = False,  # noqa: FBT001, FBT002
) -> None:
    """Cut a dataset into training, validation and test, groups whole and rare categories in every part."""
    from rarefill.proof import split_command

    options = split_command.Options(
        data,
        out,
        pictures,
        group_by,
        split_command.shares_of(shares),
        floor,
        seed,
        rare,
        k,
        train_images,
        draws,
        lenient,
    )
    _result("\n".join(split_command.run(options, console.on_stderr())[1]))


@app.command()
@flags.with_recipe(sections=("layout", "generator", "annotator"))
def evaluate(
    recipe: Recipe,
    train: Annotated[
        list[Path],
        typer.Argument(help="the training part as COCO file; several are several splits", show_default=False),
    ],
    test: Annotated[Path, typer.Option("--test", help="the test part; never painted from, never trained on")],
    out: Annotated[Path, typer.Option("--out", help="the study's folder, to make or to continue")],
    rare: Annotated[
        list[str] | None,
        typer.Option(
            "--rare", metavar="NAME", help="what the study is about; by default what `gaps` calls rare"
        ),
    ] = None,
    arms: Annotated[
        str,
        typer.Option(
            help="with commas; each takes +rfs or +repeat, generated ones @RATIO; oracle with --oracle"
        ),
    ] = "real,repeat,rfs,copy-paste,paste+rfs,compact+rfs",
    ratios: Annotated[
        str, typer.Option(help="generated images for each real one; several make a sweep")
    ] = "1",
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each arm")] = 3,
    objects: Annotated[int, typer.Option(min=1, help="new objects of each rare category")] = 200,
    oracle: Annotated[
        list[Path] | None, typer.Option(help="more real data: once, or once a training file")
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]RUN", help="a finished run of the training file, as an arm"),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(help="your trainer, with {train} {train_images} {test} {test_images} {out} {seed}"),
    ] = None,
    detector_to_train: Annotated[
        str, typer.Option("--train-detector", help="fitted, or a transformers detector: folder or hub id")
    ] = "fitted",
    train_steps: Annotated[int, typer.Option(min=1, help="steps of each training")] = 600,
    train_batch: Annotated[int, typer.Option(min=1, help="images a step")] = 8,
    size: Annotated[int, typer.Option(min=64, help="longer side of what the fitted detector sees")] = 320,
    learning_rate: Annotated[float | None, typer.Option(help="by default the detector's own")] = None,
    group_by: Annotated[
        str, typer.Option(metavar="similar|none|key=NAME|REGEX", help="test images that are drawn together")
    ] = "similar",
    pictures: Pictures = None,
    test_pictures: Annotated[
        Path | None, typer.Option("--test-images-dir", help="of the test part, where it is another")
    ] = None,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Does it help? Train with and without generated images, against what is free, and say so with intervals."""
    from rarefill.proof import command as proof
    from rarefill.proof.trainers import Settings

    settings = Settings(detector_to_train, command, train_steps, train_batch, size, learning_rate)
    options = proof.Options(
        tuple(train),
        test,
        out,
        tuple(rare or ()),
        arms,
        ratios,
        seeds,
        objects,
        tuple(oracle or ()),
        tuple(run or ()),
        pictures,
        test_pictures,
        group_by,
        settings,
    )
    study = proof.evaluate(options, recipe, console.on_stderr())
    if as_json:
        _result((out / "study.json").read_text(encoding="utf-8").rstrip())
        return
    _show(proof.tables(study))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="a finished run folder")],
    out: Annotated[Path | None, typer.Option("--out", help="the page to write [RUN/report.html]")] = None,
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Write a run's page again: what was asked and made, its objects, who is represented, copies, proof."""
    from rarefill.report import command

    _result(command.report(run, out, console.on_stderr(), as_json=as_json))


@app.command()
def fidelity(
    real: Annotated[
        Path, typer.Argument(help="real data to compare with: best what the run was not made from")
    ],
    run: Annotated[Path, typer.Argument(help="a finished run folder")],
    pictures: Pictures = None,
    features: Annotated[
        str,
        typer.Option(
            help="fitted: the checker's network; or a model such as DINOv2 or CLIP: folder, OWNER/NAME"
        ),
    ] = "fitted",
    pixels: Annotated[bool, typer.Option(help="train a small network to see seams and grain, too")] = True,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Compare painted objects with real ones: kernel distance, two-sample tests, layouts, copies, variety."""
    from rarefill.fidelity import command

    options = command.Options(real, run, pictures, features, pixels=pixels, as_json=as_json)
    _result(command.fidelity(options, console.on_stderr()))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder to make")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="of the rendered dataset and of the run")] = 0,
) -> None:
    """Render a small blood-smear dataset in which platelets are rare, and fill it."""
    from rarefill import demo as show

    _result(show.run(out, seed=seed, progress=console.on_stderr()))


@app.command()
def recipe() -> None:
    """Print every option with its default, as a recipe file."""
    _result(flags.defaults().rstrip())


INTERRUPTED = 130


def _result(text: str) -> None:
    sys.stdout.write(text + "\n")


def _prove(recipe: Recipe, summary: "Summary", *, as_json: bool) -> None:
    """The short study after a run: its table, or one JSON object with the run's own keys and `proof`."""
    from rarefill.proof import prove
    from rarefill.report import command as report_command

    study = prove.after(recipe, summary, console.on_stderr())
    report_command.report(summary.run, None, console.on_stderr())  # now with the proof
    if as_json:
        said = json.loads((summary.run / prove.FOLDER / "study.json").read_bytes())
        _result(json.dumps({**json.loads(_summary_json(summary)), "proof": said}, indent=2))
        return
    from rarefill.proof import command

    _show(command.tables(study))


def _show(tables: "Sequence[Table]") -> None:
    """Tables, one below the other."""
    from rich.console import Console

    shown = Console(width=None if sys.stdout.isatty() else 150)
    for n, table in enumerate(tables):
        if n:
            shown.print()
        shown.print(table)


def _summary_json(summary: "Summary") -> str:
    return json.dumps({"run": str(summary.run), **summary.as_json()}, indent=2)


def _summary_text(summary: "Summary") -> str:
    from rarefill.report.words import count
    from rarefill.scene import Kind
    from rarefill.summary import refusals

    new, redrawn = summary.made(Kind.NEW), summary.made(Kind.REDRAWN)
    made = f"{new} new" + (f" and {redrawn} redrawn" if redrawn else "")
    made += " object" if new + redrawn == 1 else " objects"
    images, untouched = count(summary.images - summary.untouched, "image"), count(summary.untouched, "image")
    lines = [
        refusals(summary),
        "",
        f"{made} on {images}; {untouched} untouched.",
        f"{count(summary.labels, 'label')}; existing ones hidden by paint: {summary.changed} measured again, {summary.dropped} dropped.",
        f"Look at {summary.run / 'report.html'} and {summary.run / 'preview.png'}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command line and turn what went wrong into one line and an exit code."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name may hold letters that the terminal has not
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
    except typer.TyperException as e:
        _complain(e.format_message())
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped; the same command continues")
        code = INTERRUPTED
    except RarefillError as e:
        _debug(debug)
        _complain(str(e))
        code = 2 if isinstance(e, UsageError | DataError | RecipeError | LayoutError | MissingError) else 1
    except Exception as e:
        if debug:
            raise
        _complain(
            f"internal error: {type(e).__name__}: {e}; run with 'rarefill --debug ...' and please report it"
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _debug(debug: bool) -> None:  # noqa: FBT001
    if debug:
        traceback.print_exc()


def _complain(text: str) -> None:
    sys.stderr.write(f"rarefill: {text}\n")


if __name__ == "__main__":
    main()
