"""Who may import whom. docs/design.md draws it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("layouts", "generators", "annotators", "exporters")
LAYERS = (
    {"errors", "seeds", "progress", "places", "console", "engine", "files"},
    {"geometry"},
    {"scene"},
    {
        "pictures",
        "jpegs",
        "image_files",
        "segments",
        "checks",
        "coco_entries",
        "read_coco",
        "read_yolo",
        "dataset",
    },
    {
        "recipe",
        "sections",
        "presets",
        "hub_options",
        "version_options",
        "amounts",
        "evaluation",
        "gaps",
        "advice",
        "gaps_json",
        "gaps_table",
        "warp",
        "cutouts",
        "cutter",
        "windows",
        "likeness",
        "exemplars",
        "exemplar_cutting",
        "exemplar_cache",
        "bank",
    },
    set(STAGES),
)
"""Bottom up. A module imports from its own layer and those below; one that is not named here stands above them all,
and so does a program of its own, `python -m ...`: what is above a stage is handed down to it from there."""
HEAVY = {"torch", "torchvision", "diffusers", "transformers", "albumentations", "cv2", "scipy"}
LIGHT = ("", "cli", "recipe", "errors", "seeds", "scene", "geometry", "dataset", "gaps", "progress")
"""`import rarefill`, `--help` and `gaps` need these."""


def modules() -> dict[str, Path]:
    """Every module by its name inside rarefill: "cli", "exporters.coco", "" for the package itself."""
    found = {}
    for base, prefix in ((ROOT / "rarefill", ()), *((ROOT / stage, (stage,)) for stage in STAGES)):
        for path in base.rglob("*.py"):
            inside = path.relative_to(base).with_suffix("").parts
            if not prefix and inside[0] in STAGES:
                continue  # a link to a stage folder
            found[".".join((*prefix, *inside)).removesuffix("__init__").rstrip(".")] = path
    return found


MODULES = modules()


def imports(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Full names that a module imports; with `at_load` only what merely importing it imports."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif at_load and (isinstance(node, ast.FunctionDef) or _for_types_alone(node)):
            continue
        waiting.extend(ast.iter_child_nodes(node))


def _for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def ours(name: str) -> str | None:
    """The longest module of ours in a dotted name, or None."""
    parts = name.split(".")
    if parts[0] != "rarefill":
        return None
    return next(m for n in range(len(parts), 0, -1) if (m := ".".join(parts[1:n])) in MODULES)


def layer(module: str) -> int:
    first = module.split(".", maxsplit=1)[0]
    if module.endswith("__main__"):
        return len(LAYERS)
    return next((n for n, names in enumerate(LAYERS) if first in names), len(LAYERS))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_never_imports_another_stage(stage: str) -> None:
    for module, path in MODULES.items():
        if module.split(".")[0] == stage:
            met = {m.split(".")[0] for name in imports(path) if (m := ours(name))}
            assert not met & set(STAGES) - {stage}, module


def test_arrows_run_one_way() -> None:
    for module, path in MODULES.items():
        for name in imports(path):
            target = ours(name)
            if target:  # the bare package holds the version alone
                assert layer(target) <= layer(module), f"{module} imports {target}"


def test_every_module_that_the_arrows_name_exists() -> None:
    assert {name for names in LAYERS for name in names} <= {m.split(".")[0] for m in MODULES}


def test_what_help_loads_is_light() -> None:
    reached, waiting = set(), list(LIGHT)
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        for name in imports(MODULES[module], at_load=True):
            assert name.split(".")[0] not in HEAVY, f"{module or 'rarefill'} loads {name}"
            target = ours(name)
            if target is not None:
                waiting.append(target)
