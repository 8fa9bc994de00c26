"""Plain folders of images and masks.

    ROOT/classes.txt          one class name a line, in the order of the mask values from 0
    ROOT/images/train/a.jpg   ROOT/masks/train/a.png      (val and test likewise)

Without split folders, `ROOT/images/a.jpg` and `ROOT/masks/a.png`, every picture is put into train, val or test by
chance, 80 : 10 : 10, in the same way every time. Masks hold class ids (grey or palette PNG) and 255 for void.
"""

from pathlib import Path

import numpy as np

from deeplab_jax.config import IGNORE
from deeplab_jax.data.classes import Classes, default_palette
from deeplab_jax.data.dataset import Dataset, pair_by_stem
from deeplab_jax.errors import InputError

SPLITS = ("train", "val", "test")


def open(root: Path, split: str) -> Dataset:
    names = read_class_names(root / "classes.txt")
    images, masks = root / "images", root / "masks"
    if any((images / name).is_dir() for name in SPLITS):
        pairs = pair_by_stem(images / split, masks / split)
    else:
        pairs = draw_split(pair_by_stem(images, masks), images, split)
    return Dataset(Classes(names, default_palette(len(names))), pairs, {})


def read_class_names(path: Path) -> tuple[str, ...]:
    """Raises InputError where there is no such file, no name, or one twice."""
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines())
    except FileNotFoundError:
        raise InputError(f"{path} is missing; write one class name a line, the first for mask value 0") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable text file: {error}") from None
    if not names or "" in names:
        raise InputError(f"{path} has an empty line; write one class name a line, line n for mask value n - 1")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{path} names {min(twice)!r} twice; write every class once")
    if len(names) >= IGNORE:
        raise InputError(f"{path} names {len(names)} classes; masks of 8 bits can hold {IGNORE - 1} and void")
    return names


def draw_split(pairs: list[tuple[Path, Path]], images: Path, split: str) -> list[tuple[Path, Path]]:
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not known; choose one of {', '.join(SPLITS)}")
    if len(pairs) < len(SPLITS):
        raise InputError(f"{images} holds {len(pairs)} images; a split into train, val and test needs at least 3")
    order = np.random.default_rng(0).permutation(len(pairs))
    tenth = max(round(0.1 * len(pairs)), 1)
    chosen = {"val": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}[split]
    return [pairs[i] for i in sorted(chosen)]
