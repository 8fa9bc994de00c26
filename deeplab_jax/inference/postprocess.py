"""What happens to the logits after the network, as the shared inference API does it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from deeplab_jax.data.fit import Placement
from deeplab_jax.inference.bands import Window, resized_bands

ARGMAX: Literal["argmax"] = "argmax"  # in place of a threshold: every pixel keeps its most probable class
Threshold = float | Literal["argmax"]
NEGLIGIBLE = -87.0  # below the largest logit; the exponentials of lower ones are denormal and take a thousandfold time


class HostArray(np.ndarray):
    """A numpy array that answers `.cpu().numpy()`, so that code written for tensors runs unchanged."""

    def cpu(self) -> "HostArray":
        return self

    def numpy(self) -> np.ndarray:
        return self.view(np.ndarray)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return array[()] if return_scalar else array.view(HostArray)


@dataclass
class SemanticSegmentationResult:
    segmentation_map: HostArray  # (H, W) int64 ids into the package's class names
    confidence: HostArray  # (H, W) float32 probability of that class; 0 where it was under the threshold
    image_metadata: dict | None = None


def postprocess(
    logits: np.ndarray,
    spot: Placement,
    input_size: tuple[int, int],
    image_size: tuple[int, int],
    class_count: int,
    background: int,
    threshold: Threshold,
) -> SemanticSegmentationResult:
    """(K, h, w) logits of one picture to ids and confidences of the picture's own size.

    K is the number of classes; or one less, and the ids skip `background`; or 1, and a sigmoid tells the one
    foreground class, which is more probable than background from 0.5 on. Pixels under the threshold become background
    with confidence 0, and so do those whose logits are infinite or no numbers. Where the picture reaches beyond the
    network input (`spot` is partly outside), the shared API takes `background` for the value of every logit.
    """
    segmentation_map, confidence = np.empty(image_size, np.int64), np.empty(image_size, np.float32)
    bands = classified_bands(logits, spot, input_size, image_size, class_count, background, threshold)
    for rows, ids, probability in bands:
        segmentation_map[rows], confidence[rows] = ids, probability
    return SemanticSegmentationResult(segmentation_map.view(HostArray), confidence.view(HostArray))


def classified_bands(
    logits: np.ndarray,
    spot: Placement,
    input_size: tuple[int, int],
    image_size: tuple[int, int],
    class_count: int,
    background: int,
    threshold: Threshold,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """What `postprocess` puts together: some rows of the picture, their ids and their confidences."""
    count = len(logits)
    if threshold == ARGMAX:
        threshold = 0.5 if count == 1 else 0.0
    ids = np.arange(count)
    if count == class_count - 1:
        ids += ids >= background
    of_rank = np.array([background, *ids[::-1]])
    window = uncovered(logits.shape[1:], spot, input_size)
    with np.errstate(invalid="ignore", over="ignore"):
        for rows, planes in resized_bands(logits, window, background, image_size):
            rank, probability = sigmoid(planes[0]) if count == 1 else softmax_maximum(planes)
            rank[~(probability >= threshold)] = 0
            probability[rank == 0] = 0
            yield rows, of_rank[rank], probability


def uncovered(shape: tuple[int, ...], spot: Placement, input_size: tuple[int, int]) -> Window:
    """The logits without the letterbox's padding; they may be coarser than the network input."""
    (top, height), (left, width) = (
        _uncovered_axis(*axis)
        for axis in zip(shape, input_size, (spot.top, spot.left), (spot.height, spot.width), strict=True)
    )
    return Window(top, left, height, width)


def _uncovered_axis(size: int, input_size: int, before: int, covered: int) -> tuple[int, int]:
    scale = size / input_size
    first = min(round(scale * before), size - 1)
    last = size - round(scale * (input_size - before - covered))
    return first, max(last - first, 1)  # a thin picture may round to nothing


def softmax_maximum(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, h, w) float32 logits, which are overwritten, to rank and probability of every pixel's largest.

    The first plane has rank K and the last 1: so the highest rank is the first of equal logits. Infinite logits and
    those that are no numbers equal none, and leave rank 0.
    """
    ranks = np.arange(len(planes), 0, -1, dtype=np.min_scalar_type(len(planes)))[:, None, None]
    planes -= planes.max(0)
    rank = (ranks * (planes == 0)).max(0)
    flat = planes.reshape(-1, planes.shape[2])
    if flat.min() < NEGLIGIBLE:
        np.maximum(flat, NEGLIGIBLE, out=flat)
    cv2.exp(flat, dst=flat)  # several times as fast as NumPy's
    return rank, 1 / planes.sum(0)


def sigmoid(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) float32 logits of the one class to its rank, 1, and its probability."""
    return np.ones(plane.shape, np.uint8), 0.5 + 0.5 * np.tanh(0.5 * plane)  # does not overflow
