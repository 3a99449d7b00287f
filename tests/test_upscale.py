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
from rarefill.generators import tiling, upscale
from rarefill.generators.denoise import Denoiser
from rarefill.generators.pipelines import load
from rarefill.generators.train import checkpoint, export, loop, shapes, stages, words
from rarefill.generators.train import upscale as training
from rarefill.generators.train.__main__ import main
from rarefill.generators.train.shelf import open_shelf
from rarefill.generators.upscale import Settings, Upscaler, enlarged

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 32


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load(tiny.save(tmp_path_factory.mktemp("pipeline") / "tiny", size=SIZE))


def network(seed: int = 0, *, awake: float = 0.1, **changed):
    """A tiny upscaler; `awake` is the deviation of its last weights, which begin at zero."""
    torch.manual_seed(seed)
    unet = shapes.upscaler((16, 16, 16), **{"words_width": 32, **changed})
    with torch.no_grad():
        unet.conv_out.weight.normal_(0, awake)
    return unet


def upscaler(base, unet, settings: Settings | None = None) -> Upscaler:
    words = Denoiser(base).words
    return Upscaler(unet, shapes.scheduler("sample"), words, settings or Settings(deviation=5.0))


def picture(size: int = SIZE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([5, seed])
    y, x = np.mgrid[:size, :size]
    slope = 90 + np.stack([rng.normal() * x + rng.normal() * y for _ in range(3)], axis=2)
    pixels = np.clip(slope, 0, 255).astype(np.uint8)
    cv2.circle(pixels, (size // 2, size // 2), size // 4, (200, 60, 120), -1)
    return pixels


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("side", [32, 33, 47, 64, 75, 128])
def test_what_has_learned_nothing_adds_nothing(base, side):
    found = upscaler(base, network(awake=0.0)).enlarge(picture(), side, "disc", rng())
    assert (found == enlarged(picture(), side)).all()


@pytest.mark.parametrize("side", [32, 33, 61, 127, 200])
def test_any_side_is_answered(base, side):
    pixels = picture()
    found = upscaler(base, network()).enlarge(pixels, side, "disc", rng())
    assert found.shape == (side, side, 3)
    assert found.dtype == np.uint8
    assert (found != enlarged(pixels, side)).any(axis=2).mean() > 0.9
    assert (pixels == picture()).all()


def test_a_network_that_answers_one_value_everywhere_leaves_no_join(base):
    unet = network(awake=0.0)
    with torch.no_grad():
        unet.conv_out.bias.fill_(0.5)
    flat = np.full((SIZE * 4, SIZE * 4, 3), 100, np.uint8)
    found = upscaler(base, unet, Settings()).enlarge(flat, 500, "disc", rng())
    assert len(list(tiling.tiles(np.ones((512, 512), bool)))) == 4
    expected = upscale.spread(torch.zeros(1, 3, 9, 9), torch.tensor([500 / 128]))[0, 0, 4, 4]
    assert (found == round(100 + 127.5 * 0.5 * float(expected))).all()


def test_tiles_meet_without_a_step(base, monkeypatch):
    monkeypatch.setattr(tiling, "TILE_PX", 96)
    pixels = np.full((64, 64, 3), 120, np.uint8)
    added = upscaler(base, network()).enlarge(pixels, 224, "disc", rng()).astype(float) - 120
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
    found = upscaler(base, network()).enlarge(pixels, side, "disc", rng(), where=where)
    assert (found != plain).any(axis=2)[where].mean() > 0.9
    assert (found[100:190, 100:190] == plain[100:190, 100:190]).all()
    assert (found[:120, 200:] == plain[:120, 200:]).all()
    nothing = np.zeros_like(where)
    assert (upscaler(base, network()).enlarge(pixels, side, "disc", rng(), where=nothing) == plain).all()


def test_the_same_stream_gives_the_same_bytes_whoever_works_beside(base):
    work = upscaler(base, network())
    first, second = (work.enlarge(picture(), 90, "disc", rng(seed)) for seed in (1, 2))
    assert (first != second).any()
    with ThreadPoolExecutor(2) as pool:
        again = pool.map(lambda seed: work.enlarge(picture(), 90, "disc", rng(seed)), (1, 2, 1))
    for pixels, expected in zip(again, (first, second, first), strict=True):
        assert (pixels == expected).all()


def test_words_change_the_answer(base):
    work = upscaler(base, network())
    one, other = (work.enlarge(picture(), 64, prompt, rng()) for prompt in ("disc", "cell nucleus"))
    assert (one != other).any()


def test_more_than_was_learned_is_reached_in_passes(base, monkeypatch):
    sides = []
    seen = upscale.enlarged
    monkeypatch.setattr(upscale, "enlarged", lambda pixels, side: sides.append(side) or seen(pixels, side))
    found = upscaler(base, network()).enlarge(picture(16), 144, "disc", rng())
    assert found.shape == (144, 144, 3)
    assert sides == [48, 144]
    where = np.zeros((144, 144), bool)
    where[143, 143] = True
    plain = upscaler(base, network(awake=0.0)).enlarge(picture(16), 144, "disc", rng())
    found = upscaler(base, network()).enlarge(picture(16), 144, "disc", rng(), where=where)
    assert (found[143, 143] != plain[143, 143]).any()


def test_what_cannot_be_enlarged_is_refused(base):
    work = upscaler(base, network())
    with pytest.raises(ValueError, match="square"):
        work.enlarge(picture()[:20], 64, "disc", rng())
    with pytest.raises(ValueError, match="at most 20 px"):
        work.enlarge(picture(), 20, "disc", rng())
    with pytest.raises(ValueError, match="where"):
        work.enlarge(picture(), 64, "disc", rng(), where=np.ones((32, 32), bool))


def test_answers_that_are_no_numbers_get_one_line(base):
    unet = network()
    with torch.no_grad():
        unet.conv_out.bias[0] = torch.nan
    with pytest.raises(ModelError, match="no number"):
        upscaler(base, unet).enlarge(picture(), 64, "disc", rng())


@pytest.fixture
def folder(tmp_path):
    upscale.save(tmp_path / "up", network(), shapes.scheduler("sample"), Settings(5.0), dtype=torch.float32)
    return tmp_path / "up"


def test_a_saved_upscaler_answers_as_before(base, folder):
    expected = upscaler(base, network()).enlarge(picture(), 70, "disc", rng())
    found = Upscaler.load(folder, base).enlarge(picture(), 70, "disc", rng())
    assert (
        np.abs(found.astype(int) - expected).max() <= 1
    )  # weights lie in another order: sums round otherwise
    assert not list(folder.rglob("*.bin"))


def test_it_works_in_the_bases_own_precision(tmp_path, folder):
    base = load(tiny.save(tmp_path / "tiny", size=SIZE), dtype=torch.bfloat16)
    plain = Upscaler.load(folder, load(tmp_path / "tiny"))
    one, other = (up.enlarge(picture(), 64, "disc", rng()) for up in (Upscaler.load(folder, base), plain))
    assert np.abs(one.astype(int) - other).mean() < 4


def _without(name):
    def spoil(folder: Path) -> None:
        (folder / name).unlink()

    return spoil


def _pickled(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def _nan(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    held = load_file(weights)
    held["conv_in.bias"][3] = torch.nan
    save_file(held, weights)


def _torn(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _told(**changed):
    def spoil(folder: Path) -> None:
        told = json.loads((folder / "upscaler.json").read_text())
        (folder / "upscaler.json").write_text(json.dumps(told | changed))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("unet/config.json"), "has no unet/config.json"),
        (_without("scheduler/scheduler_config.json"), "has no scheduler/scheduler_config.json"),
        (_without("upscaler.json"), r"upscaler\.json: cannot be read"),
        (_told(times="many"), r"upscaler\.json: cannot be read"),
        (_told(times=[10, 999]), "times must fall"),
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
    upscale.save(tmp_path / "wide", network(words_width=64), shapes.scheduler("sample"), Settings())
    with pytest.raises(ModelError, match="cross_attention_dim 32, got 64"):
        Upscaler.load(tmp_path / "wide", base)
    upscale.save(tmp_path / "other", network(), shapes.scheduler(), Settings())
    with pytest.raises(ModelError, match="prediction_type must be sample, got v_prediction"):
        Upscaler.load(tmp_path / "other", base)
    painter = shapes.unet((16, 16, 16), words_width=32)
    upscale.save(tmp_path / "painter", painter, shapes.scheduler("sample"), Settings())
    with pytest.raises(ModelError, match="in_channels 96, got 9"):
        Upscaler.load(tmp_path / "painter", base)


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
    whole, work = stage(album, 6)
    loop.run(work.stage(), tmp_path / "whole", settings(6))
    for until in (3, 6):
        parts, work = stage(album, until)
        loop.run(work.stage(), tmp_path / "parted", settings(until))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_what_is_measured_before_anything_is_learned_is_the_enlarged_picture(album, tmp_path):
    _, work = stage(album, 1)
    figures = work.sheet(tmp_path / "sheet.png")
    assert figures["held_psnr_ours"] == figures["held_psnr_one_step"] == figures["held_psnr_bicubic"]
    assert figures["held_kept_ours"] == figures["held_kept_bicubic"]


def test_the_shipped_folder_is_written_from_the_averages(base, album, tmp_path):
    unet = shapes.upscaler()
    checkpoint_file = tmp_path / "upscale" / "state.safetensors"
    checkpoint_file.parent.mkdir()
    averages = checkpoint.Averages(unet, 0.0)
    averages.values["conv_out.bias"].fill_(0.25)
    checkpoint.save(checkpoint_file, 7, unet, averages, None)
    work = stages.Work(tmp_path, album, "cpu")
    assert stages.write_upscaler(work, tmp_path / "upscaler") == 7
    export.small_enough(tmp_path / "upscaler")
    assert json.loads((tmp_path / "upscaler" / "upscaler.json").read_text())["trained_steps"] == 7
    wide = shapes.text_encoder(300)
    found = Upscaler.load(tmp_path / "upscaler", replace(base, text_encoder=wide))
    assert float(found._unet.conv_out.bias.mean()) == 0.25


def test_the_command_line_says_in_one_line_what_is_missing(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for n in range(24):
        cv2.imwrite(str(tmp_path / "pictures" / f"{n}.png"), picture(32, n))
    asked = ["upscale", "--pictures", str(tmp_path / "pictures"), "--out", str(tmp_path), "--minutes", "1"]
    assert main(asked) == 1
    assert "run the stages vae and freeze first" in capsys.readouterr().err
