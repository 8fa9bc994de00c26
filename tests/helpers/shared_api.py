"""The shared inference API's steps around an ONNX network, re-implemented from how its client (0.39.6) behaves.

Slow and plain on purpose: pixels as it computes them, in PyTorch where it does.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from skimage import exposure


@dataclass
class Place:
    """What is known of an image's way into the network: margins may be negative, where the image was cut."""

    left: int
    top: int
    right: int
    bottom: int
    size: tuple[int, int]  # of the image after static-crop


def network_input(image: np.ndarray, config: dict[str, Any]) -> tuple[np.ndarray, Place]:
    """(h, w, 3) BGR uint8 to (1, 3, h, w) float32."""
    image = steps_before(image, config["image_pre_processing"])
    message = config["network_input"]
    height, width = image.shape[:2]
    target = message.get("training_input_size") or {"height": height, "width": width}
    h, w = target["height"], target["width"]
    mode, padding = message["resize_mode"], message.get("padding_value") or 0
    if mode == "fit-longer-edge":
        mode, padding = "letterbox", 0
    if mode == "stretch":
        canvas, place = cv2.resize(image, (w, h)).astype(np.float32), Place(0, 0, 0, 0, (height, width))
    elif mode in ("letterbox", "letterbox-reflect-edges"):
        scale = min(w / width, h / height)
        new_width, new_height = int(width * scale), int(height * scale)
        top, left = int((h - new_height) / 2), int((w - new_width) / 2)
        canvas = np.full((h, w, 3), padding, np.float32)
        canvas[top : top + new_height, left : left + new_width] = cv2.resize(image, (new_width, new_height))
        place = Place(left, top, w - left - new_width, h - top - new_height, (height, width))
    else:
        canvas = np.zeros((h, w, 3), np.float32)
        (left, right), (top, bottom) = margins(w, width), margins(h, height)
        part = image[max(-top, 0) : height - max(-bottom, 0), max(-left, 0) : width - max(-right, 0)]
        canvas[max(top, 0) : h - max(bottom, 0), max(left, 0) : w - max(right, 0)] = part
        place = Place(left, top, right, bottom, (height, width))
    if message["color_mode"] == "rgb":
        canvas = canvas[..., ::-1]
    if message.get("scaling_factor") is not None:
        canvas = canvas / np.float32(message["scaling_factor"])
    if message.get("normalization"):
        mean, std = np.float32(message["normalization"])
        canvas = (canvas - mean) / std
    return canvas.transpose(2, 0, 1)[None].astype(np.float32), place


def margins(target: int, size: int) -> tuple[int, int]:
    """Before and after; center-crop puts the odd pixel after, both where it pads and where it cuts."""
    first = abs(target - size) // 2
    last = abs(target - size) - first
    return (first, last) if target > size else (-first, -last)


def steps_before(image: np.ndarray, steps: dict[str, Any]) -> np.ndarray:
    if steps.get("static-crop", {}).get("enabled"):
        left, top, right, bottom = crop_sides(image, steps)
        image = image[top:bottom, left:right]
    if steps.get("grayscale", {}).get("enabled"):
        image = np.stack([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)] * 3, axis=2)
    if steps.get("contrast", {}).get("enabled"):
        image = raise_contrast(image, steps["contrast"]["type"])
    return image


def crop_sides(image: np.ndarray, steps: dict[str, Any]) -> tuple[int, int, int, int]:
    crop, (height, width) = steps["static-crop"], image.shape[:2]
    sides = [("x_min", width), ("y_min", height), ("x_max", width), ("y_max", height)]
    left, top, right, bottom = [int(crop[name] / 100 * size) for name, size in sides]
    return left, top, right, bottom


def raise_contrast(image: np.ndarray, kind: str) -> np.ndarray:
    if kind == "Contrast Stretching":
        low, high = np.percentile(image, 2), np.percentile(image, 98)
        return exposure.rescale_intensity(image, in_range=(low, high))
    pixels = image.astype(np.float32) / 255
    if kind == "Histogram Equalization":
        return (exposure.equalize_hist(pixels) * 255).astype(np.uint8)
    return (exposure.equalize_adapthist(pixels, clip_limit=0.03) * 255).astype(np.uint8)


def result(
    logits: np.ndarray, place: Place, image: np.ndarray, config: dict[str, Any], threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """(K, h, w) logits, in the size of the network input and with background as id 0, to ids and confidences."""
    import torch
    from torchvision.transforms import functional

    planes = torch.from_numpy(logits)
    outside = [-min(side, 0) for side in (place.left, place.right, place.top, place.bottom)]
    planes = torch.nn.functional.pad(planes, outside, "constant", 0)  # the id of the background
    top, left = max(place.top, 0), max(place.left, 0)
    planes = planes[:, top : planes.shape[1] - max(place.bottom, 0), left : planes.shape[2] - max(place.right, 0)]
    if tuple(planes.shape[1:]) != place.size:
        planes = functional.resize(planes, list(place.size), functional.InterpolationMode.BILINEAR)
    confidence, ids = torch.softmax(planes, 0).max(0)
    whole_ids, whole_confidence = np.zeros(image.shape[:2], np.int64), np.zeros(image.shape[:2], np.float32)
    left, top = 0, 0
    if config["image_pre_processing"].get("static-crop", {}).get("enabled"):
        left, top, _, _ = crop_sides(image, config["image_pre_processing"])
    window = slice(top, top + place.size[0]), slice(left, left + place.size[1])
    whole_ids[window], whole_confidence[window] = ids.numpy(), confidence.numpy()
    below = whole_confidence < threshold
    whole_ids[below], whole_confidence[below] = 0, 0
    return whole_ids, whole_confidence
