"""Layouts, fitting and batching, against independent decoding."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.classes import default_palette
from deeplab_jax.config import IGNORE, DataConfig, PreprocessConfig
from deeplab_jax.data.formats import open_dataset
from deeplab_jax.data.loader import eval_batches
from deeplab_jax.errors import InputError
from deeplab_jax.image.preprocess import preprocess
from deeplab_jax.image.resize import Placement, place, resize_image, resize_mask
from helpers.fixtures import SHARED

PREPROCESS = PreprocessConfig(size=(40, 56))


def test_camvid(camvid):
    dataset = open_dataset(camvid, "camvid", "val")
    assert len(dataset) == 101
    sample = dataset[3]
    raw = np.asarray(Image.open(sorted((camvid / "valannot").iterdir())[3]))
    assert sample.image.shape == (360, 480, 3)
    assert (raw == 11).any()
    np.testing.assert_array_equal(sample.mask, np.where(raw == 11, IGNORE, raw))


def test_voc(tmp_path):
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    ids = np.array([[0, 12, 255], [20, 1, 0]], np.uint8)
    mask = Image.fromarray(ids, "P")
    mask.putpalette([channel for color in default_palette(256) for channel in color])
    Image.new("RGB", (3, 2), "red").save(tmp_path / "JPEGImages" / "2007_000001.jpg")
    mask.save(tmp_path / "SegmentationClass" / "2007_000001.png")
    names = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    names.write_text("2007_000001\n")
    dataset = open_dataset(tmp_path, "voc", "val")
    assert (len(dataset), dataset.classes.names[12]) == (1, "dog")
    np.testing.assert_array_equal(dataset[0].mask, ids)

    names.write_text("2007_000001\n2007_000002\n")
    with pytest.raises(InputError, match=r"2007_000002.jpg is missing, but .*2007_000002.png is there or names it"):
        open_dataset(tmp_path, "voc", "val")
    with pytest.raises(InputError, match=r"train.txt is missing; --data.root must be the folder that holds JPEGImages"):
        open_dataset(tmp_path, "voc", "train")
    names.write_bytes(b"\xef\xbb\xbf2007_000001\r\n")
    assert len(open_dataset(tmp_path, "voc", "val")) == 1
    for line in ("2007_000001 1", "2007_000001.jpg", "/JPEGImages/2007_000001", "2007_000001.jpg 2007_000001.png"):
        names.write_text(f"{line}\n")
        with pytest.raises(InputError, match=r"a line must be one name without folder and suffix, such as 2007_000032"):
            open_dataset(tmp_path, "voc", "val")
    names.write_text("2007_000001\n" * 2)
    with pytest.raises(InputError, match=r"val.txt names '2007_000001' 2 times; list every image once"):
        open_dataset(tmp_path, "voc", "val")


def test_voc_masks_hold_ids_not_colors():
    root = SHARED / "data" / "voc2012_sample" / "VOCdevkit" / "VOC2012"
    if not root.is_dir():
        pytest.skip(reason="the sample of PASCAL VOC is not here")
    dataset = open_dataset(root, "voc", "val")
    assert len(dataset) == 73
    sample = dataset[0]
    with Image.open(root / "SegmentationClass" / f"{sample.name[:-4]}.png") as mask:
        colors = np.array(mask.convert("RGB"))
    # The color of every id in VOC's own code; 255 is (224, 224, 192) there.
    by_id = np.array([*default_palette(21), *[(224, 224, 192)] * 235], np.uint8)
    np.testing.assert_array_equal(by_id[sample.mask], colors)


def test_folder(shapes_folder):
    dataset = open_dataset(shapes_folder, "folder", "val")
    sample = dataset[2]
    assert dataset.classes.names == ("background", "disc", "bar", "polygon", "ring")
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(shapes_folder / "images" / "val" / sample.name)))
    np.testing.assert_array_equal(sample.mask, np.asarray(Image.open(shapes_folder / "masks" / "val" / sample.name)))


@pytest.fixture
def colored(tmp_path):
    (tmp_path / "classes.txt").write_text("road 128 64 128\nvoid 0 0 0\nmy car 0, 0, 142\n")
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    colors = np.array([[(128, 64, 128), (0, 0, 142)], [(0, 0, 0), (0, 0, 142)]], np.uint8)
    for name in ("a.b", "c", "d"):
        Image.fromarray(colors).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(colors).save(tmp_path / "masks" / f"{name}.png")
    (tmp_path / "train.txt").write_text("c.png\na.b\n")
    return tmp_path


def test_masks_of_colors_and_lists_of_names(colored):
    dataset = open_dataset(colored, "folder", "train")
    assert dataset.classes.names == ("road", "my car")
    assert dataset.classes.palette == ((128, 64, 128), (0, 0, 142))
    assert [example.image.name for example in dataset.examples] == ["c.png", "a.b.png"]
    np.testing.assert_array_equal(dataset[0].mask, [[0, 1], [IGNORE, 1]])

    Image.new("RGB", (2, 2), (1, 2, 3)).save(colored / "masks" / "c.png")
    with pytest.raises(InputError, match=r"masks/c.png has the color \(1, 2, 3\), which no class has"):
        dataset[0]
    (colored / "train.txt").write_text("e\n")
    with pytest.raises(InputError, match=r"images/e is missing, but .*masks/e.png is there or names it"):
        open_dataset(colored, "folder", "train")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("road 1 2 3\ncar\n", r"gives colors to 1 of its 2 lines"),
        ("road 1 2 3\ncar 1 2 3\n", r"gives the color 1 2 3 twice"),
        ("road 1 2 300\n", r"the color of 'road' must hold values from 0 to 255"),
        ("road 1 2 3\nroad 1 2 4\n", r"names 'road' twice"),
        ("void 1 2 3\n", r"names no class"),
    ],
)
def test_tables_of_colors_that_cannot_be(colored, classes, message):
    (colored / "classes.txt").write_text(classes)
    with pytest.raises(InputError, match=message):
        open_dataset(colored, "folder", "train")


def test_palette_masks_give_their_indices(shapes_folder, tmp_path):
    root = shutil.copytree(shapes_folder, tmp_path / "copy")
    path = root / "masks" / "val" / "0.png"
    before = np.asarray(Image.open(path))
    image = Image.fromarray(before).convert("P")
    image.putpalette([channel for color in default_palette(256) for channel in color])
    image.putdata(before.ravel().tolist())
    image.save(path)
    np.testing.assert_array_equal(open_dataset(root, "folder", "val")[0].mask, before)


def no_mask(root):
    (root / "masks/val/1.png").unlink()
    return r"images/val/1.png has no mask: .*masks/val/1.png is missing"


def id_too_large(root):
    Image.fromarray(np.full((48, 48), 5, np.uint8)).save(root / "masks/val/0.png")
    return r"masks/val/0.png holds the value 5, but there are 5 classes \(0 to 4\) and 255 for void"


def rgb_mask(root):
    Image.new("RGB", (48, 48)).save(root / "masks/val/0.png")
    return r"masks/val/0.png is a RGB image; a mask has one channel"


def other_size(root):
    Image.new("L", (48, 20)).save(root / "masks/val/0.png")
    return r"masks/val/0.png is 48x20 but its image .*images/val/0.png is 48x48"


def no_image(root):
    (root / "images/val/0.png").write_text("no image")
    return r"images/val/0.png cannot be read as an image"


def cut_short(root):
    data = (root / "images/val/0.png").read_bytes()
    (root / "images/val/0.png").write_bytes(data[: len(data) // 2])
    return r"images/val/0.png cannot be read as an image"


def no_classes(root):
    (root / "classes.txt").unlink()
    return r"classes.txt is missing; write one class name a line"


def a_class_twice(root):
    (root / "classes.txt").write_text("a\nb\na\n")
    return r"classes.txt names 'a' twice"


def an_empty_line(root):
    (root / "classes.txt").write_text("a\n\nb\n")
    return r"classes.txt has an empty line"


def too_many_classes(root):
    (root / "classes.txt").write_text("\n".join(map(str, range(255))))
    return r"classes.txt names 255 classes; masks of 8 bits can hold 254 and void"


def float_image(root):
    Image.new("F", (48, 48)).save(root / "images/val/0.tiff")
    (root / "images/val/0.png").unlink()
    return r"images/val/0.tiff has F pixels, whose range is unknown"


def empty_folder(root):
    for path in (root / "images/val").iterdir():
        path.unlink()
    return r"images/val holds no images"


def no_split(root):
    shutil.rmtree(root / "images/val")
    return r"images/val does not exist"


FAULTS = [no_mask, id_too_large, rgb_mask, other_size, no_image, cut_short, no_classes, a_class_twice]


@pytest.mark.parametrize(
    "fault",
    [*FAULTS, an_empty_line, too_many_classes, float_image, empty_folder, no_split],
    ids=lambda fault: fault.__name__,
)
def test_faults_are_named_in_one_line(broken, fault):
    message = fault(broken)
    with pytest.raises(InputError) as error:
        open_dataset(broken, "folder", "val")[0]
    assert re.search(message, str(error.value).replace("\\", "/"))
    assert "\n" not in str(error.value)


def test_images_of_other_modes(broken):
    """16 bits a channel, gray, transparent palette; and files that are no images of the user's."""
    path = broken / "images/val/0.png"
    Image.fromarray(np.full((48, 48), 257 * 100, np.uint16)).save(path)
    assert (open_dataset(broken, "folder", "val")[0].image == 100).all()
    Image.new("L", (48, 48), 7).save(path)
    assert (open_dataset(broken, "folder", "val")[0].image == 7).all()
    Image.new("P", (48, 48)).save(path, transparency=b"\x00\x01")
    assert open_dataset(broken, "folder", "val")[0].image.shape == (48, 48, 3)
    (broken / "images/val/._0.png").write_text("a resource fork")
    (broken / "classes.txt").write_text("\ufeff" + (broken / "classes.txt").read_text())
    dataset = open_dataset(broken, "folder", "val")
    assert len(dataset) == 5
    assert dataset.classes.names[0] == "background"


