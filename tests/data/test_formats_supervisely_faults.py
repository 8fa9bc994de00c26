"""Supervisely's annotations with something wrong in them."""

import base64
import io
import json
import re
import zlib

import pytest
from PIL import Image

from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import supervisely
from deeplab_jax.errors import InputError
from helpers.annotation_files import put, spoiled
from helpers.supervisely_files import HOLE, META, POLYGON, RECTANGLE, SIZE, annotation, bitmap, mask_of, write


def data(value):
    """A bitmap with other data: bytes that are a PNG, or text as it is."""
    text = base64.b64encode(zlib.compress(value)).decode() if isinstance(value, bytes) else value
    return put("objects", 0, "bitmap", "data", text)


def png(*size: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", size, 1).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("size", {"height": 9, "width": 11}), r"says that 0.png is 11x9, but .*img/0.png is 12x9"),
        (put("size", {"height": 9}), r"size has no width"),
        (put("size", []), r"size must be an object, not \[\]"),
        (put("objects", {}), r"objects must be a list, not \{\}"),
        (put("objects", 0, []), r"objects\[0\] must be an object with the key classTitle, not \[\]"),
        (put("objects", 0, "classTitle", "cow"), r"objects\[0\]: classTitle 'cow' is no class of meta.json; add it"),
        (put("objects", 0, "geometryType", 5), r"objects\[0\]: geometryType must be a text, not 5"),
        (
            put("objects", 1, "geometryType", "polygn"),
            r"objects\[1\]: figures of the type 'polygn' cannot be read",
        ),
        (
            put("objects", 1, "geometryType", "any"),
            r"objects\[1\]: figures of the type 'any' cannot be read; draw",
        ),
        (put("objects", 0, "bitmap", None), r"objects\[0\]: bitmap must be an object, not None"),
        (put("objects", 0, "bitmap", "origin", [1]), r"objects\[0\]: bitmap: origin must be x and y in pixels"),
        (put("objects", 0, "bitmap", "origin", [1, 1e300]), r"bitmap: origin must be x and y in pixels"),
        (put("objects", 0, "bitmap", "origin", [1, float("nan")]), r"bitmap: origin must be x and y in pixels"),
        (put("objects", 0, "bitmap", "origin", ["a", 0]), r"bitmap: origin must be numbers in lists"),
        (data("no base64"), r"objects\[0\]: bitmap: data is not the base64 of a zlib stream"),
        (data("é"), r"objects\[0\]: bitmap: data is not the base64 of a zlib stream"),
        (data("aGVsbG8="), r"objects\[0\]: bitmap: data is not the base64 of a zlib stream"),
        (data(""), r"objects\[0\]: bitmap: data is cut short, or larger than a bitmap of 12x9 can be"),
        (data(bytes(10**8)), r"objects\[0\]: bitmap: data is cut short, or larger than a bitmap of 12x9 can be"),
        (data(b"no image"), r"objects\[0\]: bitmap: data holds no readable PNG"),
        (data(png(3, 3)[:-30]), r"objects\[0\]: bitmap: data holds no readable PNG"),
        (data(png(13, 3)), r"objects\[0\]: bitmap is 13x3, but its image 12x9"),
        (put("objects", 1, "points", {"exterior": [1, 2, 3]}), r"polygon: exterior must be a list of x and y"),
        (put("objects", 1, "points", {"exterior": [[1, 2], [3]]}), r"polygon: exterior must be numbers in lists"),
        (put("objects", 1, "points", {"exterior": "a"}), r"polygon: exterior must be a list, not 'a'"),
        (put("objects", 1, "points", {}), r"objects\[1\]: polygon has no exterior"),
        (put("objects", 1, "points", "interior", [1]), r"objects\[1\]: polygon: interior must be lists"),
        (put("objects", 1, "points", "interior", None), r"objects\[1\]: polygon: interior must be lists"),
        (put("objects", 1, "points", "interior", [[[0, float("inf")]]]), r"interior has a coordinate that is no numb"),
        (put("objects", 1, "points", "exterior", [[0, 0], [9e5, 9e5]] * 9), r"exterior has an outline of 16200000 pi"),
        (put("objects", 2, "points", "exterior", [[1, 2]]), r"rectangle must have two corners, not 1"),
        (put("objects", 2, "points", "exterior", []), r"rectangle must have two corners, not 0"),
    ],
)
def test_faults_are_named_in_one_line(tmp_path, change, message):
    stated = annotation(bitmap(Image.new("L", (2, 2), 1), (1, 1)), POLYGON, RECTANGLE)
    stated = json.loads(json.dumps(stated))
    change(stated)
    with pytest.raises(InputError) as error:
        supervisely.open(write(tmp_path, stated), "train")[0]
    assert re.search(message, str(error.value))
    assert "train/ann/0.png.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("classes", {}), r"meta.json: classes must be a list, not \{\}"),
        (put("classes", []), r"meta.json: classes names no class besides background"),
        (put("classes", 0, "color", "red"), r"meta.json: classes\[0\]: color 'red' must be #RRGGBB"),
        (put("classes", 0, "title", "dog"), r"meta.json: classes\[2\] has the title 'dog' of an earlier one"),
        (put("classes", 0, "title", "a\nb"), r"meta.json names a class 'a\\nb'; a name must be one line"),
        (put("classes", 0, {"title": "cat"}), r"meta.json: classes\[0\] has no color"),
        (
            put("classes", [{"title": f"{i}", "shape": "any", "color": "#000000"} for i in range(255)]),
            r"meta.json names 256 classes; masks of 8 bits can hold 254",
        ),
    ],
)
def test_faults_of_the_classes(tmp_path, change, message):
    meta = json.loads(json.dumps(META))
    change(meta)
    with pytest.raises(InputError, match=message):
        mask_of(tmp_path, meta=meta)


@pytest.mark.slow
def test_whatever_stands_in_the_files(tmp_path):
    """Anything in place of anything is read or refused, and nothing else."""
    figures = [bitmap(Image.new("L", (2, 2), 1), (1, 1)), POLYGON, RECTANGLE]
    stated = annotation(*figures, tags=[{"name": "a"}])
    stated["objects"][1]["points"]["interior"] = [HOLE]
    write(tmp_path, stated, folder="ds1")
    messages = []
    for path, original in ((tmp_path / "ds1/ann/0.png.json", stated), (tmp_path / "meta.json", META)):
        for other in spoiled(original):
            path.write_text(json.dumps(other))
            try:
                dataset = supervisely.open(tmp_path, "a")
                check_files(dataset)
                assert dataset[0].mask.shape == SIZE
            except InputError as error:
                messages.append(str(error))
        path.write_text(json.dumps(original))
    assert len(messages) > 500
    assert "\n" not in "".join(messages).encode().decode()
