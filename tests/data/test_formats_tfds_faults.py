"""Prepared builders of TensorFlow Datasets with something wrong in them."""

import io
import json
import re
import shutil
import sys

import numpy as np
import pytest

from deeplab_jax.config import IGNORE
from deeplab_jax.data.formats import tfds as reader
from deeplab_jax.errors import InputError
from helpers.tfds_files import draw, file_of, prepare, prepare_images


def no_builder(root, folder):
    shutil.rmtree(root / "toy")
    return r"toy holds no version that TFDS prepared; --data.root must be the folder that TFDS calls data_dir"


def no_info(root, folder):
    (folder / "dataset_info.json").unlink()
    return r"toy/1\.0\.0 is no readable TFDS builder \(.+\); prepare it anew"


def no_json(root, folder):
    (folder / "features.json").write_text("{")
    return r"toy/1\.0\.0 is no readable TFDS builder \(.+\); prepare it anew"


def tfrecord(root, folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    return (
        r"toy/1\.0\.0 was prepared as tfrecord; prepare it anew in another folder, with TensorFlow: "
        r'tfds\.builder\("toy", data_dir=FOLDER, file_format="array_record"\)\.download_and_prepare\(\)$'
    )


def another_builder(root, folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "name": "other"}))
    return r"toy/1\.0\.0 holds other/1\.0\.0, not toy"


def no_split(root, folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "splits": info["splits"][:1]}))
    return r"toy/1\.0\.0 has no split 'val', but train and slices"


def shard(folder, number=0):
    return folder / f"toy-validation.array_record-{number:05d}"


def no_shard(root, folder):
    shard(folder).unlink()
    return r"toy-validation\.array_record-00000 is missing; copy it there"


