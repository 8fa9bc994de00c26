"""Segmentation figures from one confusion matrix, summed over the whole data set."""

from dataclasses import dataclass

import numpy as np

from deeplab_jax.array_types import Int64, Integer


def confusion_matrix(
    truth: Integer[np.ndarray, "*shape"], prediction: Integer[np.ndarray, "*shape"], classes: int
) -> Int64[np.ndarray, "{classes} {classes}+1"]:
    """Truth by prediction; the last column counts predictions of no such class.

    Pixels whose truth is not a class (void) are left out.
    """
    valid = truth < classes
    predicted = np.minimum(prediction[valid].astype(np.int64), classes)
    index = truth[valid].astype(np.int64) * (classes + 1) + predicted
    return np.bincount(index, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


@dataclass(frozen=True)
class Scores:
    """All as fractions of 1; None for a class that occurs in neither truth nor prediction."""

    miou: float  # mean IoU over the classes that occur
    mean_accuracy: float  # mean recall over the classes that occur in the truth
    pixel_accuracy: float
    per_class_iou: dict[str, float | None]
    images: int


def scores(confusion: Integer[np.ndarray, "classes predicted"], class_names: tuple[str, ...], images: int) -> Scores:
    """The figures of a confusion matrix, square or with a last column as above. An empty one scores 0."""
    classes = len(class_names)
    correct = confusion[:, :classes].diagonal().astype(np.float64)
    truth, predicted = confusion.sum(1), confusion[:, :classes].sum(0)
    union = truth + predicted - correct
    iou, recall = (correct[n > 0] / n[n > 0] for n in (union, truth))
    return Scores(
        miou=float(iou.mean()) if len(iou) else 0.0,
        mean_accuracy=float(recall.mean()) if len(recall) else 0.0,
        pixel_accuracy=float(correct.sum() / max(truth.sum(), 1)),
        per_class_iou={
            name: float(c / u) if u else None for name, c, u in zip(class_names, correct, union, strict=True)
        },
        images=images,
    )
