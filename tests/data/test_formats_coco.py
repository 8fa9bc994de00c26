"""COCO's instance annotations, against COCO's own tools."""

import shutil
import sys

import numpy as np
import pytest

from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import coco
from deeplab_jax.data.instances import Polygons, decode_counts, read_segmentation
from deeplab_jax.errors import InputError
from helpers.annotation_files import sample
from helpers.coco_files import MASK, document, write

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

tools = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed: pip install 'deeplab_jax[coco]'")
COCO = pytest.importorskip("pycocotools.coco").COCO


FACADE = (
    "balcony-fence car facade fence non-building-infrastructure shop street traffic-infrastructure vegetation window"
)


def drawn_by_coco(path, name: str, names: tuple[str, ...]) -> np.ndarray:
    """Class ids from COCO's own reader. The file's `area` is no guide: Roboflow writes that of the box."""
    reader = COCO(path)
    (image,) = [image for image in reader.imgs.values() if image["file_name"] == name]
    annotations = reader.loadAnns(reader.getAnnIds(imgIds=[image["id"]]))
    ids = np.zeros((image["height"], image["width"]), np.uint8)
    masks = [reader.annToMask(annotation) == 1 for annotation in annotations]
    order = sorted(range(len(masks)), key=lambda i: (not annotations[i]["iscrowd"], -masks[i].sum()))
    for annotation, mask in ((annotations[i], masks[i]) for i in order):
        (category,) = reader.loadCats([annotation["category_id"]])
        label = IGNORE if annotation["iscrowd"] else names.index(category["name"])
        ids[mask] = label
    return ids


@pytest.mark.parametrize(
    ("split", "folder", "count"), [("train", "train", 15), ("val", "valid", 9), ("test", "test", 7)]
)
def test_roboflow_export(split, folder, count):
    root = sample("roboflow_facade_sample")
    dataset = coco.open(root, split)
    check_files(dataset)
    assert dataset.classes.names == ("background", *FACADE.split())
    assert len(dataset) == count
    for i in range(count):
        image = dataset[i]
        path = root / folder / "_annotations.coco.json"
        np.testing.assert_array_equal(image.mask, drawn_by_coco(path, image.name, dataset.classes.names))


def test_one_file_for_all_splits():
    root = sample("coco_tony607_nuts")
    splits = {split: coco.open(root, split) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 16, "val": 1, "test": 1}
    assert len({example.image for dataset in splits.values() for example in dataset.examples}) == 18
    for dataset in splits.values():
        check_files(dataset)
        assert dataset.classes.names == ("background", "date", "fig", "hazelnut")
        for i in range(len(dataset)):
            expected = drawn_by_coco(root / "trainval.json", dataset[i].name, dataset.classes.names)
            np.testing.assert_array_equal(dataset[i].mask, expected)


def test_crowds_and_compressed_codes_of_coco(tmp_path):
    """The panoptic sample as instances: 47 things and stuff, 3 crowds, 133 categories."""
    source = sample("coco_panoptic", "sample_data")
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    shutil.copy(source / "panoptic_coco_detection_format.json", path)
    shutil.copytree(source / "input_images", tmp_path / "val2017")
    dataset = coco.open(tmp_path, "val")
    check_files(dataset)
    assert len(dataset.classes) == 134
    for i in range(2):
        expected = drawn_by_coco(path, dataset[i].name, dataset.classes.names)
        assert (expected == IGNORE).any()
        np.testing.assert_array_equal(dataset[i].mask, expected)


def test_uncompressed_codes_and_boxes():
    root = sample("datumaro_assets", "assets", "coco_dataset", "coco_instances")
    dataset = coco.open(root, "val")
    expected = np.zeros((10, 5), np.uint8)
    expected[:, :2] = IGNORE  # a crowd of the first 20 pixels, counted down the columns
    expected[:2, 0] = 1
    assert dataset.classes.names == ("background", "a", "b", "c")
    np.testing.assert_array_equal(dataset[0].mask, expected)
    with pytest.raises(InputError, match=r"instances_train.json: no annotation has a segmentation; boxes are not"):
        coco.open(root, "train")
    with pytest.raises(InputError, match=r"instances_test.json is missing; there is instances_train.json, instances_"):
        coco.open(root, "test")


def test_boxes_of_a_roboflow_export():
    root = sample("datumaro_assets", "assets", "roboflow_dataset", "coco")
    for split in ("train", "val"):
        with pytest.raises(InputError, match=rf"{split}/_annotations.coco.json: no annotation has a segmentation"):
            coco.open(root, split)
    with pytest.raises(InputError, match=r"test/_annotations.coco.json is missing; .* has the splits train, val"):
        coco.open(root, "test")


def test_smaller_ones_lie_on_top_and_crowds_below(tmp_path):
    stated = document()
    stated["annotations"] += [
        # A crowd over rows 0 and 1, though it is the smallest; a second part of the cat; a box, a line: nothing.
        {"image_id": 0, "category_id": 3, "segmentation": {"size": [4, 6], "counts": [0, 1] + [3, 1] * 5 + [3]}},
        {"image_id": 0, "category_id": 3, "segmentation": [], "bbox": [0, 0, 6, 4]},
        {"image_id": 0, "category_id": 3, "segmentation": [[0, 0, 6, 4], []]},
        {"image_id": 0, "category_id": 3},
    ]
    stated["annotations"][2]["iscrowd"] = 1
    stated["annotations"][1]["segmentation"].append([5, 3, 6, 3, 6, 4, 5, 4])
    expected = MASK.copy()
    expected[0, 4:] = IGNORE
    expected[3, 5] = 2
    dataset = coco.open(write(tmp_path, stated), "val")
    np.testing.assert_array_equal(dataset[0].mask, expected)
    assert dataset.notes == ["3 annotations have no outline and stay background, such as 0.png"]


