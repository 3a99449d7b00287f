"""Can the verdict be trusted? Rendered blood smears, of which there are as many labelled ones as one likes.

Three "generators" whose worth is known stand where run folders stand: `nothing` writes rare labels where no object is,
`shuffled` gives each new picture the labels of another one, `planted` brings true new pictures. The first two cannot
help, the third must.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from proofs import stand
from rarefill import demo
from rarefill.console import on_stderr
from rarefill.dataset import Dataset, load
from rarefill.demo import camera, smear
from rarefill.demo.cells import Cell
from rarefill.files import write_bytes
from rarefill.geometry import Mask
from rarefill.pictures import encode
from rarefill.proof import command, evaluate, mix
from rarefill.proof.evaluate import Question
from rarefill.proof.trainers import Settings
from rarefill.scene import Pixels
from rarefill.seeds import Stage, rng

RARE = "WBC"
PLACEBOS = ("real", "rfs", "nothing", "shuffled")
TRAIN, WITH_RARE = 40, 5
TEST, TEST_WITH_RARE = 40, 30
NEW = 40
_SIDE_PX = 90.0
"""Of a label on nothing: about a white cell's."""
_LEAST_PX = 40

Labels = Callable[[dict[str, Any], np.random.Generator], None]


def run(out: Path, *, steps: int, seeds: int, size_px: int, batch: int) -> None:
    """Render, train every arm, print the table."""
    train = _rendered(out / "train", 11, TRAIN, WITH_RARE)
    test = _rendered(out / "test", 12, TEST, TEST_WITH_RARE)
    new = _rendered(out / "new", 13, NEW, NEW)
    settings = Settings(steps=steps, batch=batch, size_px=size_px)
    runs = []
    for name, source, change in (
        ("nothing", train, _on_nothing),
        ("shuffled", new, _shuffled),
        ("planted", new, _as_they_are),
    ):
        _as_run(out / name, source, train, change)
        runs.append(str(out / name))
    for arms in (PLACEBOS, (*PLACEBOS, "planted")):  # the second has the first one's trainings
        study = evaluate.evaluate(
            _question(train, test, arms, runs, seeds, settings), out / "study", on_stderr()
        )
        Console(width=150).print(command.table(study))


def _question(
    train: Dataset, test: Dataset, arms: tuple[str, ...], runs: list[str], seeds: int, settings: Settings
) -> Question:
    return Question(
        trains=(train,),
        test=test,
        rare=(RARE,),
        arms=arms,
        seeds=tuple(range(seeds)),
        runs=tuple(runs),
        settings=settings,
        group_by="none",
    )


def _rendered(folder: Path, seed: int, images: int, with_rare: int) -> Dataset:
    """Blood smears without platelets, white cells on the first few alone."""
    path = folder / "annotations.json"
    if not path.exists():
        held: dict[str, Any] = {"images": [], "annotations": []}
        held["categories"] = [{"id": demo.IDS[name], "name": name} for name in ("RBC", RARE)]
        for n in range(images):
            pixels, cells = _field(n, seed, rare=n < with_rare)
            height, width = pixels.shape[:2]
            name = f"{folder.name}_{n:03}.png"
            write_bytes(folder / "images" / name, encode(pixels, "png"))
            image = {"id": n + 1, "file_name": name, "width": width, "height": height}
            held["images"].append(image | {"slide": n // demo.IMAGES_A_SLIDE})
            for cell, mask in cells:
                number = len(held["annotations"]) + 1
                held["annotations"].append(
                    demo.annotation(cell, mask, id=number, image_id=n + 1, size=(height, width))
                )
        write_bytes(path, json.dumps(held).encode())
    return load(path)


def _field(index: int, seed: int, *, rare: bool) -> tuple[Pixels, list[tuple[Cell, Mask]]]:
    """A picture and its cells; where it is to have no white cell, those are taken out before it is drawn."""
    on = smear.slide(rng(seed, Stage.RENDER, index // demo.IMAGES_A_SLIDE, 1))
    drawn = smear.smear(rng(seed, Stage.RENDER, index), on, platelets=0)
    cells = tuple(cell for cell in drawn.cells if rare or cell.category != RARE)
    image = smear.Smear(drawn.slide, cells, drawn.optics)
    stack = smear.layers(image)
    masks = smear.masks(stack)
    shown = [(c, m) for c, m in zip(cells, masks, strict=True) if m is not None and m.area >= _LEAST_PX]
    return camera.photograph(image.slide, image.optics, stack), shown


def _as_run(folder: Path, source: Dataset, train: Dataset, change: Labels) -> None:
    """Pictures with changed labels, in the place of a finished run."""
    held = source.source()
    change(held, np.random.default_rng(5))
    stand.as_run(folder, held, source.root, train)
    mix.check_rare(load(folder / "annotations.json", folder / "images"), [RARE])


def _as_they_are(held: dict[str, Any], draw: np.random.Generator) -> None:
    del held, draw


def _on_nothing(held: dict[str, Any], draw: np.random.Generator) -> None:
    """Every picture without a white cell gets a label of one; those that have any are left out."""
    rare = demo.IDS[RARE]
    with_rare = {a["image_id"] for a in held["annotations"] if a["category_id"] == rare}
    held["images"] = [image for image in held["images"] if image["id"] not in with_rare]
    held["annotations"] = [a for a in held["annotations"] if a["image_id"] not in with_rare]
    number = max(a["id"] for a in held["annotations"])
    for n, image in enumerate(held["images"], number + 1):
        x, y = draw.uniform(0, (image["width"] - _SIDE_PX, image["height"] - _SIDE_PX))
        label = {"id": n, "image_id": image["id"], "category_id": rare, "iscrowd": 0}
        box = [float(x), float(y), _SIDE_PX, _SIDE_PX]
        held["annotations"].append(label | {"bbox": box, "area": _SIDE_PX**2})


def _shuffled(held: dict[str, Any], draw: np.random.Generator) -> None:
    """Every picture has another one's labels, of all categories."""
    ids = [image["id"] for image in held["images"]]
    order = draw.permutation(len(ids))
    other = {ids[at]: ids[order[k]] for k, at in enumerate(np.roll(order, 1).tolist())}
    for annotation in held["annotations"]:
        annotation["image_id"] = other[annotation["image_id"]]