def test_a_fault_met_while_batching_is_the_same_error(broken):
    message = id_too_large(broken)
    with pytest.raises(InputError, match=message):
        list(eval_batches(open_dataset(broken, "folder", "val"), PREPROCESS, 4, DataConfig()))


def test_absent_root_and_unknown_format(tmp_path):
    with pytest.raises(InputError, match=r"absent does not exist or is no folder; give its place with --data\.root"):
        open_dataset(tmp_path / "absent", "folder", "val")
    with pytest.raises(InputError, match=r"format 'voc7' is not known; choose one of ade20k, .*, voc or tfds:NAME"):
        open_dataset(tmp_path, "voc7", "val")


@pytest.mark.parametrize(("height", "width"), [(40, 56), (20, 28), (100, 56), (33, 200), (1, 400), (300, 1)])
def test_letterbox_keeps_the_aspect(height, width):
    placement = place(height, width, PREPROCESS)
    image = resize_image(np.full((height, width, 3), 200, np.uint8), PREPROCESS)
    mask = resize_mask(np.ones((height, width), np.uint8), PREPROCESS)
    assert image.shape == (40, 56, 3)
    assert abs(placement.height / height - placement.width / width) <= 1 / min(height, width)
    np.testing.assert_array_equal(mask == 1, (image == 200).all(-1))
    np.testing.assert_array_equal(mask == IGNORE, (image == PREPROCESS.padding_value).all(-1))
    assert (mask == 1).sum() == placement.height * placement.width


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(40, 56, (40, 56)), (20, 28, (20, 28)), (7, 56, (7, 56)), (80, 28, (40, 14)), (41, 200, (11, 56))],
)
def test_pad_puts_the_image_in_the_corner_and_never_enlarges_it(height, width, expected):
    config = replace(PREPROCESS, resize_mode="pad", padding_value=127.5, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert place(height, width, config) == Placement(0, 0, *expected)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    planes, placement = preprocess(image[..., ::-1], config)
    actual = planes.transpose(1, 2, 0)
    outside = np.ones((40, 56), bool)
    outside[placement.window] = False
    assert (actual[outside] == 0).all()  # 127.5, which no uint8 image could hold
    if expected == (height, width):
        np.testing.assert_allclose(actual[placement.window], image / 127.5 - 1, atol=1e-6)
    mask = resize_mask(np.ones((height, width), np.uint8), config)
    np.testing.assert_array_equal(mask == IGNORE, outside)


def test_masks_are_sampled_at_the_middle_of_pixels():
    """As OpenCV resizes images; its usual nearest neighbor takes the upper left ones."""
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8)
    fitted = resize_mask(mask, PreprocessConfig(size=(4, 4), resize_mode="stretch"))
    np.testing.assert_array_equal(fitted, mask[1::2, 1::2])


def test_masks_are_resized_without_new_values():
    mask = np.random.default_rng(0).choice([0, 7, IGNORE], (31, 23)).astype(np.uint8)
    config = PreprocessConfig(size=(80, 80), resize_mode="stretch")
    assert set(np.unique(resize_mask(mask, config))) == {0, 7, IGNORE}
