"""Makes a data set of images to try everything on: textured shapes on clutter, in the plain folder layout.

Colors are drawn at random, so a class is known by its texture and outline alone; a border of void surrounds every
shape, as in PASCAL VOC.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from deeplab_jax.array_types import Bool, Float, Shaped, UInt8
from deeplab_jax.config import IGNORE

CLASS_NAMES = ("background", "disc", "bar", "polygon", "ring")
SPLITS = {"train": 480, "val": 40, "test": 40}
BORDER = 3  # pixels of void, half inside and half outside

Plane = Float[np.ndarray, "size size"]
Surface = Float[np.ndarray, "size size 3"]


def generate(root: Path, size: int, seed: int = 0) -> None:
    """Writes `classes.txt`, `images/SPLIT/*.png` and `masks/SPLIT/*.png`; the same for the same seed."""
    for index, (split, count) in enumerate(SPLITS.items()):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = draw_sample(np.random.default_rng((seed, index, number)), size)
            Image.fromarray(image).save(root / "images" / split / f"{number:04d}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{number:04d}.png")
    (root / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n")


def draw_sample(
    rng: np.random.Generator, size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
    """RGB and ids."""
    image, mask = clutter(rng, size), np.zeros((size, size), np.uint8)
    for _ in range(rng.integers(2, 5)):
        label = int(rng.integers(1, len(CLASS_NAMES)))
        outline = draw_outline(rng, label, size)
        surface = TEXTURES[label](rng, size)
        image = np.where(outline[..., None], surface, image)
        mask[outline] = label
        edge = cv2.morphologyEx(outline.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((BORDER, BORDER), np.uint8))
        mask[edge > 0] = IGNORE
    noise = rng.normal(0, 8, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8), mask


def draw_outline(rng: np.random.Generator, label: int, size: int) -> Bool[np.ndarray, "size size"]:
    canvas = np.zeros((size, size), np.uint8)
    center = rng.uniform(0.15, 0.85, 2) * size
    radius = rng.uniform(0.14, 0.26) * size
    point = tuple(int(c) for c in center)
    if label == 1:
        cv2.circle(canvas, point, int(radius), 1, -1)
    elif label == 2:
        length, width = radius * 2.6, radius * rng.uniform(0.6, 0.9)
        box = cv2.boxPoints((tuple(map(float, center)), (length, width), float(rng.uniform(0, 180))))
        cv2.fillPoly(canvas, [box.astype(np.int32)], 1)
    elif label == 3:
        corners = int(rng.integers(3, 6))
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 2 * np.pi)
        reach = 1.3 * radius * rng.uniform(0.8, 1, corners)
        points = center + np.stack([np.cos(angles), np.sin(angles)], -1) * reach[:, None]
        cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    else:
        cv2.circle(canvas, point, int(radius * 0.9), 1, max(int(radius * 0.5), 2))
    return canvas > 0


def coordinates(rng: np.random.Generator, size: int) -> tuple[Plane, Plane]:
    """Pixel coordinates, turned by a random angle and shifted by a random phase."""
    y, x = np.mgrid[:size, :size]
    angle, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0, 100, 2)
    return np.cos(angle) * x + np.sin(angle) * y + phase[0], np.cos(angle) * y - np.sin(angle) * x + phase[1]


def two_colors(rng: np.random.Generator, amount: Shaped[np.ndarray, "size size"]) -> Surface:
    """Between two random colors that can be told apart, by `amount` in 0..1."""
    dark = rng.uniform(0, 140, 3)
    light = dark + rng.uniform(70, 115, 3)
    return dark + amount[..., None] * (light - dark)


def stripes(rng: np.random.Generator, size: int) -> Surface:
    x, _ = coordinates(rng, size)
    return two_colors(rng, np.sin(x * 2 * np.pi / rng.uniform(9, 13)) > 0)


def checks(rng: np.random.Generator, size: int) -> Surface:
    x, y = coordinates(rng, size)
    side = rng.uniform(4, 6)
    return two_colors(rng, (x // side + y // side) % 2)


def dots(rng: np.random.Generator, size: int) -> Surface:
    x, y = coordinates(rng, size)
    pitch = rng.uniform(6, 9)
    return two_colors(rng, np.hypot(x % pitch - pitch / 2, y % pitch - pitch / 2) < pitch / 3)


def speckles(rng: np.random.Generator, size: int) -> Surface:
    grains = rng.integers(0, 2, (size // 2 + 1, size // 2 + 1))
    return two_colors(rng, np.kron(grains, np.ones((2, 2)))[:size, :size])


TEXTURES = {1: dots, 2: stripes, 3: checks, 4: speckles}


def clutter(rng: np.random.Generator, size: int) -> Surface:
    """Smooth blotches with thin strokes and specks over them."""
    coarse = rng.uniform(40, 215, (size // 16 + 2, size // 16 + 2, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(10, 20)):
        start, end = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(image, start, end, rng.uniform(0, 255, 3).tolist(), int(rng.integers(1, 3)))
    for _ in range(rng.integers(10, 20)):
        cv2.circle(
            image, rng.integers(0, size, 2).tolist(), int(rng.integers(1, 4)), rng.uniform(0, 255, 3).tolist(), -1
        )
    return image
