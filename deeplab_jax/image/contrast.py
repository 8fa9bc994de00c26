"""Gray images and more contrast, as the shared inference API makes them, before an image is fitted."""

from typing import Literal

import cv2
import numpy as np

from deeplab_jax.array_types import Float32, UInt8
from deeplab_jax.config import Contrast, PreprocessConfig
from deeplab_jax.errors import InputError

ColorFormat = Literal["rgb", "bgr"]
Pixels = UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]  # in 0..255
TO_GRAY = {"rgb": cv2.COLOR_RGB2GRAY, "bgr": cv2.COLOR_BGR2GRAY}


def apply_contrast(image: Pixels, config: PreprocessConfig, order: ColorFormat) -> Pixels:
    """The image, whose channels are in `order`, as the config says; contrast makes float32 uint8."""
    if config.grayscale:
        image = cv2.cvtColor(cv2.cvtColor(image, TO_GRAY[order]), cv2.COLOR_GRAY2BGR)
    if config.contrast:
        image = raise_contrast(np.round(image).astype(np.uint8), config.contrast)
    return image


def raise_contrast(image: UInt8[np.ndarray, "h w 3"], kind: Contrast) -> UInt8[np.ndarray, "h w 3"]:
    """From one histogram of all channels. Equal to what scikit-image does."""
    if kind == "Contrast Stretching":
        return cv2.LUT(image, stretching_table(image))
    if kind == "Histogram Equalization":
        return cv2.LUT(image, equalizing_table(image))
    too_large = (
        f"an image of {image.shape[1]}x{image.shape[0]} is too large for contrast {kind!r}, which takes 200 times"
    )
    if not image.shape[0] * image.shape[1] <= 2**23:
        raise InputError(f"{too_large} its pixels in bytes; scale it down")
    try:
        from skimage import exposure  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"contrast {kind!r} needs scikit-image; install it with: pip install scikit-image") from None
    return (exposure.equalize_adapthist(image.astype(np.float32) / 255, clip_limit=0.03) * 255).astype(np.uint8)


def stretching_table(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256"]:
    """What becomes of each level, so that the 2nd and the 98th percentile become 0 and 255."""
    low, high = np.percentile(image, (2, 98))
    levels = np.clip(np.arange(256), low, high)
    return ((levels - low) / (high - low) * 255 if high > low else levels).astype(np.uint8)


def equalizing_table(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256"]:
    """What becomes of each level, so that all become about as frequent."""
    bands = np.array_split(image, len(image) // 512 + 1)  # bincount makes every value 8 bytes long
    counts = np.sum([np.bincount(band.ravel(), minlength=256) for band in bands], 0)
    levels = np.arange(256, dtype=np.float32) / 255
    present = counts > 0
    histogram, edges = np.histogram(levels[present], 256, weights=counts[present])
    share = (histogram.cumsum() / histogram.sum()).astype(np.float32)
    return (np.interp(levels, (edges[:-1] + edges[1:]) / 2, share).astype(np.float32) * 255).astype(np.uint8)
