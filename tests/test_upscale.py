"""Super-resolution: enlarging with tiny networks, its folder, and its training."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pipelines as tiny
import pytest
import torch
from safetensors.torch import load_file, save_file

from rarefill.errors import ModelError
from rarefill.generators import pipelines, tiling, upscale
from rarefill.generators.denoise import Denoiser
from rarefill.generators.detail import DetailNetwork, Shape
from rarefill.generators.pipelines import load
from rarefill.generators.train import checkpoint, critic, export, loop, shapes, stages, words
from rarefill.generators.train import upscale as training
from rarefill.generators.train.__main__ import main
from rarefill.generators.train.shelf import open_shelf
from rarefill.generators.upscale import Around, Settings, Upscaler, enlarged

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 32


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load(tiny.save(tmp_path_factory.mktemp("pipeline") / "tiny", size=SIZE))


def network(seed: int = 0, *, awake: float = 0.1, **changed):
    """A tiny upscaler; `awake` is the deviation of its last weights, which begin at zero."""
    torch.manual_seed(seed)
    made = DetailNetwork(Shape(**{"width": 16, "depth": 2, "words_width": 32, **changed}))
    with torch.no_grad():
        made.out.weight.normal_(0, awake)
        for block in made.blocks:
            block.told.weight.normal_(0, awake)
    return made


def upscaler(base, unet, settings: Settings | None = None) -> Upscaler:
    words = Denoiser(base).words
    return Upscaler(unet, words, settings or Settings(deviation=5.0))


def picture(size: int = SIZE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([5, seed])
    y, x = np.mgrid[:size, :size]
    slope = 90 + np.stack([rng.normal() * x + rng.normal() * y for _ in range(3)], axis=2)
    pixels = np.clip(slope, 0, 255).astype(np.uint8)
    cv2.circle(pixels, (size // 2, size // 2), size // 4, (200, 60, 120), -1)
    return pixels


@pytest.mark.parametrize("side", [32, 33, 47, 64, 75, 128])
def test_what_has_learned_nothing_adds_nothing(base, side):
    found = upscaler(base, network(awake=0.0)).enlarge(picture(), side, "disc")
    assert (found == enlarged(picture(), side)).all()


@pytest.mark.parametrize("side", [32, 33, 61, 127, 200])
def test_any_side_is_answered(base, side):
    pixels = picture()
    found = upscaler(base, network()).enlarge(pixels, side, "disc")
    assert found.shape == (side, side, 3)
    assert found.dtype == np.uint8
    assert (found != enlarged(pixels, side)).any(axis=2).mean() > 0.9
    assert (pixels == picture()).all()


def test_a_network_that_answers_one_value_everywhere_leaves_no_join(base):
    unet = network(awake=0.0)
    with torch.no_grad():
        unet.out.bias.fill_(0.5)
    flat = np.full((SIZE * 4, SIZE * 4, 3), 100, np.uint8)
    found = upscaler(base, unet, Settings()).enlarge(flat, 500, "disc")
    assert len(list(tiling.tiles(np.ones((512, 512), bool)))) == 4
    expected = upscale.spread(torch.zeros(1, 3, 9, 9), torch.tensor([500 / 128]))[0, 0, 4, 4]
    assert (found == round(100 + 127.5 * 0.5 * float(expected))).all()


def test_tiles_meet_without_a_step(base, monkeypatch):
    monkeypatch.setattr(tiling, "TILE_PX", 96)
    pixels = np.full((64, 64, 3), 120, np.uint8)
    added = upscaler(base, network()).enlarge(pixels, 224, "disc").astype(float) - 120
    columns = [tile.place[2] for tile in tiling.tiles(np.ones((224, 224), bool))]
    assert len(set(map(str, columns))) == 3
    step = np.abs(np.diff(added, axis=1)).mean(axis=(0, 2))
    joins = {edge for place in columns for edge in (place.start, place.stop) if 0 < edge < 224}
    for edge in joins:
        # Patches of 4 px have joins of their own while nothing is learned: compare with those.
        assert step[edge - 1] < 1.3 * step[3::4].mean()


def test_more_detail_is_expected_in_contrast_and_in_more_enlarged_pictures():
    flat, busy = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    busy[..., ::2] = 0.5
    once, thrice = torch.tensor([1.0]), torch.tensor([3.0])
    assert float(upscale.spread(busy, once).min()) > 3 * float(upscale.spread(flat, once).max()) > 0
    assert float(upscale.spread(flat, thrice).min()) > float(upscale.spread(flat, once).max())


def test_tiles_share_out_what_they_add(monkeypatch):
    monkeypatch.setattr(tiling, "TILE_PX", 96)
    where = np.zeros((400, 400), bool)
    where[70:300, 100:390] = True
    total = torch.zeros(1, 1, 400, 400)
    for tile in tiling.tiles(where):
        rows, columns = tile.place[1:]
        assert all(part.start % 16 == 0 and part.stop % 16 == 0 for part in (rows, columns))
        assert max(rows.stop - rows.start, columns.stop - columns.start) <= 96
        total[tile.place] += tile.weight
    assert torch.allclose(total[0, 0][torch.from_numpy(where)], torch.ones(()), atol=1e-5)
    assert float(total.max()) < 1 + 1e-5
    assert float(total[0, 0, :32].max()) == 0


def test_only_what_matters_is_computed(base, monkeypatch):
    monkeypatch.setattr(tiling, "TILE_PX", 96)
    side = 320
    pixels, plain = picture(128), enlarged(picture(128), side)
    where = np.zeros((side, side), bool)
    where[20:60, 30:70] = True
    where[250:290, 240:300] = True
    found = upscaler(base, network()).enlarge(pixels, side, "disc", where=where)
    assert (found != plain).any(axis=2)[where].mean() > 0.9
    assert (found[100:190, 100:190] == plain[100:190, 100:190]).all()
    assert (found[:120, 200:] == plain[:120, 200:]).all()
    nothing = np.zeros_like(where)
    assert (upscaler(base, network()).enlarge(pixels, side, "disc", where=nothing) == plain).all()


def test_the_same_picture_gives_the_same_bytes_whoever_works_beside(base):
    work = upscaler(base, network())
    first, second = (work.enlarge(picture(seed=seed), 90, "disc") for seed in (1, 2))
    assert (first != second).any()
    with ThreadPoolExecutor(2) as pool:
        again = pool.map(lambda seed: work.enlarge(picture(seed=seed), 90, "disc"), (1, 2, 1))
    for pixels, expected in zip(again, (first, second, first), strict=True):
        assert (pixels == expected).all()


def test_the_scene_around_is_looked_at_and_not_answered(base):
    known = np.ones((96, 96), bool)
    known[30:70, 30:70] = False
    scene = np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8)
    work = upscaler(base, network())
    alone = work.enlarge(picture(), 96, "disc")
    found = work.enlarge(picture(), 96, "disc", around=Around(scene, known))
    assert (found != alone).any(axis=2)[~known].mean() > 0.5
    hidden = Around(np.where(known[..., None], scene, 0), known)
    assert (found == work.enlarge(picture(), 96, "disc", around=hidden)).all()
    plain = upscaler(base, network(awake=0.0)).enlarge(picture(), 96, "disc", around=Around(scene, known))
    assert (plain == enlarged(picture(), 96)).all()


def test_a_scene_is_known_at_a_smaller_size_where_all_of_it_is():
    known = np.zeros((64, 64), bool)
    known[:, :33] = True
    around = Around(np.zeros((64, 64, 3), np.uint8), known)
    assert around.at(64) is around
    assert (around.at(32).known == known[::2, 1::2]).all()
    assert around.at(32).pixels.shape == (32, 32, 3)


def test_words_change_the_answer(base):
    work = upscaler(base, network())
    one, other = (work.enlarge(picture(), 64, prompt) for prompt in ("disc", "cell nucleus"))
    assert (one != other).any()


def test_more_than_was_learned_is_reached_in_passes(base, monkeypatch):
    sides = []
    seen = upscale.enlarged
    monkeypatch.setattr(upscale, "enlarged", lambda pixels, side: sides.append(side) or seen(pixels, side))
    found = upscaler(base, network()).enlarge(picture(16), 144, "disc")
    assert found.shape == (144, 144, 3)
    assert sides == [48, 144]
    where = np.zeros((144, 144), bool)
    where[143, 143] = True
    plain = upscaler(base, network(awake=0.0)).enlarge(picture(16), 144, "disc")
    found = upscaler(base, network()).enlarge(picture(16), 144, "disc", where=where)
    assert (found[143, 143] != plain[143, 143]).any()


def test_what_cannot_be_enlarged_is_refused(base):
    work = upscaler(base, network())
    with pytest.raises(ValueError, match="square"):
        work.enlarge(picture()[:20], 64, "disc")
    with pytest.raises(ValueError, match="at most 20 px"):
        work.enlarge(picture(), 20, "disc")
    small = np.ones((32, 32), bool)
    with pytest.raises(ValueError, match="where"):
        work.enlarge(picture(), 64, "disc", where=small)
    with pytest.raises(ValueError, match="around"):
        work.enlarge(picture(), 64, "disc", around=Around(picture(), small))


def test_answers_that_are_no_numbers_get_one_line(base):
    unet = network()
    with torch.no_grad():
        unet.out.bias[0] = torch.nan
    with pytest.raises(ModelError, match="no number"):
        upscaler(base, unet).enlarge(picture(), 64, "disc")


@pytest.fixture
def folder(tmp_path):
    upscale.save(tmp_path / "up", network(), Settings(5.0), dtype=torch.float32)
    return tmp_path / "up"


def test_a_saved_upscaler_answers_as_before(base, folder):
    expected = upscaler(base, network()).enlarge(picture(), 70, "disc")
    found = Upscaler.load(folder, base).enlarge(picture(), 70, "disc")
    assert (
        np.abs(found.astype(int) - expected).max() <= 1
    )  # weights lie in another order: sums round otherwise
    assert not list(folder.rglob("*.bin"))


def test_it_works_in_the_bases_own_precision(tmp_path, folder):
    base = load(tiny.save(tmp_path / "tiny", size=SIZE), dtype=torch.bfloat16)
    plain = Upscaler.load(folder, load(tmp_path / "tiny"))
    one, other = (up.enlarge(picture(), 64, "disc") for up in (Upscaler.load(folder, base), plain))
    assert np.abs(one.astype(int) - other).mean() < 4


def _without(name):
    def spoil(folder: Path) -> None:
        (folder / name).unlink()

    return spoil


def _pickled(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def _nan(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    held = load_file(weights)
    held["into.bias"][3] = torch.nan
    save_file(held, weights)


def _torn(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _told(**changed):
    def spoil(folder: Path) -> None:
        told = json.loads((folder / "upscaler.json").read_text())
        (folder / "upscaler.json").write_text(json.dumps(told | changed))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("weights.safetensors"), "pickles are not opened"),
        (_without("upscaler.json"), r"upscaler\.json: cannot be read"),
        (_told(deviation="much"), r"upscaler\.json: cannot be read"),
        (_told(deviation=0), "deviation must be above 0"),
        (_pickled, "pickles are not opened"),
        (_nan, "no numbers"),
        (_torn, "cannot be read as an upscaler"),
    ],
)
def test_a_spoilt_folder_gets_one_line(base, folder, spoil, said):
    spoil(folder)
    with pytest.raises(ModelError, match=said) as caught:
        Upscaler.load(folder, base)
    assert "\n" not in str(caught.value)


def test_a_network_of_another_shape_gets_one_line(base, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        Upscaler.load(tmp_path / "none", base)
    upscale.save(tmp_path / "wide", network(words_width=64), Settings())
    with pytest.raises(ModelError, match="words_width 32, got 64"):
        Upscaler.load(tmp_path / "wide", base)
    upscale.save(tmp_path / "deep", network(depth=3), Settings())
    (tmp_path / "wide" / "weights.safetensors").write_bytes(
        (tmp_path / "deep" / "weights.safetensors").read_bytes()
    )
    with pytest.raises(ModelError, match="cannot be read as an upscaler") as caught:
        Upscaler.load(tmp_path / "wide", base)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(24):
        cv2.imwrite(str(folder / f"{n:02}.png"), cv2.resize(picture(48, n), (72, 64)))
    return open_shelf(folder, tmp_path_factory.mktemp("cache"))


def settings(until, **changed):
    return loop.Settings(
        minutes=60, until=until, **{"batch": 4, "log_every": 1, "warmup": 2, "rate": 2e-3, **changed}
    )


def stage(album, until, unet=None, **changed):
    torch.manual_seed(0)
    tokenizer = words.tokenizer(["pictures"])
    autoencoder = shapes.autoencoder((16, 16, 16))
    text = shapes.text_encoder(len(tokenizer), width=32, layers=1)
    unet = network(awake=0.0) if unet is None else unet
    given = settings(until, **changed)
    return unet, training.Upscaling(
        unet, autoencoder, tokenizer, text, album, given, size=SIZE, chunk=8, measured=4, measured_size=32
    )


def test_small_pictures_are_smaller_by_up_to_four_and_less_sharp(album):
    torch.manual_seed(0)
    draws = [np.random.default_rng([3, n]) for n in range(24)]
    made = training.cases(album, shapes.autoencoder((16, 16, 16)), draws, size=64)
    sides = {len(case.small) for case in made}
    assert min(sides) == 16
    assert max(sides) > 40
    assert all(side % 8 == 0 for side in sides)
    assert all(case.truth.shape == (64, 64, 3) for case in made)


def test_some_scenes_are_known_and_nearly_of_the_truths_colours(album):
    torch.manual_seed(0)
    draws = [np.random.default_rng([4, n]) for n in range(24)]
    made = training.cases(album, shapes.autoencoder((16, 16, 16)), draws, size=64)
    partly = [case for case in made if case.known.any()]
    assert 8 < len(partly) < 22
    assert all(not case.known.all() for case in partly)
    assert np.mean([np.abs(case.scene.astype(int) - case.truth).mean() for case in partly]) < 8


def test_what_the_critic_learns_moves_nothing_of_the_maker():
    torch.manual_seed(0)
    judge = critic.Critic()
    truth, coarse = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    made = torch.rand(2, 3, 32, 32, requires_grad=True)
    own, makers = critic.losses(judge, truth, made, coarse)
    own.backward()
    assert made.grad is None
    judge.zero_grad()
    makers.backward()
    assert float(made.grad.abs().sum()) > 0
    assert all(value.grad is None for value in judge.parameters())


def test_the_upscalers_loss_falls_and_a_sheet_is_drawn(album, tmp_path):
    _, work = stage(album, 16, decay=0.5)
    before = work._held_loss()
    loop.run(work.stage(), tmp_path, settings(16, decay=0.5))
    assert work._held_loss() < before
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["text_encoder_steps"] == 0
    assert {"held_psnr_ours", "held_kept_ours", "held_psnr_bicubic", "held_kept_bicubic"} <= set(lines[-1])
    sheet = cv2.imread(str(next((tmp_path / "sheets").glob("*.png"))))
    assert sheet.shape[:2] == (2 * (32 + 4), 8 * (32 + 4))


def test_a_run_that_was_interrupted_ends_with_the_same_weights(album, tmp_path):
    # The critic begins at the third step and is listened to from the fourth.
    whole, work = stage(album, 8, steps=8)
    loop.run(work.stage(), tmp_path / "whole", settings(8, steps=8))
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert ["critic" in line for line in lines[:-1]] == [False] * 2 + [True] * 6
    assert lines[7]["loss"] == pytest.approx(
        lines[7]["error"] + lines[7]["critic"] + training.CRITIC * lines[7]["makers"], abs=1e-3
    )
    for until in (6, 8):
        parts, work = stage(album, until, steps=8)
        loop.run(work.stage(), tmp_path / "parted", settings(until, steps=8))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_is_measured_before_anything_is_learned_is_the_enlarged_picture(album, tmp_path):
    _, work = stage(album, 1)
    figures = work.sheet(tmp_path / "sheet.png")
    assert figures["held_psnr_ours"] == figures["held_psnr_alone"] == figures["held_psnr_bicubic"]
    assert figures["held_kept_ours"] == figures["held_kept_bicubic"]


def test_the_shipped_folder_is_written_from_the_averages(base, album, tmp_path):
    unet = DetailNetwork()
    checkpoint_file = tmp_path / "upscale" / "state.safetensors"
    checkpoint_file.parent.mkdir()
    both = training.module(unet, critic.Critic())
    averages = checkpoint.Averages(both, 0.0)
    averages.values["network.out.bias"].fill_(0.25)
    checkpoint.save(checkpoint_file, 7, both, averages, None)
    work = stages.Work(tmp_path, album, "cpu")
    assert stages.write_upscaler(work, tmp_path / "upscaler") == 7
    export.small_enough(tmp_path / "upscaler")
    assert json.loads((tmp_path / "upscaler" / "upscaler.json").read_text())["trained_steps"] == 7
    wide = shapes.text_encoder(300)
    found = Upscaler.load(tmp_path / "upscaler", replace(base, text_encoder=wide))
    assert float(found._network.out.bias.mean()) == 0.25


def test_the_command_line_says_in_one_line_what_is_missing(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for n in range(24):
        cv2.imwrite(str(tmp_path / "pictures" / f"{n}.png"), picture(32, n))
    asked = ["upscale", "--pictures", str(tmp_path / "pictures"), "--out", str(tmp_path), "--minutes", "1"]
    assert main(asked) == 1
    assert "run the stages vae and freeze first" in capsys.readouterr().err


def test_the_shipped_upscaler_gives_an_enlarged_disc_its_edge_back():
    base = load(pipelines.SHIPPED)
    sharp = np.full((192, 192, 3), (200, 190, 180), np.uint8)
    cv2.circle(sharp, (96, 96), 60, (60, 40, 110), -1, cv2.LINE_AA)
    small = cv2.resize(sharp, (64, 64), interpolation=cv2.INTER_AREA)
    whole = np.ones((192, 192), bool)
    whole[30:162, 30:162] = False
    found = Upscaler.load(upscale.SHIPPED, base).enlarge(
        small, 192, "disc", where=~whole, around=Around(sharp, whole)
    )

    def steepest(pixels: np.ndarray) -> float:
        return float(np.abs(np.diff(pixels[96, 20:60].astype(int), axis=0)).max())

    assert steepest(enlarged(small, 192)) < 0.75 * steepest(found)
    assert np.abs(found.astype(int) - sharp)[40:150, 40:150].mean() < 12
