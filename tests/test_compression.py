"""Painted pixels bear their image's own JPEG traces."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rarefill.generators.compression import Compression


def scene(n: int) -> np.ndarray:
    rng = np.random.default_rng(8)
    small = rng.uniform(0, 255, (12, 16, n)).astype(np.float32)
    smooth = cv2.resize(small, (128, 96), interpolation=cv2.INTER_CUBIC).reshape(96, 128, n)
    return np.clip(smooth + rng.normal(0, 12, (96, 128, n)), 0, 255).astype(np.uint8)


def filed(tmp_path, n, quality, sampling=cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420):
    """A picture in a JPEG file, and what that file gives back."""
    path = tmp_path / f"{n}-{quality}.jpg"
    pixels = scene(n)
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    cv2.imwrite(str(path), pixels[..., ::-1] if n == 3 else pixels, settings)
    back = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).reshape(96, 128, n)
    data = SimpleNamespace(image_path=lambda _: path)
    return pixels.astype(np.float32), back[..., ::-1].astype(np.float32), Compression(data)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("quality", [30, 75])
@pytest.mark.parametrize("place", [(32, 16), (0, 0), (48, 48)])
def test_a_part_comes_back_as_the_whole_file_gives_it(tmp_path, n, quality, place):
    pixels, back, compression = filed(tmp_path, n, quality)
    x, y = place
    part = (slice(y, y + 48), slice(x, x + 64))
    ours = compression.of(pixels[part], 0, x, y)
    assert ours.shape == (48, 64, n)
    # Colours are enlarged across the part's edge, so only its inside can be exact.
    inside = np.s_[2:-2, 2:-2]
    assert np.abs(ours[inside] - back[part][inside]).max() <= 3
    assert np.abs(ours - pixels[part]).mean() > 0.5


def test_blocks_lie_where_the_files_lie(tmp_path):
    pixels, back, compression = filed(tmp_path, 1, 20)
    part = (slice(21, 69), slice(37, 101))
    ours = compression.of(pixels[part], 0, 37, 21)
    shifted = compression.of(pixels[part], 0, 32, 16)
    inside = np.s_[12:-12, 12:-12]
    right, wrong = (np.abs(a[inside] - back[part][inside]).mean() for a in (ours, shifted))
    assert right < 0.5 * wrong


def test_windows_that_leave_the_image_are_coded_too(tmp_path):
    pixels, _, compression = filed(tmp_path, 3, 50)
    assert compression.of(pixels[:20, :21], 0, -7, -3).shape == (20, 21, 3)


def test_lossless_files_leave_colours_alone(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), scene(3))
    compression = Compression(SimpleNamespace(image_path=lambda _: path))
    colours = scene(3).astype(np.float32)
    assert compression.of(colours, 0, 0, 0) is colours
