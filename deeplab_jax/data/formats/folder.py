"""Plain folders of images and masks.

    ROOT/classes.txt          one class name a line, in the order of the mask values from 0
    ROOT/images/train/a.jpg   ROOT/masks/train/a.png      (val and test likewise)

Without split folders, `ROOT/images/a.jpg` and `ROOT/masks/a.png`, every picture is put into train, val or test by
chance, 80 : 10 : 10, in the same way every time. Masks hold class ids (grey or palette PNG) and 255 for void.
"""

from pathlib import Path

import numpy as np

from deeplab_jax.data.classes import Classes, default_palette
from deeplab_jax.data.dataset import Dataset, list_images, pair_by_stem
from deeplab_jax.errors import InputError

SHARES = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}


def open(root: Path, split: str) -> Dataset:
    names = read_class_names(root / "classes.txt")
    images, masks = root / "images", root / "masks"
    if any((images / name).is_dir() for name in SHARES):
        pairs = pair_by_stem(images / split, masks / split)
    else:
        pairs = draw_split(pair_by_stem(images, masks), images, split)
    return Dataset(Classes(names, default_palette(len(names))), pairs, {})


def read_class_names(path: Path) -> tuple[str, ...]:
    """Raises InputError where there is no such file, no name, or one twice."""
    try:
        names = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except FileNotFoundError:
        raise InputError(f"{path} is missing; write one class name a line, the first for mask value 0") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable text file: {error}") from None
    twice = {name for name in names if names.count(name) > 1}
    if not names or twice:
        raise InputError(f"{path} names {f'{min(twice)!r} twice' if twice else 'no class'}; write one name a line")
    return names


def draw_split(pairs: list[tuple[Path, Path]], images: Path, split: str) -> list[tuple[Path, Path]]:
    if split not in SHARES:
        raise InputError(f"split {split!r} is not known; choose one of {', '.join(SHARES)}")
    order = np.random.default_rng(0).permutation(len(pairs))
    first, last = (round(share * len(pairs)) for share in SHARES[split])
    chosen = [pairs[i] for i in sorted(order[first:last])]
    if not chosen:
        raise InputError(f"{images} holds {len(list_images(images))} images, too few for a {split} share; add more")
    return chosen
