"""An object's outline from evidence: what changed, what was planned, and what the colours say, two votes of three.

Nothing outside the paint can be the object, and little far inside the planned silhouette is not. Between the two three
outlines vote for each pixel: the silhouette itself, the silhouette moved and stretched to where the colour steps are
clearest, and GrabCut's, which starts from the silhouette and the changed pixels; or a segmenter's in its place. Where the colours give no reason to
move it, or want something else altogether, the silhouette stands, and the answer says so.
"""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from rarefill import pictures
from rarefill.annotators.segmenter import Segment
from rarefill.geometry import BoolArray, Box, FloatArray, Mask
from rarefill.scene import Pixels

_PAD_PX = 6
"""Around what was painted, in the image's pixels: GrabCut learns the surroundings from more than the ring."""
_LARGEST_PX = 96  # of the crop's longer side: larger objects are measured at this scale
_SMALLEST_PX = (
    40  # of the crop's longer side: smaller crops are enlarged, so that a border has pixels to lie on
)
_BAND = 0.16
"""How far from the silhouette's border the object's may lie, as a share of the root of its area."""
_LEAST_BAND_PX = 1.5
_ITERATIONS = 2
_SEEN = 3.0
"""A difference of so many standard deviations of the sensor's noise is paint."""
_LEAST_NOISE = 0.5  # of 255 steps: rounding alone
_AGREES = 0.6
"""IoU with the silhouette below which an outline is of something else."""
_PAINTED = 0.4
"""Share of the silhouette that must differ from the background: below, whatever was painted is not what was planned."""
_CLEARER = 0.2
"""Natural logarithm of how much clearer the colour steps must be along a moved silhouette."""
_LEAST_PX = 12.0
"""Root of the silhouette's area below which there are too few pixels to say more than it does."""
_BELIEVED = 0.88
"""From this opinion of its own mask a segmenter is believed without a vote: what SAM's own automatic generator asks for."""
_POINTS = 100  # of the silhouette's border, where colour steps are measured
_ACROSS_PX = 1.5  # on each side of it
_FAINT, _PLAIN = 4.0, 60.0
"""Colour steps, 8-bit Lab units: what is well below the first is none, and beyond the second no step is clearer."""
_EXPECTED = 0.08
"""Standard deviation of how far a side is expected to be off, as a share of the root of the silhouette's area."""
_STIFF = 0.2
"""What an unexpected move costs against clearer steps: tuned so that a right silhouette is seldom moved."""
_FARTHEST = 0.25
_STRIDES = (0.08, 0.04, 0.02, 0.01)
_TRIES = 3  # moves of each stride at most
_MOVES: FloatArray = np.array(
    [
        *np.eye(4),
        *-np.eye(4),
        *([1, 0, 1, 0], [-1, 0, -1, 0], [0, 1, 0, 1], [0, -1, 0, -1], [-1, -1, 1, 1], [1, 1, -1, -1]),
    ],
    dtype=np.float64,
)
"""Of left, top, right and bottom side: each alone, the whole along an axis, and its size."""


class Source(StrEnum):
    """What a measured mask rests on."""

    EVIDENCE = "evidence"
    SILHOUETTE = "silhouette"
    """The evidence is no clearer than the silhouette."""
    DEPARTS = "evidence departs"
    """The evidence is of something else than the silhouette."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A measured object.

    Attributes:
        mask: its pixels, in the image's frame.
        source: what they rest on; the silhouette itself unless `EVIDENCE`.
        agreement: IoU of GrabCut's outline with the silhouette, 0 to 1, or the share of the silhouette that was painted
            at all where that is too small; 1 where nothing was measured.
    """

    mask: Mask
    source: Source
    agreement: float = 1.0


def noise(pixels: NDArray[np.float32]) -> float:
    """Standard deviation of a picture's noise, float32 (h, w, C), its bands together; `_LEAST_NOISE` at least."""
    return max(_LEAST_NOISE, float(np.median(pictures.grain(pixels))) / pictures.GRAIN_OF_NOISE)


