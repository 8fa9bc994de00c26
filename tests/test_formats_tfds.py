"""Prepared builders of TensorFlow Datasets, written here with TFDS's own writer, which needs no TensorFlow."""

import io
import json
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.config import IGNORE, DataConfig, PreprocessConfig
from deeplab_jax.data.classes import default_palette
from deeplab_jax.data.formats import cityscapes
from deeplab_jax.data.formats import tfds as reader
from deeplab_jax.data.pipeline import eval_batches
from deeplab_jax.errors import InputError

SPLITS = {"train": 3, "validation": 2}


@pytest.fixture(scope="module")
def tfds():
    pytest.importorskip("array_record", reason="array_record is not installed: pip install 'deeplab_jax[tfds]'")
    return pytest.importorskip("tensorflow_datasets", reason="TFDS is not installed: pip install 'deeplab_jax[tfds]'")


def file_of(pixels, mode=None) -> io.BytesIO:
    """A PNG, as a builder hands it to TFDS."""
    picture, file = Image.fromarray(pixels), io.BytesIO()
    if mode == "P":
        picture = Image.fromarray(pixels, "P")
        picture.putpalette([channel for colour in default_palette(256) for channel in colour])
    picture.save(file, "png")
    file.seek(0)
    return file


def prepare(tfds, root, features, examples, name="toy", version="1.0.0", file_format="array_record"):
    """Prepares ROOT/NAME/VERSION, two examples a shard, of the examples by split; returns its folder."""
    folder = root / name / version
    folder.mkdir(parents=True)
    where = tfds.core.dataset_info.DatasetIdentity(name.partition("/")[0], tfds.core.Version(version), str(folder), "")
    if "/" in name:
        where.config_name = name.partition("/")[2]
    info = tfds.core.DatasetInfo(builder=where, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, 2, file_format=file_format)
    writer.initialize_splits(list(examples))
    writer.add_examples(examples)
    writer.close_all()
    return folder


def draw(values, seed=0, height=6):
    """An image and mask values of every split, the same for the same seed."""
    rng = np.random.default_rng(seed)
    return {
        split: [
            (rng.integers(0, 256, (height, 5 + i, 3), np.uint8), rng.choice(values, (height, 5 + i)).astype(np.uint8))
            for i in range(count)
        ]
        for split, count in SPLITS.items()
    }


def prepare_pictures(tfds, root, drawn, mask=None, keys=("image", "segmentation_mask"), **where):
    mask = mask or tfds.features.Image(shape=(None, None, 1))
    examples = {
        split: [{keys[0]: file_of(image), keys[1]: file_of(values)} for image, values in pairs]
        for split, pairs in drawn.items()
    }
    return prepare(tfds, root, {keys[0]: tfds.features.Image(), keys[1]: mask}, examples, **where)


@pytest.fixture
def toy(tfds, tmp_path):
    """Three unnamed classes and void, and the folder of the version."""
    return prepare_pictures(tfds, tmp_path, draw((0, 1, 2, IGNORE)))


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
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "copy"], capture_output=True, text=True, check=True)
    image, values = draw((0, 1, 2, IGNORE))["train"][2]
    assert found.stdout.split() == [str(image.sum()), values.tobytes().hex(), "False"]
    batches = list(eval_batches(dataset, PreprocessConfig(size=(8, 8)), 2, DataConfig()))
    assert [batch["image"].shape for batch in batches] == [(2, 8, 8, 3)] * 2


def test_newest_version_and_configs(tfds, toy, tmp_path):
    for seed, version in enumerate(("2.0.0", "10.0.0", "9.0.0")):
        prepare_pictures(tfds, tmp_path, draw((0, 1), seed), version=version)

    def image(name):
        return reader.open(tmp_path, "train", name)[0].image

    np.testing.assert_array_equal(image("toy"), draw((0, 1), 1)["train"][0][0])
    np.testing.assert_array_equal(image("toy:2.0.0"), draw((0, 1), 0)["train"][0][0])
    with pytest.raises(InputError, match=r"toy has no version 3\.0\.0; it has 1\.0\.0, 2\.0\.0, 9\.0\.0, 10\.0\.0"):
        image("toy:3.0.0")

    prepare_pictures(tfds, tmp_path, draw((0, 1), 5), name="city/fine")
    np.testing.assert_array_equal(image("city"), draw((0, 1), 5)["train"][0][0])
    prepare_pictures(tfds, tmp_path, draw((0, 1), 6), name="city/coarse")
    np.testing.assert_array_equal(image("city/fine:1.0.0"), draw((0, 1), 5)["train"][0][0])
    with pytest.raises(InputError, match="city has the configs coarse, fine; name one, as in city/coarse"):
        image("city")


def test_names_of_classes(tfds, tmp_path):
    labelled = tfds.features.LabeledImage(labels=["road", "sky", "car"])
    folder = prepare_pictures(tfds, tmp_path, draw((0, 1)), labelled)
    assert reader.open(tmp_path, "train", "toy").classes.names == ("road", "sky", "car")
    (folder / "segmentation_mask.labels.txt").write_text("a\nb\n")
    assert reader.open(tmp_path, "train", "toy").classes.names == ("a", "b")
    counted = tfds.features.LabeledImage(labels=4)
    prepare_pictures(tfds, tmp_path, draw((0, 1)), counted, name="counted")
    assert reader.open(tmp_path, "train", "counted").classes.names == ("class_0", "class_1", "class_2", "class_3")


