"""What every layout of data set comes down to: samples with an image and a mask of class ids."""

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from deeplab_jax.data.classes import Classes
from deeplab_jax.data.pictures import list_images, mend_of_turned, read_image, size_of
from deeplab_jax.errors import InputError


@dataclass(frozen=True)
class Sample:
    image: np.ndarray  # (h, w, 3) uint8 RGB
    mask: np.ndarray  # (h, w) uint8 class ids, IGNORE where there is no label
    name: str  # of the image's file


@runtime_checkable
class Dataset(Protocol):
    """Samples by number; reading one checks it."""

    @property
    def classes(self) -> Classes: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Example:
    """Where a sample comes from."""

    image: Path
    source: Path  # the file that says which pixel is what: a mask, or annotations
    annotations: Any = None  # what it says of this image, where it was read already


@dataclass(frozen=True)
class Files:
    """A data set of image files; `files[i]` reads and checks one image and its mask. Worker processes get copies."""

    classes: Classes
    examples: Sequence[Example]
    # (example, (height, width) of the image) -> (h, w) uint8 class ids; raises InputError that names the file.
    read_mask: Callable[[Example, tuple[int, int]], np.ndarray]
    unpaired: Sequence[Path] = ()  # masks without an image

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Sample:
        example = self.examples[index]
        if fault := missing(example):
            raise InputError(fault)
        image = read_image(example.image)
        mask = self.read_mask(example, image.shape[:2])
        if image.shape[:2] != mask.shape:
            mend = mend_of_turned(example.image, image.shape[:2], mask.shape)
            raise InputError(
                f"{example.source} is {size_of(mask)} but its image {example.image} is {size_of(image)}; "
                f"{mend or 'resize one of them (masks with nearest neighbour)'}"
            )
        return Sample(image, mask, example.image.name)


def pair_by_stem(images: Path, masks: Path) -> tuple[list[Example], list[Path]]:
    """Every image with the PNG of the same name, whether it is there or not; and the masks that have no image.

    Raises InputError where there are no images.
    """
    pairs = [Example(image, masks / f"{image.stem}.png") for image in list_images(images)]
    paired = {example.source for example in pairs}
    return pairs, sorted(mask for mask in masks.glob("*.png") if mask not in paired)


def check_files(dataset: Dataset) -> None:
    """Raises InputError that names the first image or mask that is missing. Nothing is opened."""
    faults = (
        [fault for example in dataset.examples if (fault := missing(example))] if isinstance(dataset, Files) else []
    )
    if faults:
        raise InputError(faults[0] + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""))


def missing(example: Example) -> str:
    """What to say where the image or the mask does not exist; empty where both do."""
    if not example.image.is_file():
        return f"{example.image} is missing, but {example.source} is there or names it"
    if example.source.is_file():
        return ""
    others = sorted(path.name for path in example.source.parent.glob(f"{glob.escape(example.source.stem)}.*"))
    hint = f", but there is {others[0]}; save masks as PNG, which keeps every value" if others else ""
    return f"{example.image} has no mask: {example.source} is missing{hint}"


def draw_split(examples: Sequence[Example], root: Path, split: str) -> list[Example]:
    """Every image into train, val or test by chance, 80 : 10 : 10, in the same way every time."""
    splits = ("train", "val", "test")
    if split not in splits:
        raise InputError(f"split {split!r} is not known; choose one of {', '.join(splits)}")
    if len(examples) < len(splits):
        raise InputError(f"{root} holds {len(examples)} images; a split into train, val and test needs at least 3")
    order = np.random.default_rng(0).permutation(len(examples))
    tenth = max(round(0.1 * len(examples)), 1)
    chosen = {"val": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}[split]
    return [examples[i] for i in sorted(chosen)]


def find_split(root: Path, split: str) -> Path | None:
    """The folder of a split, `val` also under its other usual names; None where there is none."""
    others = ("valid", "validation") if split == "val" else ("training",) if split == "train" else ()
    return next((root / name for name in (split, *others) if (root / name).is_dir()), None)
