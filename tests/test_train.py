"""The training of the embedded model, at sizes that take seconds."""

import json

import cv2
import numpy as np
import pytest
import shelves
import torch

from rarefill.errors import DataError, ModelError
from rarefill.generators import compact_conditioning as conditioning
from rarefill.generators.detail import DetailNetwork
from rarefill.generators.train import (
    checkpoint,
    export,
    framing,
    lessons,
    loop,
    masks,
    record,
    shapes,
    stages,
    start,
    vae,
    windows,
    words,
)
from rarefill.generators.train import upscale as upscaling
from rarefill.generators.train.__main__ import main, smear
from rarefill.generators.train.critic import Critic
from rarefill.generators.train.diffusion import Painting, Parts
from rarefill.generators.train.rendered import Rendered
from rarefill.generators.train.shelf import open_shelf, subject
from rarefill.generators.train.sources import Mixed, Unlabelled
from rarefill.generators.window import CLOSE, Framing, cut, side_px
from rarefill.geometry import Mask
from rarefill.scene import Placement, Shape

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 32


def scene(seed: int) -> np.ndarray:
    """uint8 (72, 80, 3): discs on a slope of colour."""
    rng = np.random.default_rng([7, seed])
    y, x = np.mgrid[:72, :80]
    pixels = np.stack([rng.uniform(40, 160) + rng.normal() * x + rng.normal() * y for _ in range(3)], axis=2)
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    for _ in range(6):
        centre = (int(rng.integers(80)), int(rng.integers(72)))
        cv2.circle(pixels, centre, int(rng.integers(4, 14)), rng.integers(0, 256, 3).tolist(), -1)
    return pixels


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return shelves.write(
        tmp_path_factory.mktemp("pictures"),
        lambda n, _: scene(n),
        lambda n: f"boxes/{n // 2}.png crop {n % 2},0",
    )


