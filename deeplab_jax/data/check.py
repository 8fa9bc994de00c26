"""`deeplab data check`: what a data set holds, and what is wrong with it or looks as if it were."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Dataset, Files, Sample
from deeplab_jax.data.formats import find_dataset
from deeplab_jax.data.pictures import IMAGE_SUFFIXES, read_ids
from deeplab_jax.data.statistics import Statistics, read_all
from deeplab_jax.errors import InputError

SPLITS = ("train", "val", "test")
SHOWN = 6  # samples of a split in the picture


@dataclass
class Checked:
    """One split."""

    split: str
    statistics: Statistics
    faults: list[str] = field(default_factory=list)  # samples that cannot be used, and why
    values: set[int] = field(default_factory=set)  # in masks that cannot be used
    samples: list[Sample] = field(default_factory=list)  # a few, to look at
    digests: dict[str, Path] = field(default_factory=dict)  # of the images' content


@dataclass
class Report:
    splits: list[Checked]
    faults: list[str]  # what training or evaluation would stop at
    warnings: list[str]  # what may be meant so

    @property
    def all_faults(self) -> list[str]:
        return self.faults + [fault for checked in self.splits for fault in checked.faults]


def check(root: Path, format: str, threads: int, progress: Callable[[str, int, int], None]) -> Report:
    """Reads every sample of the splits that there are.

    Args:
        root: folder of the data set.
        format: its layout.
        threads: how many read.
        progress: is told the split, how many samples are read, and how many there are.
    """
    report = Report([], [], [])
    for split in SPLITS:
        try:
            dataset = find_dataset(root, format, split)
        except InputError as error:
            (report.warnings if split == "test" else report.faults).append(f"no {split} split: {error}")
            continue
        report.splits.append(check_split(split, dataset, threads, progress))
    if report.splits:
        report.faults += same_classes(report.splits)
        report.warnings += [hint for checked in report.splits for hint in suspicions(checked)]
        report.warnings += shared_pictures(report.splits)
    return report


def check_split(split: str, dataset: Dataset, threads: int, progress: Callable[[str, int, int], None]) -> Checked:
    checked = Checked(split, Statistics(dataset.classes))
    shown = set(np.linspace(0, max(len(dataset) - 1, 0), SHOWN).astype(int).tolist())
    for index, sample in read_all(dataset, threads):
        if isinstance(sample, InputError):
            checked.faults.append(str(sample))
            checked.values |= values_of_mask(dataset, index)
        else:
            checked.statistics.add(sample)
            if index in shown:
                checked.samples.append(sample)
        progress(split, index + 1, len(dataset))
    if isinstance(dataset, Files):
        checked.faults += [f"{mask} is a mask without an image" for mask in dataset.unpaired]
        checked.digests = digests([example.image for example in dataset.examples])
    return checked


def values_of_mask(dataset: Dataset, index: int) -> set[int]:
    """Of one whose pixels are values."""
    if not isinstance(dataset, Files) or dataset.examples[index].source.suffix.lower() not in IMAGE_SUFFIXES:
        return set()
    try:
        return set(np.unique(read_ids(dataset.examples[index].source)).tolist())
    except InputError:
        return set()


def suspicions(checked: Checked) -> list[str]:
    """What may be an encoding that is not meant, in a split that can be read or nearly."""
    found, hints = checked.statistics, []
    names = found.classes.names
    missing = [names[i] for i in np.flatnonzero(found.pixels == 0)]
    where = f"{checked.split}: "
    beyond = sorted(value for value in checked.values if value != IGNORE and value >= len(names))
    if beyond:
        some = ", ".join(map(str, sorted(checked.values)[:12])) + (", ..." if len(checked.values) > 12 else "")
        hints.append(f"{where}masks that cannot be used hold the values {some}; there are {len(names)} classes")
        if beyond == [len(names)] and found.pixels[0] == 0:
            hints.append(f"{where}{names[0]} is nowhere and one value is too large: ids seem to begin with 1, not 0")
        elif len(beyond) > len(names):
            hints.append(f"{where}so many values look like colours as grey levels, or like masks that were smoothed")
    if found.images and found.void_images and np.count_nonzero(found.pixels) == 1 and len(names) > 1:
        (only,) = np.flatnonzero(found.pixels)
        hints.append(
            f"{where}masks hold {only} and {IGNORE} alone, and {IGNORE} is void; where it is meant for a class, write "
            "that class's id"
        )
    elif missing and found.images:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        hints.append(f"{where}never seen: {', '.join(missing[:8])}{more}")
    total = found.pixels.sum() + found.void
    if total and found.void > total / 2:
        hints.append(f"{where}{100 * found.void / total:.0f} % of all pixels are void")
    if found.pixels.sum() and found.pixels.max() > 0.98 * found.pixels.sum() and np.count_nonzero(found.pixels) > 1:
        name = names[int(found.pixels.argmax())]
        share = 100 * found.pixels.max() / found.pixels.sum()
        hints.append(
            f"{where}{share:.1f} % of labelled pixels are {name}; see the suggested class weights, or Dice loss"
        )
    return hints


def same_classes(splits: Sequence[Checked]) -> list[str]:
    first, *others = splits
    return [
        f"{other.split} has the classes {', '.join(other.statistics.classes.names)}, but {first.split} "
        f"{', '.join(first.statistics.classes.names)}"
        for other in others
        if other.statistics.classes.names != first.statistics.classes.names
    ]


def shared_pictures(splits: Sequence[Checked]) -> list[str]:
    """Pictures that are in two splits, whatever their names: figures on the second are too good."""
    hints = []
    for number, one in enumerate(splits):
        for other in splits[number + 1 :]:
            both = sorted(set(one.digests) & set(other.digests), key=lambda digest: str(one.digests[digest]))
            if both:
                hints.append(
                    f"{len(both)} pictures are in {one.split} and in {other.split}, such as {one.digests[both[0]]} and "
                    f"{other.digests[both[0]]}"
                )
    return hints


def digests(images: Sequence[Path]) -> dict[str, Path]:
    found = {}
    for image in images:
        if image.is_file():
            with image.open("rb") as file:
                found[hashlib.file_digest(file, "sha256").hexdigest()] = image
    return found
