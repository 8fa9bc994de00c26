"""What every layout of data set comes down to: samples with an image and a mask of class ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from deeplab_jax.config import IGNORE
from deeplab_jax.data.classes import Classes
from deeplab_jax.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Sample:
    image: np.ndarray  # (h, w, 3) uint8 RGB
    mask: np.ndarray  # (h, w) uint8 class ids, IGNORE where there is no label
    name: str  # of the image's file


@dataclass(frozen=True)
class Dataset:
    """Pairs of image and mask files; `dataset[i]` reads and checks one pair."""

    classes: Classes
    pairs: Sequence[tuple[Path, Path]]
    relabel: Mapping[int, int]  # values of the mask files that are not class ids yet -> class id or IGNORE

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.pairs[index]
        image, ids = read_image(image_path), read_mask(mask_path)
        if image.shape[:2] != ids.shape:
            raise InputError(
                f"{mask_path} is {_size(ids)} but its image {image_path} is {_size(image)}; "
                "resize one of them (masks with nearest neighbour)"
            )
        mask = np.full(ids.shape, IGNORE, np.uint8)
        for value in np.unique(ids).tolist():
            label = self.relabel.get(value, value)
            if label != IGNORE and not 0 <= label < len(self.classes):
                raise InputError(
                    f"{mask_path} holds the value {value}, but there are {len(self.classes)} classes "
                    f"(0 to {len(self.classes) - 1}) and {IGNORE} for void; name every class or correct the mask"
                )
            mask[ids == value] = label
        return Sample(image, mask, image_path.name)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


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


def read_mask(path: Path) -> np.ndarray:
    """(h, w) integer ids; palette pictures give their indices. Raises InputError that names the file."""
    picture = _open(path)
    if picture.mode not in ("1", "L", "P", "I", "I;16"):
        raise InputError(f"{path} is a {picture.mode} picture; a mask has one channel that holds class ids")
    return np.array(picture).astype(np.int32)


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture ({error}); replace or remove it") from None
    return picture


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


def pair_by_stem(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Every image with the mask PNG of the same name. Raises InputError that names an image without one."""
    pairs = [(image, masks / f"{image.stem}.png") for image in list_images(images)]
    alone = [image for image, mask in pairs if not mask.is_file()]
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise InputError(f"{alone[0]} has no mask: {masks / alone[0].stem}.png is missing{more}")
    return pairs