@pytest.fixture(scope="module")
def album(pictures, tmp_path_factory):
    return open_shelf(pictures, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tokenizer():
    return words.tokenizer(["cell nucleus", "plain board", "aerial photograph"])


def settings(until, **changed):
    return loop.Settings(
        minutes=60, until=until, **{"batch": 4, "log_every": 1, "warmup": 2, "rate": 2e-4, **changed}
    )


def small_autoencoder(album):
    torch.manual_seed(0)
    model = shapes.autoencoder((32, 48, 64))
    start.linear(model, vae.some(album, 8, 0, size=SIZE))
    return model


def autoencoding(model, album, until, **changed):
    return vae.Autoencoding(model, album, settings(until), size=SIZE, measured=8, **changed)


def small_parts(tokenizer):
    torch.manual_seed(0)
    channels = (32, 64)
    text = shapes.text_encoder(len(tokenizer), width=32, layers=1)
    return Parts(shapes.unet(channels, words_width=32), shapes.controlnet(channels, words_width=32), text)


def painting(album, tokenizer, until, **changed):
    model = small_autoencoder(album)
    vae.normalise(model, vae.some(album, 8, 0, size=SIZE))
    parts = small_parts(tokenizer)
    return parts, Painting(
        parts, model, tokenizer, Unlabelled(album), settings(until, **changed), size=SIZE, chunk=8, measured=8
    )


def test_pictures_are_decoded_once_and_read_back_to_the_pixel(pictures, album):
    row = next(n for n, picture in enumerate(album.pictures) if picture.name == "03.png")
    assert (album.crop(row, 5, 9, 40) == scene(3)[5:45, 9:49]).all()


def test_a_crop_over_the_edge_is_mirrored_in(album):
    crop = album.crop(0, 70, 0, 4)
    assert crop.shape == (4, 4, 3)
    assert (crop[2:] == crop[1::-1]).all()


def test_crops_of_one_photograph_are_held_back_together(album):
    held = {row // 2: album.pictures[row].held for row in range(40)}
    assert all(album.pictures[row].held == held[row // 2] for row in range(40))
    assert album.train
    assert album.held


@pytest.mark.parametrize(
    ("rule", "origin", "said"),
    [
        ("/", "G. Thung | dataset-resized/cardboard/cardboard54.jpg", "cardboard"),
        ("/", "M. Klasson | test/Packages/Juice/Apple-Juice/Apple-Juice_01.jpg", "apple juice"),
        (".", "LILA | test_data/american_black_bear.jpg", "american black bear"),
        ("cell nucleus", "anyone | anything.png", "cell nucleus"),
        ("", "anyone | anything.png", ""),
    ],
)
def test_a_picture_is_called_by_its_sets_rule(rule, origin, said):
    assert subject(rule, origin) == said


def test_a_folder_without_pictures_gets_one_line(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        open_shelf(tmp_path, tmp_path)


def test_the_same_stream_draws_the_same_window(album):
    first, second = (windows.draw(album, np.random.default_rng(5), SIZE) for _ in range(2))
    assert first.pixels.shape == (SIZE, SIZE, 3)
    assert (first.pixels == second.pixels).all()
    assert first.caption == second.caption


def test_windows_to_measure_with_are_never_trained_on(album):
    rng = np.random.default_rng(5)
    assert {album.draw(rng) for _ in range(300)} <= set(album.train)
    assert {album.draw(rng, held=True) for _ in range(50)} <= set(album.held)


@pytest.mark.parametrize("seed", range(40))
def test_every_mask_covers_something_and_leaves_something(seed):
    mask = masks.draw(scene(seed)[:64, :64], np.random.default_rng(seed))
    assert mask.shape == (64, 64)
    assert mask.dtype == bool
    assert 0 < mask.mean() < 1


def test_a_region_is_the_object_that_stands_out():
    pixels = np.full((64, 64, 3), 90, np.uint8)
    cv2.circle(pixels, (30, 34), 14, (200, 60, 80), -1)
    disc = pixels[..., 0] == 200
    found = masks.region(pixels, np.random.default_rng(1))
    assert (found & disc).sum() / (found | disc).sum() > 0.85


def test_a_window_without_regions_has_none():
    assert masks.region(np.full((64, 64, 3), 90, np.uint8), np.random.default_rng(1)) is None


def test_nothing_of_the_hidden_area_shows_in_the_map():
    mask = np.zeros((72, 80), bool)
    mask[20:50, 25:60] = True
    hidden = conditioning.grown(mask, 4)
    shown = conditioning.control_map(scene(1), mask, hidden, redraw=False)
    assert (shown[..., 0] == 255 * mask).all()
    assert shown[..., 1].any()
    assert not shown[hidden][:, 1:].any()


def test_a_redraw_keeps_the_objects_own_edges():
    mask = np.zeros((72, 80), bool)
    mask[10:60, 10:70] = True
    shown = conditioning.control_map(scene(1), mask, mask, redraw=True)
    assert shown[mask][:, 2].any()
    assert not shown[~mask][:, 2].any()


def test_edges_do_not_depend_on_a_sensors_dull_range():
    bright = scene(2)
    dull = (bright // 3 + 60).astype(np.uint8)
    found, again = conditioning.edges(bright), conditioning.edges(dull)
    assert (found & conditioning.grown(again, 1)).sum() > 0.8 * found.sum()


@pytest.mark.parametrize("text", ["cell nucleus", "Platelets", "", "Öl-Wanne 3", "日本"])
def test_any_text_becomes_known_tokens_and_survives_saving(tokenizer, text, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    ids = tokenizer(text, padding="max_length", truncation=True).input_ids
    assert len(ids) == shapes.WORDS
    assert ids == again(text, padding="max_length", truncation=True).input_ids
    said = tokenizer.decode(ids, skip_special_tokens=True)
    assert said.replace(" ", "") == text.lower().replace(" ", "")


def test_frequent_words_are_one_token(tokenizer):
    assert len(tokenizer("cell nucleus").input_ids) == 4


def test_the_first_guess_of_the_autoencoder_already_shows_the_picture(album):
    truth = vae.some(album, 8, 0, size=SIZE)
    torch.manual_seed(0)
    untrained = shapes.autoencoder((32, 48, 64))
    good = vae.psnr(vae.reconstruct(small_autoencoder(album), truth), truth)
    assert good > vae.psnr(vae.reconstruct(untrained, truth), truth) + 6


def test_its_first_latents_are_the_principal_components(album):
    truth = vae.some(album, 8, 0, size=SIZE)
    mean, components = start.principal(truth, 4)
    patches = truth.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).flatten(3)
    # The start's own order of a patch's pixels: neighbours first, then the neighbours' neighbours.
    order = patches.reshape(*patches.shape[:3], 2, 2, 2, 2, 3).permute(0, 1, 2, 3, 5, 4, 6, 7).flatten(3)
    expected = (order.permute(0, 1, 2, 3) - _in_order(mean)) @ _in_order(components).T
    expected = expected / components.square().sum(1)
    with torch.no_grad():
        latents = small_autoencoder(album).encode(truth).latent_dist.mode().movedim(1, -1)
    for channel in range(4):
        pair = torch.stack([latents[..., channel].flatten(), expected[..., channel].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.98


def _in_order(values):
    """From (half row, half column, row, column, colour) as `start` counts, to the test's patches."""
    split = values.reshape(*values.shape[:-1], 2, 2, 2, 2, 3)
    return split.flatten(-5)


def test_normalised_latents_have_deviation_one_and_the_picture_comes_through_as_before(album):
    truth = vae.some(album, 8, 0, size=SIZE)
    model = small_autoencoder(album)
    before = vae.reconstruct(model, truth)
    vae.normalise(model, truth)
    with torch.no_grad():
        latents = model.encode(truth).latent_dist.sample()
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose(before, vae.reconstruct(model, truth), atol=1e-3)


def test_the_autoencoders_loss_falls(album, tmp_path):
    model = small_autoencoder(album)
    given = settings(12, rate=3e-5, decay=0.5)
    work = autoencoding(model, album, 12)
    before = vae.psnr(vae.reconstruct(model, work._held), work._held)
    loop.run(work.stage(), tmp_path, given)
    assert vae.psnr(vae.reconstruct(model, work._held), work._held) > before
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 13), 12]
    assert list((tmp_path / "sheets").glob("*.png"))


def test_a_decoder_that_learns_alone_leaves_the_latents_as_they_are(album, tmp_path):
    model = small_autoencoder(album)
    truth = vae.some(album, 4, 0, size=SIZE)
    with torch.no_grad():
        before = model.encode(truth).latent_dist.mode()
    old = vae.reconstruct(model, truth)
    loop.run(
        autoencoding(model, album, 3, decoder_alone=True).stage(),
        tmp_path,
        settings(3),
    )
    with torch.no_grad():
        assert torch.equal(before, model.encode(truth).latent_dist.mode())
    assert not torch.equal(old, vae.reconstruct(model, truth))


def test_the_painters_loss_falls(album, tokenizer, tmp_path):
    _, work = painting(album, tokenizer, 16)
    before = work.held_loss()
    loop.run(work.stage(), tmp_path, settings(16, decay=0.7, rate=1e-3))
    assert work.held_loss() < before
    assert cv2.imread(str(next((tmp_path / "sheets").glob("*.png")))).shape[1] == 10 * (SIZE + 4)


@pytest.mark.parametrize(("power", "expected"), [(1.0, 0.35), (2.0, 0.35**0.5)])
def test_a_power_above_one_teaches_more_of_little_noise(album, tokenizer, monkeypatch, power, expected):
    _, stage = painting(album, tokenizer, 1, power=power)
    seen = []

    def noted(batch, words, control, t, noise):
        seen.append(t)
        return torch.zeros(())

    monkeypatch.setattr(stage, "_error", noted)
    for step in range(8):
        stage.losses(step)
    stage.held_loss()
    learned, measured = torch.cat(seen[:8]), torch.cat(seen[8:])
    assert abs(float((learned < 350).float().mean()) - expected) < 0.13
    assert abs(float((measured < 350).float().mean()) - expected) < 0.13
    assert int(learned.min()) >= 0
    assert int(learned.max()) < 1000


def test_a_run_that_was_interrupted_ends_with_the_same_weights(album, tokenizer, tmp_path):
    whole, work = painting(album, tokenizer, 6)
    loop.run(work.stage(), tmp_path / "whole", settings(6))
    # The fifth step begins new windows; the second run stops and goes on in the middle of them.
    for until in (5, 6):
        parts, work = painting(album, tokenizer, until)
        loop.run(work.stage(), tmp_path / "parted", settings(until))
    for one, other in zip(whole.module().parameters(), parts.module().parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_kill_while_writing_leaves_the_last_whole_checkpoint(album, tmp_path):
    model = small_autoencoder(album)
    loop.run(autoencoding(model, album, 1).stage(), tmp_path, settings(1))
    (tmp_path / "state.part").write_bytes(b"half a che")
    assert loop.run(autoencoding(model, album, 2).stage(), tmp_path, settings(2)) == 2


def test_a_broken_checkpoint_gets_one_line(album, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(b"not safe")
    model = small_autoencoder(album)
    with pytest.raises(ModelError, match="not a checkpoint"):
        checkpoint.load_averages(tmp_path / "state.safetensors", model)
    with pytest.raises(ModelError, match="stage before"):
        checkpoint.load_averages(tmp_path / "none.safetensors", model)


def test_the_shipped_folder_is_an_ordinary_pipeline_that_paints(album, tokenizer, tmp_path):
    from diffusers import StableDiffusionControlNetInpaintPipeline
    from PIL import Image

    parts, model = small_parts(tokenizer), small_autoencoder(album)
    export.write_pipeline(tmp_path, parts, model, tokenizer)
    pipeline = StableDiffusionControlNetInpaintPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.vae_scale_factor == shapes.REDUCTION
    mask = masks.ellipse(SIZE, np.random.default_rng(3))
    pixels = scene(4)[:SIZE, :SIZE]
    painted = pipeline(
        "cell nucleus",
        image=Image.fromarray(pixels),
        mask_image=Image.fromarray(mask),
        control_image=Image.fromarray(conditioning.control_map(pixels, mask, mask, redraw=False)),
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images
    assert painted.shape == (1, SIZE, SIZE, 3)
    assert np.isfinite(painted).all()
    assert not list(tmp_path.rglob("*.bin"))


def test_the_command_line_says_in_one_line_what_is_missing(pictures, tmp_path, capsys):
    asked = ["diffusion", "--pictures", str(pictures), "--out", str(tmp_path), "--minutes", "1"]
    assert main(asked) == 1
    assert "run the stages vae and freeze first" in capsys.readouterr().err


def test_lessons_hide_what_is_to_be_painted(album, tokenizer):
    model = small_autoencoder(album)
    made = lessons.make(
        Unlabelled(album), tokenizer, model, [np.random.default_rng(n) for n in range(4)], size=SIZE
    )
    assert (made.hidden | ~made.silhouette).all()
    assert made.latent_mask.shape == (4, 1, SIZE // 4, SIZE // 4)
    assert made.latents.shape == made.context.shape == (4, 4, SIZE // 4, SIZE // 4)
    assert not torch.equal(made.latents, made.context)


def disc(radius: int = 14) -> tuple[np.ndarray, Mask]:
    """uint8 (90, 120, 3): a red disc on grey, right of the middle, and its mask."""
    pixels = np.full((90, 120, 3), 90, np.uint8)
    cv2.circle(pixels, (70, 40), radius, (200, 60, 80), -1)
    return pixels, Mask.of(pixels[..., 0] == 200)


@pytest.mark.parametrize("size", [(3, 4), (20, 31), (57, 40), (90, 300), (700, 20)])
def test_a_known_object_is_framed_as_painting_frames_it(size):
    pixels = np.zeros((900, 900, 3), np.uint8)
    mask = Mask.of(np.ones(size, bool), 40, 60)
    window = cut(
        pixels,
        Placement("disc", mask, 0, 0, Shape(0)),
        Framing(shifted=False),
        image=0,
        key=(0, 0, 0, 0),
        seed=0,
    )
    assert side_px(mask.box, Framing()) == window.side


@pytest.mark.parametrize("seed", range(30))
def test_a_moved_window_still_holds_the_whole_object_under_its_mask(seed):
    pixels, mask = disc()
    frame = framing.about(mask.box, np.random.default_rng(seed), CLOSE)
    window, inside = framing.cut(pixels, mask, frame, 64)
    assert window.shape == (64, 64, 3)
    red = window[..., 0].astype(int) - window[..., 1] > 70
    assert (red & inside).sum() / (red | inside).sum() > 0.9
    assert abs(inside.sum() / 64**2 * frame.side**2 / mask.area - 1) < 0.08
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()


def test_moved_windows_see_objects_off_their_middle_and_at_several_scales():
    _, mask = disc()
    frames = [framing.about(mask.box, np.random.default_rng(n), Framing()) for n in range(200)]
    usual = side_px(mask.box, Framing())
    middles = np.array([[f.x + f.side / 2, f.y + f.side / 2] for f in frames]) - mask.box.center
    assert (np.abs(middles).max(axis=0) > 8).all()
    assert min(f.side for f in frames) < 0.85 * usual
    assert max(f.side for f in frames) > 1.25 * usual
    assert 40 < sum(f.turned_deg != 0 for f in frames) < 120


def test_the_thinnest_object_has_a_mask_in_its_window():
    mask = Mask.of(np.ones((1, 900), bool), 20, 500)
    frame = framing.about(mask.box, np.random.default_rng(0), CLOSE)
    _, inside = framing.cut(np.zeros((1000, 1000, 3), np.uint8), mask, frame, 64)
    assert inside.any()


def test_rendered_cells_come_with_their_names_and_masks():
    drawn = [
        Rendered(smear, "microscope image", fields=2).draw(np.random.default_rng(n), 64) for n in range(12)
    ]
    again = Rendered(smear, "microscope image", fields=2).draw(np.random.default_rng(3), 64)
    assert (again.pixels == drawn[3].pixels).all()
    assert again.caption == drawn[3].caption
    said = {word for d in drawn for word in d.caption.split(", ")}
    assert {"red blood cell", "white blood cell", "platelet"} <= said
    assert said <= {"red blood cell", "white blood cell", "platelet", "microscope image", "grey"}
    assert all(d.mask.any() and d.mask.shape == d.pixels.shape[:2] == (64, 64) for d in drawn)


def test_a_share_of_another_source_is_mixed_in_but_never_measured_with(album):
    class Named:
        def draw(self, rng, size, *, held=False):
            drawn = Unlabelled(album).draw(rng, size, held=held)
            return type(drawn)(drawn.pixels, drawn.mask, "mixed in", 0, redraw=False)

    mixed = Mixed(Unlabelled(album), Named(), 0.25)
    said = [mixed.draw(np.random.default_rng(n), SIZE).caption for n in range(100)]
    assert 10 < said.count("mixed in") < 40
    held = [mixed.draw(np.random.default_rng(n), SIZE, held=True).caption for n in range(30)]
    assert "mixed in" not in held


def test_without_a_share_the_shelfs_windows_are_what_they_were(album):
    bare = stages.Work(None, album, "cpu", smear, 0.0).source
    one, other = (s.draw(np.random.default_rng(4), SIZE) for s in (bare, Unlabelled(album)))
    assert (one.pixels == other.pixels).all()


def test_a_shipped_folder_taken_up_and_exported_again_has_the_same_weights(album, tokenizer, tmp_path):
    torch.manual_seed(0)
    parts = stages.networks(len(tokenizer))
    work = stages.Work(tmp_path / "first", album, "cpu")
    tokenizer.save_pretrained(work.folder / "tokenizer")
    shapes.autoencoder().save_pretrained(work.frozen)
    for stage, network in (
        ("diffusion", parts.module()),
        ("upscale", upscaling.module(DetailNetwork(), Critic())),
    ):
        (work.folder / stage).mkdir()
        average = checkpoint.Averages(network, 0.9)
        state = work.folder / stage / record.STATE
        checkpoint.save(state, 700, network, average, None, notes={"windows": "9000"})
    (work.folder / "diffusion" / "log.jsonl").write_text('{"step": 650, "held_loss": 0.3}\n{"step": 7')
    first, second = tmp_path / "shipped", tmp_path / "again"
    assert stages.write(work, first / "compact") == 700
    asked = ["take-up", "--from", str(first / "compact"), "--out", str(tmp_path / "second")]
    assert main(asked) == 0
    assert stages.write(stages.Work(tmp_path / "second", album, "cpu"), second / "compact") == 700
    weights = sorted(path.relative_to(second) for path in second.rglob("*.safetensors"))
    assert {path.parts[:2] for path in weights} >= {("compact", "unet"), ("upscaler", "weights.safetensors")}
    for path in weights:
        assert (second / path).read_bytes() == (first / path).read_bytes()
    told = record.read(second / "compact")["stages"]
    assert told["diffusion"] == {"steps": 700, "windows": 9000, "held_loss": 0.3}
    assert told["upscale"] == {"steps": 700, "windows": 9000}
    assert main(asked) == 1  # a training stands there now


def test_weights_taken_up_learn_on_from_their_step_with_a_rising_rate(album, tokenizer, tmp_path):
    parts, work = painting(album, tokenizer, 12)
    record._begin(tmp_path, parts.module(), {"steps": 10, "windows": 40})
    assert loop.run(work.stage(), tmp_path, settings(12, warmup=8)) == 12
    said = checkpoint.notes(tmp_path / record.STATE)
    assert (said["since"], said["windows"]) == ("10", "48")
    rates = [json.loads(line).get("rate") for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rates[0] < rates[1]
    told = record._stage(tmp_path)
    assert told["steps"] == 12
    assert told["settings"]["batch"] == 4
    assert "held_loss" in told


def test_a_folder_without_a_record_is_not_taken_up(tmp_path, capsys):
    assert main(["take-up", "--from", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "only a folder that export wrote" in capsys.readouterr().err
