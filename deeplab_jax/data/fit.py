"""Fits a picture into the one size that the network takes. Training, evaluation and inference all go through here."""

from dataclasses import dataclass

import cv2
import numpy as np

from deeplab_jax.config import IGNORE, PreprocessConfig


@dataclass(frozen=True)
class Placement:
    """Where the picture lies in the network input, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def place(height: int, width: int, config: PreprocessConfig) -> Placement:
    """The rectangle of the network input that the picture covers; see `ResizeMode`."""
    input_height, input_width = config.size
    if config.resize_mode == "stretch":
        return Placement(0, 0, input_height, input_width)
    scale = min(input_width / width, input_height / height)
    if config.resize_mode == "pad" and scale >= 1:
        return Placement(0, 0, height, width)
    h, w = max(int(height * scale), 1), max(int(width * scale), 1)
    if config.resize_mode == "pad":
        return Placement(0, 0, h, w)
    return Placement((input_height - h) // 2, (input_width - w) // 2, h, w)


def resize(image: np.ndarray, config: PreprocessConfig) -> tuple[np.ndarray, Placement]:
    """(h, w, 3) uint8 in the size it has in the network input, bilinear; and its place there."""
    spot = place(image.shape[0], image.shape[1], config)
    return cv2.resize(image, (spot.width, spot.height), interpolation=cv2.INTER_LINEAR), spot


def fit_image(image: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """(h, w, 3) uint8 RGB to (*config.size, 3) uint8, padded."""
    picture, spot = resize(image, config)
    if picture.shape[:2] == config.size:
        return picture
    canvas = np.empty((*config.size, 3), image.dtype)
    canvas[:] = np.round(config.padding)
    canvas[spot.window] = picture
    return canvas


def fit_mask(mask: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """(h, w) uint8 class ids to config.size, nearest neighbour, IGNORE around it."""
    spot = place(mask.shape[0], mask.shape[1], config)
    fitted = cv2.resize(mask, (spot.width, spot.height), interpolation=cv2.INTER_NEAREST_EXACT)
    if fitted.shape == config.size:
        return fitted
    canvas = np.full(config.size, IGNORE, mask.dtype)
    canvas[spot.window] = fitted
    return canvas
