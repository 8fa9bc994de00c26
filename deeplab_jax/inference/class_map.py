"""The ids of an image without their confidences, which spares most of the resizing.

Where bilinear interpolation enlarges, every pixel is a mean of four neighboring logits. A class that leads at all four
leads in between, and is there at least as probable as at the least sure of the four: the exponentials' sum is convex.
So logits are interpolated for the other pixels alone, most of which are at borders; and where rounding tells one class
from another, or a probability from the threshold, the whole row is resized as `postprocess` does it.
"""

import cv2
import numpy as np

from deeplab_jax.array_types import Float, Float32, Int64, Integer, UInt
from deeplab_jax.image.resize import Placement
from deeplab_jax.inference.postprocess import Planes, Rank, Rule, classify, highest_rank, uncovered
from deeplab_jax.inference.row_bands import BAND_BYTES, Resized, Step

EPSILON, SMALLEST = (float(getattr(np.finfo(np.float32), name)) for name in ("eps", "tiny"))
MOST_OPEN = 0.2  # share of a band's pixels beyond which it is resized whole


@np.errstate(invalid="ignore", over="ignore")
def write_class_map(
    logits: Float[np.ndarray, "k h w"],
    placement: Placement,
    input_size: tuple[int, int],
    rule: Rule,
    out: Integer[np.ndarray, "height width"],
) -> None:
    """Writes the ids of `postprocess`, the same in every pixel, into `out`, of the image's own size."""
    resized = Resized(logits, uncovered(logits.shape[1:], placement, input_size), rule.background, out.shape)
    of_rank, least = rule.of_rank(len(logits)).astype(out.dtype), rule.least(len(logits))
    settled = Settled(resized, least) if resized.enlarges and len(logits) > 1 else None
    for step in resized.steps:
        rank = settled.ranks(step) if settled else classify(resized.band(step), least)[0]
        np.take(of_rank, rank, out=out[step.target], mode="clip")


class Settled:
    """What the logits say of the pixels between them."""

    def __init__(self, resized: Resized, least: float):
        self._resized, self._least = resized, least
        height, width = resized.window.height, resized.window.width
        rows = max(BAND_BYTES // (4 * len(resized.planes) * width), 1)
        sure = np.concatenate([self._sure(slice(top, min(top + rows, height))) for top in range(0, height, rows)])
        corners = [sure[top : top + height - 1, left : left + width - 1] for top in (0, 1) for left in (0, 1)]
        self._cells = corners[0] * np.logical_and.reduce([corners[0] == corner for corner in corners[1:]])
        self._left, self._share = column_weights(width, resized.width)

    def _sure(self, rows: slice) -> Rank:
        """The rank of the class that leads, and is probable enough; 0 where none does."""
        planes = self._resized.window.cut(self._resized.planes, rows, self._resized.outside)
        margin = rounding(planes)
        leader = leading(planes, margin)
        if self._least > 0:
            _, probability = classify(planes, 0.0)
            leader *= probability > self._least + doubt(margin, planes)
        return leader

    def ranks(self, step: Step) -> UInt[np.ndarray, "rows width"]:
        """Of a band."""
        cells = self._cells[step.source.start : step.source.stop]
        above = np.minimum((step.weights > 0).argmax(1), len(cells) - 1)
        rank = cells.take(self._left, 1).take(above, 0)
        rows, columns = np.nonzero(rank == 0)
        if len(rows) > MOST_OPEN * rank.size:
            return classify(self._resized.band(step), self._least)[0]
        if len(rows):
            planes = self._between(step, above, rows, columns)
            margin = rounding(planes)
            clear = leading(planes, margin) > 0
            result, probability = classify(planes, 0.0)
            clear &= np.abs(probability - self._least) > doubt(margin, planes)
            rank[rows, columns] = (result * (probability >= self._least))[0]
            doubtful = np.unique(rows[~clear[0]])
            if len(doubtful):
                rank[doubtful], _ = classify(self._resized.band(step, doubtful), self._least)
        return rank

    def _between(
        self,
        step: Step,
        above: Int64[np.ndarray, "rows"],
        rows: Int64[np.ndarray, "n"],
        columns: Int64[np.ndarray, "n"],
    ) -> Float32[np.ndarray, "k 1 n"]:
        """Logits of some pixels of a band."""
        piece = self._resized.cut(step)
        width = piece.shape[2]
        piece = piece.reshape(len(piece), -1)
        first = above[rows] * width + self._left[columns]
        right, down = self._share[columns], step.weights[rows, above[rows] + 1]
        upper, lower = (
            piece.take(corner, 1) * (1 - right) + piece.take(corner + 1, 1) * right for corner in (first, first + width)
        )
        upper *= 1 - down
        lower *= down
        upper += lower
        return upper[:, None]


def column_weights(narrow: int, width: int) -> tuple[Int64[np.ndarray, "{width}"], Float32[np.ndarray, "{width}"]]:
    """For every column the left one of the two that OpenCV mixes for it, and the share of the right one.

    Asked of OpenCV itself, which rounds the places to float32 on some machines: by which of three marks it sees.
    """
    marks = (np.arange(narrow) % 3 == np.arange(3)[:, None]).astype(np.float32)
    weights, columns = cv2.resize(marks, (width, 3)), np.arange(width)
    place = np.clip((columns + 0.5) * (narrow / width) - 0.5, 0, narrow - 1)
    left = np.minimum(place.astype(int), narrow - 2)
    here, right, beyond = (weights[(left + step) % 3, columns] > 0 for step in range(3))
    left += (beyond & ~here).astype(int) - (beyond & ~right)
    return left, weights[(left + 1) % 3, columns]


def rounding(planes: Planes) -> float:
    """What two ways to interpolate the logits leave of a difference that is 0, at most."""
    return 16 * (EPSILON * float(max(-planes.min(), planes.max())) + SMALLEST)


def doubt(margin: float, planes: Planes) -> float:
    """What that makes of a probability p, whose derivative is p (1 - p), and what summing up adds."""
    return margin / 4 + EPSILON * len(planes)


def leading(planes: Planes, margin: float) -> Rank:
    """The rank of the plane that exceeds all others by more than the margin; 0 where none does."""
    near = planes >= planes.max(0) - margin
    return highest_rank(near) * (near.sum(0, dtype=np.uint16) == 1)
