"""What happens to the logits after the network, as the shared inference API does it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from deeplab_jax.data.fit import Placement


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
    threshold: float,
) -> SemanticSegmentationResult:
    """(K, h, w) float32 logits of one picture to ids and confidences of the picture's own size.

    K is the number of classes; or one less, and the ids skip `background`; or 1, and a sigmoid tells the one
    foreground class. Pixels under the threshold become background with confidence 0.
    """
    planes = crop_padding(logits, spot, input_size)
    if len(planes) == 1:
        ids = np.zeros(image_size, np.int64)
        confidence = 0.5 + 0.5 * np.tanh(0.5 * resize_plane(planes[0], image_size))  # the sigmoid, without overflow
    else:
        ids, confidence = softmax_maximum(resize_plane(plane, image_size) for plane in planes)
    if len(planes) == class_count - 1:
        ids += ids >= background
    below = confidence < threshold
    ids[below], confidence[below] = background, 0
    return SemanticSegmentationResult(ids.view(HostArray), confidence.view(HostArray))


def crop_padding(logits: np.ndarray, spot: Placement, input_size: tuple[int, int]) -> np.ndarray:
    """Cuts the letterbox's padding off; logits may be coarser than the network input."""
    height, width = logits.shape[1:]
    rows, columns = height / input_size[0], width / input_size[1]
    bottom, right = input_size[0] - spot.top - spot.height, input_size[1] - spot.left - spot.width
    return logits[
        :,
        round(rows * spot.top) : height - round(rows * bottom),
        round(columns * spot.left) : width - round(columns * right),
    ]


def softmax_maximum(planes: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and softmax probabilities of the largest logits, from one (H, W) plane a class.

    Plane by plane, so that memory does not grow with the number of classes.
    """
    planes = iter(planes)
    peak = next(planes)
    ids, total = np.zeros(peak.shape, np.int64), np.ones(peak.shape, np.float32)
    for id, plane in enumerate(planes, 1):
        higher, ratio = plane > peak, np.exp(-np.abs(plane - peak))
        total = np.where(higher, total * ratio + 1, total + ratio)  # sum of exp(logit - peak so far)
        ids[higher] = id
        peak = np.maximum(peak, plane)
    return ids, 1 / total


def resize_plane(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) to size, float32; bilinear between pixel centres, antialiased along an axis that shrinks."""
    height, width = size
    if height < plane.shape[0]:
        plane = shrinking_matrix(plane.shape[0], height) @ plane
    if width < plane.shape[1]:
        plane = plane @ shrinking_matrix(plane.shape[1], width).T
    return plane if plane.shape == size else cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)


@cache
def shrinking_matrix(size_in: int, size_out: int) -> np.ndarray:
    """(size_out, size_in): every output pixel is the mean of the input under a triangle two output pixels wide."""
    scale = size_in / size_out
    centre = (np.arange(size_out)[:, None] + 0.5) * scale
    weights = np.maximum(1 - np.abs(np.arange(size_in) + 0.5 - centre) / scale, 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
