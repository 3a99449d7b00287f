"""Can a small network, trained to, tell painted windows from untouched ones?

Pictures are split in two sides; an object painted is used only where its background and its exemplar lie on one side. So
what is judged was never seen: neither the scene, nor the object whose outline or pixels were used.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rarefill import seeds
from rarefill.fidelity.distances import Trial
from rarefill.seeds import Stage
from rarefill.windows import Windows

STEPS, BATCH, RATE = 120, 32, 3e-3
CROP_PX = 96
"""What the network sees of a window: the object, its seam, and little more."""
FINE_PX = 3.0
"""Standard deviation of the blur between what is coarse and what is fine."""


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Windows of both kinds, and the sides they can be on.

    Attributes:
        pixels: uint8 (N, 96, 96, 3), about the object.
        painted: bool (N,).
        scene: int64 (N,), number of the picture's sequence.
        source: int64 (N,), number of the exemplar's sequence; the scene's own for a real object.
    """

    pixels: NDArray[np.uint8]
    painted: NDArray[np.bool_]
    scene: NDArray[np.int64]
    source: NDArray[np.int64]


def pool(real: Windows, painted: Windows, groups: Mapping[int, int], homes: Mapping[int, int]) -> Pool:
    """Real and painted windows together.

    Args:
        real: untouched windows around real objects of the class.
        painted: windows around painted ones.
        groups: image id -> number of its sequence.
        homes: annotation id -> id of its image.
    """
    scene = np.array([groups[int(i)] for w in (real, painted) for i in w.image], dtype=np.int64)
    source = [groups[int(i)] for i in real.image]
    own = zip(painted.annotation.tolist(), painted.image.tolist(), strict=True)
    source += [groups[homes.get(annotation, image)] for annotation, image in own]
    kind = np.repeat([False, True], [len(real), len(painted)])
    pixels = np.concatenate([about(real), about(painted)])
    return Pool(pixels, kind, scene, np.array(source, dtype=np.int64))


def about(windows: Windows) -> NDArray[np.uint8]:
    """The part of each window with its object in the middle, as far as the window goes: uint8 (N, 96, 96, 3)."""
    side = windows.pixels.shape[1]
    centres = (windows.share[:, :2] + windows.share[:, 2:]) / 2 * side
    starts = np.clip(np.rint(centres - CROP_PX / 2), 0, side - CROP_PX).astype(int)
    cut = [one[y : y + CROP_PX, x : x + CROP_PX] for one, (x, y) in zip(windows.pixels, starts, strict=True)]
    return np.stack(cut) if cut else np.zeros((0, CROP_PX, CROP_PX, 3), np.uint8)


def hidden(windows: Windows) -> Windows:
    """The same windows with object and seam covered in grey: what the surroundings alone tell."""
    pixels = windows.pixels.copy()
    side = pixels.shape[1]
    for one, share in zip(pixels, windows.share, strict=True):
        x1, y1, x2, y2 = np.clip(np.rint(share * side + (-12, -12, 12, 12)), 0, side).astype(int)
        one[y1:y2, x1:x2] = 128
    return Windows(pixels, windows.objects, windows.image, windows.annotation, windows.box, windows.share)


def coarse(windows: Windows) -> Windows:
    """The same windows without what is finer than a few pixels: no seam, grain or sharpness, but objects, colours and places."""
    return replace(windows, pixels=np.stack([_blurred(one) for one in windows.pixels]).astype(np.uint8))


def fine(windows: Windows) -> Windows:
    """What `coarse` takes away, about grey: seams, grain and sharpness, and no colours of objects or places."""
    left = [128 + one.astype(np.float32) - _blurred(one) for one in windows.pixels]
    return replace(windows, pixels=np.clip(np.rint(np.stack(left)), 0, 255).astype(np.uint8))


def _blurred(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), FINE_PX), np.float32)


def trials(pool: Pool, *, times: int) -> list[Trial]:
    """Split, train, and judge the other side, so often; each time both ways."""
    out = []
    for seed, learn, judge in turns(pool, times=times):
        net = learned(pool.pixels[learn], pool.painted[learn], seed=seed)
        out.append(Trial(scores(net, pool.pixels[judge]), pool.painted[judge], pool.scene[judge]))
    return out


def turns(pool: Pool, *, times: int) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
    """Each drawing's number, with the rows to learn from and those to judge, both ways, where both hold both kinds."""
    for seed in range(times):
        side = sides(pool, seeds.rng(seed, Stage.CHECK))
        for learn, judge in ((0, 1), (1, 0)):
            rows = [np.flatnonzero(side == s) for s in (learn, judge)]
            if all(len(r) and 0 < pool.painted[r].mean() < 1 for r in rows):
                yield seed, rows[0], rows[1]


def sides(pool: Pool, rng: np.random.Generator) -> NDArray[np.int64]:
    """0 or 1 for each window, by a drawing of whole sequences; -1 where scene and exemplar are on different sides.

    Sequences of exemplars and others are halved apart, so that both sides have exemplars.
    """
    drawn: dict[int, int] = {}
    exemplars = np.unique(pool.source[pool.painted])
    others = np.setdiff1d(pool.scene, exemplars)
    for names in (exemplars, others):
        for n, name in enumerate(rng.permutation(names)):
            drawn[int(name)] = n % 2
    scene, source = (np.array([drawn[int(g)] for g in v]) for v in (pool.scene, pool.source))
    return np.where(scene == source, scene, -1)


def _network() -> nn.Module:
    layers: list[nn.Module] = []
    channels = (6, 16, 24, 32, 48)
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 1))


def _seen(pixels: NDArray[np.uint8]) -> Tensor:
    """float32 (N, 6, S, S): colours about the window's own mean, and what a blur takes away: seams, noise, grids."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 64
    x = x - x.mean((2, 3), keepdim=True)
    fine = x - nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return torch.cat([x, 4 * fine], 1)


def learned(pixels: NDArray[np.uint8], painted: NDArray[np.bool_], *, seed: int) -> nn.Module:
    """A network trained on windows of both kinds, as many of each in a batch; mirrored and turned by quarters."""
    torch.manual_seed(seed)
    net = _network().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    rng = np.random.default_rng(seed)
    kinds = np.flatnonzero(painted), np.flatnonzero(~painted)
    for _ in range(STEPS):
        rows = np.concatenate([rng.choice(k, BATCH // 2) for k in kinds])
        x = _turned(_seen(pixels[rows]), int(rng.integers(8)))
        wanted = torch.from_numpy(painted[rows]).float()
        loss = nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], 0.9 * wanted + 0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def _turned(x: Tensor, turn: int) -> Tensor:
    """One of the eight poses of all windows of a batch, (N, C, S, S)."""
    x = torch.rot90(x, turn % 4, (2, 3))
    return (x.flip(3) if turn >= 4 else x).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def scores(net: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How painted each window looks, float64 (N,), over four of its poses."""
    found = []
    for start in range(0, len(pixels), BATCH):
        x = _seen(pixels[start : start + BATCH])
        answers = [net(_turned(x, turn))[:, 0] for turn in (0, 2, 4, 6)]
        found.append(torch.stack(answers).mean(0).double().numpy())
    return np.concatenate(found)
