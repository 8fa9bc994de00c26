"""COCO's annotations with something wrong in them."""

import json
import re

import pytest

from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import coco
from deeplab_jax.errors import InputError
from helpers.annotation_files import put, spoiled
from helpers.coco_files import document, write

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def segmentation(value):
    return put("annotations", 0, "segmentation", value)


def codes(counts, size=(4, 6)):
    return segmentation({"size": list(size), "counts": counts})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("images", []), r"val.json: images is empty"),
        (put("categories", []), r"val.json: categories is empty"),
        (put("annotations", []), r"val.json: annotations is empty; boxes are not enough"),
        (put("categories", 0, "name", "dog"), r"val.json names 'dog' twice"),
        (put("categories", 0, "name", "a\nb"), r"val.json names a class 'a\\nb'; a name must be one line"),
        (put("categories", 0, "id", 3), r"categories\[1\] has the id 3 of an earlier one"),
        (put("categories", [{"id": i, "name": f"{i}"} for i in range(255)]), r"names 256 classes; masks of 8 bits"),
        (put("images", [{}]), r"images\[0\] has no id"),
        (put("images", 0, "width", 5), r"val.json says that 0.png is 5x4, but .*/val/0.png is 6x4"),
        (put("images", 0, "width", 0), r"images\[0\]: height or width is no size"),
        (put("images", 0, "width", "6"), r"images\[0\]: width must be a whole number, not '6'"),
        (put("images", 0, "file_name", "../0.png"), r"file_name '../0.png' must name a file inside the folder"),
        (put("images", 0, "file_name", "/etc/0.png"), r"file_name '/etc/0.png' must name a file inside"),
        (put("images", 0, "file_name", "C:\\0.png"), r"must name a file inside"),
        (put("images", 0, "file_name", "a\\..\\..\\0.png"), r"must name a file inside"),
        (put("images", 0, "file_name", "x" * 300), r"must name a file inside .* usual length"),
        (put("images", document(2)["images"] + document()["images"]), r"images\[2\] has the id 0 of an earlier one"),
        (put("images", [{**document()["images"][0], "id": i} for i in (0, 1)]), r"images names a file twice"),
        (put("annotations", 0, "image_id", 9), r"annotations\[0\]: image_id 9 is not the id of one of its images"),
        (put("annotations", 0, "category_id", 9), r"annotations\[0\] of 0.png: category_id 9 is not the id"),
        (put("annotations", 0, "iscrowd", "no"), r"annotations\[0\] of 0.png: iscrowd must be 0 or 1, not 'no'"),
        (segmentation("a"), r"annotations\[0\] of 0.png: segmentation must be polygons or an RLE"),
        (segmentation([1, 2, 3, 4, 5, 6]), r"segmentation\[0\] must be a list of numbers, not 1"),
        (segmentation([[1, 2, 3, 4, 5, 6, 7]]), r"segmentation\[0\] must be an even count of numbers"),
        (segmentation([[[1, 2], [3, 4], [5, 6]]]), r"segmentation\[0\] must be an even count of numbers"),
        (segmentation([[1, 2, 3, 4, 5, "x"]]), r"segmentation\[0\] must be numbers in lists"),
        (segmentation([[1, 2, 3, 4, 5, 10**400]]), r"segmentation\[0\] must be numbers in lists"),
        (segmentation([[1, 2, 3, 4, 5, float("nan")]]), r"segmentation\[0\] has a coordinate that is no number"),
        (segmentation([[1, 2, 3, 4, 5, float("-inf")]]), r"segmentation\[0\] has a coordinate that is no number"),
        (segmentation([[1e300] * 6]), r"segmentation\[0\] has a coordinate that is no number, or more than 1000000"),
        (segmentation([[0, 0, 9e5, 9e5] * 3]), r"segmentation\[0\] has an outline of 5400000 pixels"),
        (codes("04", (6, 4)), r"segmentation: size \[6, 4\] must be \[4, 6\], that of the image"),
        (codes([10, 15]), r"counts must be whole numbers from 0 that add up to 24"),
        (codes([30, -6]), r"counts must be whole numbers from 0 that add up to 24"),
        (codes([2**63 - 1, 2**63 - 1, 26]), r"counts must be whole numbers from 0 that add up to 24"),
        (codes([0.5, 23.5]), r"counts must be whole numbers from 0 that add up to 24"),
        (codes([float("inf")]), r"counts must be whole numbers from 0 that add up to 24"),
        (codes([]), r"counts must be whole numbers from 0 that add up to 24"),
        (codes([[24]]), r"counts must be whole numbers from 0 that add up to 24"),
        (codes(24), r"counts must be a list, not 24"),
        (codes("0"), r"counts must be whole numbers from 0 that add up to 24"),
        (codes("N"), r"counts must be whole numbers from 0 that add up to 24"),
        (codes("oooooooooooo0"), r"counts holds a number of more than 32 bits"),
        (codes("ooo"), r"counts is no compressed RLE"),
        (codes(""), r"counts is no compressed RLE"),
        (codes("8p"), r"counts is no compressed RLE"),
        (codes("é"), r"counts is no compressed RLE"),
        (codes("0\x00"), r"counts is no compressed RLE"),
    ],
)
def test_faults_are_named_in_one_line(tmp_path, change, message):
    stated = document()
    change(stated)
    write(tmp_path, stated)
    with pytest.raises(InputError) as error:
        coco.open(tmp_path, "val")[0]
    assert re.search(message, str(error.value))
    assert "annotations/instances_val.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("categories", 0, "name", "cow"), r"category 7 is 'cat' in .*_val.json, but 'cow' in .*_train.json"),
        (put("categories", 0, "id", 8), r"category 7 is 'cat' in .*_val.json, but missing in .*_train.json; give all"),
        (put("categories", None), r"_train.json: categories must be a list, not None"),
    ],
)
def test_splits_have_the_same_categories(tmp_path, change, message):
    other = document()
    change(other)
    write(write(tmp_path, document()), other, "annotations/instances_train.json")
    with pytest.raises(InputError, match=message):
        coco.open(tmp_path, "val")


@pytest.mark.slow
def test_whatever_stands_in_the_file(tmp_path):
    """Anything in place of anything is read or refused, and nothing else."""
    stated = document()
    stated["annotations"][1] |= {"segmentation": {"size": [4, 6], "counts": [0, 16, 8]}, "iscrowd": 1}
    write(tmp_path, stated)
    messages = []
    for other in spoiled(stated):
        (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(other))
        try:
            dataset = coco.open(tmp_path, "val")
            check_files(dataset)
            assert dataset[0].mask.shape == (4, 6)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 500
    assert "\n" not in "".join(messages).encode().decode()
