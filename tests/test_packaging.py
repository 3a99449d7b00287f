"""What people install."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("layouts", "generators", "annotators", "exporters")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in the wheel that a clone builds, without a network."""
    clone = tmp_path_factory.mktemp("clone") / "rarefill"
    clone.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    for name in ("rarefill", *STAGES):
        shutil.copytree(
            ROOT / name,
            clone / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
        )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (clone / "out").glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def modules() -> set[str]:
    """Every module of the tree by its place in the package."""
    own = {
        p.relative_to(ROOT)
        for p in (ROOT / "rarefill").rglob("*.py")
        if p.relative_to(ROOT / "rarefill").parts[0] not in STAGES
    }
    staged = {"rarefill" / p.relative_to(ROOT) for stage in STAGES for p in (ROOT / stage).rglob("*.py")}
    return {p.as_posix() for p in own | staged}


def test_the_wheel_holds_every_module_of_the_tree(wheel: set[str]) -> None:
    assert modules() <= wheel


def test_the_wheel_holds_each_module_once_and_nothing_beside_the_package(wheel: set[str]) -> None:
    code = {name for name in wheel if name.endswith(".py")}
    assert code == modules()


def test_the_wheel_says_that_it_is_typed_and_brings_its_licence(wheel: set[str]) -> None:
    assert "rarefill/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


@pytest.mark.parametrize("stage", STAGES)
def test_editors_find_the_stages_through_relative_links(stage: str) -> None:
    link = ROOT / "rarefill" / stage
    assert link.is_symlink()
    assert link.readlink() == Path("..") / stage


def test_the_wheel_brings_the_models_that_ship_small_enough_and_without_pickles(wheel: set[str]) -> None:
    folders = ("generators", "annotators", "rarefill")
    weights = [p for folder in folders for p in (ROOT / folder / "weights").rglob("*") if p.is_file()]
    assert {f"rarefill/{p.relative_to(ROOT).as_posix().removeprefix('rarefill/')}" for p in weights} <= wheel
    assert {"detector.safetensors", "cutter.safetensors"} <= {p.name for p in weights}
    assert {p.suffix for p in weights} <= {".safetensors", ".json", ".md"}
    assert max(p.stat().st_size for p in weights) <= 16 * 2**20
    assert sum(p.stat().st_size for p in weights) <= 64 * 2**20
    for part in ("vae", "unet", "controlnet", "text_encoder"):
        assert any(p.match(f"compact/{part}/*.safetensors") for p in weights)
