"""From files to batches of one shape. The host reads, decodes and fits; everything random happens on the device.

The order of images is a function of the seed and the step alone, so a run that starts again at step n sees the very
batches that an unbroken run would have seen; and so do several processes, each of which reads its part of every batch.
"""

import gc
import os
import signal
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from deeplab_jax.array_types import UInt8
from deeplab_jax.config import IGNORE, DataConfig, PreprocessConfig
from deeplab_jax.data.dataset import Dataset, Sample
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.image.resize import resize_image, resize_mask

Batch = dict[str, UInt8[np.ndarray, "..."]]  # "image" (b, h, w, 3) RGB, "mask" (b, h, w)


@dataclass(frozen=True)
class HostShard:
    """Of every batch: which of how many equal runs of images."""

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Rows:
    """The images of one shard, batch after batch; where the images end before a batch does, void ones."""

    images: Any  # by number
    length: int  # how many images there are
    void: Batch
    batch_size: int
    batches: range
    shard: HostShard

    def __len__(self) -> int:
        return len(self.batches) * self.batch_size // self.shard.count

    def __getitem__(self, index: int) -> Batch:
        share = self.batch_size // self.shard.count
        batch, row = divmod(index, share)
        number = self.batches[batch] * self.batch_size + self.shard.index * share + row
        return self.images[number] if number < self.length else self.void


def train_batches(
    dataset: Dataset,
    preprocess: PreprocessConfig,
    batch_size: int,
    steps: range,
    seed: int,
    config: DataConfig,
    shard: HostShard = HostShard(),
) -> Generator[Batch]:
    """The batches of these steps, counted from 0. Epochs are shuffled anew and run into each other: none is short."""
    images = _fitted(grain.MapDataset.source(dataset).seed(seed).shuffle().repeat(), preprocess)
    return _batches(Rows(images, len(images), _void(preprocess), batch_size, steps, shard), config)


def eval_batches(
    dataset: Dataset, preprocess: PreprocessConfig, batch_size: int, config: DataConfig, shard: HostShard = HostShard()
) -> Generator[Batch]:
    """Every image once, in order. The last batch is filled up with images that are void all over."""
    images = _fitted(grain.MapDataset.source(dataset), preprocess)
    batches = range(-(-len(dataset) // batch_size))
    return _batches(Rows(images, len(dataset), _void(preprocess), batch_size, batches, shard), config)


def resize_sample(sample: Sample, preprocess: PreprocessConfig) -> Batch:
    return {"image": resize_image(sample.image, preprocess), "mask": resize_mask(sample.mask, preprocess)}


def _fitted(samples: grain.MapDataset, preprocess: PreprocessConfig) -> grain.MapDataset:
    return samples.map(lambda sample: resize_sample(sample, preprocess))


def _void(preprocess: PreprocessConfig) -> Batch:
    image = np.zeros((*preprocess.size, 3), np.uint8)
    return {"image": image, "mask": np.full(preprocess.size, IGNORE, np.uint8)}


def _batches(rows: Rows, config: DataConfig) -> Generator[Batch]:
    """Read ahead by threads of this process, or by processes of their own, until it is closed."""
    batches = grain.MapDataset.source(rows).batch(rows.batch_size // rows.shard.count)
    threads = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=2 * config.threads)
    reading = batches.to_iter_dataset(threads)
    if not config.workers:
        yield from reading
        return
    flags.FLAGS.mark_as_parsed()  # Grain asks for flags that only programs of absl's have parsed
    options = grain.MultiprocessingOptions(config.workers, per_worker_buffer_size=2)
    iterator = iter(reading.mp_prefetch(options, worker_init_fn=_start_worker))
    try:
        for batch in iterator:
            # Memory that is shared with a worker is given back at once.
            yield {name: np.array(array) for name, array in batch.items()}
    except RuntimeError as error:
        raise InputError(f"a process of data.workers={config.workers} has ended ({first_line(error)})") from None
    finally:
        iterator.close()
        batch = iterator = None
        gc.collect()  # an iterator of Grain's is in a cycle with the last of its batches


def _start_worker(worker: int, workers: int) -> None:
    """In a worker: signals are its parent's business, and it ends soon after a parent that was killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
