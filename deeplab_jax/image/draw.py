"""Images of segmentation maps."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_jax.array_types import Integer, UInt, UInt8
from deeplab_jax.classes import Classes, Color

Pixels = UInt8[np.ndarray, "h w 3"]
Ids = Integer[np.ndarray, "h w"]

TEXT, BLACK = (20, 20, 20), (0, 0, 0)
OPACITY = 0.6  # of the classes' colors
BAND_PIXELS = 2**16


@contextmanager
def plain_text() -> Iterator[None]:
    """Inside, names in Matplotlib's figures are no formulas, whatever dollars they hold, and may lack glyphs."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def overlay_with_legend(
    image: Pixels, ids: UInt[np.ndarray, "h w"], classes: Classes
) -> UInt8[np.ndarray, "height width 3"]:
    """BGR, as OpenCV writes it: the RGB image under the colors of its classes, and a legend of those in it.

    `ids` are uint8 or uint16.
    """
    height, width = image.shape[:2]
    counts = cv2.calcHist([ids], [0], None, [len(classes)], [0, len(classes)])
    present = np.flatnonzero(counts).tolist()
    shown = Classes(tuple(classes.names[i] for i in present), tuple(classes.palette[i] for i in present))
    column = legend(shown, (height, width))
    sheet = np.empty((column.height, width + column.width, 3), np.uint8)
    sheet[height:, :width], sheet[:, width:] = 255, np.asarray(column)[..., ::-1]
    cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=sheet[:height, :width])
    overlay_in_place(sheet[:height, :width], ids, [(blue, green, red) for red, green, blue in classes.palette])
    return sheet


def overlay(image: Pixels, ids: Ids, classes: Classes) -> Pixels:
    """RGB, gray under the classes' colors. Black classes and ids of no class stay as they are."""
    drawn = image.copy()
    overlay_in_place(drawn, ids, classes.palette)
    return drawn


def overlay_in_place(image: Pixels, ids: Ids, palette: Sequence[Color]) -> None:
    """`overlay` with colors in the order of the image's channels, a band of rows at a time, for the cache."""
    colors = np.array([*palette, BLACK])  # the last stands for all ids of no class
    drawn = colors.any(1, keepdims=True)
    # The share of a class's color and whether it is drawn, in the four bytes of one number.
    table = np.hstack([OPACITY * colors, 255 * drawn]).astype(np.uint8).view(np.uint32)[:, 0]
    to_gray = np.full((1, 3), (1 - OPACITY) / 3, np.float32)
    height, width = ids.shape
    step = max(BAND_PIXELS // width, 1)
    for rows in (slice(first, first + step) for first in range(0, height, step)):
        result = np.take(table, ids[rows, :, None], mode="clip").view(np.uint8)
        share, mask = cv2.cvtColor(result, cv2.COLOR_RGBA2RGB), cv2.extractChannel(result, 3)
        gray = cv2.cvtColor(cv2.transform(image[rows], to_gray), cv2.COLOR_GRAY2RGB)
        cv2.add(gray, share, dst=image[rows], mask=mask)


def beside_legend(image: Image.Image, classes: Classes) -> Image.Image:
    """The image with a column of color swatches and names on its right."""
    column = legend(classes, (image.height, image.width))
    sheet = Image.new("RGB", (image.width + column.width, column.height), "white")
    sheet.paste(image, (0, 0))
    sheet.paste(column, (image.width, 0))
    return sheet


def legend(classes: Classes, beside: tuple[int, int]) -> Image.Image:
    """Color swatches and names below each other, no lower than the image of (height, width) that they go beside."""
    size = max(min(beside[0] // 24, beside[1] // 40), 11)
    font = ImageFont.load_default(size)
    width = int(max((font.getlength(name) for name in classes.names), default=0)) + 3 * size
    column = Image.new("RGB", (width, max(beside[0], int(1.5 * size * len(classes)) + size)), "white")
    draw = ImageDraw.Draw(column)
    for row, (name, color) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x, y = size // 2, int((1.5 * row + 0.5) * size)
        draw.rectangle((x, y, x + size, y + size), fill=tuple(color), outline=TEXT)
        draw.text((x + 1.5 * size, y + size / 2), name, TEXT, font, anchor="lm")
    return column


def mask_image(ids: Ids, classes: Classes) -> Image.Image:
    """A palette PNG whose pixel values are the ids; more than 256 classes give a 16-bit gray one."""
    if len(classes) > 256:
        return Image.fromarray(ids.astype(np.uint16))
    image = Image.fromarray(ids.astype(np.uint8), "P")
    image.putpalette([channel for color in classes.palette for channel in color])
    return image


def side_by_side(images: list[Image.Image], gap: int = 8) -> Image.Image:
    """One row of images on white."""
    sheet = Image.new("RGB", (sum(p.width + gap for p in images) - gap, max(p.height for p in images)), "white")
    x = 0
    for image in images:
        sheet.paste(image, (x, 0))
        x += image.width + gap
    return sheet
