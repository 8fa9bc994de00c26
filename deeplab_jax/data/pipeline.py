"""From files to batches of one shape. The host reads, decodes and fits; everything random happens on the device.

The order of pictures is a function of the seed and the step alone, so a run that starts again at step n sees the very
batches that an unbroken run would have seen.
"""

from collections.abc import Iterator

import grain
import numpy as np

from deeplab_jax.config import IGNORE, PreprocessConfig
from deeplab_jax.data.dataset import Dataset, Sample
from deeplab_jax.data.fit import fit_image, fit_mask

Batch = dict[str, np.ndarray]  # "image" (b, h, w, 3) uint8 RGB, "mask" (b, h, w) uint8


def train_batches(
    dataset: Dataset, preprocess: PreprocessConfig, batch_size: int, start: int, stop: int, seed: int, threads: int
) -> Iterator[Batch]:
    """The batches of steps start to stop - 1. Epochs are shuffled anew and run into each other: no batch is short."""
    pictures = grain.MapDataset.source(dataset).seed(seed).shuffle().repeat()
    batches = pictures.map(lambda sample: fit_sample(sample, preprocess)).batch(batch_size)
    return iter(batches[start:stop].to_iter_dataset(_reading(threads)))


def eval_batches(dataset: Dataset, preprocess: PreprocessConfig, batch_size: int, threads: int) -> Iterator[Batch]:
    """Every picture once, in order. The last batch is filled up with pictures that are void all over."""
    pictures = grain.MapDataset.source(dataset).map(lambda sample: fit_sample(sample, preprocess))
    for batch in pictures.batch(batch_size, drop_remainder=False).to_iter_dataset(_reading(threads)):
        fill = [(0, batch_size - len(batch["mask"])), (0, 0), (0, 0)]
        yield {
            "image": np.pad(batch["image"], [*fill, (0, 0)]),
            "mask": np.pad(batch["mask"], fill, constant_values=IGNORE),
        }


def fit_sample(sample: Sample, preprocess: PreprocessConfig) -> Batch:
    return {"image": fit_image(sample.image, preprocess), "mask": fit_mask(sample.mask, preprocess)}


def _reading(threads: int) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
