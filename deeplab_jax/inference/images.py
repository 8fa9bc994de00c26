"""What happens to a picture before the network, as the shared inference API does it."""

import numpy as np

from deeplab_jax.config import PreprocessConfig
from deeplab_jax.data.fit import Placement, resize


def preprocess(image: np.ndarray, config: PreprocessConfig) -> tuple[np.ndarray, Placement]:
    """(H, W, 3) uint8 BGR to (*config.size, 3) float32 network input in RGB, and where the picture lies in it."""
    picture, spot = resize(image, config)
    canvas = np.empty((*config.size, 3), np.float32)
    canvas[:] = normalise(np.asarray(config.padding, np.float32), config)
    canvas[spot.window] = normalise(picture[..., ::-1].astype(np.float32), config)
    return canvas, spot


def normalise(pixels: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """Grey levels 0..255 to what the network was trained on, per RGB channel."""
    return (pixels / np.float32(255) - np.asarray(config.mean, np.float32)) / np.asarray(config.std, np.float32)
