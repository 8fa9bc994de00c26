"""COCO's instances: polygons and run-length codes, and the masks that they make."""

import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from deeplab_jax.array_types import Bool, Float64, Int64, Integer, UInt32
from deeplab_jax.config import IGNORE
from deeplab_jax.data.annotations import check_size, numbers, take
from deeplab_jax.data.dataset import Example, Ids
from deeplab_jax.data.figures import Window, check_outline, window
from deeplab_jax.errors import InputError

Inside = Bool[np.ndarray, "h w"]

STEPS = 5  # pycocotools rounds corners to fifths of a pixel
NOTHING = "outlines are flat or lie outside of their image"


@dataclass(frozen=True, eq=False)
class Polygons:
    outlines: tuple[Float64[np.ndarray, "_ 2"], ...]  # x and y in pixels, from 3 corners; there may be none

    @property
    def area(self) -> float:
        """Square pixels."""
        turned = ((outline, np.roll(outline, 1, 0)) for outline in self.outlines)
        return sum((abs((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / 2 for a, b in turned), 0.0)

    def fault(self, size: tuple[int, int]) -> str:
        """What looks wrong in an image of (height, width); empty where nothing does."""
        if not self.outlines:
            return "annotations have no outline and stay background"
        corners = [(outline.min(0).tolist(), outline.max(0).tolist()) for outline in self.outlines]
        if all(min(low) >= 0 and max(high) <= 1 for low, high in corners):
            return "outlines lie between 0 and 1, which is read as pixels and not as shares of the image"
        return "" if any(_extends(low, high, size) for low, high in corners) else NOTHING

    def pieces(self, size: tuple[int, int]) -> Iterator[tuple[Window, Inside]]:
        """Parts of an image, and which of their pixels are inside, exactly as COCO's own tools see it."""
        for outline in self.outlines:
            place = rows, columns = window(outline, size)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            if height > 0 and width > 0:
                corners = np.stack(
                    [_shift(outline[:, 0], columns.start), _shift(outline[:, 1], rows.start)], axis=-1
                ).ravel()
                # Not with its `decode`, which warns under NumPy 2.
                (code,) = polygon_tools().frPyObjects([corners], height, width)
                yield place, fill(decode_counts(code["counts"].decode(), "pycocotools"), (height, width))


@dataclass(frozen=True, eq=False)
class Runs:
    lengths: UInt32[np.ndarray, "n"]  # pixels, down the columns: outside, inside, outside and so on

    @property
    def area(self) -> float:
        return float(self.lengths[1::2].sum())

    def fault(self, size: tuple[int, int]) -> str:
        return "" if self.lengths[1::2].any() else NOTHING

    def pieces(self, size: tuple[int, int]) -> Iterator[tuple[Window, Inside]]:
        yield (slice(None), slice(None)), fill(self.lengths, size)


@dataclass(frozen=True)
class Instance:
    label: int  # class id; IGNORE for a crowd
    shape: Polygons | Runs


@dataclass(frozen=True)
class Annotated:
    """What the annotations say of one image."""

    size: tuple[int, int]  # height, width in pixels
    instances: tuple[Instance, ...]


def read_mask(example: Example, size: tuple[int, int]) -> Ids:
    """Crowds first, then every instance on top of all larger ones; 0 where there is none."""
    annotated = example.annotations
    check_size(annotated.size, size, example.source, example.image)
    ids = np.zeros(size, np.uint8)
    for instance in sorted(annotated.instances, key=lambda one: (one.label != IGNORE, -one.shape.area)):
        for place, inside in instance.shape.pieces(size):
            ids[place][inside] = instance.label
    return ids


def faults(example: Example) -> Iterator[tuple[str, str]]:
    """What looks wrong with its instances, and the image's name. A crowd without an outline does no harm."""
    for instance in example.annotations.instances:
        if instance.label != IGNORE and (fault := instance.shape.fault(example.annotations.size)):
            yield fault, example.image.name


def read_segmentation(value: Any, size: tuple[int, int], where: str) -> Polygons | Runs | None:
    """A shape in an image of (height, width); None where there is none. Raises InputError that names where."""
    if isinstance(value, dict) and value:
        return read_runs(value, size, f"{where}: segmentation")
    if not (value is None or isinstance(value, list | dict)):
        raise InputError(f"{where}: segmentation must be polygons or an RLE")
    outlines = [read_outline(polygon, f"{where}: segmentation[{i}]") for i, polygon in enumerate(value or ())]
    # Fewer than three corners enclose nothing.
    outlines = [outline for outline in outlines if len(outline) >= 3]
    return Polygons(tuple(outlines)) if outlines else None


def read_outline(polygon: Any, where: str) -> Float64[np.ndarray, "n 2"]:
    """x and y in pixels, n from 0."""
    if not isinstance(polygon, list):
        raise InputError(f"{where} must be a list of numbers, not {reprlib.repr(polygon)}")
    values = numbers(polygon, where)
    if values.ndim != 1 or len(values) % 2:
        raise InputError(f"{where} must be an even count of numbers, x and y in turn")
    points = values.reshape(-1, 2)
    if len(points):
        check_outline(points, where)
    return points


def read_runs(record: dict, size: tuple[int, int], where: str) -> Runs:
    stated = take(record, "size", list, where)
    if stated != list(size):
        raise InputError(f"{where}: size {reprlib.repr(stated)} must be [{size[0]}, {size[1]}], that of the image")
    counts = record.get("counts")
    if isinstance(counts, str):
        lengths = decode_counts(counts, where)
    else:
        lengths = numbers(take(record, "counts", list, where), f"{where}: counts")
    pixels = size[0] * size[1]
    whole = lengths.ndim == 1 and (lengths == np.floor(lengths)).all()
    # No single one is too large, so that the sum cannot overflow.
    valid = whole and ((lengths >= 0) & (lengths <= pixels)).all() and lengths.sum() == pixels
    if not valid:
        raise InputError(
            f"{where}: counts must be whole numbers from 0 that add up to {pixels}, the pixels of the image"
        )
    return Runs(lengths.astype(np.uint32))


def decode_counts(text: str, where: str) -> Int64[np.ndarray, "n"]:
    """Run lengths from COCO's compressed text.

    A character is 48 and six bits: five of a number, lowest first, and whether more follow. The last one's highest is
    the sign. From the fourth number on each is a difference from the one two before it.
    """
    if not (re.fullmatch("[0-o]+", text) is not None and text[-1] < "P"):
        raise InputError(f"{where}: counts is no compressed RLE")
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes < 32)
    starts = np.concatenate([[0], last[:-1] + 1])
    digits = last + 1 - starts
    if not digits.max() <= 7:
        raise InputError(f"{where}: counts holds a number of more than 32 bits")
    places = 5 * (np.arange(len(codes)) - np.repeat(starts, digits))
    lengths = np.add.reduceat((codes & 31) << places, starts)
    lengths -= np.where(codes[last] & 16, np.int64(1) << 5 * digits, 0)
    lengths[1::2] = lengths[1::2].cumsum()
    lengths[2::2] = lengths[2::2].cumsum()
    return lengths


def fill(lengths: Integer[np.ndarray, "n"], size: tuple[int, int]) -> Inside:
    """Every second run, counted down the columns."""
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size[::-1]).T


def polygon_tools() -> ModuleType:
    """pycocotools.mask. Raises InputError where it is not installed."""
    try:
        from pycocotools import mask
    except ImportError:
        raise InputError("COCO's polygons need one more package: pip install 'deeplab_jax[coco]'") from None
    return mask


def _extends(low: list[float], high: list[float], size: tuple[int, int]) -> bool:
    """Whether what lies between two corners, x and y, has an extent within an image of (height, width)."""
    return all(max(first, 0) < min(last, side) for first, last, side in zip(low, high, size[::-1], strict=True))


def _shift(values: Float64[np.ndarray, "n"], start: int) -> Float64[np.ndarray, "n"]:
    """Coordinates from the start of a window. They are rounded first, so that the shift changes no pixel."""
    return (np.floor(values * STEPS + 0.5) - STEPS * start) / STEPS if start else values
