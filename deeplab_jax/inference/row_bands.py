"""Logits in the size of the image, a band of rows at a time.

All classes of a large image together are a gigabyte that is written once and read once. A band of it stays in the
processor's cache until it is used up, and every band reuses the memory of the one before.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from deeplab_jax.array_types import Float, Float32, Integer

BAND_BYTES = 1 << 21  # of all classes together: about a core's second-level cache
# In one matrix product, which stays small enough for BLAS to leave it to one thread: its threads wait for each other,
# and all the longer where the processor has other work too.
MOST_ROWS, MOST_COLUMNS = 16, 32


class Step(NamedTuple):
    """Some neighboring values of a resized axis: `weights` (target, source) times the source values."""

    target: slice
    source: slice
    weights: Float32[np.ndarray, "target source"]


def resize_steps(size_in: int, size_out: int, step: int) -> list[Step]:
    """Bilinear between pixel centers, antialiased where the axis shrinks: as a matrix, cut to where it is not 0.

    Every output value is the mean of the input under a triangle, two input pixels wide or two output pixels, whichever
    is more.
    """
    scale, steps = size_in / size_out, []
    reach = max(scale, 1)
    for first in range(0, size_out, step):
        last = min(first + step, size_out)
        center = (np.arange(first, last)[:, None] + 0.5) * scale
        source = slice(max(int(center[0, 0] - reach), 0), min(int(center[-1, 0] + reach) + 1, size_in))
        weights = np.maximum(1 - np.abs(np.arange(source.start, source.stop) + 0.5 - center) / reach, 0)
        weights /= weights.sum(1, keepdims=True)
        steps.append(Step(slice(first, last), source, weights.astype(np.float32)))
    return steps


class Window(NamedTuple):
    """A rectangle of the logits. It may reach beyond them."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, planes: Float[np.ndarray, "k h w"], rows: slice, outside: int) -> Float32[np.ndarray, "k rows width"]:
        """Those rows of the window, with the value `outside` where there are no planes."""
        piece = np.full((len(planes), rows.stop - rows.start, self.width), outside, np.float32)
        top, bottom = np.clip((self.top + rows.start, self.top + rows.stop), 0, planes.shape[1])
        left, right = np.clip((self.left, self.left + self.width), 0, planes.shape[2])
        down, across = self.top + rows.start, self.left
        piece[:, top - down : bottom - down, left - across : right - across] = planes[:, top:bottom, left:right]
        return piece


class Resized:
    """(K, h, w) planes, of which a window is resized to an image's size, a band of its rows at a time."""

    def __init__(self, planes: Float[np.ndarray, "k h w"], window: Window, outside: int, size: tuple[int, int]):
        """`outside`: the value of the window where it reaches beyond the planes."""
        (height, width), count = size, len(planes)
        self.planes, self.window, self.outside, self.width = planes, window, outside, width
        self.steps = resize_steps(window.height, height, min(max(BAND_BYTES // (4 * count * width), 1), MOST_ROWS))
        self._column_steps = resize_steps(window.width, width, MOST_COLUMNS) if width < window.width else []
        most = len(self.steps[0].weights)
        self._narrow, self._band = (np.empty(count * most * columns, np.float32) for columns in (window.width, width))
        # So that every value lies between four neighbors.
        self.enlarges = 1 < window.height <= height and 1 < window.width <= width

    def cut(self, step: Step) -> Float32[np.ndarray, "k rows narrow"]:
        """What a band is made of, as wide as the window."""
        return self.window.cut(self.planes, step.source, self.outside)

    def band(self, step: Step, rows: Integer[np.ndarray, "rows"] | None = None) -> Float32[np.ndarray, "k rows width"]:
        """All or some of its rows. It may be written into; the next one overwrites it.

        Infinities and NaN are where they have a weight, and nowhere else.
        """
        piece = self.cut(step)
        finite = np.isfinite(piece)
        if finite.all():
            return self._resize(piece, step.weights, rows)
        resized = self._resize(np.where(finite, piece, np.float32(0)), step.weights, rows)
        used = step.weights if rows is None else step.weights[rows]
        for value, holds in ((np.inf, np.isposinf), (-np.inf, np.isneginf), (np.nan, np.isnan)):
            down = used @ holds(piece).astype(np.float32)
            for columns, under, shares in resize_steps(self.window.width, self.width, MOST_COLUMNS):
                resized[..., columns][down[..., under] @ shares.T > 0] += value
        return resized

    def _resize(
        self,
        piece: Float32[np.ndarray, "k source narrow"],
        weights: Float32[np.ndarray, "target source"],
        rows: Integer[np.ndarray, "rows"] | None,
    ) -> Float32[np.ndarray, "k rows width"]:
        lines = reshaped(self._narrow, len(piece), len(weights), self.window.width)
        np.matmul(weights, piece, out=lines)
        if rows is not None:
            lines = lines.take(rows, 1)
        resized = reshaped(self._band, *lines.shape[:2], self.width)
        if not self._column_steps:
            flat = lines.shape[0] * lines.shape[1]
            cv2.resize(lines.reshape(flat, -1), (self.width, flat), dst=resized.reshape(flat, -1))
        for columns, under, shares in self._column_steps:
            np.matmul(lines[..., under], shares.T, out=resized[..., columns])
        return resized


def reshaped(buffer: Float32[np.ndarray, "n"], *shape: int) -> Float32[np.ndarray, "..."]:
    """The first values of a flat array, as an array of that shape."""
    return buffer[: math.prod(shape)].reshape(shape)
