"""Reads image and mask files as they are."""

import io
import logging
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from deeplab_jax.array_types import Int32, Shaped, UInt8
from deeplab_jax.errors import InputError, first_line

# Of cameras' raw files: TIFFs, mostly, in which Pillow finds a thumbnail.
RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw")
# Of other images, which Pillow reads with the right library or plugin, or not at all.
UNREAD = (".avif", ".exr", ".heic", ".heif", ".hif", ".j2k", ".jp2", ".jxl", ".svg", ".webp")
PAGED = ("GIF", "TIFF", "PNG", "WEBP", "AVIF")  # formats whose second frame is as much of an image as the first
LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")  # Pillow's names of formats that may change values
ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = {  # values of that tag -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SPREAD = {2: 85, 4: 17}  # bits of a gray pixel in a PNG -> what Pillow multiplies its value with

# What Pillow raises for images that are broken in one way or another.
FAULTS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)

# Pillow warns of images half as large as those that it refuses. They can be read.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # it writes to the terminal what our errors say


def read_image(path: Path, most: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, turned upright by its EXIF tag. Raises InputError that names the file.

    `most`: pixels that are read, if not as many as Pillow allows.
    """
    if path.suffix.lower() in RAW:
        raise InputError(f"{path} is a camera's raw file; develop it, and save it as PNG or JPEG")
    image = turn_upright(decode(path, str(path), "replace or remove it", most))
    if image.mode.startswith("I;16"):
        return np.repeat((np.array(image) // 257).astype(np.uint8)[..., None], 3, -1)
    if image.mode in ("I", "F"):
        raise InputError(f"{path} has {image.mode} pixels, whose range is unknown; save it with 8 or 16 bits a channel")
    return as_rgb(image)


def read_ids(path: Path) -> UInt8[np.ndarray, "h w"] | Int32[np.ndarray, "h w"]:
    """int32 of images that may hold more than uint8; palette images give their indices.

    Raises InputError that names the file.
    """
    data = _read_bytes(path)
    image = decode_mask(data, str(path), "replace or remove it")
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise InputError(
            f"{path} is a {image.mode} image; a mask has one channel that holds class ids, or its colors must be "
            "in a color table"
        )
    return stored_values(image, data).astype(np.uint8 if image.mode in ("1", "L", "P") else np.int32)


def read_colors(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of a mask: those of its palette, if it has one. Raises InputError that names the file."""
    image = decode_mask(_read_bytes(path), str(path), "replace or remove it")
    if image.mode[0] in "IF":
        raise InputError(f"{path} has {image.mode} pixels, which are no colors; save it with 8 bits a channel")
    return np.array(image.convert("RGB"))


def decode(source: Path | bytes, place: str, mend: str, most: int | None = None) -> Image.Image:
    """An image as it is stored. Raises InputError that names the place and how to mend it."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if most is not None and image.width * image.height > most:
                raise Image.DecompressionBombError
            image.load()
            image.getexif()  # so that what is wrong there comes out here
    except FileNotFoundError:
        raise InputError(f"{place} does not exist") from None
    except Image.DecompressionBombError:
        most = most or 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise InputError(f"{place} has more than {most} pixels, the most that is read; cut it up") from None
    except UnidentifiedImageError:
        if is_unread(Path(place)):
            raise InputError(f"{place} is of a kind that Pillow here cannot read; save it as PNG or JPEG") from None
        raise InputError(f"{place} cannot be read as an image (it is of no known format); {mend}") from None
    except FAULTS as error:
        raise InputError(f"{place} cannot be read as an image ({first_line(error)}); {mend}") from None
    return image


def decode_mask(data: bytes, place: str, mend: str) -> Image.Image:
    """A mask as it is stored. Raises InputError that names the place where its values or its sides are uncertain."""
    image = decode(data, place, mend)
    if image.format in LOSSY:
        raise InputError(f"{place} holds {image.format} data, which may change values; make it anew as PNG")
    if tag := orientation(image):
        raise InputError(
            f"{place} has the orientation tag {tag}, but masks are never turned; save it upright, without that tag"
        )
    return image


def stored_values(image: Image.Image, data: bytes) -> Shaped[np.ndarray, "h w"]:
    """Of a decoded image of one channel: the values that the file's bytes hold."""
    values = np.array(image)
    spread = SPREAD.get(data[24], 1) if image.mode == "L" and image.format == "PNG" else 1
    return values if spread == 1 else values // spread


def turn_upright(image: Image.Image) -> Image.Image:
    """As its orientation tag says. Pillow's own function also writes the other tags anew, and may fail at that."""
    tag = orientation(image)
    return image.transpose(UPRIGHT[tag]) if tag else image


def orientation(image: Image.Image) -> int:
    """The orientation tag, 0 where there is nothing to turn."""
    tag = image.getexif().get(ORIENTATION)
    return tag if tag in UPRIGHT else 0


def as_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def mend_of_turned(image: Path | bytes, size: tuple[int, int], other: tuple[int, int]) -> str:
    """What to do where an image of (height, width) has another size only because of its tag; empty where not."""
    if size != other[::-1] or not (tag := orientation(decode(image, "the image", "replace it"))):
        return ""
    return f"its orientation tag {tag} turns the image; save it without that tag, or turn the mask likewise"


def size_of(array: Shaped[np.ndarray, "h w ..."]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is no folder")
    images = sorted(path for path in folder.iterdir() if is_image(path))
    if not images:
        raise InputError(f"{folder} holds no images (.jpg, .png, .tif or what else Pillow reads)")
    return images


def is_image(path: Path) -> bool:
    """Whether a file is one by its name; what macOS leaves beside files is none."""
    return is_image_suffix(path.suffix) and not path.name.startswith(".") and path.is_file()


def is_image_suffix(suffix: str) -> bool:
    """Whether Pillow, with the plugins that are registered, reads images of this suffix."""
    return is_read(Image.registered_extensions().get(suffix.lower(), ""))


def is_read(format: str) -> bool:
    """Whether Pillow reads images of this format. It knows some, and films, without reading them."""
    reader, _ = Image.OPEN.get(format, (None, None))
    stub = isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)
    return reader is not None and not stub and format != "MPEG"


def is_unread(path: Path) -> bool:
    """Whether a file is, by its name, an image that cannot be read here."""
    return path.suffix.lower() in (*RAW, *UNREAD) and not is_image_suffix(path.suffix)


def holds_image(path: Path) -> bool:
    """Whether a file is an image by its first bytes, whatever its name."""
    Image.init()
    telling = [format for format, (_, begins) in Image.OPEN.items() if begins and is_read(format)]
    try:
        with Image.open(path, formats=telling):
            return True
    except Image.DecompressionBombError:
        return True
    except FAULTS:
        return False


@dataclass(frozen=True)
class Header:
    """What an image file says before it is decoded."""

    pixels: int
    paged: bool  # it holds more frames than the one that is read


def read_header(path: Path) -> Header:
    """No pixels where it cannot be read, of which `read_image` says why."""
    try:
        with Image.open(path) as image:
            paged = image.format in PAGED and getattr(image, "is_animated", False)
            return Header(image.width * image.height, paged)
    except (*FAULTS, Image.DecompressionBombError):
        return Header(0, False)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); replace or remove it") from None
