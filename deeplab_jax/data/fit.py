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


def place(height: int, width: int, config: PreprocessConfig) -> Placement:
    """The largest centred rectangle of the picture's aspect ("letterbox"), or all of the input ("stretch")."""
    input_height, input_width = config.size
    if config.resize_mode == "stretch":
        return Placement(0, 0, input_height, input_width)
    scale = min(input_width / width, input_height / height)
    h, w = max(int(height * scale), 1), max(int(width * scale), 1)
    return Placement((input_height - h) // 2, (input_width - w) // 2, h, w)


def fit_image(image: np.ndarray, config: PreprocessConfig) -> tuple[np.ndarray, Placement]:
    """(h, w, 3) uint8 to (*config.size, 3) uint8, bilinear, grey around it; and where the picture lies."""
    spot = place(image.shape[0], image.shape[1], config)
    canvas = np.full((*config.size, image.shape[2]), config.padding_value, image.dtype)
    rows, columns = slice(spot.top, spot.top + spot.height), slice(spot.left, spot.left + spot.width)
    canvas[rows, columns] = cv2.resize(image, (spot.width, spot.height), interpolation=cv2.INTER_LINEAR)
    return canvas, spot


def fit_mask(mask: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """(h, w) uint8 class ids to config.size, nearest neighbour, IGNORE around it."""
    spot = place(mask.shape[0], mask.shape[1], config)
    canvas = np.full(config.size, IGNORE, mask.dtype)
    rows, columns = slice(spot.top, spot.top + spot.height), slice(spot.left, spot.left + spot.width)
    canvas[rows, columns] = cv2.resize(mask, (spot.width, spot.height), interpolation=cv2.INTER_NEAREST_EXACT)
    return canvas
