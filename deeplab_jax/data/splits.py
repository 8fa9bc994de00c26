"""Which images make up a split: those of a folder or of a list, or a part that is drawn by their names."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from deeplab_jax.data.dataset import Example
from deeplab_jax.errors import InputError

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}  # all usual names


def names_of(split: str) -> tuple[str, ...]:
    """What a split may be called, the likeliest first."""
    return SPLITS.get(split, (split,))


def find_split(root: Path, split: str) -> Path | None:
    """The folder of a split; None where there is none."""
    return next((root / name for name in names_of(split) if (root / name).is_dir()), None)


def find_list(folder: Path, split: str) -> Path | None:
    """The text file that lists a split's images; None where there is none."""
    return next((path for name in names_of(split) if (path := folder / f"{name}.txt").is_file()), None)


def read_list(path: Path) -> list[str]:
    """Names of images, one a line. Raises InputError where there is none."""
    names = [line for line in read_lines(path) if line]
    if not names:
        raise InputError(f"{path} names no images; write one name a line")
    return names


def read_lines(path: Path) -> list[str]:
    """The lines of a text without blanks around them, up to the last that is not empty."""
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable text file ({error}); save it as UTF-8") from None


def check_once(names: Sequence[str], path: Path) -> None:
    """Raises InputError where a list names an image twice."""
    for name, times in Counter(names).items():
        if times != 1:
            raise InputError(f"{path} names {name!r} {times} times; list every image once")


def draw_split(examples: Sequence[Example], root: Path, split: str) -> list[Example]:
    """About 80 % of the images for train and 10 % each for val and test.

    Where an image goes depends on its file's name alone, so that one more moves no other. Only where a part would be
    empty it has the image that is nearest to it.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not known; choose one of {', '.join(SPLITS)}")
    count = len(examples)
    if not count >= len(SPLITS):
        raise InputError(f"{root} holds {count} images; a split into train, val and test needs at least 3")
    places = np.array([place_of(example.image.name) for example in examples])
    order = np.argsort(places, kind="stable")
    first = int(np.clip((places < 0.1).sum(), 1, count - 2))
    second = int(np.clip((places < 0.2).sum(), first + 1, count - 1))
    chosen = {"val": order[:first], "test": order[first:second], "train": order[second:]}[split]
    return [examples[i] for i in sorted(chosen)]


def place_of(name: str) -> float:
    """From 0 up to 1, evenly over all names, and the same on every machine."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest()) / 2**48
