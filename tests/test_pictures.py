"""Image files to arrays and back."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from rarefill import files, jpegs, pictures
from rarefill.errors import DataError, RecipeError, RunError


def _noise(shape, dtype):
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize(("dtype", "format"), [(np.uint8, "png"), (np.uint16, "png"), (np.uint8, "webp")])
def test_lossless_files_keep_every_value(tmp_path, bands, dtype, format):
    if format == "webp" and bands != 3:
        pytest.skip("WebP has no grey images, and drops colour where alpha is zero")
    pixels = _noise((31, 17, bands), dtype)
    file = tmp_path / "x"
    file.write_bytes(pictures.encode(pixels, format))
    assert np.array_equal(pictures.read(file), pixels)


def test_bands_stand_in_the_order_that_pillow_reads(tmp_path):
    pixels = _noise((9, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.array_equal(pictures.read(tmp_path / "x.png"), pixels)
    (tmp_path / "y.png").write_bytes(pictures.encode(pixels, "png"))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "y.png")), pixels)


def test_an_exif_rotation_is_not_applied_because_labels_know_nothing_of_it(tmp_path):
    image = Image.fromarray(_noise((8, 12, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    assert pictures.read(tmp_path / "x.jpg").shape == (8, 12, 3)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_told_in_one_line(tmp_path, data):
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(DataError) as e:
        pictures.read(tmp_path / "x.png")
    assert "x.png" in str(e.value)
    assert "\n" not in str(e.value)


def _jpeg(path, **settings):
    """A photograph-like JPEG; gives its bytes."""
    y, x = np.mgrid[:120, :160]
    smooth = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], axis=2) * 90 + 128
    noisy = smooth + np.random.default_rng(5).normal(0, 12, smooth.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90, **settings)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("fill", ["zeros", "noise"])
@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"restart_marker_rows": 2}], ids=str)
def test_a_jpeg_that_is_damaged_in_the_middle_is_told_in_one_line(tmp_path, capfd, fill, settings):
    path = tmp_path / "x.jpg"
    data = _jpeg(path, **settings)
    lost = bytes(4096) if fill == "zeros" else np.random.default_rng(2).bytes(4096)
    data[len(data) // 2 : len(data) // 2 + 4096] = lost
    path.write_bytes(data)
    with pytest.raises(DataError) as e:
        pictures.read(path)
    assert "x.jpg" in str(e.value)
    assert "restore" in str(e.value)
    assert "\n" not in str(e.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"restart_marker_rows": 2}], ids=str)
def test_a_whole_jpeg_does_not_even_look_damaged(tmp_path, settings):
    data = _jpeg(tmp_path / "x.jpg", **settings) + b"\xff\x00" + bytes(5000)  # as cameras append
    assert not jpegs.looks_damaged(np.frombuffer(data, np.uint8))


def test_a_flat_jpeg_looks_like_a_lost_block_and_is_read_all_the_same(tmp_path):
    Image.new("RGB", (2000, 1500), (128, 128, 128)).save(tmp_path / "x.jpg", optimize=True)
    assert jpegs.looks_damaged(np.fromfile(tmp_path / "x.jpg", np.uint8))
    assert (pictures.read(tmp_path / "x.jpg") == 128).all()


def test_listening_for_complaints_loses_no_word_of_others(capfd):
    _, complaint = jpegs.heard(
        lambda: os.write(2, b"a progress bar\nCorrupt JPEG data: premature end\nanother\n")
    )
    assert complaint == "Corrupt JPEG data: premature end"
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "a progress bar\nanother\nlater\n"


def test_damage_is_told_of_the_right_file_from_many_threads(tmp_path):
    for n in range(24):
        data = _jpeg(tmp_path / f"{n}.jpg")
        if n % 3 == 0:
            data[len(data) // 2 : len(data) // 2 + 2048] = bytes(2048)
            (tmp_path / f"{n}.jpg").write_bytes(data)

    def told(n: int) -> bool:
        try:
            pictures.read(tmp_path / f"{n}.jpg")
        except DataError as e:
            return f"{n}.jpg" in str(e)
        return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(told, range(24))) == [n % 3 == 0 for n in range(24)]


def test_a_missing_file_is_told_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"x.png: cannot be read: No such file"):
        pictures.read(tmp_path / "x.png")


@pytest.mark.parametrize("format", ["webp", "jpeg"])
def test_sixteen_bits_go_into_png_alone(format):
    with pytest.raises(RecipeError, match="16-bit images need png"):
        pictures.encode(_noise((4, 4, 1), np.uint16), format)


def test_a_file_is_written_aside_and_renamed(tmp_path):
    target = tmp_path / "deep" / "x.bin"
    files.write_bytes(target, b"abc")
    assert target.read_bytes() == b"abc"
    assert [p.name for p in target.parent.iterdir()] == ["x.bin"]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot be written"):
        files.write_bytes(tmp_path / "file" / "x.bin", b"abc")


def test_jpeg_does_not_lose_an_alpha_band_in_silence():
    with pytest.raises(RecipeError, match="jpeg has no alpha"):
        pictures.encode(_noise((4, 4, 4), np.uint8), "jpeg")


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    def write(n: int) -> None:
        files.write_bytes(tmp_path / "x.bin", bytes([n]) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(set((tmp_path / "x.bin").read_bytes())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_eyes_see_three_bands_of_eight_bits():
    assert pictures.rgb(_noise((5, 6, 1), np.uint8)).shape == (5, 6, 3)
    assert pictures.rgb(_noise((5, 6, 4), np.uint8)).shape == (5, 6, 3)
    sixteen = pictures.rgb(_noise((50, 60, 1), np.uint16))
    assert sixteen.dtype == np.uint8
    assert sixteen.min() == 0
    assert sixteen.max() == 255


@pytest.mark.parametrize("bands", [1, 3])
def test_grain_measures_noise_on_planes_and_beside_edges(bands):
    rng = np.random.default_rng(0)
    plane = np.linspace(20, 200, 120)[:, None, None] + np.zeros((120, 90, bands))
    plane[:, 45:] += 50
    found = pictures.grain((plane + rng.normal(0, 4, plane.shape)).astype(np.float32))
    assert found.shape == (120, 90, bands)
    assert np.median(found) / pictures.GRAIN_OF_NOISE == pytest.approx(4, rel=0.05)
    assert np.median(pictures.grain(plane.astype(np.float32))) < 1e-3
