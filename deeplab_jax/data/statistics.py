"""What a data set holds: how often each class occurs, and what to weigh it with."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from deeplab_jax.classes import Classes
from deeplab_jax.config import IGNORE, DataConfig
from deeplab_jax.data.dataset import Dataset, Sample
from deeplab_jax.errors import InputError

Found = TypeVar("Found")


@dataclass
class Statistics:
    """Counts over the samples of one split that could be read."""

    classes: Classes
    images: int = 0
    void: int = 0  # pixels without label
    sizes: Counter = field(default_factory=Counter)  # (height, width) -> images
    void_images: int = 0  # that have pixels without label

    def __post_init__(self):
        self.pixels = np.zeros(len(self.classes), np.int64)  # of each class
        self.occurrences = np.zeros(len(self.classes), np.int64)  # images with that class
        self.around = np.zeros(len(self.classes), np.int64)  # labeled pixels of these images

    def add(self, sample: Sample) -> None:
        counts = np.bincount(sample.mask.ravel(), minlength=256)
        result, void = counts[: len(self.classes)], int(counts[IGNORE])
        self.images += 1
        self.sizes[sample.mask.shape] += 1
        self.void += void
        self.void_images += void > 0
        self.pixels += result
        self.occurrences += result > 0
        self.around += np.where(result > 0, result.sum(), 0)


def in_order(inspect: Callable[[int], Found], count: int, threads: int) -> Iterator[Found]:
    """look(0), look(1) and so on, by threads."""
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, count, 8 * threads):  # so that no more than these are in memory
            yield from pool.map(inspect, range(first, min(first + 8 * threads, count)))


def count(dataset: Dataset, threads: int, progress: Callable[[int], None] = lambda done: None) -> Statistics:
    """Raises InputError for the first sample that cannot be used."""
    statistics = Statistics(dataset.classes)
    for index, sample in enumerate(in_order(dataset.__getitem__, len(dataset), threads)):
        statistics.add(sample)
        progress(index + 1)
    return statistics


def check_learnable(dataset: Dataset, config: DataConfig) -> None:
    """Raises InputError where no two classes are labeled, or a sample cannot be used before two are seen."""
    seen = np.zeros(len(dataset.classes), np.int64)
    for sample in in_order(dataset.__getitem__, len(dataset), config.threads):
        seen += np.bincount(sample.mask.ravel(), minlength=256)[: len(seen)]
        if np.count_nonzero(seen) > 1:
            return
    what = f"{dataset.classes.names[seen.argmax()]} is all that is labeled" if seen.any() else "every pixel is void"
    raise InputError(
        f"{config.train_split} of {config.root}: {what}, so nothing can be learned; see what its masks hold with: "
        f"deeplab data check --data.root {config.root} --data.format {config.format}"
    )


def balancing_weights(statistics: Statistics) -> tuple[float, ...]:
    """Median frequency balancing (arXiv:1411.4734, section 6.3.2): the median class weighs 1, rarer ones more.

    A class's frequency is its share of the labeled pixels of the images that it is in. Classes that never occur
    weigh 0.
    """
    occurs = statistics.pixels > 0
    frequency = np.where(occurs, statistics.pixels / np.maximum(statistics.around, 1), 0)
    if not occurs.any():
        raise InputError("no pixel of the training set has a label, so classes cannot be balanced")
    weights = np.where(occurs, np.median(frequency[occurs]) / np.where(occurs, frequency, 1), 0)
    return tuple(float(weight) for weight in weights)
