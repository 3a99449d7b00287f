"""The command line: one command, clear errors, exit codes."""

import json
import os
import re
import subprocess
import sys

import pytest

from rarefill import cli

FAST = ["--generator", "paste", "--checker", "none", "--workers", "1"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the program; gives (exit code, stdout, stderr)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rarefill", *map(str, words)])
        with pytest.raises(SystemExit) as e:
            cli.main()
        out, err = capsys.readouterr()
        return int(e.value.code or 0), out, err

    return call


@pytest.mark.parametrize(
    "words",
    [
        ["-c", "import rarefill"],
        ["-m", "rarefill.cli", "--help"],
        ["-m", "rarefill.cli", "generate", "--help"],
    ],
)
def test_neither_the_import_nor_the_help_loads_what_is_heavy(words):
    code = "import sys, runpy\nsys.argv = ['rarefill', *{!r}]\ntry:\n    {}\nexcept SystemExit: pass\nprint(*sys.modules)"
    body = "import rarefill" if words[0] == "-c" else "runpy.run_module('rarefill.cli', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code.format(words[2:], body)], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split("\n")[-2].split() if done.stdout.endswith("\n") else done.stdout.split())
    heavy = {"torch", "torchvision", "cv2", "transformers", "diffusers", "scipy", "shapely", "albumentations"}
    assert not loaded & heavy


def test_generate_ends_with_a_table_and_where_to_look(run, tiny, tmp_path):
    code, out, err = run("generate", tiny, "--fill", "square=6", "--out", tmp_path / "run", *FAST)
    assert code == 0, err
    assert "square" in out
    assert "preview.png" in out
    assert (tmp_path / "run" / "preview.png").stat().st_size > 1000


def test_json_is_for_machines(run, tiny, tmp_path):
    code, out, _ = run("generate", tiny, "--fill", "square=6", "--out", tmp_path / "run", "--json", *FAST)
    assert code == 0
    assert json.loads(out)["categories"]["square"]["made"] == 6


def test_a_recipe_file_and_flags_meet_and_the_flag_holds(run, tiny, tmp_path):
    (tmp_path / "r.yaml").write_text(
        "fill: {square: 30}\nseed: 4\ngenerator: {generator: paste}\nannotator: {checker: none}\n"
    )
    words = [
        "generate",
        tiny,
        "--config",
        tmp_path / "r.yaml",
        "--fill",
        "square=5",
        "--out",
        tmp_path / "run",
    ]
    code, out, err = run(*words, "--json")
    assert code == 0, err
    assert json.loads(out)["categories"]["square"]["asked"] == 5
    assert "seed: 4" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_plan_can_be_written_drawn_and_run(run, tiny, tmp_path):
    plan = tmp_path / "plan.jsonl"
    assert run("plan", tiny, "--fill", "square=5", "--out", plan)[0] == 0
    code, out, err = run("preview", tiny, "--plan", plan, "--out", tmp_path / "sheets")
    assert code == 0, err
    page, *sheets = out.strip().splitlines()
    assert page.endswith("plan.html")
    assert all(sheet.endswith(".png") for sheet in sheets)
    assert "data:image/webp" in (tmp_path / "sheets" / "plan.html").read_text()
    code, out, err = run("generate", tiny, "--plan", plan, "--out", tmp_path / "run", "--json", *FAST)
    assert code == 0, err
    assert json.loads(out)["categories"]["square"] == {
        "asked": 5,
        "made": 5,
        "unjudged": 5,
        "paints": 5,
        "refused": {},
        "given_up": 0,
        "steps": {"first": {"paints": 5, "held": 5}},
    }
    assert run("plan", tiny, "--fill", "square=5", "--out", plan)[0] == 2  # never overwrites unasked


def test_gaps_print_a_table_for_people_and_json_for_machines(run, tiny):
    code, out, _ = run("gaps", tiny)
    assert code == 0
    assert "square" in out
    assert "star" in out
    code, out, _ = run("gaps", tiny, "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)


def test_an_evaluation_decides_what_is_made(run, tiny, tmp_path):
    (tmp_path / "ap.csv").write_text("Class,mAP50-95\nall,0.5\nsquare,0.8\ndisc,0.2\n")
    words = ["--evaluation", tmp_path / "ap.csv"]
    code, out, err = run("gaps", tiny, *words)
    assert code == 0, err
    assert "Weak: disc" in out
    code, out, err = run("generate", tiny, *words, "--out", tmp_path / "run", "--json", *FAST)
    assert code == 0, err
    assert list(json.loads(out)["categories"]) == ["disc"]
    run("generate", tiny, *words, "--out", tmp_path / "run", *FAST)
    (tmp_path / "ap.csv").write_text("Class,mAP50-95\nsquare,0.2\ndisc,0.8\n")
    code, _, err = run("generate", tiny, *words, "--out", tmp_path / "run", *FAST)
    assert code == 2
    assert "evaluation" in err


def test_a_budget_out_of_range_is_said_once(run, tiny, tmp_path):
    code, out, _ = run("gaps", tiny, "--fill", "disc=2", "--json")
    assert code == 0
    assert json.loads(out)["budget"]["ratio"] < 0.5
    words = ["generate", tiny, "--fill", "disc=2", "--out", tmp_path / "run", *FAST]
    code, _, err = run(*words)
    assert code == 0
    assert err.count("new images for each real one is below 0.5") == 1


def test_an_edited_plan_is_obeyed_and_what_it_breaks_is_said(run, tiny, tmp_path):
    plan = tmp_path / "plan.jsonl"
    plan.write_text('{"image": 2, "placements": [{"category": "square", "box": [0, 0, 96, 80]}]}\n')
    code, out, err = run("generate", tiny, "--plan", plan, "--out", tmp_path / "run", "--json", *FAST)
    assert code == 0, err
    assert "placements[0] hides 100% of a real 'disc'" in err
    assert json.loads(out)["categories"]["square"]["made"] == 1


def test_a_finished_run_can_be_exported_again(run, tiny, tmp_path):
    assert run("generate", tiny, "--fill", "square=5", "--out", tmp_path / "run", *FAST)[0] == 0
    before = (tmp_path / "run" / "annotations.json").read_bytes()
    (tmp_path / "run" / "annotations.json").unlink()
    code, _, err = run("export", tmp_path / "run", "--format", "coco")
    assert code == 0, err
    assert (tmp_path / "run" / "annotations.json").read_bytes() == before
    assert run("export", tmp_path / "run", "--format", "voc")[0] == 2


def test_the_printed_recipe_is_a_recipe(run, tiny, tmp_path):
    code, out, _ = run("recipe")
    assert code == 0
    (tmp_path / "r.yaml").write_text(out)
    words = [
        "generate",
        tiny,
        "--config",
        tmp_path / "r.yaml",
        "--fill",
        "square=2",
        "--out",
        tmp_path / "run",
        *FAST,
    ]
    assert run(*words)[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["generate", "{tiny}", "--fill", "sqare=3", "--out", "{tmp}/r"], 2, "did you mean 'square'?"),
        (
            ["generate", "{tiny}", "--fill", "square", "--out", "{tmp}/r"],
            2,
            "--fill takes NAME=N, auto or none",
        ),
        (["generate", "{tiny}", "--fill", "square=3"], 2, "--out FOLDER"),
        (["generate", "{tiny}", "--fill", "star=3", "--out", "{tmp}/r"], 2, "star"),
        (["generate", "{tmp}/none.json", "--out", "{tmp}/r"], 2, "none.json"),
        (
            ["generate", "{tiny}", "--out", "{tmp}/r", "--max-overlap", "3"],
            2,
            "layout.max_overlap must be at most 1",
        ),
        (
            ["generate", "{tiny}", "--out", "{tmp}/r", "--max-overlp", "3"],
            2,
            "No such option: --max-overlp (Possible options: --max-overlap",
        ),
        (["generate", "{tiny}", "--out", "{tmp}/tiny/annotations.json"], 2, "is a file"),
        (["generate", "{tiny}", "--out", "{tmp}/tiny"], 2, "not empty and not a rarefill run"),
        (["export", "{tmp}"], 2, "not a rarefill run"),
        (["gaps", "{tmp}/none.json"], 2, "none.json"),
        (["gaps", "{tiny}", "--evaluation", "{tmp}/none.csv"], 2, "none.csv: cannot be read"),
        (["gaps", "{tiny}", "--fill", "sqare=3"], 2, "did you mean 'square'?"),
        (["gaps", "{tiny}", "--fill", "auto", "--fill", "square=3"], 2, "--fill auto stands alone"),
        (["generate", "{tiny}", "--evaluation", "{tmp}/none.csv", "--out", "{tmp}/r"], 2, "none.csv"),
        (
            [
                "generate",
                "{tiny}",
                "--checker",
                "transformers",
                "--detector",
                "{tmp}/none",
                "--out",
                "{tmp}/r",
            ],
            2,
            "none: no such folder or file; give the model's own to --detector",
        ),
        (["generate", "{tiny}", "--model", "{tmp}/none", "--out", "{tmp}/r"], 2, "none: no such folder"),
        (
            ["generate", "{tiny}", "--generator", "hub:{tmp}/none", "--out", "{tmp}/r"],
            2,
            "none: no such folder",
        ),
        (
            [
                *[
                    "generate",
                    "{tiny}",
                    "--generator",
                    "paste",
                    "--out",
                    "{tmp}/r",
                    "--checker",
                    "torchvision",
                ],
                *[
                    "--architecture",
                    "fcos_resnet50_fpn",
                    "--detector",
                    "{tiny}",
                    "--class-names",
                    "{tmp}/none",
                ],
            ],
            2,
            "none: cannot be read: No such file",
        ),
    ],
)
def test_wrong_usage_gets_one_clear_line_and_exit_2(run, tiny, tmp_path, words, code, line):
    got, out, err = run(*(w.format(tiny=tiny, tmp=tmp_path) for w in words))
    assert got == code, err
    assert line in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--fill", "sqare=3", "--out", "{tmp}/r"],
        ["generate", "--redraw", "sqare=3", "--out", "{tmp}/r"],
        ["generate", "--no-mirror", "sqare", "--out", "{tmp}/r"],
        ["plan", "--fill", "sqare=3", "--out", "{tmp}/p.jsonl"],
        ["fit", "--fill", "sqare=3"],
        ["gaps", "--fill", "sqare=3"],
        ["split", "--rare", "sqare", "--k", "3", "--out", "{tmp}/s"],
        ["evaluate", "--rare", "sqare", "--test", "{tiny}", "--out", "{tmp}/s"],
        ["vary", "--generator", "sd15", "--area", "objects", "--only", "sqare", "--out", "{tmp}/r"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_misspelt_name_is_told_before_any_image_is_looked_at(run, tiny, tmp_path, words):
    for image in (tiny.parent / "images").iterdir():
        image.write_bytes(b"")
    command, *flags = (w.format(tiny=tiny, tmp=tmp_path) for w in words)
    code, _, err = run(command, tiny, *flags)
    assert code == 2
    assert err.splitlines() == [
        "rarefill: no category named 'sqare' in annotations.json; did you mean 'square'?"
    ]


def test_a_run_that_makes_fewer_than_asked_is_finished_and_says_why(run, tiny, tmp_path):
    words = ["generate", tiny, "--fill", "square=400", "--out", tmp_path / "run", *FAST]
    code, out, _ = run(*words, "--max-reuse", "1")
    assert code == 0
    assert re.search(r"^made \d+ of 400 'square': every background used; lower the count,", out, re.MULTILINE)
    code, out, _ = run(*words, "--max-reuse", "1", "--json")
    said = json.loads(out)
    assert code == 0
    assert 0 < said["categories"]["square"]["made"] < said["categories"]["square"]["asked"] == 400
    assert any("of 400 'square'" in note for note in said["notes"])


def test_a_failed_run_is_exit_1(run, tiny, tmp_path):
    if (tmp_path / "run").mkdir() or subprocess.run(
        ["id", "-u"], capture_output=True, check=True
    ).stdout == b"0\n":
        words = [
            "generate",
            tiny,
            "--fill",
            "square=3",
            "--out",
            "/proc/self/nowhere",
            *FAST,
        ]  # root writes anywhere else
    else:
        (tmp_path / "run").chmod(0o500)
        words = ["generate", tiny, "--fill", "square=3", "--out", tmp_path / "run", *FAST]
    code, _, err = run(*words)
    assert code == 1
    assert "cannot be written" in err
    assert "Traceback" not in err


def test_an_interrupted_run_says_that_it_continues(run, tiny, monkeypatch):
    from rarefill import gaps

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gaps, "survey", stop)
    code, _, err = run("gaps", tiny)
    assert code == 130
    assert "stopped; the same command continues" in err


def test_letters_that_the_terminal_has_not_do_not_end_a_run(tiny):
    document = json.loads(tiny.read_text())
    document["categories"][0]["name"] = "étoile ★"
    tiny.write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "-m", "rarefill.cli", "gaps", str(tiny)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 0
    assert b"?toile" in done.stdout


def test_debug_shows_the_traceback(run, tmp_path):
    code, _, err = run("--debug", "gaps", tmp_path / "none.json")
    assert code == 2
    assert "Traceback" in err


def test_the_version_is_printed(run):
    from rarefill import __version__

    assert run("--version") == (0, f"rarefill {__version__}\n", "")
