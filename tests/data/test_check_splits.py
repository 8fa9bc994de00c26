"""`deeplab data check` on splits of several names and layouts: which there are, and what they share."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.data.check.hints import find_hints, ranges
from deeplab_jax.data.check.split import check_split
from deeplab_jax.data.dataset import Files
from deeplab_jax.data.formats import open_dataset
from helpers.data_check import all_void, as_image, binary, in_palette, no_progress, run, sentences
from helpers.tfds_files import draw, prepare_images


@pytest.mark.parametrize(("spoil", "splits"), [(binary, ["train"]), (all_void, ["train", "val"])])
def test_one_class_is_a_fault_of_training_and_void_alone_of_validation_too(broken, spoil, splits):
    for split in ("val", "test"):
        shutil.rmtree(broken / "masks" / split, ignore_errors=True)
        shutil.copytree(broken / "masks/train", broken / "masks" / split)
        shutil.rmtree(broken / "images" / split, ignore_errors=True)
        shutil.copytree(broken / "images/train", broken / "images" / split)
    spoil(broken)
    assert [fault.partition(":")[0] for fault in run(broken).all_faults] == splits
    assert "val: " in run(broken, train="val", val="train").all_faults[0]


def test_training_and_validation_on_one_split_is_said(shapes_folder):
    report = run(shapes_folder, train="train", val="train")
    assert (report.all_faults, report.warnings[0]) == ([], "train is trained on and evaluated on")


def test_what_splits_of_one_folder_share_is_said_once(shapes_folder, tmp_path):
    for kind in ("images", "masks"):
        shutil.copytree(shapes_folder / kind / "train", tmp_path / kind)
    shutil.copy(shapes_folder / "classes.txt", tmp_path)
    shutil.copy(tmp_path / "masks" / "0.png", tmp_path / "masks" / "stray.png")
    (fault,) = run(tmp_path).all_faults
    assert fault.endswith("stray.png is a mask without an image")


@pytest.mark.parametrize("last", [4, 151])
def test_ids_that_are_translated_may_begin_with_any_value(tmp_path, last):
    """Mask value 0 of ADE20K is no class, and wall may be nowhere; 151 is a mistake of another kind."""
    mask = np.array([[2, 3, last]] * 4)
    for split in ("training", "validation"):
        for kind, image in (("images", np.zeros((4, 3, 3))), ("annotations", mask)):
            (tmp_path / kind / split).mkdir(parents=True)
            as_image(image).save(tmp_path / kind / split / "a.png")
    actual = sentences(run(tmp_path, "ade20k"))
    assert not [line for line in actual if "begin with" in line or "one value more" in line]
    assert any("151; there are 150 classes" in line for line in actual) == (last == 151)


@pytest.mark.parametrize("usual", [True, False])
def test_palettes_of_voc_are_compared_with_its_own(tmp_path, usual):
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for split, value in (("train", 0), ("val", 255)):
        Image.new("L", (6, 4), value).save(tmp_path / f"JPEGImages/{split}.jpg")
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text(split)
        Image.new("RGB", (6, 4)).save(tmp_path / f"JPEGImages/{split}.jpg")
        ids = np.arange(24, dtype=np.uint8).reshape(4, 6) % 4
        in_palette(ids, (0, 1, 2, 3) if usual else (0, 2, 1, 3)).save(tmp_path / f"SegmentationClass/{split}.png")
    actual = [line for line in sentences(run(tmp_path, "voc")) if "palette of" in line]
    assert len(actual) == (not usual)
    assert usual or "value 1 is (0, 128, 0) in the palette of" in actual[0]


def test_builders_of_tfds_share_images_too(tfds, tmp_path):
    pairs = draw((0, 1, 2))["train"]
    prepare_images(tfds, tmp_path, {"train": pairs, "validation": [*pairs[1:], pairs[1]]})
    actual = sentences(run(tmp_path, "tfds:toy"))
    assert "2 images are in train and in val, such as example 1 and example 0" in actual
    assert "val: 1 images are there more than once: example 0 and example 2" in actual


@dataclass(frozen=True)
class Noted(Files):
    notes: Sequence[str] = ("12 annotations have no outline",)


def test_what_a_reader_left_out_is_said(shapes_folder):
    dataset = Noted(**vars(open_dataset(shapes_folder, "folder", "train")) | {"notes": Noted.notes})
    checked = check_split("train", dataset, 2, no_progress)
    assert "train: 12 annotations have no outline" in find_hints([checked], "folder")


def test_splits_may_have_other_names(broken):
    for kind in ("images", "masks"):
        (broken / kind / "train").rename(broken / kind / "most")
        (broken / kind / "val").rename(broken / kind / "test")
    report = run(broken, train="most", val="test")
    assert [(checked.split, checked.size) for checked in report.splits] == [("most", 12), ("test", 5)]
    assert sentences(report) == []


def test_a_test_split_may_be_absent_but_not_broken(broken):
    assert sentences(run(broken)) == []
    (broken / "images/test").mkdir()
    assert [line for line in run(broken).all_faults if re.match("no test split: .*images/test holds no images", line)]


@pytest.mark.parametrize(("place", "format"), [("nowhere", "folder"), ("", "voc"), ("", "coco"), ("", "tfds:toy")])
def test_a_wrong_place_or_format_is_said_once(broken, place, format):
    if format.startswith("tfds"):
        pytest.importorskip("tensorflow_datasets")
    report = run(broken / place, format)
    assert (len(report.faults), report.warnings, report.splits) == (1, [], [])


def test_every_broken_split_is_named(broken):
    for split in ("train", "val"):
        shutil.rmtree(broken / "images" / split)
        (broken / "images" / split).mkdir()
    assert [line.partition(":")[0] for line in run(broken).faults] == ["no train split", "no val split"]


def test_ranges_of_values():
    assert ranges([255, 3, 0, 1, 2, 7]) == "0-3, 7, 255"
    assert ranges(range(0, 100, 2), most=4) == "0, 2, 4, ..., 98"
