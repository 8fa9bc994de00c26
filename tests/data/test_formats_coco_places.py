"""Where COCO's annotations and images lie."""

import pickle

import numpy as np
import pytest

from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import coco
from deeplab_jax.errors import InputError
from helpers.coco_files import MASK, document, write

# From `decode` of pycocotools under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    ("path", "images", "split"),
    [
        ("annotations/instances_val2017.json", "val2017", "val"),
        ("annotations/instances_val2017.json", "val2017", "val2017"),
        ("annotations/instances_val2017.json", "val", "val"),
        ("annotations/instances_val.json", "images/val2014", "val"),
        ("annotations/instances_valid.json", "images/valid", "val"),
        ("annotations/instances_validation.json", "images", "val"),
        ("annotations/instances_training.json", "images/train", "train"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("test/_annotations.coco.json", "test", "test"),
        ("_annotations.coco.json", ".", None),
        ("labels.json", "images", None),
    ],
)
def test_places(tmp_path, path, images, split):
    write(tmp_path, document(5), path, images, count=5)
    (tmp_path / "val_notes").mkdir()
    (tmp_path / "train2000").mkdir()
    for name in [split] if split else ["train", "val", "test"]:
        dataset = coco.open(tmp_path, name)
        check_files(dataset)
        assert len(dataset) == (5 if split else {"train": 3, "val": 1, "test": 1}[name])
        assert dataset.classes.names == ("background", "dog", "cat")
        again = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(again[0].mask, MASK)


def test_places_that_are_missing_or_several(tmp_path):
    def refused(message, split="val"):
        with pytest.raises(InputError, match=message) as error:
            check_files(coco.open(tmp_path, split))
        assert "\n" not in str(error.value)

    refused(r"holds no COCO annotations: neither annotations/instances_val.json nor val/_annotations.coco.json nor a")
    write(tmp_path, document(), "a.json")
    write(tmp_path, document(), "b.json")
    refused(r"holds more than one JSON file: a.json, b.json; keep the one")
    write(tmp_path, document(), "train/_annotations.coco.json", "train")
    refused(r"val/_annotations.coco.json is missing; .* has the splits train")
    write(tmp_path, document(), "annotations/instances_val2014.json", "nowhere")
    refused(r"annotations/instances_train.json is missing; there is instances_val2014.json", "train")
    (tmp_path / "val/0.png").unlink()
    refused(r"/val2014/0.png is missing, but .*/annotations/instances_val2014.json is there or names it")
    write(tmp_path, document(), "annotations/instances_val2017.json")
    refused(r"more than one file of the split 'val': instances_val2014.json, instances_val2017.json; keep one")
    write(tmp_path, document(), "annotations/instances_val.json")
    np.testing.assert_array_equal(coco.open(tmp_path, "val")[0].mask, MASK)


def test_images_that_are_not_listed_are_noted(tmp_path):
    write(tmp_path, document(), count=3)
    (tmp_path / "val/._0.png").write_text("a resource fork")
    assert coco.open(tmp_path, "val").notes == ["2 images are not in instances_val.json, such as 1.png"]
    (tmp_path / "val").rename(tmp_path / "images")  # which other splits may have too
    assert coco.open(tmp_path, "val").notes == []


def test_a_split_without_any_thing(tmp_path):
    """All background, if other splits tell that there are things."""
    empty = {**document(), "annotations": []}
    write(write(tmp_path, document(), "train/_annotations.coco.json", "train"), empty, "val/_annotations.coco.json")
    assert not coco.open(tmp_path, "val")[0].mask.any()
    boxes = document()
    for annotation in boxes["annotations"]:
        annotation["segmentation"] = []
    write(tmp_path, boxes, "val/_annotations.coco.json")
    with pytest.raises(
        InputError, match=r"val/_annotations.coco.json: no annotation has a segmentation; boxes are not"
    ):
        coco.open(tmp_path, "val")


def test_folders_that_only_begin_like_a_split(tmp_path):
    write(tmp_path, document(), images="images")
    for name in ("val_masks", "values", "val2017_old"):
        write(tmp_path, document(), images=name)
    assert coco.open(tmp_path, "val").examples[0].image == tmp_path / "images/0.png"
    for name in ("val_1", "val2017"):
        write(tmp_path, document(), images=name)
        assert coco.open(tmp_path, "val").examples[0].image == tmp_path / name / "0.png"
