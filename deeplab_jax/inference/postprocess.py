"""What happens to the logits after the network, as the shared inference API does it."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from deeplab_jax.array_types import Bool, Float, Float32, Int64, Shaped, UInt
from deeplab_jax.image.resize import Placement
from deeplab_jax.inference.row_bands import Resized, Window

ARGMAX: Literal["argmax"] = "argmax"  # in place of a threshold: every pixel keeps its most probable class
Threshold = float | Literal["argmax"]
Planes = Float32[np.ndarray, "k h w"]  # logits
Rank = UInt[np.ndarray, "h w"]
Probability = Float32[np.ndarray, "h w"]
NEGLIGIBLE = -87.0  # below the largest logit; the exponentials of lower ones are denormal and take a thousandfold time


class HostArray(np.ndarray):
    """A numpy array that answers `.cpu().numpy()`, so that code written for tensors runs unchanged."""

    def cpu(self) -> "HostArray":
        return self

    def numpy(self) -> Shaped[np.ndarray, "..."]:
        return self.view(np.ndarray)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return array[()] if return_scalar else array.view(HostArray)


@dataclass
class SemanticSegmentationResult:
    segmentation_map: Int64[HostArray, "h w"]  # ids into the package's class names
    confidence: Float32[HostArray, "h w"]  # probability of that class; 0 where it was under the threshold
    image_metadata: dict | None = None


@dataclass(frozen=True)
class Rule:
    """How logits become ids: K planes for K classes; or one less, and the ids skip `background`; or 1, a sigmoid's.

    Pixels whose class is less probable than the threshold become background, and so do those of an infinite logit
    or of one that is no number; minus infinity rules out its own class alone.
    """

    class_count: int
    background: int
    threshold: Threshold

    def least(self, planes: int) -> float:
        """The probability from which a pixel keeps its class: as the most probable one a sigmoid's does from 0.5."""
        if self.threshold == ARGMAX:
            return 0.5 if planes == 1 else 0.0
        return self.threshold

    def of_rank(self, planes: int) -> Int64[np.ndarray, "{planes}+1"]:
        """The ids: of rank 0 the background, then from the last plane to the first."""
        ids = np.arange(planes)
        if planes == self.class_count - 1:
            ids += ids >= self.background
        return np.array([self.background, *ids[::-1]])


@np.errstate(invalid="ignore", over="ignore")
def postprocess(
    logits: Float[np.ndarray, "k h w"],
    placement: Placement,
    input_size: tuple[int, int],
    image_size: tuple[int, int],
    rule: Rule,
) -> SemanticSegmentationResult:
    """The logits of one image to ids and confidences, 0 for background by the rule, of the image's own size.

    Where the image reaches beyond the network input (`placement` is partly outside), the shared API takes the
    background's id for the value of every logit.
    """
    segmentation_map, confidence = np.empty(image_size, np.int64), np.empty(image_size, np.float32)
    resized = Resized(logits, uncovered(logits.shape[1:], placement, input_size), rule.background, image_size)
    of_rank, least = rule.of_rank(len(logits)), rule.least(len(logits))
    for step in resized.steps:
        rank, probability = classify(resized.band(step), least)
        probability[rank == 0] = 0
        segmentation_map[step.target], confidence[step.target] = of_rank[rank], probability
    return SemanticSegmentationResult(segmentation_map.view(HostArray), confidence.view(HostArray))


def classify(planes: Planes, least: float) -> tuple[Rank, Probability]:
    """Logits, which are overwritten, to rank and probability; rank 0 where that is not at least `least`."""
    rank, probability = sigmoid(planes[0]) if len(planes) == 1 else softmax_maximum(planes)
    rank[~(probability >= least)] = 0
    return rank, probability


def uncovered(shape: tuple[int, ...], placement: Placement, input_size: tuple[int, int]) -> Window:
    """The logits without the letterbox's padding; they may be coarser than the network input."""
    (top, height), (left, width) = (
        _uncovered_axis(*axis)
        for axis in zip(
            shape, input_size, (placement.top, placement.left), (placement.height, placement.width), strict=True
        )
    )
    return Window(top, left, height, width)


def _uncovered_axis(size: int, input_size: int, before: int, covered: int) -> tuple[int, int]:
    scale = size / input_size
    first = min(round(scale * before), size - 1)
    last = size - round(scale * (input_size - before - covered))
    return first, max(last - first, 1)  # a thin image may round to nothing


def softmax_maximum(planes: Planes) -> tuple[Rank, Probability]:
    """Logits, which are overwritten, to rank and probability of every pixel's largest.

    The first plane has rank K and the last 1: so the highest rank is the first of equal logits. Infinite logits and
    those that are no numbers equal none, and leave rank 0.
    """
    planes -= planes.max(0)
    rank = highest_rank(planes == 0)
    flat = planes.reshape(-1, planes.shape[2])
    if flat.min() < NEGLIGIBLE:
        np.maximum(flat, NEGLIGIBLE, out=flat)
    cv2.exp(flat, dst=flat)  # several times as fast as NumPy's
    return rank, 1 / planes.sum(0)


def highest_rank(chosen: Bool[np.ndarray, "k h w"]) -> Rank:
    """The rank of the first plane that is chosen, K for the first of all, or 0."""
    ranks = np.arange(len(chosen), 0, -1, dtype=np.min_scalar_type(len(chosen)))[:, None, None]
    return (ranks * chosen).max(0)


def sigmoid(plane: Float32[np.ndarray, "h w"]) -> tuple[Rank, Probability]:
    """The logits of the one class to its rank, 1, and its probability."""
    return np.ones(plane.shape, np.uint8), 0.5 + 0.5 * np.tanh(0.5 * plane)  # does not overflow
