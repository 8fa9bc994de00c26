"""A tiny data set in COCO's layout."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools", reason="pycocotools is not installed: pip install 'deeplab_jax[coco]'")


def document(count: int = 1) -> dict:
    """Images of 6x4 with a square of 'cat' at the left, and a smaller one of 'dog' on it."""
    large, small = [0, 0, 4, 0, 4, 4, 0, 4], [1, 1, 3, 1, 3, 3, 1, 3]
    annotations = [
        {"id": 2 * i + j, "image_id": i, "category_id": (3, 7)[j], "segmentation": [outline], "iscrowd": 0}
        for i in range(count)
        for j, outline in enumerate((small, large))
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 6} for i in range(count)],
        "categories": [{"id": 7, "name": "cat", "supercategory": "animal"}, {"id": 3, "name": "dog"}],
        "annotations": annotations,
    }


MASK = np.array([[2, 2, 2, 2, 0, 0], [2, 1, 1, 2, 0, 0], [2, 1, 1, 2, 0, 0], [2, 2, 2, 2, 0, 0]], np.uint8)


def write(root, stated: Any, path: str = "annotations/instances_val.json", images: str = "val", count: int = 1):
    (root / path).parent.mkdir(exist_ok=True, parents=True)
    (root / path).write_text(json.dumps(stated))
    (root / images).mkdir(exist_ok=True, parents=True)
    for i in range(count):
        Image.new("RGB", (6, 4)).save(root / images / f"{i}.png")
    return root