def difference(picture: Pixels, background: Pixels) -> NDArray[np.float32]:
    """How far the paint stands above the noise, float32 (h, w): 1 is a difference that noise alone rarely makes.

    Args:
        picture: uint8 (h, w, 3), as painted.
        background: the same window without paint.
    """
    before = background.astype(np.float32)
    steps = cv2.GaussianBlur(picture.astype(np.float32) - before, (0, 0), 0.8)
    # Two noisy pictures differ by root 2 of one's noise; a blur of 0.8 leaves a third of it.
    level = _SEEN * noise(before) * np.sqrt(2) / 3
    return np.asarray(np.abs(steps).max(axis=2) / level, dtype=np.float32)


def measured(
    picture: Pixels,
    background: Pixels,
    planned: Mask,
    touched: Mask,
    *,
    unknown: Mask | None = None,
    segment: Segment | None = None,
) -> Outline:
    """The object that was painted, from a picture with and without it.

    Args:
        picture: (H, W, C), any depth.
        background: the same without the paint.
        planned: the silhouette asked for, as far as it was painted.
        touched: every pixel that the paint may have changed; holds `planned`.
        unknown: pixels of other paint in front: there the silhouette stands.
        segment: a segmenter to ask instead of GrabCut.

    Returns:
        The object and what its outline rests on. The same input gives the same answer on every machine's thread.
    """
    if np.sqrt(planned.area) < _LEAST_PX:
        return Outline(planned, Source.SILHOUETTE)
    view = _View.around(picture, background, planned, touched, unknown)
    differs = view.changed[view.planned & ~view.unknown] >= 1
    if differs.size and differs.mean() < _PAINTED:
        return Outline(planned, Source.DEPARTS, round(float(differs.mean()), 4))
    cut, quality = (_grabcut(view), 0.0) if segment is None else _segmented(view, planned, segment)
    if cut is None or not view.planned.any():
        return Outline(planned, Source.SILHOUETTE)
    agreement = round(_iou(cut, view.planned), 4)
    if agreement < _AGREES:
        return Outline(planned, Source.DEPARTS, agreement)
    if quality >= _BELIEVED:
        inside = cut
    else:
        moved, gain = _fitted(view)
        if gain < _CLEARER:
            return Outline(planned, Source.SILHOUETTE, agreement)
        inside = cut.astype(np.uint8) + moved + view.planned >= 2
    found = np.where(view.unknown, view.planned, inside & view.touched)
    mask = None if (found == view.planned).all() else view.back(found)
    return (
        Outline(planned, Source.SILHOUETTE, agreement)
        if mask is None
        else Outline(mask, Source.EVIDENCE, agreement)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """The crop about one object, at the scale at which it is measured.

    Attributes:
        x: column of its left edge in the image.
        y: row of its top edge.
        size: its width and height in the image's pixels.
        whole: uint8 (H, W, 3), the picture at its own scale.
        small: uint8 (h, w, 3), the picture.
        changed: float32 (h, w), the difference to the background, 1 and above is paint.
        planned: bool (h, w).
        touched: bool (h, w).
        unknown: bool (h, w).
    """

    x: int
    y: int
    size: tuple[int, int]
    whole: Pixels
    small: Pixels
    changed: NDArray[np.float32]
    planned: BoolArray
    touched: BoolArray
    unknown: BoolArray

    @classmethod
    def around(
        cls, picture: Pixels, background: Pixels, planned: Mask, touched: Mask, unknown: Mask | None
    ) -> "_View":
        height, width = picture.shape[:2]
        reach = touched.box
        pad = max(_PAD_PX, round(0.1 * max(reach.width, reach.height)))
        x1, y1 = max(0, touched.x - pad), max(0, touched.y - pad)
        x2, y2 = min(width, int(reach.x2) + pad), min(height, int(reach.y2) + pad)
        between = pictures.limits(background)
        after, before = (pictures.rgb(p[y1:y2, x1:x2], between) for p in (picture, background))
        w, h = x2 - x1, y2 - y1
        zoom = min(_LARGEST_PX / max(w, h), max(1.0, _SMALLEST_PX / max(w, h)))
        size = (max(1, round(w * zoom)), max(1, round(h * zoom)))
        how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC

        def scaled(mask: Mask | None) -> BoolArray:
            if mask is None:
                return np.zeros(size[::-1], dtype=bool)
            share = mask.window(x1, y1, w, h).astype(np.float32)
            how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
            return np.asarray(cv2.resize(share, size, interpolation=how) >= 0.5)

        return cls(
            x1,
            y1,
            (w, h),
            after,
            np.asarray(cv2.resize(after, size, interpolation=how), np.uint8),
            np.asarray(cv2.resize(difference(after, before), size, interpolation=cv2.INTER_LINEAR)),
            scaled(planned),
            scaled(touched),
            scaled(unknown),
        )

    def back(self, found: BoolArray) -> Mask | None:
        """A mask of this view in the image's frame."""
        share = cv2.resize(found.astype(np.float32), self.size, interpolation=cv2.INTER_LINEAR)
        return Mask.of(share >= 0.5, self.x, self.y)


def _grabcut(view: _View) -> BoolArray | None:
    """bool (h, w): what the colours want within a band about the silhouette; None where there is nothing to decide."""
    depth = _depth(view.planned)
    band = max(_LEAST_BAND_PX, _BAND * float(np.sqrt(view.planned.sum())))
    labels = np.where(view.planned, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[view.planned & (view.changed < 1) & (depth < band)] = cv2.GC_PR_BGD
    labels[depth >= min(band, 0.8 * float(depth.max()))] = cv2.GC_FGD
    labels[(depth < -band) | ~view.touched] = cv2.GC_BGD
    labels[view.unknown] = np.where(view.planned[view.unknown], cv2.GC_FGD, cv2.GC_BGD)
    if not ((labels == cv2.GC_FGD).any() and (labels == cv2.GC_BGD).any()):
        return None
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(view.small, labels, (0, 0, 1, 1), *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return _tidy((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), view.planned)


def _segmented(view: _View, planned: Mask, segment: Segment) -> tuple[BoolArray | None, float]:
    """bool (h, w): what a segmenter sees in the silhouette's box, None where nothing; and what it thinks of it."""
    box = planned.box
    prompt = Box(box.x1 - view.x, box.y1 - view.y, box.x2 - view.x, box.y2 - view.y)
    found, quality = segment(view.whole, prompt)
    share = cv2.resize(found.astype(np.float32), view.small.shape[1::-1], interpolation=cv2.INTER_AREA)
    return _tidy(np.asarray(share >= 0.5), view.planned), quality


def _tidy(found: BoolArray, planned: BoolArray) -> BoolArray | None:
    """The pieces that the silhouette knows of, holes filled where it has none, the border smoothed."""
    smooth = cv2.GaussianBlur(found.astype(np.float32), (0, 0), 0.8) > 0.5
    n, pieces, stats, _ = cv2.connectedComponentsWithStats(smooth.astype(np.uint8), connectivity=4)
    if n < 2:
        return None
    large = [i for i in range(1, n) if stats[i, cv2.CC_STAT_AREA] >= 0.1 * planned.sum()]
    kept = np.isin(pieces, large)
    outlines, _ = cv2.findContours(kept.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(kept.astype(np.uint8), outlines, -1, 1, cv2.FILLED).astype(bool)
    out = kept | (filled & planned)
    return out if out.any() else None


def _depth(mask: BoolArray) -> NDArray[np.float32]:
    """Distance to the mask's border in pixels, float32 (h, w): above 0 inside, below 0 outside."""
    inside, outside = (
        cv2.distanceTransform(np.pad(m, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        for m in (mask, ~mask)
    )
    return np.asarray(np.where(mask, inside - 0.5, 0.5 - outside), dtype=np.float32)


def _fitted(view: _View) -> tuple[BoolArray, float]:
    """The silhouette with its four sides moved to where colour steps along its border are clearest.

    Returns:
        It, bool (h, w), and by how much clearer the steps are, as a natural logarithm; 0 where it was not moved.
    """
    border = _Border.of(view)
    sides = np.zeros((1, 4))
    start = score = float(border.clearness(sides)[0])
    best = start
    for stride in _STRIDES:
        for _ in range(_TRIES):
            tried = np.clip(sides + stride * _MOVES, -_FARTHEST, _FARTHEST)
            clear = border.clearness(tried)
            worth = clear - 0.5 * _STIFF * ((tried / _EXPECTED) ** 2).sum(axis=1)
            first = int(worth.argmax())
            if worth[first] <= score + 1e-4:
                break
            sides, score, best = tried[first : first + 1], float(worth[first]), float(clear[first])
    scale, shift = border.motion(sides)
    how = np.array([[scale[0, 0], 0, shift[0, 0]], [0, scale[0, 1], shift[0, 1]]])
    height, width = view.planned.shape
    warped = cv2.warpAffine(view.planned.astype(np.float32), how, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray((warped >= 0.5) & view.touched), best - start


@dataclass(frozen=True, slots=True, eq=False)
class _Border:
    """Points along a silhouette's border.

    Attributes:
        lab: float32 (h, w, 3), the picture.
        points: float64 (N, 2), x y.
        inward: float64 (N, 2), of length 1.
        root: of the silhouette's area.
    """

    lab: NDArray[np.float32]
    points: FloatArray
    inward: FloatArray
    root: float

    @classmethod
    def of(cls, view: _View) -> "_Border":
        lab = cv2.GaussianBlur(cv2.cvtColor(view.small, cv2.COLOR_RGB2LAB).astype(np.float32), (0, 0), 0.8)
        outlines, _ = cv2.findContours(
            view.planned.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        pixels = np.concatenate([line[:, 0] for line in outlines])
        pixels = pixels[:: max(1, len(pixels) // _POINTS)]
        soft = cv2.GaussianBlur(view.planned.astype(np.float32), (0, 0), 1.5)
        slopes = [cv2.Sobel(soft, cv2.CV_32F, *d)[pixels[:, 1], pixels[:, 0]] for d in ((1, 0), (0, 1))]
        inward = np.stack(slopes, axis=1).astype(np.float64)
        inward /= np.linalg.norm(inward, axis=1, keepdims=True) + 1e-6
        # A contour runs through the middles of the object's outermost pixels: the border lies half a pixel further out.
        return cls(np.asarray(lab), pixels - 0.5 * inward, inward, float(np.sqrt(view.planned.sum())))

    def motion(self, sides: FloatArray) -> tuple[FloatArray, FloatArray]:
        """What moved sides (K, 4) do to a point: times the first (K, 2), plus the second."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        extent = np.maximum(high - low, 1)
        scale = (extent + (sides[:, 2:] - sides[:, :2]) * self.root) / extent
        return scale, low + sides[:, :2] * self.root - scale * low

    def clearness(self, sides: FloatArray) -> FloatArray:
        """The mean logarithm of the colour steps along the border with its sides moved, float64 (K,)."""
        scale, shift = self.motion(sides)
        points = self.points[None] * scale[:, None] + shift[:, None]
        inner, outer = (self._at(points + way * self.inward) for way in (_ACROSS_PX, -_ACROSS_PX))
        steps = np.linalg.norm(inner - outer, axis=2)
        return np.asarray(np.log(np.minimum(steps, _PLAIN) + _FAINT).mean(axis=1))

    def _at(self, points: FloatArray) -> NDArray[np.float32]:
        x, y = (np.ascontiguousarray(points[..., i], dtype=np.float32) for i in (0, 1))
        return np.asarray(cv2.remap(self.lab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _iou(a: BoolArray, b: BoolArray) -> float:
    either = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / either) if either else 0.0
