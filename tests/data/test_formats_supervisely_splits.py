"""Splits of a Supervisely project: data sets, tags, or the images' names."""

import pickle

import pytest

from deeplab_jax.data.check.report import find_splits
from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import supervisely
from deeplab_jax.errors import InputError
from helpers.annotation_files import sample
from helpers.supervisely_files import POLYGON, annotation, write


def test_no_split_beside_others():
    with pytest.raises(InputError, match=r"supervisely_pascal_mini/test does not exist or is no folder; there is tra"):
        supervisely.open(sample("supervisely_pascal_mini"), "test")


def tagged(*names: str) -> dict:
    return annotation(POLYGON, tags=[{"name": name, "value": None} for name in names])


def test_splits_by_tag(tmp_path):
    write(tmp_path, tagged("val"), tagged("train", "night"), annotation(), folder="ds1")
    write(tmp_path, tagged("val"), tagged("train"), folder="ds2")
    images = {s: [e.image for e in supervisely.open(tmp_path, s).examples] for s in ("train", "val", "night")}
    assert images["train"] == [tmp_path / "ds1/img/1.png", tmp_path / "ds2/img/1.png"]
    assert images["val"] == [tmp_path / "ds1/img/0.png", tmp_path / "ds2/img/0.png"]
    assert images["night"] == [tmp_path / "ds1/img/1.png"]
    with pytest.raises(InputError, match=r"nor an image tag 'test'; its images are tagged 'night', 'train', 'val'"):
        supervisely.open(tmp_path, "test")
    write(tmp_path, annotation(), tagged("x"), folder="validation")
    dataset = supervisely.open(tmp_path, "val")
    assert [e.image for e in dataset.examples] == [tmp_path / "validation/img/0.png", tmp_path / "validation/img/1.png"]
    assert pickle.loads(pickle.dumps(dataset))[1].mask.all()


@pytest.mark.parametrize(("tag", "split"), [("validation", "val"), ("valid", "val"), ("training", "train")])
def test_other_names_of_tags(tmp_path, tag, split):
    write(tmp_path, tagged("test"), tagged("sunny", tag), annotation(), folder="ds1")
    assert [e.image.name for e in supervisely.open(tmp_path, split).examples] == ["1.png"]


def test_tags_that_name_no_split(tmp_path):
    write(tmp_path, tagged("sunny"), annotation(), tagged("rain"), annotation(), folder="ds1")
    images = [e.image for split in ("train", "val", "test") for e in supervisely.open(tmp_path, split).examples]
    assert len(images) == len(set(images)) == 4
    assert len(supervisely.open(tmp_path, "sunny")) == 1
    with pytest.raises(InputError, match=r"image tag 'fog'; its images are tagged 'rain', 'sunny'"):
        supervisely.open(tmp_path, "fog")


def test_tags_beside_data_sets_that_are_splits(tmp_path):
    """A test split may be absent, whatever images are tagged with."""
    for split in ("train", "val"):
        write(tmp_path, tagged("sunny"), annotation(), folder=split)
    actual, faults = find_splits(tmp_path, "supervisely", ("train", "val"))
    assert (list(actual), faults) == (["train", "val"], [])


def test_data_sets_inside_of_others(tmp_path):
    for folder in ("train", "train/datasets/a", "train/datasets/a/datasets/b", "val/datasets/c", "extra"):
        write(tmp_path, annotation(POLYGON), folder=folder)
    dataset = supervisely.open(tmp_path, "train")
    check_files(dataset)
    names = [str(example.image.relative_to(tmp_path / "train")) for example in dataset.examples]
    assert names == ["img/0.png", "datasets/a/img/0.png", "datasets/a/datasets/b/img/0.png"]
    assert dataset.notes == ["1 data sets are no split and left out, such as extra"]
    assert len(supervisely.open(tmp_path, "val")) == len(supervisely.open(tmp_path, "extra")) == 1
    with pytest.raises(InputError, match=r"/test does not exist or is no folder; there is train, val"):
        supervisely.open(tmp_path, "test")


def test_splits_by_names(tmp_path):
    write(tmp_path, *[annotation()] * 6, folder="a")
    write(tmp_path, *[annotation()] * 4, folder="b")
    (tmp_path / "train").mkdir()  # no data set: it has no img
    images = {s: {e.image for e in supervisely.open(tmp_path, s).examples} for s in ("train", "val", "test")}
    assert [len(chosen) for chosen in images.values()] == [7, 1, 2]
    assert len(set().union(*images.values())) == 10