def test_masks_of_other_kinds(tfds, tmp_path):
    """Tensors, palette pictures, and a mask that is told from other features by its name."""
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
        name="grey",
    )
    sample = reader.open(tmp_path, "train", "grey")[0]
    np.testing.assert_array_equal(sample.image, np.repeat(image[..., :1], 3, -1))
    np.testing.assert_array_equal(sample.mask, values)


def test_builders_whose_masks_are_known(tfds, tmp_path):
    label_ids = draw((0, 7, 8, 26, 33))
    prepare_pictures(tfds, tmp_path, label_ids, keys=("image_left", "segmentation_label"), name="cityscapes/semantic")
    dataset = reader.open(tmp_path, "val", "cityscapes")
    expected = np.select([label_ids["validation"][1][1] == v for v in (7, 8, 26, 33)], (0, 1, 13, 18), IGNORE)
    np.testing.assert_array_equal(dataset[1].mask, expected)
    assert dataset.classes.palette == tuple(colour for _, _, colour in cityscapes.CLASSES)

    trimaps = draw((1, 2, 3))
    prepare_pictures(tfds, tmp_path, trimaps, name="oxford_iiit_pet")
    dataset = reader.open(tmp_path, "train", "oxford_iiit_pet")
    np.testing.assert_array_equal(dataset[0].mask, trimaps["train"][0][1] - 1)
    assert dataset.classes.names == ("pet", "background", "border")

    reds = draw((0, 1, 4, 100))
    instances = {k: [(i, np.stack([red, red % 7, 0 * red], -1)) for i, red in v] for k, v in reds.items()}
    mask = tfds.features.Image(encoding_format="png")
    keys = ("image", "annotation")
    prepare_pictures(tfds, tmp_path, instances, mask, keys, name="scene_parse150")
    dataset = reader.open(tmp_path, "train", "scene_parse150")
    red = reds["train"][2][1]
    np.testing.assert_array_equal(dataset[2].mask, np.where(red == 0, IGNORE, red - 1))
    names = dataset.classes.names
    assert (len(names), names[0], names[3], names[99]) == (100, "bed", "person", "flag")


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
    one, picture = tfds.features.Image(shape=(None, None, 1)), tfds.features.Image()
    number = tfds.features.ClassLabel(num_classes=2)
    prepare(tfds, tmp_path, {"image": picture, "label": number}, {"train": []}, name="labels")
    with pytest.raises(InputError, match=r"must have one mask, or one called .*; it has image \(Image .*label \(Class"):
        reader.open(tmp_path, "train", "labels")
    prepare(tfds, tmp_path, {"image": picture, "depth": one, "id": one}, {"train": []}, name="two")
    with pytest.raises(InputError, match=r"must have one mask, or one called .*; it has depth \(Image .* id \(Image"):
        reader.open(tmp_path, "train", "two")
    prepare(tfds, tmp_path, {"left": picture, "right": picture, "mask": one}, {"train": []}, name="stereo")
    with pytest.raises(InputError, match=r"must have one image of 3 channels, or one called image or image_left; it"):
        reader.open(tmp_path, "train", "stereo")
    prepare(tfds, tmp_path, {"image_left": picture, "disparity_map": one}, {"train": []}, name="cityscapes/stereo")
    with pytest.raises(InputError, match=r"must have one mask, or one called segmentation_label; it has disparity_map"):
        reader.open(tmp_path, "train", "cityscapes/stereo")


def test_values_beyond_the_classes(tfds, tmp_path):
    folder = prepare_pictures(tfds, tmp_path, draw((0, 2)))
    (folder / "segmentation_mask.labels.txt").write_text("a\nb\n")
    message = (
        r"the mask of example 0 of split 'train' in .*toy/1\.0\.0 holds the value 2, which is none of its 2 classes"
    )
    with pytest.raises(InputError, match=message):
        reader.open(tmp_path, "train", "toy")[0]
    prepare_pictures(tfds, tmp_path, draw((0, IGNORE)), name="binary")
    with pytest.raises(InputError, match=r"hold values up to 0, besides 255 for void, which are no class ids"):
        reader.open(tmp_path, "train", "binary")
    prepare_pictures(tfds, tmp_path, draw((0, 1, 2, 3)), name="oxford_iiit_pet")
    with pytest.raises(InputError, match=r"split 'train' in .*oxford_iiit_pet/1\.0\.0 holds the value 0"):
        reader.open(tmp_path, "train", "oxford_iiit_pet")[0]


def test_pictures_that_cannot_be(tfds, tmp_path):
    image, values = draw((0, 1))["train"][0]
    stored = {
        "colours": (image, file_of(image), r"the mask of example 0 .* is a RGB picture; prepare the builder anew"),
        "size": (image, file_of(values[1:]), r"the mask of example 0 of .* is 5x5 but the image 5x6"),
        "text": (image, io.BytesIO(b"no picture"), r"the mask of example 0 .* cannot be read as a picture"),
        "deep": (values.astype(np.uint16), file_of(values), r"the image of example 0 .* has I;16 pixels"),
    }
    features = {"image": tfds.features.Image(), "mask": tfds.features.LabeledImage(labels=["a", "b"])}
    for name, (picture, mask, message) in stored.items():
        prepare(tfds, tmp_path, features, {"train": [{"image": file_of(picture), "mask": mask}]}, name=name)
        with pytest.raises(InputError, match=message):
            reader.open(tmp_path, "train", name)[0]


def test_the_extra_is_named_where_it_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "features.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=r"format tfds needs another package .*: pip install 'deeplab_jax\[tfds\]'"):
        reader.open(tmp_path, "train", "toy")
