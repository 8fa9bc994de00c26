"""Reading prepared builders of TensorFlow Datasets."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from deeplab_jax.config import IGNORE, DataConfig, PreprocessConfig
from deeplab_jax.data.formats import cityscapes
from deeplab_jax.data.formats import tfds as reader
from deeplab_jax.data.loader import eval_batches
from deeplab_jax.errors import InputError
from helpers.tfds_files import SPLITS, draw, file_of, prepare, prepare_images


def test_images_and_masks_are_what_was_put_in(toy, tmp_path):
    drawn = draw((0, 1, 2, IGNORE))
    for split, name in (("train", "train"), ("val", "validation"), ("validation", "validation")):
        dataset = reader.open(tmp_path, split, "toy")
        assert len(dataset) == SPLITS[name]
        for sample, (image, values) in zip(dataset, drawn[name], strict=True):
            np.testing.assert_array_equal(sample.image, image)
            np.testing.assert_array_equal(sample.mask, values)
    assert dataset.classes.names == ("class_0", "class_1", "class_2")
    assert dataset[-1].name == "000001"
    with pytest.raises(IndexError):
        dataset[2]
    np.testing.assert_array_equal(reader.open(toy, "val", "toy")[1].image, drawn["validation"][1][0])


def test_slices_are_splits_too(toy, tmp_path):
    drawn = draw((0, 1, 2, IGNORE))
    for split, expected in (
        ("train[1:]", drawn["train"][1:]),
        ("val[:50%]+train[:1]", [drawn["validation"][0], drawn["train"][0]]),
    ):
        dataset = reader.open(tmp_path, split, "toy")
        for sample, (image, _) in zip(dataset, expected, strict=True):
            np.testing.assert_array_equal(sample.image, image)


def test_worker_processes_read_copies(toy, tmp_path):
    """Another process opens the shards anew; nothing of it needs TensorFlow, installed or not."""
    dataset = reader.open(tmp_path, "train", "toy")
    dataset[0]
    (tmp_path / "copy").write_bytes(pickle.dumps(dataset))
    code = (
        "import pickle, sys; sample = pickle.load(open(sys.argv[1], 'rb'))[2]; "
        "print(int(sample.image.sum()), sample.mask.tobytes().hex(), 'tensorflow' in sys.modules)"
    )
    actual = subprocess.run([sys.executable, "-c", code, tmp_path / "copy"], capture_output=True, text=True, check=True)
    image, values = draw((0, 1, 2, IGNORE))["train"][2]
    assert actual.stdout.split() == [str(image.sum()), values.tobytes().hex(), "False"]
    batches = list(eval_batches(dataset, PreprocessConfig(size=(8, 8)), 2, DataConfig()))
    assert [batch["image"].shape for batch in batches] == [(2, 8, 8, 3)] * 2


def test_newest_version_and_configs(tfds, toy, tmp_path):
    for seed, version in enumerate(("2.0.0", "10.0.0", "9.0.0")):
        prepare_images(tfds, tmp_path, draw((0, 1), seed), version=version)

    def image(name):
        return reader.open(tmp_path, "train", name)[0].image

    np.testing.assert_array_equal(image("toy"), draw((0, 1), 1)["train"][0][0])
    np.testing.assert_array_equal(image("toy:2.0.0"), draw((0, 1), 0)["train"][0][0])
    with pytest.raises(InputError, match=r"toy has no version 3\.0\.0; it has 1\.0\.0, 2\.0\.0, 9\.0\.0, 10\.0\.0"):
        image("toy:3.0.0")

    prepare_images(tfds, tmp_path, draw((0, 1), 5), name="city/fine")
    np.testing.assert_array_equal(image("city"), draw((0, 1), 5)["train"][0][0])
    prepare_images(tfds, tmp_path, draw((0, 1), 6), name="city/coarse")
    np.testing.assert_array_equal(image("city/fine:1.0.0"), draw((0, 1), 5)["train"][0][0])
    with pytest.raises(InputError, match="city has the configs coarse, fine; name one, as in city/coarse"):
        image("city")


def test_names_of_classes(tfds, tmp_path):
    labeled = tfds.features.LabeledImage(labels=["road", "sky", "car"])
    folder = prepare_images(tfds, tmp_path, draw((0, 1)), labeled)
    assert reader.open(tmp_path, "train", "toy").classes.names == ("road", "sky", "car")
    (folder / "segmentation_mask.labels.txt").write_text("a\nb\n")
    assert reader.open(tmp_path, "train", "toy").classes.names == ("a", "b")
    counted = tfds.features.LabeledImage(labels=4)
    prepare_images(tfds, tmp_path, draw((0, 1)), counted, name="counted")
    assert reader.open(tmp_path, "train", "counted").classes.names == ("class_0", "class_1", "class_2", "class_3")


def test_gray_levels_are_noted(tfds, tmp_path):
    for name, values in (("few", (0, 1, 2, 4, IGNORE)), ("gray", (0, 38, 75, 113))):
        prepare_images(tfds, tmp_path, draw(values), name=name)
    assert reader.open(tmp_path, "val", "few").notes == ()
    dataset = reader.open(tmp_path, "val", "gray")
    assert len(dataset.classes) == 114
    assert dataset.notes == ("4 of the values 0 to 113 are in masks: 0, 38, 75, 113; are they gray levels?",)


def test_masks_of_other_kinds(tfds, tmp_path):
    """Tensors, palette images, and a mask that is told from other features by its name."""
    features = tfds.features
    image, values = draw((0, 1, 2))["train"][0]
    kinds = {
        "plane": (features.Tensor(shape=(6, 5), dtype=np.int32), values.astype(np.int32)),
        "packed": (features.Tensor(shape=(None, None, 1), dtype=np.uint8, encoding="zlib"), values[..., None]),
        "palette": (features.Image(shape=(None, None, 1)), file_of(values, "P")),
    }
    for name, (feature, stored) in kinds.items():
        prepare(
            tfds,
            tmp_path,
            {"photo": features.Image(), "ids": feature, "depth": features.Tensor(shape=(6, 5), dtype=np.float32)},
            {"train": [{"photo": file_of(image), "ids": stored, "depth": np.zeros((6, 5), np.float32)}]},
            name=name,
        )
        np.testing.assert_array_equal(reader.open(tmp_path, "train", name)[0].mask, values)
    one = features.Image(shape=(None, None, 1))
    prepare(
        tfds,
        tmp_path,
        {"image": one, "mask": one, "instance": one},
        {"train": [{"image": file_of(image[..., 0]), "mask": file_of(values), "instance": file_of(values + 1)}]},
        name="gray",
    )
    sample = reader.open(tmp_path, "train", "gray")[0]
    np.testing.assert_array_equal(sample.image, np.repeat(image[..., :1], 3, -1))
    np.testing.assert_array_equal(sample.mask, values)


def test_builders_whose_masks_are_known(tfds, tmp_path):
    label_ids = draw((0, 7, 8, 26, 33))
    prepare_images(tfds, tmp_path, label_ids, keys=("image_left", "segmentation_label"), name="cityscapes/semantic")
    dataset = reader.open(tmp_path, "val", "cityscapes")
    expected = np.select([label_ids["validation"][1][1] == v for v in (7, 8, 26, 33)], (0, 1, 13, 18), IGNORE)
    np.testing.assert_array_equal(dataset[1].mask, expected)
    assert dataset.classes.palette == tuple(color for _, _, color in cityscapes.CLASSES)

    trimaps = draw((1, 2, 3))
    prepare_images(tfds, tmp_path, trimaps, name="oxford_iiit_pet")
    dataset = reader.open(tmp_path, "train", "oxford_iiit_pet")
    np.testing.assert_array_equal(dataset[0].mask, trimaps["train"][0][1] - 1)
    assert dataset.classes.names == ("pet", "background", "border")

    reds = draw((0, 1, 4, 100))
    instances = {k: [(i, np.stack([red, red % 7, 0 * red], -1)) for i, red in v] for k, v in reds.items()}
    mask = tfds.features.Image(encoding_format="png")
    keys = ("image", "annotation")
    prepare_images(tfds, tmp_path, instances, mask, keys, name="scene_parse150")
    dataset = reader.open(tmp_path, "train", "scene_parse150")
    red = reds["train"][2][1]
    np.testing.assert_array_equal(dataset[2].mask, np.where(red == 0, IGNORE, red - 1))
    names = dataset.classes.names
    assert (len(names), names[0], names[3], names[99]) == (100, "bed", "person", "flag")
