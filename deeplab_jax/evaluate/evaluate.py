"""Evaluates any package on any data set, through the same calls that a user makes."""

from collections.abc import Callable

import numpy as np

from deeplab_jax.array_types import Int64
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.errors import InputError
from deeplab_jax.evaluate.metrics import Scores, confusion_matrix, scores
from deeplab_jax.inference.auto_model import SegmentationModel

CHUNK = 8  # images in memory at a time


def evaluate(model: SegmentationModel, dataset: Dataset, progress: Callable[[int], None] = lambda done: None) -> Scores:
    """Every pixel's most probable class against the truth, at the images' own size, classes matched by name.

    Raises:
        InputError: where the package lacks a class of the data set.
    """
    names = dataset.classes.names
    to_dataset_id = match_classes(model.class_names, names)
    confusion = np.zeros((len(names), len(names) + 1), np.int64)
    for start in range(0, len(dataset), CHUNK):
        samples = [dataset[i] for i in range(start, min(start + CHUNK, len(dataset)))]
        results = model([sample.image for sample in samples], confidence="argmax", input_color_format="rgb")
        for sample, result in zip(samples, results, strict=True):
            confusion += confusion_matrix(sample.mask, to_dataset_id[result.segmentation_map], len(names))
        progress(start + len(samples))
    return scores(confusion, names, len(dataset))


def match_classes(own: list[str], other: tuple[str, ...]) -> Int64[np.ndarray, "own"]:
    """For every id of the package the data set's id of that name; len(other) where it has none."""
    absent = [name for name in other if name not in own]
    if absent:
        raise InputError(
            f"the package has no class {', '.join(absent)} of the data set; its classes are {', '.join(own)}; where "
            "these are the same by other names, write the data set's into the package's class_names.txt"
        )
    return np.array([other.index(name) if name in other else len(other) for name in own])