def half_a_shard(root, folder):
    data = shard(folder).read_bytes()
    shard(folder).write_bytes(data[: len(data) // 2])
    return r"example 0 of split 'validation' in .*toy/1\.0\.0 cannot be read \(it is empty\); copy its shard"


def a_shard_less_a_byte(root, folder):
    shard(folder).write_bytes(shard(folder).read_bytes()[:-1])
    return r"example 0 of split 'validation' in .* cannot be read \(.+\); copy its shard"


def an_empty_shard(root, folder):
    shard(folder).write_bytes(b"")
    return r"example 0 of split 'validation' in .* cannot be read \(.+\); copy its shard"


def too_few_examples(root, folder):
    shutil.copy(folder / "toy-train.array_record-00001", shard(folder))
    return r"example 1 of split 'validation' in .* cannot be read \(.+\); copy its shard"


FAULTS = [no_builder, no_info, no_json, tfrecord, another_builder, no_split, no_shard]
FAULTS += [half_a_shard, a_shard_less_a_byte, an_empty_shard, too_few_examples]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faults_are_named_in_one_line(toy, tmp_path, fault):
    (toy / "segmentation_mask.labels.txt").write_text("a\nb\nc\n")
    message = fault(tmp_path, toy)
    with pytest.raises(InputError) as error:
        list(reader.open(tmp_path, "val", "toy"))
    assert re.search(message, str(error.value).replace("\\", "/"))
    assert "\n" not in str(error.value)


def test_damage_is_met_while_classes_are_counted(toy, tmp_path):
    message = half_a_shard(tmp_path, toy)
    with pytest.raises(InputError, match=message.replace("example 0", "example 3").replace("validation", "all")):
        reader.open(tmp_path, "train", "toy")


@pytest.mark.parametrize("split", ["train[", "train[7:9]", "train[0:0]", "", "other"])
def test_odd_splits(toy, tmp_path, split):
    with pytest.raises(InputError, match=rf"has no split '{re.escape(split)}', but train, validation and slices"):
        reader.open(tmp_path, split, "toy")


@pytest.mark.parametrize("name", ["", "toy/a/b", "toy:new", "../toy"])
def test_odd_names(toy, tmp_path, name):
    with pytest.raises(InputError, match=r"names no TFDS builder; write NAME, NAME/CONFIG or NAME/CONFIG:1\.0\.0"):
        reader.open(tmp_path, "train", name)


def test_builders_without_a_mask_or_an_image(tfds, tmp_path):
    one, image = tfds.features.Image(shape=(None, None, 1)), tfds.features.Image()
    number = tfds.features.ClassLabel(num_classes=2)
    prepare(tfds, tmp_path, {"image": image, "label": number}, {"train": []}, name="labels")
    with pytest.raises(InputError, match=r"must have one mask, or one called .*; it has image \(Image .*label \(Class"):
        reader.open(tmp_path, "train", "labels")
    prepare(tfds, tmp_path, {"image": image, "depth": one, "id": one}, {"train": []}, name="two")
    with pytest.raises(InputError, match=r"must have one mask, or one called .*; it has depth \(Image .* id \(Image"):
        reader.open(tmp_path, "train", "two")
    prepare(tfds, tmp_path, {"left": image, "right": image, "mask": one}, {"train": []}, name="stereo")
    with pytest.raises(InputError, match=r"must have one image of 3 channels, or one called image or image_left; it"):
        reader.open(tmp_path, "train", "stereo")
    prepare(tfds, tmp_path, {"image_left": image, "disparity_map": one}, {"train": []}, name="cityscapes/stereo")
    with pytest.raises(InputError, match=r"must have one mask, or one called segmentation_label; it has disparity_map"):
        reader.open(tmp_path, "train", "cityscapes/stereo")


def test_values_beyond_the_classes(tfds, tmp_path):
    folder = prepare_images(tfds, tmp_path, draw((0, 2)))
    (folder / "segmentation_mask.labels.txt").write_text("a\nb\n")
    message = (
        r"the mask of example 0 of split 'train' in .*toy/1\.0\.0 holds the value 2, which is none of its 2 classes"
    )
    with pytest.raises(InputError, match=message):
        reader.open(tmp_path, "train", "toy")[0]
    prepare_images(tfds, tmp_path, draw((0, IGNORE)), name="binary")
    with pytest.raises(InputError, match=r"hold values up to 0, besides 255 for void, which are no class ids"):
        reader.open(tmp_path, "train", "binary")
    prepare_images(tfds, tmp_path, draw((0, 1, 2, 3)), name="oxford_iiit_pet")
    with pytest.raises(InputError, match=r"split 'train' in .*oxford_iiit_pet/1\.0\.0 holds the value 0"):
        reader.open(tmp_path, "train", "oxford_iiit_pet")[0]


def test_images_that_cannot_be(tfds, tmp_path):
    image, values = draw((0, 1))["train"][0]
    stored = {
        "colors": (image, file_of(image), r"the mask of example 0 .* is a RGB image; prepare the builder anew"),
        "size": (image, file_of(values[1:]), r"the mask of example 0 of .* is 5x5 but the image 5x6"),
        "text": (image, io.BytesIO(b"no image"), r"the mask of example 0 .* cannot be read as an image"),
        "turned": (image, file_of(values), r"is 5x6 but the image 6x5; its orientation tag 6 turns the image; save it"),
        "deep": (values.astype(np.uint16), file_of(values), r"the image of example 0 .* has I;16 pixels"),
    }
    features = {"image": tfds.features.Image(), "mask": tfds.features.LabeledImage(labels=["a", "b"])}
    for name, (source, mask, message) in stored.items():
        encoded = file_of(source, tag=6 if name == "turned" else 1)
        prepare(tfds, tmp_path, features, {"train": [{"image": encoded, "mask": mask}]}, name=name)
        with pytest.raises(InputError, match=message):
            reader.open(tmp_path, "train", name)[0]


def test_no_module_that_a_builder_names_is_imported(toy, tmp_path, monkeypatch):
    """TFDS would import it for a feature that it does not know."""
    (tmp_path / "strangers.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = next(tmp_path.rglob("features.json"))
    text = path.read_text()
    path.write_text(text.replace("tensorflow_datasets.core.features.image_feature.Image", "strangers.Image"))
    assert path.read_text() != text
    with pytest.raises(InputError, match=r"builder \(has a feature of 'strangers\.Image', which is not TFDS's own\)"):
        reader.open(tmp_path, "train", "toy")


def test_the_extra_is_named_where_it_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "features.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"format tfds needs another package .*: pip install 'deeplab_jax\[tfds\]'"):
        reader.open(tmp_path, "train", "toy")
