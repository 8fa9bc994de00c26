"""Tiny projects of Supervisely."""

import base64
import copy
import io
import json
import zlib
from typing import Any

import numpy as np
from PIL import Image

from deeplab_jax.data.formats import supervisely

META = {
    "classes": [
        {"title": "cat", "shape": "polygon", "color": "#ff0000"},
        {"title": "Neutral", "shape": "any", "color": "#00FF00"},
        {"title": "dog", "shape": "bitmap", "color": "#0000ff"},
    ]
}
SIZE = (9, 12)
RECTANGLE = {"classTitle": "dog", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [3, 5]]}}
POLYGON = {"classTitle": "cat", "points": {"exterior": [[0, 0], [11, 0], [11, 8], [0, 8]], "interior": []}}
HOLE = [[3, 3], [8, 3], [8, 6], [3, 6]]


def annotation(*objects, **other) -> dict:
    """Of copies, which may be spoiled."""
    return {"size": {"height": SIZE[0], "width": SIZE[1]}, "objects": copy.deepcopy([*objects]), **other}


def write(root, *stated: Any, meta: Any = META, folder: str = "train"):
    """A data set with an image for every annotation."""
    for name in ("img", "ann"):
        (root / folder / name).mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text(json.dumps(meta))
    for i, document in enumerate(stated):
        Image.new("RGB", SIZE[::-1]).save(root / folder / "img" / f"{i}.png")
        (root / folder / "ann" / f"{i}.png.json").write_text(json.dumps(document))
    return root


def mask_of(root, *objects, meta: Any = META) -> np.ndarray:
    return supervisely.open(write(root, annotation(*objects), meta=meta), "train")[0].mask


def bitmap(image: Image.Image, origin, title="dog") -> dict:
    file = io.BytesIO()
    image.save(file, "PNG")
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {"classTitle": title, "geometryType": "bitmap", "bitmap": {"data": data, "origin": list(origin)}}
