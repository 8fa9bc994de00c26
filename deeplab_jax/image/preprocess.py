"""What happens to an image before the network, as the shared inference API does it."""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from deeplab_jax.array_types import Float32
from deeplab_jax.config import PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.image.contrast import TO_GRAY, ColorFormat, Pixels
from deeplab_jax.image.resize import Placement, resize, used_part

Planes = Float32[np.ndarray, "channels height width"]


def in_own_size(config: PreprocessConfig, height: int, width: int) -> PreprocessConfig:
    """What makes network input of an image of that size without scaling it: as large as what is used of it."""
    used = used_part(height, width, config)
    try:
        return replace(config, size=(used.height, used.width))
    except InputError as error:
        raise InputError(f"in its own size, {error}; fit it into less with size=(height, width), or --size") from None


def preprocess(
    image: Pixels, config: PreprocessConfig, order: ColorFormat = "bgr", out: Planes | None = None
) -> tuple[Planes, Placement]:
    """Network input of an image, of config.size, and where the image lies in it.

    Args:
        order: of the image's channels.
        out: to write into.
    """
    resized, placement = resize(image, config, order)
    planes = np.empty((config.channels, *config.size), np.float32) if out is None else out
    window = placement.within(config.size).window
    if resized.shape[:2] != config.size:
        for plane, level, mean, std in zip(planes, config.padding, config.mean, config.std, strict=False):
            plane[:] = normalize(np.full(1, level, np.float32), mean, std)
    write_channels(resized, config, order, planes[:, *window])
    return planes, placement


def write_channels(
    image: Pixels, config: PreprocessConfig, order: ColorFormat, out: Float32[np.ndarray, "channels h w"]
) -> None:
    """Writes the image's channels, normalized, into `out`."""
    if config.color_mode == "gray":
        channels = [cv2.cvtColor(image, TO_GRAY[order])]
    else:
        channels = cv2.split(image)[:: 1 if order == config.color_mode else -1]
    for channel, table, mean, std, plane in zip(channels, tables(config), config.mean, config.std, out, strict=False):
        if channel.dtype == np.uint8:
            cv2.LUT(channel, table, dst=plane)
        else:
            plane[:] = normalize(channel, mean, std)


def normalize(levels: Float32[np.ndarray, "*shape"], mean: float, std: float) -> Float32[np.ndarray, "*shape"]:
    """Levels 0..255 of one channel to what the network was trained on."""
    return (levels / np.float32(255) - np.float32(mean)) / np.float32(std)


@lru_cache(maxsize=64)
def tables(config: PreprocessConfig) -> list[Float32[np.ndarray, "256"]]:
    """For every channel: what becomes of each level."""
    levels = np.arange(256, dtype=np.float32)
    return [normalize(levels, mean, std) for mean, std in zip(config.mean, config.std, strict=True)]
