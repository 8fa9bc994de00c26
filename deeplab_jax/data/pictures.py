"""Reads image and mask files as they are."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from deeplab_jax.errors import InputError, first_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")  # Pillow's names of formats that may change values
ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = {  # values of that tag -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SPREAD = {2: 85, 4: 17}  # bits of a grey pixel in a PNG -> what Pillow multiplies its value with

# What Pillow raises for pictures that are broken in one way or another.
FAULTS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)

# Pillow warns of pictures half as large as those that it refuses. They can be read.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: Path, most: int | None = None) -> np.ndarray:
    """(h, w, 3) uint8 RGB, turned upright by its EXIF tag. Raises InputError that names the file.

    `most`: pixels that are read, if not as many as Pillow allows.
    """
    picture = turn_upright(decode(path, str(path), "replace or remove it", most))
    if picture.mode.startswith("I;16"):
        return np.repeat((np.array(picture) // 257).astype(np.uint8)[..., None], 3, -1)
    if picture.mode in ("I", "F"):
        raise InputError(
            f"{path} has {picture.mode} pixels, whose range is unknown; save it with 8 or 16 bits a channel"
        )
    return as_rgb(picture)


def read_ids(path: Path) -> np.ndarray:
    """(h, w) uint8, or int32 of pictures that may hold more; palette pictures give their indices.

    Raises InputError that names the file.
    """
    data = _read_bytes(path)
    picture = decode_mask(data, str(path), "replace or remove it")
    if picture.mode not in ("1", "L", "P", "I", "I;16"):
        raise InputError(
            f"{path} is a {picture.mode} picture; a mask has one channel that holds class ids, or its colours must be "
            "in a colour table"
        )
    return stored_values(picture, data).astype(np.uint8 if picture.mode in ("1", "L", "P") else np.int32)


def read_colours(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB of a mask: those of its palette, if it has one. Raises InputError that names the file."""
    picture = decode_mask(_read_bytes(path), str(path), "replace or remove it")
    if picture.mode[0] in "IF":
        raise InputError(f"{path} has {picture.mode} pixels, which are no colours; save it with 8 bits a channel")
    return np.array(picture.convert("RGB"))


def decode(source: Path | bytes, place: str, mend: str, most: int | None = None) -> Image.Image:
    """A picture as it is stored. Raises InputError that names the place and how to mend it."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            if most is not None and picture.width * picture.height > most:
                raise Image.DecompressionBombError
            picture.load()
            picture.getexif()  # so that what is wrong there comes out here
    except FileNotFoundError:
        raise InputError(f"{place} does not exist") from None
    except Image.DecompressionBombError:
        most = most or 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{place} has more than {most} pixels, the most that is read; cut it up") from None
    except UnidentifiedImageError:
        raise InputError(f"{place} cannot be read as a picture (it is of no known format); {mend}") from None
    except FAULTS as error:
        raise InputError(f"{place} cannot be read as a picture ({first_line(error)}); {mend}") from None
    return picture


def decode_mask(data: bytes, place: str, mend: str) -> Image.Image:
    """A mask as it is stored. Raises InputError that names the place where its values or its sides are uncertain."""
    picture = decode(data, place, mend)
    if picture.format in LOSSY:
        raise InputError(f"{place} holds {picture.format} data, which may change values; make it anew as PNG")
    if tag := orientation(picture):
        raise InputError(
            f"{place} has the orientation tag {tag}, but masks are never turned; save it upright, without that tag"
        )
    return picture


def stored_values(picture: Image.Image, data: bytes) -> np.ndarray:
    """(h, w) of a decoded picture of one channel: the values that the file's bytes hold."""
    values = np.array(picture)
    spread = SPREAD.get(data[24], 1) if picture.mode == "L" and picture.format == "PNG" else 1
    return values if spread == 1 else values // spread


def turn_upright(picture: Image.Image) -> Image.Image:
    """As its orientation tag says. Pillow's own function also writes the other tags anew, and may fail at that."""
    tag = orientation(picture)
    return picture.transpose(UPRIGHT[tag]) if tag else picture


def orientation(picture: Image.Image) -> int:
    """The orientation tag, 0 where there is nothing to turn."""
    tag = picture.getexif().get(ORIENTATION)
    return tag if tag in UPRIGHT else 0


def as_rgb(picture: Image.Image) -> np.ndarray:
    """(h, w, 3) uint8."""
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def mend_of_turned(image: Path | bytes, size: tuple[int, int], other: tuple[int, int]) -> str:
    """What to do where an image of (height, width) has another size only because of its tag; empty where not."""
    if size != other[::-1] or not (tag := orientation(decode(image, "the image", "replace it"))):
        return ""
    return f"its orientation tag {tag} turns the image; save it without that tag, or turn the mask likewise"


def size_of(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is no folder")
    images = sorted(path for path in folder.iterdir() if is_image(path))
    if not images:
        raise InputError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return images


def is_image(path: Path) -> bool:
    """Whether a file is one by its name; what macOS leaves beside files is none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); replace or remove it") from None
