"""Supervisely projects, against Pillow, decoding by hand, and the masks of PASCAL VOC."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import supervisely
from deeplab_jax.errors import InputError
from helpers.annotation_files import sample
from helpers.fixtures import SHARED
from helpers.supervisely_files import HOLE, META, POLYGON, RECTANGLE, SIZE, annotation, bitmap, mask_of, write


def figures_of(path) -> list[dict]:
    return json.loads(path.read_text())["objects"]


def by_hand(figures: list[dict], labels: dict[str, int], size: tuple[int, int]) -> np.ndarray:
    """Class ids of bitmaps that lie inside the image."""
    ids = np.zeros(size, np.uint8)
    for figure in figures:
        png = zlib.decompress(base64.b64decode(figure["bitmap"]["data"]))
        alpha = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))[..., 3]
        left, top = figure["bitmap"]["origin"]
        for row, column in np.argwhere(alpha):
            ids[top + row, left + column] = labels[figure["classTitle"]]
    return ids


def test_bitmaps():
    root = sample("supervisely_lemons")
    splits = [supervisely.open(root, split) for split in ("train", "val", "test")]
    assert [len(dataset) for dataset in splits] == [4, 1, 1]
    assert len({example.image for dataset in splits for example in dataset.examples}) == 6
    for dataset in splits:
        check_files(dataset)
        assert dataset.classes.names == ("background", "kiwi", "lemon")
        assert dataset.classes.palette == ((0, 0, 0), (255, 0, 0), (0x51, 0xC6, 0xAA))
        for i in range(len(dataset)):
            image = dataset[i]
            figures = figures_of(root / "ds1" / "ann" / f"{image.name}.json")
            expected = by_hand(figures, {"kiwi": 1, "lemon": 2}, image.image.shape[:2])
            np.testing.assert_array_equal(image.mask, expected)


def test_polygons(tmp_path):
    """Pillow fills other pixels along the outline, so those next to it are left out: less than one of a hundred."""
    root = sample("supervisely_roads_polygon")
    (tmp_path / "train").symlink_to(root / "ds1")
    (tmp_path / "meta.json").symlink_to(root / "meta.json")
    dataset = supervisely.open(tmp_path, "train")
    check_files(dataset)
    assert (dataset.classes.names, len(dataset)) == (("background", "road"), 2)
    for i in range(2):
        image = dataset[i]
        expected = Image.new("L", image.image.shape[1::-1])
        outlines = Image.new("L", expected.size)
        for figure in figures_of(root / "ds1" / "ann" / f"{image.name}.json"):
            corners = [tuple(corner) for corner in figure["points"]["exterior"]]
            ImageDraw.Draw(expected).polygon(corners, fill=1)
            ImageDraw.Draw(outlines).line([*corners, corners[0]], fill=1, width=3)
        away = np.asarray(outlines) == 0
        assert away.mean() > 0.99
        assert 0.1 < np.asarray(expected).mean() < 0.9
        np.testing.assert_array_equal(image.mask[away], np.asarray(expected)[away])
    with pytest.raises(InputError, match=r"holds 2 images; a split into train, val and test needs at least 3"):
        supervisely.open(root, "train")


@pytest.mark.parametrize(("split", "count"), [("train", 16), ("val", 8)])
def test_pascal_voc_as_a_project(split, count):
    root = sample("supervisely_pascal_mini")
    dataset = supervisely.open(root, split)
    check_files(dataset)
    classes = dataset.classes
    assert (len(dataset), len(classes), dataset.unpaired) == (count, 21, [])
    assert (classes.names[0], classes.names[15], classes.palette[15]) == ("background", "person", (192, 128, 128))
    labels = {**{name: id for id, name in enumerate(classes.names)}, "neutral": IGNORE}
    masks = SHARED / "data" / "voc2012_sample" / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    for i in range(count):
        image = dataset[i]
        figures = figures_of(root / split / "ann" / f"{image.name}.json")
        np.testing.assert_array_equal(image.mask, by_hand(figures, labels, image.mask.shape))
        if (path := masks / f"{image.name[:-4]}.png").is_file():
            with Image.open(path) as mask:
                np.testing.assert_array_equal(image.mask, np.asarray(mask))


def test_figures(tmp_path):
    """Both corners of a rectangle belong to it, in any order; later figures lie on top; neutral is void."""
    expected = np.zeros(SIZE, np.uint8)
    expected[2:6, 1:4] = 2
    np.testing.assert_array_equal(mask_of(tmp_path, RECTANGLE), expected)
    turned = {**RECTANGLE, "points": {"exterior": [[3.4, 2.2], [0.6, 5]]}}
    np.testing.assert_array_equal(mask_of(tmp_path, turned), expected)
    expected[expected == 0] = 1
    np.testing.assert_array_equal(mask_of(tmp_path, POLYGON, RECTANGLE), expected)
    np.testing.assert_array_equal(mask_of(tmp_path, RECTANGLE, POLYGON), np.ones(SIZE))
    expected[expected == 2] = IGNORE
    np.testing.assert_array_equal(mask_of(tmp_path, POLYGON, {**RECTANGLE, "classTitle": "Neutral"}), expected)


def test_holes_show_what_lies_under(tmp_path):
    holed = {**POLYGON, "points": {**POLYGON["points"], "interior": [HOLE, [[0, 0], [1, 1]]]}}
    expected = np.ones(SIZE, np.uint8)
    expected[3:7, 3:9] = 0
    np.testing.assert_array_equal(mask_of(tmp_path, holed), expected)
    expected[3:6, 3] = 2
    np.testing.assert_array_equal(mask_of(tmp_path, RECTANGLE, holed), expected)


def test_what_lies_outside_is_cut_off(tmp_path):
    expected = np.zeros(SIZE, np.uint8)
    expected[5:, 7:] = 1
    outside = {**POLYGON, "points": {"exterior": [[7, 5], [40, 5], [40, 30], [7, 30]], "interior": []}}
    np.testing.assert_array_equal(mask_of(tmp_path, outside), expected)
    for figure in (RECTANGLE, POLYGON):
        for left, top in [(20, 2), (2, 20), (-20, 2), (2, -20)]:
            far = np.add(figure["points"]["exterior"], (left, top)).tolist()
            assert not mask_of(tmp_path, {**figure, "points": {"exterior": far}}).any()
    square = Image.new("L", (4, 3), 1)
    for left, top in [(-2, -1), (10, 7), (10, -2), (-3, 8), (12, 2), (-4, 2), (2, 9), (2, -3), (900, -900)]:
        expected = np.zeros((40, 40), np.uint8)
        if left < 100:
            expected[top + 10 : top + 13, left + 10 : left + 14] = 2
        drawn = mask_of(tmp_path, bitmap(square, (left, top)))
        np.testing.assert_array_equal(drawn, expected[10 : 10 + SIZE[0], 10 : 10 + SIZE[1]])


def test_pngs_of_all_kinds(tmp_path):
    covered = np.array([[1, 0, 1], [0, 1, 1]], bool)
    gray = Image.fromarray(covered.astype(np.uint8) * 255)
    alpha = Image.new("RGBA", (3, 2), (9, 9, 9, 255))
    alpha.putalpha(gray)
    indices = Image.fromarray(covered.astype(np.uint8), "P")
    indices.putpalette([7, 7, 7, 9, 9, 9])
    for image in (gray, gray.convert("1"), gray.convert("RGB"), alpha, alpha.convert("LA"), indices):
        for shape in ("bitmap", "alpha_mask"):
            mask = mask_of(tmp_path, {**bitmap(image, (4, 3)), "geometryType": shape})
            np.testing.assert_array_equal(mask[3:5, 4:7], covered * 2, err_msg=image.mode)
            assert mask.sum() == 8
    inverse = gray.point(lambda value: 255 - value)
    inverse.info["transparency"] = 255
    np.testing.assert_array_equal(mask_of(tmp_path, bitmap(inverse, (4, 3)))[3:5, 4:7], covered * 2)
    packed = bitmap(alpha, (4, 3))
    packed["bitmap"]["data"] = base64.b64encode(zlib.decompress(base64.b64decode(packed["bitmap"]["data"]))).decode()
    np.testing.assert_array_equal(mask_of(tmp_path, packed)[3:5, 4:7], covered * 2)


def test_figures_that_cover_nothing(tmp_path):
    points = {"exterior": [[0, 0], [9, 8]], "interior": []}
    others = [{"classTitle": "cat", "geometryType": kind, "points": points} for kind in ("line", "point", "polyline")]
    others += [{"classTitle": "cat", "geometryType": kind, "nodes": {}} for kind in ("graph", "cuboid")]
    flat = {"classTitle": "cat", "points": points}
    assert not mask_of(tmp_path, *others, flat, {**flat, "points": {"exterior": []}}).any()
    write(tmp_path, annotation(), annotation(others[0], POLYGON, others[1]), annotation(others[0]), {"objects": 1})
    assert supervisely.open(tmp_path, "train").notes == [
        "2 line figures cover no pixel and are left out, such as 1.png",
        "1 point figures cover no pixel and are left out, such as 1.png",
    ]


@pytest.mark.parametrize("title", ["background", "BG", "__bg__"])
def test_a_class_for_the_background(tmp_path, title):
    classes = [META["classes"][0], {"title": title, "shape": "polygon", "color": "#010203"}]
    figures = [POLYGON, {**RECTANGLE, "classTitle": title}]
    mask = mask_of(tmp_path, *figures, meta={"classes": classes})
    expected = np.ones(SIZE, np.uint8)
    expected[2:6, 1:4] = 0
    np.testing.assert_array_equal(mask, expected)
    dataset = supervisely.open(tmp_path, "train")
    assert dataset.classes.names == ("background", "cat")
    assert dataset.classes.palette == ((1, 2, 3), (255, 0, 0))


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match=r"meta.json is missing; --data.root must be the folder of a Supervisely proj"):
        supervisely.open(tmp_path, "train")
    (tmp_path / "meta.json").write_text(json.dumps(META))
    with pytest.raises(InputError, match=r"holds no data set; there must be a folder with the folders img and ann"):
        supervisely.open(tmp_path, "train")
    write(tmp_path, annotation(), annotation())
    (tmp_path / "train/img/0.png").unlink()
    (tmp_path / "train/ann/1.png.json").unlink()
    (tmp_path / "train/ann/._1.png.json").write_text("a resource fork")
    dataset = supervisely.open(tmp_path, "train")
    assert dataset.unpaired == [tmp_path / "train/ann/0.png.json"]
    with pytest.raises(InputError, match=r"train/img/1.png has no mask: .*/train/ann/1.png.json is missing"):
        check_files(dataset)
    with pytest.raises(InputError, match=r"train/ann/1.png.json is missing"):
        dataset[0]
