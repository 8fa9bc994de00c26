"""Fits an image into the one size that the network takes. Training, evaluation and inference all go through here."""

from dataclasses import dataclass

import cv2
import numpy as np

from deeplab_jax.array_types import Float32, Shaped, UInt8
from deeplab_jax.config import IGNORE, PreprocessConfig
from deeplab_jax.errors import InputError
from deeplab_jax.image.contrast import ColorFormat, Pixels, apply_contrast

Resized = UInt8[np.ndarray, "h2 w2 3"] | Float32[np.ndarray, "h2 w2 3"]  # as the image


@dataclass(frozen=True)
class Placement:
    """A rectangle in pixels: where the image lies in the network input, beyond whose edges it may reach."""

    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def within(self, size: tuple[int, int]) -> "Placement":
        """The part of it that is inside the network input."""
        top, left = max(self.top, 0), max(self.left, 0)
        return Placement(
            top, left, min(self.top + self.height, size[0]) - top, min(self.left + self.width, size[1]) - left
        )

    def cut(
        self, image: Shaped[np.ndarray, "h w *channels"], size: tuple[int, int]
    ) -> Shaped[np.ndarray, "h2 w2 *channels"]:
        """The image, which has its size in the network input, without what is outside of that."""
        inside = self.within(size)
        return image[Placement(inside.top - self.top, inside.left - self.left, inside.height, inside.width).window]


def used_part(height: int, width: int, config: PreprocessConfig) -> Placement:
    """What `static_crop` leaves of an image. Raises InputError where that is nothing."""
    left, top, right, bottom = config.static_crop or (0, 0, 100, 100)
    left, right = int(left / 100 * width), int(right / 100 * width)
    top, bottom = int(top / 100 * height), int(bottom / 100 * height)
    if left >= right or top >= bottom:
        raise InputError(f"static_crop={config.static_crop} leaves nothing of an image of {width}x{height} pixels")
    return Placement(top, left, bottom - top, right - left)


def place(height: int, width: int, config: PreprocessConfig) -> Placement:
    """Where the used part of an image comes to lie in the network input; see `ResizeMode`."""
    input_height, input_width = config.size
    if config.resize_mode == "stretch":
        return Placement(0, 0, input_height, input_width)
    scale = min(input_width / width, input_height / height)
    if config.resize_mode == "center-crop" or (config.resize_mode == "pad" and scale >= 1):
        h, w = height, width
    else:
        h, w = max(int(height * scale), 1), max(int(width * scale), 1)
    if config.resize_mode == "pad":
        return Placement(0, 0, h, w)
    return Placement(int((input_height - h) / 2), int((input_width - w) / 2), h, w)


def resize(image: Pixels, config: PreprocessConfig, order: ColorFormat) -> tuple[Resized, Placement]:
    """The image as it comes into the network input, bilinear; and the place of the used part there."""
    part = used_part(image.shape[0], image.shape[1], config)
    used, placement = apply_contrast(image[part.window], config, order), place(part.height, part.width, config)
    if (part.height, part.width) != (placement.height, placement.width):
        used = cv2.resize(used, (placement.width, placement.height), interpolation=cv2.INTER_LINEAR)
    return placement.cut(used, config.size), placement


def resize_image(image: UInt8[np.ndarray, "h w 3"], config: PreprocessConfig) -> UInt8[np.ndarray, "h2 w2 3"]:
    """RGB to config.size, padded."""
    resized, placement = resize(image, config, "rgb")
    if resized.shape[:2] == config.size:
        return resized
    canvas = np.empty((*config.size, 3), image.dtype)
    canvas[:] = np.round(config.padding)
    canvas[placement.within(config.size).window] = resized
    return canvas


def resize_mask(mask: UInt8[np.ndarray, "h w"], config: PreprocessConfig) -> UInt8[np.ndarray, "h2 w2"]:
    """Class ids to config.size, nearest neighbor, IGNORE around it."""
    part = used_part(mask.shape[0], mask.shape[1], config)
    placement = place(part.height, part.width, config)
    sized = cv2.resize(mask[part.window], (placement.width, placement.height), interpolation=cv2.INTER_NEAREST_EXACT)
    fitted = placement.cut(sized, config.size)
    if fitted.shape == config.size:
        return fitted
    canvas = np.full(config.size, IGNORE, mask.dtype)
    canvas[placement.within(config.size).window] = fitted
    return canvas
