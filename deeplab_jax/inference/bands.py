"""Logits in the size of the picture, a band of rows at a time.

All classes of a large picture together are a gigabyte that is written once and read once. A band of it stays in the
processor's cache until it is used up, and every band reuses the memory of the one before.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

BAND_BYTES = 1 << 20  # of all classes together: about a core's second-level cache
# In one matrix product, which stays small enough for BLAS to leave it to one thread: its threads wait for each other,
# and all the longer where the processor has other work too.
MOST_ROWS, MOST_COLUMNS = 16, 32


class Step(NamedTuple):
    """Some neighbouring values of a resized axis: `weights` (target, source) times the source values."""

    target: slice
    source: slice
    weights: np.ndarray  # float32


def resize_steps(size_in: int, size_out: int, step: int) -> list[Step]:
    """Bilinear between pixel centres, antialiased where the axis shrinks: as a matrix, cut to where it is not 0.

    Every output value is the mean of the input under a triangle, two input pixels wide or two output pixels, whichever
    is more.
    """
    scale, steps = size_in / size_out, []
    reach = max(scale, 1)
    for first in range(0, size_out, step):
        last = min(first + step, size_out)
        centre = (np.arange(first, last)[:, None] + 0.5) * scale
        source = slice(max(int(centre[0, 0] - reach), 0), min(int(centre[-1, 0] + reach) + 1, size_in))
        weights = np.maximum(1 - np.abs(np.arange(source.start, source.stop) + 0.5 - centre) / reach, 0)
        weights /= weights.sum(1, keepdims=True)
        steps.append(Step(slice(first, last), source, weights.astype(np.float32)))
    return steps


class Window(NamedTuple):
    """A rectangle of the logits. It may reach beyond them."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, planes: np.ndarray, rows: slice, outside: int) -> np.ndarray:
        """(K, rows, width) float32: those rows of the window, with the value `outside` where there are no planes."""
        piece = np.full((len(planes), rows.stop - rows.start, self.width), outside, np.float32)
        top, bottom = np.clip((self.top + rows.start, self.top + rows.stop), 0, planes.shape[1])
        left, right = np.clip((self.left, self.left + self.width), 0, planes.shape[2])
        down, across = self.top + rows.start, self.left
        piece[:, top - down : bottom - down, left - across : right - across] = planes[:, top:bottom, left:right]
        return piece


def resized_bands(
    planes: np.ndarray, window: Window, outside: int, size: tuple[int, int]
) -> Iterator[tuple[slice, np.ndarray]]:
    """(K, h, w) planes; yields the rows and the (K, rows, width) float32 planes of each band of the resized window.

    The caller may write into a band; the next one overwrites it.
    """
    (height, width), count = size, len(planes)
    row_steps = resize_steps(window.height, height, min(max(BAND_BYTES // (4 * count * width), 1), MOST_ROWS))
    column_steps = resize_steps(window.width, width, MOST_COLUMNS) if width < window.width else []
    most = len(row_steps[0].weights)
    narrow, band = (np.empty(count * most * columns, np.float32) for columns in (window.width, width))
    for rows, source, weights in row_steps:
        shape = count, len(weights)
        lines, resized = (
            buffer[: math.prod(shape) * columns].reshape(*shape, columns)
            for buffer, columns in ((narrow, window.width), (band, width))
        )
        np.matmul(weights, window.cut(planes, source, outside), out=lines)
        if width >= window.width:
            flat = math.prod(shape)
            cv2.resize(lines.reshape(flat, -1), (width, flat), dst=resized.reshape(flat, -1))
        for columns, under, shares in column_steps:
            np.matmul(lines[..., under], shares.T, out=resized[..., columns])
        yield rows, resized
