"""`deeplab data check`: what a data set holds, and what is wrong with it or looks as if it were."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplab_jax.data.check.hints import find_hints
from deeplab_jax.data.check.split import Checked, check_split
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.data.formats import find_dataset
from deeplab_jax.errors import InputError

NOWHERE = "nosuchsplit"  # no data set has a split of this name


@dataclass
class Report:
    train: str  # the split that is trained on
    splits: list[Checked]
    faults: list[str]  # what training or evaluation would stop at, or is of no use with
    warnings: list[str]  # what may be meant so

    @property
    def all_faults(self) -> list[str]:
        result = self.faults + [fault for checked in self.splits for fault in checked.faults]
        return list(dict.fromkeys(result))  # splits that are drawn from one folder share its faults

    @property
    def comparable(self) -> bool:
        """Whether there are splits, all with the same classes."""
        return bool(self.splits) and not same_classes(self.splits)


def check(
    root: Path,
    format: str,
    threads: int,
    progress: Callable[[str, int, int], None],
    train: str = "train",
    val: str = "val",
) -> Report:
    """Reads every sample of two splits, and of `test` where there is one.

    Args:
        root: folder of the data set.
        format: its layout.
        threads: how many read.
        progress: is told the split, how many samples are read, and how many there are.
        train: the split that is trained on.
        val: the split that is evaluated on meanwhile.
    """
    datasets, faults = find_splits(root, format, (train, val))
    splits = [check_split(split, dataset, threads, progress) for split, dataset in datasets.items()]
    if splits:
        faults += same_classes(splits)
        faults += [fault for checked in splits if checked.split in (train, val) for fault in useless(checked, train)]
    hints = [f"{train} is trained on and evaluated on"] if train == val else []
    return Report(train, splits, faults, hints + (find_hints(splits, format) if splits else []))


def find_splits(root: Path, format: str, needed: Sequence[str]) -> tuple[dict[str, Dataset], list[str]]:
    """The splits that there are, and what is wrong with the others; a test split may be absent."""
    result: dict[str, Dataset] = {}
    absent: dict[str, list[str]] = {}  # message -> splits
    broken: dict[str, list[str]] = {}
    for split in dict.fromkeys((*needed, "test")):
        try:
            result[split] = find_dataset(root, format, split)
        except InputError as error:
            if str(error) != error_of_no_split(root, format, split):
                broken.setdefault(str(error), []).append(split)
            elif split in needed:
                absent.setdefault(str(error), []).append(split)
    faults = [f"no {' and no '.join(splits)} split: {message}" for message, splits in (absent | broken).items()]
    # If there is none at all, the place or the format is wrong, and the first message says so.
    return result, faults if result or broken else faults[:1]


def error_of_no_split(root: Path, format: str, split: str) -> str:
    """What a reader says of a split that is not there, which is unlike what it says of one that is broken."""
    try:
        find_dataset(root, format, NOWHERE)
    except InputError as error:
        return str(error).replace(NOWHERE, split)
    return ""


def same_classes(splits: Sequence[Checked]) -> list[str]:
    first, *others = splits
    return [
        f"{other.split} has the classes {', '.join(other.statistics.classes.names)}, but {first.split} "
        f"{', '.join(first.statistics.classes.names)}"
        for other in others
        if other.statistics.classes.names != first.statistics.classes.names
    ]


def useless(checked: Checked, train: str) -> list[str]:
    """Nothing can be learned from one class, and nothing measured without any."""
    result = checked.statistics
    labeled = np.flatnonzero(result.pixels)
    if not result.images or len(labeled) > (1 if checked.split == train else 0):
        return []
    what = f"{result.classes.names[labeled[0]]} is all that is labeled" if len(labeled) else "every pixel is void"
    return [
        f"{checked.split}: {what}, so nothing can be learned or measured; write the ids of the classes into the masks"
    ]
