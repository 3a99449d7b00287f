"""What checking one painted object costs, and that it does not grow with the image it stands in.

    python benchmarks/check.py

Both networks have random weights: what they cost does not depend on what they have learned. Processor time.
"""

import time
from statistics import median

import numpy as np

from rarefill.annotators import detector, second_look
from rarefill.annotators.calibrate import Standing
from rarefill.annotators.check import Fitted, Judge
from rarefill.bank import Bank
from rarefill.geometry import Mask
from rarefill.recipe import CheckerConfig
from rarefill.scene import Layout, Paint, Placement, Render

SIDES_PX = (320, 1280, 5120)
OBJECTS = 20


def render(side: int) -> Render:
    rng = np.random.default_rng(side)
    background = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels, disc = background.copy(), np.hypot(*np.mgrid[-15.5:16, -15.5:16]) < 16
    masks = [Mask(int(x), int(y), disc) for x, y in rng.integers(0, side - 32, (OBJECTS, 2))]
    for mask in masks:
        pixels[mask.full(side, side)] = 255
    placements = tuple(Placement("disc", mask, depth=i) for i, mask in enumerate(masks))
    paints = tuple(Paint(i, mask, mask, "paste") for i, mask in enumerate(masks))
    return Render(Layout(0, 0, placements), background, pixels, paints)


def main() -> None:
    model = detector.build(3, seed=0).eval()
    closer = second_look.loaded(second_look.build(3, seed=0).state_dict(), 3)
    judge = Judge((model,), np.zeros(1, np.int32), scale=1.0, closer=(closer,))
    table = (Standing("disc", 100, 0.9, 0.3, pooled=False),)
    checker = Fitted(["disc", "square", "star"], judge, table, CheckerConfig(), Bank([]))
    todo = [tuple(range(OBJECTS))]
    costs: list[float] = []
    for side in SIDES_PX:
        scene = render(side)
        checker.check([scene], [(0,)])  # the first call warms up
        times = []
        for _ in range(3):
            start = time.process_time()
            checker.check([scene], todo)
            times.append((time.process_time() - start) / OBJECTS)
        costs.append(median(times))
        print(f"{side:5} px image: {1000 * costs[-1]:6.1f} ms an object, one thread")
    boxes = [placement.box for placement in scene.layout.placements]
    start = time.process_time()
    second_look.shares(closer, scene.pixels, boxes)
    print(f"of that the second look: {1000 * (time.process_time() - start) / len(boxes):.1f} ms")
    print(f"{SIDES_PX[-1] // SIDES_PX[0]} times the side costs {costs[-1] / costs[0]:.2f} times as much")


if __name__ == "__main__":
    main()
