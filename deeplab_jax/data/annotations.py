"""What JSON files of annotations say, checked piece by piece: a wrong one ends in one line that names it."""

import reprlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from deeplab_jax.array_types import Float64
from deeplab_jax.config import IGNORE
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import mend_of_turned

KINDS = {int: "a whole number", str: "a text", list: "a list", dict: "an object"}


def take(record: Any, key: str, kind: type, where: str) -> Any:
    """What an object holds under that key. Raises InputError where that is nothing, or of another type."""
    if not isinstance(record, dict):
        raise InputError(f"{where} must be an object with the key {key}, not {reprlib.repr(record)}")
    if key not in record:
        raise InputError(f"{where} has no {key}")
    if type(record[key]) is not kind:
        raise InputError(f"{where}: {key} must be {KINDS[kind]}, not {reprlib.repr(record[key])}")
    return record[key]


def numbers(values: list, where: str) -> Float64[np.ndarray, "..."]:
    """Of any shape. Raises InputError where they are no numbers, or lists of unequal lengths."""
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where} must be numbers in lists of equal length, not {reprlib.repr(values)}") from None


def relative(name: str, where: str) -> Path:
    """A file's name as a path that stays inside whatever folder it is joined to, else InputError."""
    path = PureWindowsPath(name)  # takes both / and \ for separators
    inside = path.name != "" and path.anchor == "" and ".." not in path.parts
    # Longer ones are no names to Linux.
    if not (inside and _prints(name) and len(name) <= 1000 and all(len(part.encode()) <= 255 for part in path.parts)):
        raise InputError(
            f"{where}: file_name {reprlib.repr(name)} must name a file inside the folder of the images, without '..' "
            "and of a usual length"
        )
    return Path(name)


def check_names(names: Sequence[str], where: str) -> None:
    """Raises InputError unless these can be the names of a mask's classes."""
    if not len(names) < IGNORE:
        raise InputError(f"{where} names {len(names)} classes; masks of 8 bits can hold {IGNORE - 1} and void")
    for name in names:
        if not (name.strip() and _prints(name)):
            raise InputError(f"{where} names a class {reprlib.repr(name)}; a name must be one line of text")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{where} names {reprlib.repr(min(twice))} twice; every class needs its own name")


def check_size(stated: tuple[int, int], size: tuple[int, int], source: Path, image: Path) -> None:
    """Raises InputError unless both (height, width) are the same: what the annotations say, and what the image has."""
    if stated != size:
        mend = mend_of_turned(image, size, stated) or "annotate the image as it is, or put the annotated one back"
        raise InputError(
            f"{source} says that {image.name} is {stated[1]}x{stated[0]}, but {image} is {size[1]}x{size[0]}; {mend}"
        )


def _prints(name: str) -> bool:
    """Whether a name is free of control characters and of halves of characters, which no terminal can show."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
