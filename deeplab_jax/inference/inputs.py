"""What users hand in, as pixels: arrays, tensors, Pillow's images and files.

Nothing but numpy is imported for it: who hands in a tensor has imported PyTorch.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.array_types import Float, Float32, Shaped, UInt8
from deeplab_jax.errors import InputError, first_line
from deeplab_jax.image.contrast import ColorFormat, Pixels
from deeplab_jax.package.limits import MOST_PIXELS, check_image

KINDS = "a numpy array, a torch tensor, a PIL image or the path of a file"


def as_list(images: Any) -> list[Any]:
    """One entry an image, of one image, a sequence of them or a tensor (b, 3, h, w)."""
    if isinstance(images, (list, tuple)) or (is_a(images, "torch", "Tensor") and images.ndim == 4):
        return list(images)
    return [images]


def as_pixels(image: Any, color_format: ColorFormat | None) -> tuple[Pixels, ColorFormat]:
    """uint8, or float32 in 0..255, and the order of its channels.

    Args:
        image: - an array, numpy's or JAX's: (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), whose last channel is left out;
               - a tensor of PyTorch's: (3, h, w), or the same with 1 or 4 channels, (h, w) or (h, w, 3);
               - an image of Pillow's or a file, which are RGB whatever `color_format` says; a file is turned upright.
               Values are uint8, uint16 in 0..65535, or floating-point in 0..255.
        color_format: of arrays and tensors; without it arrays are BGR and tensors RGB.

    Raises:
        InputError: for anything else.
    """
    if isinstance(image, (str, Path)):
        return as_levels(file_pixels(Path(image))), "rgb"
    if is_a(image, "PIL.Image", "Image"):
        return as_levels(pillow_pixels(image)), "rgb"
    if is_a(image, "torch", "Tensor"):
        return as_levels(tensor_pixels(image)), color_format or "rgb"
    if is_a(image, "jax", "Array"):
        image = np.asarray(image, np.float32 if image.dtype.name == "bfloat16" else None)
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be {KINDS}, not {type(image).__name__}; for several give a list of them")
    return as_levels(np.asarray(image)), color_format or "bgr"  # without what a subclass does otherwise


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class of a library that need not be there."""
    library = sys.modules.get(module)
    return library is not None and isinstance(value, getattr(library, name))


def file_pixels(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    if os.path.exists(path) and not os.path.isfile(path):  # but a folder, or a pipe to wait for
        raise InputError(f"{path} is no file")
    try:
        from deeplab_jax.image.read import read_image
    except ImportError:
        raise InputError(f"{path}: files are read by Pillow; pip install pillow, or hand in cv2.imread(...)") from None
    return read_image(path, MOST_PIXELS)


def pillow_pixels(image: Any) -> Shaped[np.ndarray, "h w ..."]:
    from deeplab_jax.image.read import FAULTS, as_rgb

    check_image(image.height, image.width)
    try:
        return np.asarray(image) if image.mode[0] in "IF" else as_rgb(image)
    except FAULTS as error:
        raise InputError(f"a PIL image cannot be read ({first_line(error)})") from None


def tensor_pixels(tensor: Any) -> Shaped[np.ndarray, "..."]:
    """Channels last."""
    try:
        tensor = tensor.detach().cpu().resolve_neg()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (RuntimeError, TypeError) as error:  # sparse, or without values
        raise InputError(f"a tensor cannot be read as an image: {first_line(error)}") from None
    channels_last = array.ndim != 3 or (array.shape[0] != 3 and array.shape[2] == 3)
    return array if channels_last else array.transpose(1, 2, 0)


def as_levels(image: Shaped[np.ndarray, "..."]) -> Pixels:
    """Three channels, uint8 or float32 in 0..255. Raises InputError for what is no image."""
    result = f"{image.dtype} {image.shape}"
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise InputError(f"an image must be of shape (height, width) or (height, width, 1, 3 or 4), not {result}")
    if not image.size > 0:
        raise InputError(f"an image of shape {image.shape} has no pixels")
    check_image(*image.shape[:2])
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        image = (image // 257).astype(np.uint8)
    elif image.dtype.kind == "f":
        image = float_levels(image)
    elif image.dtype != np.uint8:
        raise InputError(f"an image must be uint8, uint16 in 0..65535 or floating-point in 0..255, not {result}")
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, -1)
    return image[..., :3]


def float_levels(image: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    low, high = float(image.min()), float(image.max())
    if not 0 <= low <= high <= 255:  # not a number compares as false
        raise InputError(f"a floating-point image must hold 0..255, not {low:g}..{high:g}; clip or scale it")
    if 0 < high <= 1:
        raise InputError(f"a floating-point image must hold 0..255; this one ends at {high:g}, multiply it by 255")
    return image.astype(np.float32)
