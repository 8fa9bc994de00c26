"""From mask files to class ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deeplab_jax.array_types import Int16, Integer, UInt8, UInt32
from deeplab_jax.classes import Color
from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Example, Ids
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import read_colors, read_ids


@dataclass(frozen=True)
class IdMasks:
    """Masks whose pixels are values of one channel or indices of a palette."""

    classes: int
    relabel: Mapping[int, int] = field(default_factory=dict)  # values that are no class ids yet -> class id or IGNORE

    def __call__(self, example: Example, size: tuple[int, int]) -> Ids:
        values = read_ids(example.source)
        labels = self.labels()
        wrong = (values < 0) | (values >= len(labels))
        ids = labels[np.where(wrong, 0, values)]
        wrong |= ids < 0
        if wrong.any():
            legal = (
                f"the masks of this data set hold {ranges(np.flatnonzero(labels >= 0))}; correct the mask"
                if self.relabel
                else f"there are {self.classes} classes (0 to {self.classes - 1}) and {IGNORE} for void; name every "
                "class or correct the mask"
            )
            raise InputError(f"{example.source} holds the value {values[wrong].min()}, but {legal}")
        return ids.astype(np.uint8)

    def labels(self) -> Int16[np.ndarray, "values"]:
        """The class id or IGNORE of every value from 0 on; -1 for those that mean nothing."""
        labels = np.full(max(IGNORE, *self.relabel, 0) + 1, -1, np.int16)
        labels[: self.classes] = range(self.classes)
        labels[IGNORE] = IGNORE
        for value, label in self.relabel.items():
            if value >= 0:  # published tables have -1 too, which no image holds
                labels[value] = label
        return labels


@dataclass(frozen=True)
class ColorMasks:
    """Masks whose pixels are colors of a table, in palettes and as gray levels too."""

    colors: Mapping[Color, int]  # -> class id or IGNORE

    def __call__(self, example: Example, size: tuple[int, int]) -> Ids:
        codes = as_codes(read_colors(example.source))
        table = {red << 16 | green << 8 | blue: id for (red, green, blue), id in self.colors.items()}
        ids = np.full(codes.shape, IGNORE, np.uint8)
        for code in np.unique(codes).tolist():
            if code not in table:
                color = as_color(code)
                mend = "; where masks hold ids, leave the colors out of it" if len(set(color)) == 1 else ""
                raise InputError(
                    f"{example.source} has the color {color}, which no class has; add it to the table{mend}"
                )
            ids[codes == code] = table[code]
        return ids


def as_codes(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt32[np.ndarray, "h w"]:
    """RGB to one number a color."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue


def as_color(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


def colors_in(path: Path, most: int) -> set[Color]:
    """Some of the colors that a mask shows, all where they are fewer. Raises InputError as `read_colors` does."""
    codes, result = as_codes(read_colors(path)).ravel(), set()
    while codes.size and len(result) < most:
        result.add(as_color(int(codes[0])))
        codes = codes[codes != codes[0]]
    return result


def ranges(values: Integer[np.ndarray, "n"]) -> str:
    """Such as `0 to 33 and 255`, of numbers that rise."""
    runs = np.split(values, np.flatnonzero(np.diff(values) > 1) + 1)
    return " and ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
