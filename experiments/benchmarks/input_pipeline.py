"""The host's part of the input pipeline beside a torch DataLoader with albumentations, on the same CamVid files.

    pip install -e . torch albumentations && python experiments/benchmarks/input_pipeline.py --root CAMVID

Both are held to the same cores and take turns. PyTorch's decodes, scales, crops, flips, jitters and normalizes on the
host. Ours decodes there, and the rest is part of the training step on the device: it is timed too, on one core.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations  # pyright: ignore[reportMissingImports]
import cv2
import jax
import numpy as np
import torch

from deeplab_jax.config import AugmentConfig, DataConfig, PreprocessConfig
from deeplab_jax.data.augment import augment
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import train_batches

BATCH = 16
CROP = (352, 352)
PREPROCESS = PreprocessConfig(size=(360, 480))
AUGMENT = AugmentConfig(crop=CROP, scale=(0.5, 1.5))


class CamVid(torch.utils.data.Dataset):
    """As a user of PyTorch would write it."""

    def __init__(self, root: Path):
        self.images = sorted((root / "train").iterdir())
        self.masks = root / "trainannot"
        gray = tuple(255 * mean for mean in PREPROCESS.mean)
        self.transform = albumentations.Compose(
            [
                albumentations.RandomScale((-0.5, 0.5), p=1),
                albumentations.PadIfNeeded(*CROP, border_mode=cv2.BORDER_CONSTANT, fill=gray, fill_mask=255),
                albumentations.RandomCrop(*CROP),
                albumentations.HorizontalFlip(),
                albumentations.ColorJitter(0.2, 0.2, 0.2, 0, p=1),
                albumentations.Normalize(PREPROCESS.mean, PREPROCESS.std),
                albumentations.ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path = self.images[index]
        image, mask = cv2.imread(str(path)), cv2.imread(str(self.masks / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert image is not None
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        changed = self.transform(image=image, mask=mask)
        return changed["image"], changed["mask"]


def other(root: Path, workers: int) -> Iterator[Any]:
    def use_one_thread(_: int) -> None:
        cv2.setNumThreads(0)

    loader = torch.utils.data.DataLoader(
        CamVid(root),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
        worker_init_fn=use_one_thread,
    )
    while True:
        yield from loader


def own(root: Path, workers: int) -> Iterator[Any]:
    dataset = open_dataset(root, "camvid", "train")
    return train_batches(
        dataset, PREPROCESS, BATCH, range(10**6), 0, DataConfig(root, "camvid", threads=1, workers=workers)
    )


def rate(batches: Iterator[Any], count: int) -> float:
    """Images a second."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * BATCH / (time.perf_counter() - start)


def device_share(root: Path) -> float:
    """Images a second of the jitted augmentation, on what JAX calls its device here."""
    batch = next(own(root, 0))
    step = jax.jit(lambda key, batch: augment(key, batch["image"], batch["mask"], AUGMENT, PREPROCESS))
    jax.block_until_ready(step(jax.random.key(0), batch))
    start = time.perf_counter()
    for number in range(10):
        jax.block_until_ready(step(jax.random.key(number), batch))
    return 10 * BATCH / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=1, help="as many worker processes each")
    parser.add_argument("--batches", type=int, default=40, help="a turn")
    parser.add_argument("--turns", type=int, default=9, help="of each")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    cv2.setNumThreads(0)
    torch.set_num_threads(options.cores)

    pairs = other(options.root, options.cores), own(options.root, options.cores)
    rates: tuple[list[float], list[float]] = ([], [])
    for batches in pairs:
        rate(batches, options.batches)  # starts the workers
    for _ in range(options.turns):
        for batches, actual in zip(pairs, rates, strict=True):
            actual.append(rate(batches, options.batches))
    torch_rate, our_rate = (statistics.median(actual) / options.cores for actual in rates)
    ratios = np.divide(rates[1], rates[0])
    print(f"torch {torch.__version__}, albumentations {albumentations.__version__}, jax {jax.__version__}")
    print(f"{options.cores} cores, batches of {BATCH}, {options.turns} turns of {options.batches} batches")
    print("| what | images/s a core |\n|---|---|")
    print(f"| torch DataLoader and albumentations, host | {torch_rate:.0f} |")
    print(f"| deeplab_jax, host | {our_rate:.0f} |")
    print(f"| ratio, and of single turns | {our_rate / torch_rate:.2f}; {ratios.min():.2f} to {ratios.max():.2f} |")
    print(f"| deeplab_jax, augmentation on {jax.devices()[0].device_kind} | {device_share(options.root):.0f} |")


if __name__ == "__main__":
    main()
