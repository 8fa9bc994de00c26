"""COCO panoptic: segments in PNGs, against decoding by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_formats_maps import assert_fault, assert_whole, sample_of, save_image, save_mask, values_of

from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import coco_panoptic


@pytest.fixture
def coco_layout(tmp_path):
    """The sample of COCO under the names that COCO itself gives."""
    source = sample_of("coco_panoptic/sample_data")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "panoptic_val2017.json").symlink_to(source / "panoptic_examples.json")
    (tmp_path / "annotations" / "panoptic_val2017").symlink_to(source / "panoptic_examples")
    (tmp_path / "val2017").symlink_to(source / "input_images")
    return tmp_path


def test_coco_panoptic(coco_layout):
    source = sample_of("coco_panoptic/sample_data")
    document = json.loads((source / "panoptic_examples.json").read_text())
    order = sorted(category["id"] for category in document["categories"])
    dataset = coco_panoptic.open(coco_layout, "val")
    assert_whole(dataset)
    assert (len(dataset), len(dataset.classes), dataset.unpaired) == (2, 133, [])
    published = {category["name"]: tuple(category["color"]) for category in document["categories"]}
    assert dict(zip(dataset.classes.names, dataset.classes.palette, strict=True)) == published
    for annotation, sample in zip(document["annotations"], (dataset[0], dataset[1]), strict=True):
        rgb = values_of(source / "panoptic_examples" / annotation["file_name"])
        numbers = rgb[:, :, 0] + rgb[:, :, 1] * 256 + rgb[:, :, 2] * 256 * 256
        expected = np.full(numbers.shape, 255)
        for segment in annotation["segments_info"]:
            assert (numbers == segment["id"]).sum() == segment["area"]
            if not segment["iscrowd"]:
                expected[numbers == segment["id"]] = order.index(segment["category_id"])
        np.testing.assert_array_equal(sample.mask, expected)
        assert sample.image.shape == (*expected.shape, 3)

        # The same in COCO's other format, which holds the category's id itself: red, and 0 for no segment.
        ids = values_of(source / "panoptic_examples_2ch_format" / annotation["file_name"])[:, :, 0]
        crowd = [segment["id"] for segment in annotation["segments_info"] if segment["iscrowd"]]
        void = (ids == 0) | np.isin(numbers, crowd)
        np.testing.assert_array_equal(sample.mask, np.where(void, 255, np.searchsorted(order, ids)))


def test_coco_panoptic_sample_where_it_lies_is_too_small_to_split():
    root = sample_of("coco_panoptic/sample_data")
    assert_fault(r"sample_data holds 2 images; a split .* needs at least 3", lambda: coco_panoptic.open(root, "val"))


def test_coco_panoptic_crowds_are_void():
    root = sample_of("datumaro_assets/assets/coco_dataset/coco_panoptic")
    dataset = coco_panoptic.open(root, "val")
    assert_whole(dataset)
    assert dataset.classes.names == ("a", "b")
    assert dataset.classes.palette == ((0, 0, 0), (128, 0, 0))
    np.testing.assert_array_equal(dataset[0].mask, [[0, 0, 255, 255, 255]] * 10)  # segment 7 twice, 20 twice, none
    # The other image of that sample is not as large as its mask.
    assert_fault(r"a.png is 5x5 but its image .*a.jpg is 10x5", lambda: coco_panoptic.open(root, "train")[0])


def write_panoptic(root: Path, document: object, pixels: list | None = None) -> Path:
    """One image `a.jpg` with its PNG, whose segments are those of `described` unless told."""
    save_image(root / "val2017" / "a.jpg")
    save_mask(root / "annotations/panoptic_val2017/a.png", pixels or [[(1, 0, 0), (0, 1, 0), (0, 0, 1)]] * 2)
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(document))
    return root


def described(**changes: object) -> dict:
    """Two categories, three segments; `images__0__id=5` puts 5 in that place, and `...` takes away what is there."""
    segments = [{"id": number, "category_id": 40, "iscrowd": 0} for number in (1, 256, 65536)]
    segments[1]["category_id"] = 7
    document = {
        "categories": [{"id": 40, "name": "tree"}, {"id": 7, "name": "sea  side", "color": [1, 2, 3]}],
        "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "not annotated.jpg"}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        place: Any = document
        for key in path:
            place = place[int(key)] if isinstance(place, list) else place[key]
        if value is ...:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return document


def test_coco_panoptic_order_of_classes_and_of_color_channels(tmp_path):
    write_panoptic(tmp_path, described())
    for name in ("b", "._b"):
        save_mask(tmp_path / f"annotations/panoptic_val2017/{name}.png", [[(0, 0, 0)]])
    dataset = coco_panoptic.open(tmp_path, "val")
    assert_whole(dataset)
    assert len(dataset) == 1
    assert dataset.classes.names == ("sea side", "tree")
    assert dataset.classes.palette == ((1, 2, 3), (128, 0, 0))
    np.testing.assert_array_equal(dataset[0].mask, [[1, 0, 1]] * 2)
    assert [path.name for path in dataset.unpaired] == ["b.png"]

    write_panoptic(tmp_path, described(annotations__0__segments_info__2__iscrowd=1))
    np.testing.assert_array_equal(coco_panoptic.open(tmp_path, "val")[0].mask, [[1, 0, 255]] * 2)
    write_panoptic(tmp_path, described(annotations__0__segments_info=[]), [[(0, 0, 0)] * 3] * 2)
    np.testing.assert_array_equal(coco_panoptic.open(tmp_path, "val2017")[0].mask, [[255] * 3] * 2)


def test_coco_panoptic_segments_that_are_not_described(tmp_path):
    dataset = coco_panoptic.open(write_panoptic(tmp_path, described(), [[(1, 0, 0), (9, 2, 0), (9, 2, 1)]]), "val")
    assert_fault(r"panoptic_val2017/a.png holds the segment id 521, which its segments_info", lambda: dataset[0])


def test_coco_panoptic_files_of_a_split(tmp_path):
    write_panoptic(tmp_path, described())
    annotations = tmp_path / "annotations"
    (annotations / "panoptic_validation.json").write_text("[]")
    assert len(coco_panoptic.open(tmp_path, "val")) == 1
    assert_fault(
        r"annotations/panoptic_test.json is missing; there is panoptic_val2017.json, panoptic_validation.json",
        lambda: coco_panoptic.open(tmp_path, "test"),
    )
    (annotations / "panoptic_val_2.json").write_text("[]")
    assert_fault(
        r"panoptic_val2017.json and panoptic_val_2.json are both of the split 'val'",
        lambda: coco_panoptic.open(tmp_path, "val"),
    )
    assert len(coco_panoptic.open(tmp_path, "val2017")) == 1
    assert_fault(r"/val_2 is missing; it must hold the images", lambda: coco_panoptic.open(tmp_path, "val_2"))
    (tmp_path / "val2017/a.jpg").unlink()
    assert_fault(
        r"val2017/a.jpg is missing, but .*a.png is there or names it",
        lambda: check_files(coco_panoptic.open(tmp_path, "val2017")),
    )
    shutil.rmtree(annotations / "panoptic_val2017")
    assert_fault(
        r"annotations/panoptic_val2017 is missing; it must hold the PNGs that panoptic_val2017.json names",
        lambda: coco_panoptic.open(tmp_path, "val2017"),
    )
    (tmp_path / "val2017").rmdir()
    assert_fault(
        r"/val2017 is missing; it must hold the images that .*panoptic_val2017.json names",
        lambda: coco_panoptic.open(tmp_path, "val2017"),
    )


def test_coco_panoptic_one_set_is_split_by_names(tmp_path):
    document = described()
    document["images"] = [{"id": number, "file_name": f"{number}.jpg"} for number in range(10)]
    document["annotations"] = [
        {"image_id": n, "file_name": f"{n}.png", "segments_info": [{"id": n + 1, "category_id": 40}]} for n in range(10)
    ]
    for number in range(10):
        save_image(tmp_path / f"images/{number}.jpg")
        save_mask(tmp_path / f"some/{number}.png", [[(number + 1, 0, 0)] * 3] * 2)
    (tmp_path / "other.json").write_text("[]")
    assert_fault(
        r"annotations holds no panoptic_SPLIT.json, and .* no JSON file beside a folder of its name; --data.root must",
        lambda: coco_panoptic.open(tmp_path, "val"),
    )
    (tmp_path / "some.json").write_text(json.dumps(document))
    datasets = [coco_panoptic.open(tmp_path, split) for split in ("train", "val", "test")]
    assert [len(dataset) for dataset in datasets] == [8, 1, 1]
    for dataset in datasets:
        assert_whole(dataset)
        assert dataset.unpaired == []
    assert len({example.image for dataset in datasets for example in dataset.examples}) == 10
    (tmp_path / "other").mkdir()
    assert_fault(r"other.json and some.json both have a folder", lambda: coco_panoptic.open(tmp_path, "val"))


SEGMENT = "annotations__0__segments_info__0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": ...}, r"has no categories"),
        ({"categories": {}}, r"categories must be a list, not \{\}"),
        ({"categories": []}, r"categories is empty"),
        ({"categories": [None]}, r"categories\[0\] must be an object with the key id, not None"),
        ({"categories": [{"id": n, "name": str(n)} for n in range(255)]}, r"has 255 categories; .* can hold 254"),
        ({"categories__1__id": 40}, r"categories\[1\] has the id 40 of an earlier one"),
        ({"categories__1__id": [40]}, r"categories\[1\]: id must be a whole number, not \[40\]"),
        ({"categories__1__name": ...}, r"category 7 has no name"),
        ({"categories__1__name": "\n"}, r"category 7: name '' must be a text of one line"),
        ({"categories__1__name": "a\x00"}, r"category 7: name 'a.x00' must be"),
        ({"categories__1__name": "tree"}, r"category 40: name 'tree' is that of another category"),
        ({"categories__1__color": [1, 2]}, r"category 7: color must be three whole numbers from 0 to 255"),
        ({"categories__1__color": [1, 2, 256]}, r"category 7: color must be three"),
        ({"categories__1__color": [1, 2, "3"]}, r"category 7: color must be three"),
        ({"categories__1__color": "red"}, r"category 7: color must be a list, not 'red'"),
        ({"images": ...}, r"has no images"),
        ({"images": "a.jpg" * 1000}, r"images must be a list, not .{1,50}$"),
        ({"images__1__id": 5}, r"images\[1\] has the id 5 of an earlier one"),
        ({"images__0__id": "5"}, r"images\[0\]: id must be a whole number, not '5'"),
        ({"images__0__id": True}, r"images\[0\]: id must be a whole number, not True"),
        ({"images__0__file_name": ...}, r"image 5 has no file_name"),
        ({"images__0__file_name": 7}, r"image 5: file_name must be a text, not 7"),
        ({"annotations": ...}, r"has no annotations"),
        ({"annotations": []}, r"annotations is empty"),
        ({"annotations__0": "a.png"}, r"annotations\[0\] must be an object with the key image_id"),
        ({"annotations__0__image_id": ...}, r"annotations\[0\] has no image_id"),
        ({"annotations__0__image_id": 9}, r"annotations\[0\]: image_id 9 is not the id of one of its images"),
        ({"annotations__0__file_name": None}, r"annotations\[0\]: file_name must be a text, not None"),
        ({"annotations__0__segments_info": ...}, r"annotations\[0\] has no segments_info"),
        ({"annotations__0__segments_info": None}, r"annotations\[0\]: segments_info must be a list, not None"),
        ({SEGMENT: [1, 2]}, r"annotations\[0\]: segments_info\[0\] must be an object with the key id"),
        ({f"{SEGMENT}__id": ...}, r"segments_info\[0\] has no id"),
        ({f"{SEGMENT}__id": 256}, r"segments_info\[1\] has the id 256 of an earlier one"),
        ({f"{SEGMENT}__id": 1.0}, r"segments_info\[0\]: id must be a whole number, not 1.0"),
        ({f"{SEGMENT}__id": 0}, r"segment 0: id must be 1 to 16777215"),
        ({f"{SEGMENT}__id": -1}, r"segment -1: id must be 1 to 16777215"),
        ({f"{SEGMENT}__id": 2**40}, r"segment 1099511627776: id must be 1 to 16777215"),
        ({f"{SEGMENT}__category_id": ...}, r"annotations\[0\]: segment 1 has no category_id"),
        ({f"{SEGMENT}__category_id": {}}, r"segment 1: category_id must be a whole number"),
        ({f"{SEGMENT}__category_id": 8}, r"segment 1: category_id 8 is not the id of one of the categories"),
        ({f"{SEGMENT}__iscrowd": 2}, r"segment 1: iscrowd must be 0 or 1, not 2"),
        ({f"{SEGMENT}__iscrowd": [1]}, r"segment 1: iscrowd must be 0 or 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_coco_panoptic_odd_json(tmp_path, changes, message):
    write_panoptic(tmp_path, described(**changes))
    assert_fault(r"panoptic_val2017\.json.*" + message, lambda: coco_panoptic.open(tmp_path, "val"))


@pytest.mark.parametrize("text", ["[]", "3", "", "{", "[" * 100_000, "\x00"])
def test_coco_panoptic_what_is_no_such_json(tmp_path, text):
    write_panoptic(tmp_path, {})
    (tmp_path / "annotations/panoptic_val2017.json").write_text(text)
    assert_fault(r"panoptic_val2017\.json", lambda: coco_panoptic.open(tmp_path, "val"))


@pytest.mark.parametrize("key", ["images__0__file_name", "annotations__0__file_name"])
@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "sub/../../a.png",
        "/etc/passwd",
        "C:/a.png",
        r"..\a.png",
        r"\\host\a.png",
        "",
        ".",
        "a\n.png",
        "a\0",
        "\ud800.png",
        "a" * 252 + ".png",
    ],
    ids=ascii,
)
def test_coco_panoptic_names_stay_in_their_folder(tmp_path, key, name):
    write_panoptic(tmp_path, described(**{key: name}))
    assert_fault(
        r"panoptic_val2017\.json: .*: file_name .* must name a file inside the folder .*, without '\.\.'",
        lambda: coco_panoptic.open(tmp_path, "val"),
    )
