"""What `deeplab data check` notes of a split: of every sample, and of the files that it comes from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_jax.array_types import Integer, Shaped, UInt8
from deeplab_jax.classes import Color
from deeplab_jax.data.dataset import Dataset, Example, Files, Sample
from deeplab_jax.data.formats.tfds import Prepared
from deeplab_jax.data.masks import IdMasks, colors_in
from deeplab_jax.data.statistics import Statistics, in_order
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import is_image_suffix, orientation, read_colors, read_ids

Stored = Integer[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]  # values of a mask file, or its colors

SHOWN = 6  # samples of a split in the image
SHOWN_FAILED = 2  # of these, masks that cannot be used


@dataclass(frozen=True)
class Inspection:
    """One sample, or what is wrong with it."""

    name: str  # the file of the image, or its number
    sample: Sample | None
    fault: str
    digests: tuple[bytes, bytes]  # of the pixels of image and mask; empty where the sample cannot be used
    turned: bool  # by its EXIF tag
    colors: Mapping[int, Color]  # in the mask's palette, of the values that it holds
    rgb: set[Color]  # that the mask shows, three at most; none where there are more than two classes
    mask: Stored | None  # where the sample cannot be used


@dataclass
class Checked:
    """One split."""

    split: str
    size: int  # images, whether they can be used or not
    statistics: Statistics
    # What the masks' values stand for: a class id or IGNORE. Empty where they are no values.
    meanings: Mapping[int, int] = field(default_factory=dict)
    notes: Sequence[str] = ()  # what the reader left out
    faults: list[str] = field(default_factory=list)  # samples that cannot be used, and why
    values: set[int] = field(default_factory=set)  # in masks that cannot be used
    rgb: set[Color] = field(default_factory=set)  # that masks show, as far as they may be meant for two classes
    samples: list[Sample] = field(default_factory=list)  # a few, to look at
    failed: list[tuple[str, Stored]] = field(default_factory=list)  # a few masks with what is wrong, likewise
    turned: list[str] = field(default_factory=list)  # images, by their EXIF tags
    colors: dict[int, dict[Color, str]] = field(default_factory=dict)  # of a value in palettes, and a mask with each
    # Digest of an image's pixels -> the images that have it, each with the digest of its mask.
    images: dict[bytes, list[tuple[str, bytes]]] = field(default_factory=dict)

    def add(self, index: int, inspected: Inspection, source: str) -> None:
        if len(self.rgb) <= 2:
            self.rgb |= inspected.rgb
        if inspected.turned:
            self.turned.append(inspected.name)
        for value, color in inspected.colors.items():
            self.colors.setdefault(value, {}).setdefault(color, source)
        if inspected.sample:
            self.statistics.add(inspected.sample)
            self.images.setdefault(inspected.digests[0], []).append((inspected.name, inspected.digests[1]))
            # The first that can be used from each of some places on, which are spread over the split.
            places = np.linspace(0, self.size - 1, SHOWN).astype(int)
            if len(self.samples) < SHOWN and index >= places[len(self.samples)]:
                self.samples.append(inspected.sample)
            return
        self.faults.append(inspected.fault)
        if inspected.mask is None:
            return
        if inspected.mask.ndim == 2:
            self.values |= set(np.unique(inspected.mask).tolist())
        if len(self.failed) < SHOWN_FAILED:
            self.failed.append((inspected.fault.replace(f"{Path(source).parent}/", ""), inspected.mask))


def check_split(split: str, dataset: Dataset, threads: int, progress: Callable[[str, int, int], None]) -> Checked:
    """Reads every sample."""
    checked = Checked(split, len(dataset), Statistics(dataset.classes), meanings(dataset), dataset.notes)
    for index, inspected in enumerate(in_order(lambda index: inspect(dataset, index), len(dataset), threads)):
        checked.add(index, inspected, str(dataset.examples[index].source) if isinstance(dataset, Files) else "")
        progress(split, index + 1, len(dataset))
    if isinstance(dataset, Files):
        checked.faults += [f"{mask} is a mask without an image" for mask in dataset.unpaired]
    return checked


def meanings(dataset: Dataset) -> Mapping[int, int]:
    """The class id or IGNORE of every value that masks may hold; empty where they hold something else."""
    if isinstance(dataset, Prepared):
        return dataset.masks.ids
    if isinstance(dataset, Files) and isinstance(dataset.read_mask, IdMasks):
        return {value: id for value, id in enumerate(dataset.read_mask.labels().tolist()) if id >= 0}
    return {}


def inspect(dataset: Dataset, index: int) -> Inspection:
    """Reads a sample, and of its files what the sample does not hold."""
    example = dataset.examples[index] if isinstance(dataset, Files) else None
    sample, fault, digests = None, "", (b"", b"")
    try:
        sample = dataset[index]
        digests = digest(sample.image), digest(sample.mask)
    except InputError as error:
        fault = str(error)
    if not example:
        return Inspection(f"example {index}", sample, fault, digests, False, {}, set(), None)
    # Where a mask's colors count, palettes may differ.
    by_value = isinstance(dataset, Files) and isinstance(dataset.read_mask, IdMasks)
    return Inspection(
        str(example.image),
        sample,
        fault,
        digests,
        is_turned(example.image),
        palette_colors(example.source) if by_value else {},
        few_colors(example.source) if by_value and len(dataset.classes) <= 2 else set(),
        None if sample else read_as_it_is(example),
    )


def digest(array: Shaped[np.ndarray, "..."]) -> bytes:
    return hashlib.sha256(str(array.shape).encode() + array.tobytes()).digest()


def is_turned(path: Path) -> bool:
    """Whether an image has an EXIF tag that turns or mirrors it."""
    with suppress(Exception), Image.open(path) as image:  # the reader says what is wrong with a file
        # Pillow would decode all of a PNG to look for the tag behind its pixels.
        if image.format != "PNG" or "exif" in image.info:
            return orientation(image) > 0
    return False


def palette_colors(path: Path) -> dict[int, Color]:
    """The colors of the values that a palette image holds; none of any other file."""
    with suppress(Exception), Image.open(path) as image:
        if image.mode == "P":
            values = np.flatnonzero(np.bincount(np.array(image).ravel())).tolist()
            palette = np.array(image.getpalette(), np.uint8).reshape(-1, 3).tolist()
            return {value: (red, green, blue) for value in values for red, green, blue in palette[value : value + 1]}
    return {}


def few_colors(path: Path) -> set[Color]:
    """The colors that a mask shows, three at most; none where it cannot be read as colors."""
    with suppress(InputError):
        return colors_in(path, 3)
    return set()


def read_as_it_is(example: Example) -> Stored | None:
    """What a mask file holds; None where it can be read as neither."""
    if not is_image_suffix(example.source.suffix):
        return None
    for read in (read_ids, read_colors):
        with suppress(InputError):
            return read(example.source)
    return None