NONE = "annotations have no outline and stay background"
SHARES = "outlines lie between 0 and 1, which is read as pixels and not as shares of the image"
NOTHING = "outlines are flat or lie outside of their image"


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ([], NONE),
        ([[1, 2, 3, 4]], NONE),
        ([[0, 0, 0.6, 0, 0.6, 1, 0, 1]], SHARES),
        ([[2, 1, 2, 1, 2, 1]], NOTHING),
        ([[1, 2, 5, 2, 3, 2]], NOTHING),
        ([[6, 1, 9, 1, 9, 3]], NOTHING),
        ([[1, -1, 5, -1, 5, -2]], NOTHING),
        ({"size": [4, 6], "counts": [24]}, NOTHING),
        ([[6, 1, 9, 1, 9, 3], [5, 1, 7, 1, 7, 5]], None),
        ([[-3, -3, 0.5, -3, 0.5, 0.5]], None),
    ],
)
def test_outlines_that_look_wrong_are_noted(tmp_path, value, note):
    stated = document(2)
    stated["annotations"][2]["segmentation"] = stated["annotations"][3]["segmentation"] = value
    assert coco.open(write(tmp_path, stated, count=2), "val").notes == ([f"2 {note}, such as 1.png"] if note else [])
    stated["annotations"][2]["iscrowd"] = stated["annotations"][3]["iscrowd"] = 1
    assert coco.open(write(tmp_path, stated), "val").notes == []


def test_outlines_are_filled_as_coco_fills_them():
    rng = np.random.default_rng(0)
    size = (40, 60)
    for i in range(300):
        center, spread = rng.uniform(-20, 80, 2), rng.choice([1.0, 5.0, 40.0])
        corners = (center + rng.normal(0, spread, (rng.integers(3, 9), 2))).ravel()
        corners = np.round(corners, int(rng.integers(0, 4)))  # tenths are on the border of what is rounded
        shape = read_segmentation([corners.tolist()], size, "here")
        assert isinstance(shape, Polygons)
        ids = np.zeros(size, np.uint8)
        for place, inside in shape.pieces(size):
            ids[place] = inside
        expected = tools.decode(tools.frPyObjects([corners.tolist()], *size))[..., 0]
        np.testing.assert_array_equal(ids, expected, err_msg=str(i))


def test_codes_are_read_as_coco_reads_them():
    rng = np.random.default_rng(0)
    for size in [(1, 1), (7, 5), (300, 400), (2000, 1500)]:
        for share in (0, 0.001, 0.5, 1):
            mask = np.asfortranarray(rng.random(size) < share).astype(np.uint8, order="F")
            text = tools.encode(mask)["counts"].decode()
            counts = decode_counts(text, "here").tolist()
            for form in (text, counts):
                shape = read_segmentation({"size": list(size), "counts": form}, size, "here")
                assert shape is not None
                ((place, inside),) = shape.pieces(size)
                np.testing.assert_array_equal(inside[place], mask)
                assert shape.area == mask.sum()


def test_a_category_that_only_groups_others_is_no_class(tmp_path):
    """All splits have the same classes, though one alone may not tell."""
    stated = document()
    stated["categories"].append({"id": 0, "name": "animal", "supercategory": "none"})
    for folder in ("train", "valid"):
        write(tmp_path, stated, f"{folder}/_annotations.coco.json", folder)
    assert coco.open(tmp_path, "val").classes.names == ("background", "dog", "cat")
    np.testing.assert_array_equal(coco.open(tmp_path, "val")[0].mask, MASK)

    stated["annotations"][0]["category_id"] = 0
    write(tmp_path, stated, "train/_annotations.coco.json", "train")
    for split in ("train", "val"):
        assert coco.open(tmp_path, split).classes.names == ("background", "animal", "dog", "cat")
    np.testing.assert_array_equal(coco.open(tmp_path, "train")[0].mask, MASK + (MASK == 2))


def test_a_category_called_background(tmp_path):
    stated = document()
    stated["categories"][1]["name"] = "BackGround"
    dataset = coco.open(write(tmp_path, stated), "val")
    assert dataset.classes.names == ("background", "cat")
    np.testing.assert_array_equal(dataset[0].mask, np.where(MASK == 2, 1, 0))


def test_without_pycocotools(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    write(tmp_path, stated := document())
    with pytest.raises(InputError, match=r"need one more package: pip install 'deeplab_jax\[coco\]'"):
        coco.open(tmp_path, "val")
    for annotation in stated["annotations"]:
        annotation["segmentation"] = {"size": [4, 6], "counts": [8, 16]}
    stated["annotations"].append({**stated["annotations"][0], "segmentation": []})
    write(tmp_path, stated)
    assert (coco.open(tmp_path, "val")[0].mask[:, 2:] > 0).all()
