"""Layouts with PNGs of labels or segments, against decoding by hand and tables written out."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import check_files
from deeplab_jax.data.formats import ade20k, cityscapes, cocostuff
from deeplab_jax.errors import InputError
from helpers.fixtures import SHARED

DATA = SHARED / "data"


def sample_of(path: str) -> Path:
    root = DATA / path
    if not root.is_dir():
        pytest.skip(reason=f"{path} is not here")
    return root


def values_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image).astype(int)


def save_image(path: Path, height: int = 2, width: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "red").save(path)


def save_mask(path: Path, values: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)).save(path)


def assert_fault(message: str, action) -> None:
    with pytest.raises(InputError) as error:
        action()
    assert re.search(message, str(error.value).replace("\\", "/")), str(error.value)
    assert "\n" not in str(error.value)


def assert_whole(dataset) -> None:
    """Every sample is there, and the same in a worker process, which gets a pickled copy."""
    check_files(dataset)
    assert len(set(dataset.classes.names)) == len(dataset.classes) == len(dataset.classes.palette)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[0].mask, dataset[0].mask)


# ---- Cityscapes

# fmt: off
TRAIN_IDS = {
    0: 255, 1: 255, 2: 255, 3: 255, 4: 255, 5: 255, 6: 255, 7: 0, 8: 1, 9: 255, 10: 255, 11: 2, 12: 3, 13: 4, 14: 255,
    15: 255, 16: 255, 17: 5, 18: 255, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    29: 255, 30: 255, 31: 16, 32: 17, 33: 18, 255: 255,
}
# fmt: on


def test_cityscapes():
    root = sample_of("cityscapes_sample")
    dataset = cityscapes.open(root, "train")
    assert_whole(dataset)
    assert [example.image.name[:20] for example in dataset.examples] == ["aachen_000000_000019", "aachen_000003_000019"]
    assert dataset.unpaired == []
    for sample in (dataset[0], dataset[1]):
        raw = values_of(root / "gtFine/train/aachen" / sample.name.replace("leftImg8bit", "gtFine_labelIds"))
        assert raw.shape == (1024, 2048) == sample.image.shape[:2]
        np.testing.assert_array_equal(sample.mask, np.vectorize(TRAIN_IDS.get)(raw))


def test_cityscapes_classes():
    assert ", ".join(name for _, name, _ in cityscapes.CLASSES) == (
        "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, "
        "rider, car, truck, bus, train, motorcycle, bicycle"
    )
    colors = {name: color for _, name, color in cityscapes.CLASSES}
    assert (colors["road"], colors["sky"], colors["car"]) == ((128, 64, 128), (70, 130, 180), (0, 0, 142))
    assert len(set(colors.values())) == 19


def test_cityscapes_agrees_with_the_other_masks_of_a_image():
    root = sample_of("cityscapes_sample")
    sample = cityscapes.open(root, "val")[0]
    scene = root / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine"
    instances = values_of(Path(f"{scene}_instanceIds.png"))  # label, or 1000 label + number
    labels = np.where(instances < 1000, instances, instances // 1000)
    np.testing.assert_array_equal(sample.mask, np.vectorize(TRAIN_IDS.get)(labels))

    # These two were shrunk apart from each other, and differ in some pixels where classes meet.
    published = values_of(Path(f"{scene}_labelTrainIds.png"))
    assert (sample.mask == published).mean() > 0.997
    for id in np.unique(sample.mask):
        assert np.bincount(published[sample.mask == id]).argmax() == id


def test_cityscapes_with_train_ids_only(tmp_path):
    root = sample_of("cityscapes_sample")
    for folder in ("leftImg8bit", "gtFine"):
        shutil.copytree(root / folder / "val", tmp_path / folder / "val")
    scene = tmp_path / "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine"
    assert cityscapes.open(tmp_path, "val").examples[0].source == Path(f"{scene}_labelIds.png")
    Path(f"{scene}_labelIds.png").unlink()
    dataset = cityscapes.open(tmp_path, "val")
    assert_whole(dataset)
    assert dataset.examples[0].source == Path(f"{scene}_labelTrainIds.png")
    np.testing.assert_array_equal(dataset[0].mask, values_of(Path(f"{scene}_labelTrainIds.png")))


def test_cityscapes_every_label(tmp_path):
    """A license plate has the id -1, which is 255 in 8 bits; what no label has is refused."""
    save_image(tmp_path / "leftImg8bit/val/bonn/a_leftImg8bit.png", 5, 7)
    mask = tmp_path / "gtFine/val/bonn/a_gtFine_labelIds.png"
    values = np.array([*range(34), 255]).reshape(5, 7)
    save_mask(mask, values.tolist())
    dataset = cityscapes.open(tmp_path, "val")
    np.testing.assert_array_equal(dataset[0].mask, np.vectorize(TRAIN_IDS.get)(values))

    save_mask(mask, [[7, 34]])
    assert_fault(r"labelIds.png holds the value 34, but the masks .* hold 0 to 33 and 255", lambda: dataset[0])


def test_cityscapes_faults(tmp_path):
    scene = tmp_path / "leftImg8bit/val/bonn"
    save_image(scene / "a_leftImg8bit.png")
    assert_fault(
        r"leftImg8bit/train is missing or holds no CITY/\*_leftImg8bit.png; --data.root must be the folder",
        lambda: cityscapes.open(tmp_path, "train"),
    )
    assert_fault(
        r"bonn/a_leftImg8bit.png has no mask: .*gtFine/val/bonn/a_gtFine_labelIds.png is missing",
        lambda: check_files(cityscapes.open(tmp_path, "val")),
    )
    for name in ("a_gtFine_labelIds", "a_gtFine_labelTrainIds", "a_gtFine_instanceIds", "b_gtFine_labelTrainIds"):
        save_mask(tmp_path / f"gtFine/val/bonn/{name}.png", [[0] * 3] * 2)
    for fork in (scene / "._a_leftImg8bit.png", tmp_path / "gtFine/val/bonn/._a_gtFine_labelIds.png"):
        fork.write_text("a resource fork")
    dataset = cityscapes.open(tmp_path, "val")
    assert len(dataset) == 1
    assert [path.name for path in dataset.unpaired] == ["b_gtFine_labelTrainIds.png"]


def test_cityscapes_train_ids_of_another_kind_are_refused():
    """There the void is 19 and not 255."""
    root = sample_of("datumaro_assets/assets/cityscapes_dataset/train_dataset")
    dataset = cityscapes.open(root, "val")
    assert_fault(r"labelTrainIds.png holds the value 19, but there are 19 classes \(0 to 18\)", lambda: dataset[0])


# ---- ADE20K


def test_ade20k():
    root = sample_of("ade20k_sceneparsing/sampleData")
    seen = []
    for split in ("train", "val", "test"):
        dataset = ade20k.open(root, split)
        assert_whole(dataset)
        assert len(dataset) == 1
        sample = dataset[0]
        raw = values_of(root / "annotations" / sample.name.replace(".jpg", ".png"))
        assert sample.image.shape == (*raw.shape, 3)
        assert (raw == 0).any()
        np.testing.assert_array_equal(sample.mask, np.where(raw == 0, 255, raw - 1))
        seen.append(sample.name)
    assert sorted(seen) == [f"ADE_val_0000000{n}.jpg" for n in (1, 2, 3)]


def test_ade20k_classes():
    published = {
        1: "wall",
        2: "building",
        13: "person",
        21: "car",
        46: "counter",
        59: "screen door",
        76: "swivel chair",
    }
    published |= {88: "streetlight", 97: "escalator", 103: "van", 124: "trade name", 131: "screen", 150: "flag"}
    assert {value: ade20k.CLASSES[value - 1] for value in published} == published
    assert len(set(ade20k.CLASSES)) == len(ade20k.CLASSES) == 150


def test_ade20k_with_folders_for_the_splits(tmp_path):
    for folder, count in (("training", 2), ("validation", 1)):
        for number in range(count):
            save_image(tmp_path / f"images/{folder}/{number}.jpg")
            save_mask(tmp_path / f"annotations/{folder}/{number}.png", [[0, 1, 2], [149, 150, 255]])
    save_mask(tmp_path / "annotations/validation/7.png", [[1]])
    assert len(ade20k.open(tmp_path, "train")) == 2
    dataset = ade20k.open(tmp_path, "val")
    assert_whole(dataset)
    assert [path.name for path in dataset.unpaired] == ["7.png"]
    np.testing.assert_array_equal(dataset[0].mask, [[255, 0, 1], [148, 149, 255]])
    assert_fault(
        r"images/test is missing; .*images has folders for other splits", lambda: ade20k.open(tmp_path, "test")
    )
    save_mask(tmp_path / "annotations/validation/0.png", [[151]])
    assert_fault(r"0.png holds the value 151, but the masks of this data set hold 0 to 150 and 255", lambda: dataset[0])
    assert_fault(r"absent/images is missing; --data.root must be", lambda: ade20k.open(tmp_path / "absent", "val"))


# ---- COCO-Stuff

# Of the published ids 1 to 182.
NEVER_USED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)


def test_cocostuff():
    root = sample_of("cocostuff_sample")
    present = set()
    for split, count in (("train", 4), ("val", 3)):
        dataset = cocostuff.open(root, split)
        assert_whole(dataset)
        assert (len(dataset), len(dataset.classes), dataset.unpaired) == (count, 171, [])
        for sample in (dataset[i] for i in range(count)):
            raw = values_of(root / f"{split}_label" / sample.name.replace(".jpg", ".png"))
            less = sum((raw + 1 > id).astype(int) for id in NEVER_USED)
            np.testing.assert_array_equal(sample.mask, np.where(raw == 255, 255, raw - less))
            if sample.name == "000000000785.jpg":  # a skier on a slope
                present = {dataset.classes.names[id] for id in np.unique(sample.mask) if id != IGNORE}
    assert present == {"person", "skis", "fog", "snow"}


def test_cocostuff_names_are_those_that_coco_gives_to_its_ids():
    """COCO's panoptic categories keep the ids and names of all the labels that they did not merge."""
    path = sample_of("coco_panoptic") / "panoptic_coco_categories.json"
    names = {category["id"]: category["name"] for category in json.loads(path.read_text()) if category["id"] <= 182}
    assert len(names) > 110
    for id, name in names.items():
        class_id = id - 1 - sum(id > unused for unused in NEVER_USED)
        assert cocostuff.CLASSES[class_id] == name
    assert len(set(cocostuff.CLASSES)) == len(cocostuff.CLASSES) == 171
    assert (cocostuff.CLASSES[0], cocostuff.CLASSES[79], cocostuff.CLASSES[170]) == ("person", "toothbrush", "wood")


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/val2017", "annotations/val2017"),
        ("images/val2017", "stuffthingmaps/val2017"),
        ("val2017", "stuffthingmaps/val2017"),
        ("images/val", "annotations/val"),
        ("val_img", "val_label"),
    ],
)
def test_cocostuff_layouts(tmp_path, images, masks):
    save_image(tmp_path / images / "000000000001.jpg")
    save_mask(tmp_path / masks / "000000000001.png", [[0, 10, 12], [181, 11, 255]])
    save_mask(tmp_path / masks / "000000000001_labelTrainIds.png", [[0]])
    save_mask(tmp_path / masks / "000000000002.png", [[0]])
    dataset = cocostuff.open(tmp_path, "val")
    assert_whole(dataset)
    np.testing.assert_array_equal(dataset[0].mask, [[0, 10, 11], [170, 255, 255]])
    assert [path.name for path in dataset.unpaired] == ["000000000002.png"]
    save_mask(tmp_path / masks / "000000000001.png", [[182]])
    assert_fault(r"000000000001.png holds the value 182", lambda: dataset[0])
    assert_fault(
        r"lacks images or masks of the split 'train'; it must hold images/train2017 with annotations/train2017",
        lambda: cocostuff.open(tmp_path, "train"),
    )
