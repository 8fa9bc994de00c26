"""Reads image and mask files as they are."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from deeplab_jax.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_image(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB, turned upright by its EXIF tag. Raises InputError that names the file."""
    picture = ImageOps.exif_transpose(_open(path))
    if picture.mode.startswith("I;16"):
        return np.repeat((np.array(picture) // 257).astype(np.uint8)[..., None], 3, -1)
    if picture.mode in ("I", "F"):
        raise InputError(
            f"{path} has {picture.mode} pixels, whose range is unknown; save it with 8 or 16 bits a channel"
        )
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def read_ids(path: Path) -> np.ndarray:
    """(h, w) uint8, or int32 of pictures that may hold more; palette pictures give their indices.

    Raises InputError that names the file.
    """
    picture = _open(path)
    if picture.mode not in ("1", "L", "P", "I", "I;16"):
        raise InputError(
            f"{path} is a {picture.mode} picture; a mask has one channel that holds class ids, or its colours must be "
            "in a colour table"
        )
    values = np.array(picture)
    return values.astype(np.uint8 if picture.mode in ("1", "L", "P") else np.int32)


def read_colours(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB, without any turning. Raises InputError that names the file."""
    return np.array(_open(path).convert("RGB"))


def has_colours(path: Path) -> bool:
    """Whether a picture's pixels are colours and not values of one channel or indices of a palette."""
    return _open(path).mode in ("RGB", "RGBA")


def size_of(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is no folder")
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not images:
        raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return images


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture ({error}); replace or remove it") from None
    return picture
