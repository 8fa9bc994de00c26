"""Pictures of segmentation maps."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_jax.data.classes import Classes

TEXT = (20, 20, 20)


@contextmanager
def plain_text() -> Iterator[None]:
    """Inside, names in Matplotlib's figures are no formulas, whatever dollars they hold, and may lack glyphs."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def overlay(image: np.ndarray, ids: np.ndarray, classes: Classes) -> Image.Image:
    """The picture under the colours of its classes, with a legend of those that are in it."""
    present = [int(id) for id in np.unique(ids) if id < len(classes)]
    legend = Classes(tuple(classes.names[i] for i in present), tuple(classes.palette[i] for i in present))
    return beside_legend(Image.fromarray(tint(image, ids, classes)), legend)


def tint(image: np.ndarray, ids: np.ndarray, classes: Classes, opacity: float = 0.6) -> np.ndarray:
    """(h, w, 3) uint8 RGB, grey under the classes' colours. Black classes and ids of no class stay as they are."""
    colours = np.array([*classes.palette, (0, 0, 0)], np.float32)[np.minimum(ids, len(classes))]
    mixed = (1 - opacity) * image.mean(-1, keepdims=True) + opacity * colours
    return np.where(colours.any(-1, keepdims=True), mixed, image).astype(np.uint8)


def beside_legend(picture: Image.Image, classes: Classes) -> Image.Image:
    """The picture with a column of colour swatches and names on its right."""
    size = max(min(picture.height // 24, picture.width // 40), 11)
    font = ImageFont.load_default(size)
    width = int(max((font.getlength(name) for name in classes.names), default=0)) + 3 * size
    height = max(picture.height, int(1.5 * size * len(classes)) + size)
    sheet = Image.new("RGB", (picture.width + width, height), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for row, (name, colour) in enumerate(zip(classes.names, classes.palette, strict=True)):
        x, y = picture.width + size // 2, int((1.5 * row + 0.5) * size)
        draw.rectangle((x, y, x + size, y + size), fill=tuple(colour), outline=TEXT)
        draw.text((x + 1.5 * size, y + size / 2), name, TEXT, font, anchor="lm")
    return sheet


def mask_picture(ids: np.ndarray, classes: Classes) -> Image.Image:
    """A palette PNG whose pixel values are the ids; more than 256 classes give a 16-bit grey one."""
    if len(classes) > 256:
        return Image.fromarray(ids.astype(np.uint16))
    picture = Image.fromarray(ids.astype(np.uint8), "P")
    picture.putpalette([channel for colour in classes.palette for channel in colour])
    return picture


def side_by_side(pictures: list[Image.Image], gap: int = 8) -> Image.Image:
    """One row of pictures on white."""
    sheet = Image.new("RGB", (sum(p.width + gap for p in pictures) - gap, max(p.height for p in pictures)), "white")
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + gap
    return sheet
