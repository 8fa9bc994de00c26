"""What every layout of data set comes down to: samples with an image and a mask of class ids."""

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from deeplab_jax.array_types import UInt8
from deeplab_jax.classes import Classes
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import list_images, mend_of_turned, read_image, size_of

Ids = UInt8[np.ndarray, "h w"]  # of classes, IGNORE where there is no label


@dataclass(frozen=True)
class Sample:
    image: UInt8[np.ndarray, "h w 3"]  # RGB
    mask: Ids
    name: str  # of the image's file


@runtime_checkable
class Dataset(Protocol):
    """Samples by number; reading one checks it."""

    @property
    def classes(self) -> Classes: ...

    @property
    def notes(self) -> Sequence[str]: ...  # what the annotations hold that is left out, or looks like a mistake

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
    # (example, (height, width) of the image) -> its class ids; raises InputError that names the file.
    read_mask: Callable[[Example, tuple[int, int]], Ids]
    unpaired: Sequence[Path] = ()  # masks without an image
    notes: Sequence[str] = ()

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
                f"{mend or 'resize one of them (masks with nearest neighbor)'}"
            )
        return Sample(image, mask, example.image.name)


def pair_by_stem(images: Path, masks: Path) -> tuple[list[Example], list[Path]]:
    """Every image with the PNG of the same name, whether it is there or not; and the masks that have no image.

    Raises InputError where there are no images, or two of one name.
    """
    by_stem, other = images_by_stem(images), masks_by_stem(masks)
    pairs = [Example(image, other.get(stem, masks / f"{stem}.png")) for stem, image in by_stem.items()]
    return pairs, [mask for stem, mask in other.items() if stem not in by_stem]


def images_by_stem(folder: Path) -> dict[str, Path]:
    """By their names without suffix, in order. Raises InputError where there is none, or where two have one name."""
    result: dict[str, Path] = {}
    for image in list_images(folder):
        if twin := result.get(image.stem):
            raise InputError(f"{twin} and {image.name} would have the same mask, {image.stem}.png; rename one of them")
        result[image.stem] = image
    return result


def masks_by_stem(folder: Path) -> dict[str, Path]:
    """The PNGs of a folder, which may be missing, by their names without suffix, in order."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path.stem: path for path in files if path.suffix.lower() == ".png" and not path.name.startswith(".")}


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
    hint = f", but there is {others[0]}; save masks as PNG" if others else ""
    return f"{example.image} has no mask: {example.source} is missing{hint}"


def tally(result: Iterable[tuple[str, str]]) -> list[str]:
    """A note on every kind of finding, with its count and the first name, of pairs of what was found and where."""
    names: dict[str, list[str]] = {}
    for what, name in result:
        names.setdefault(what, []).append(name)
    return [f"{len(where)} {what}, such as {where[0]}" for what, where in names.items()]
