"""One file a layout; each has `open(root, split)`, which reads lists and annotations but no image or mask yet."""

from pathlib import Path

from deeplab_jax.data.dataset import Dataset, check_files
from deeplab_jax.data.formats import (
    ade20k,
    camvid,
    cityscapes,
    coco,
    coco_panoptic,
    cocostuff,
    folder,
    supervisely,
    tfds,
    voc,
)
from deeplab_jax.errors import InputError

FORMATS = {
    "ade20k": ade20k.open,
    "camvid": camvid.open,
    "cityscapes": cityscapes.open,
    "coco": coco.open,
    "coco_panoptic": coco_panoptic.open,
    "cocostuff": cocostuff.open,
    "folder": folder.open,
    "supervisely": supervisely.open,
    "voc": voc.open,
}


def open_dataset(root: Path, format: str, split: str) -> Dataset:
    """The data set in that folder, all of its files present. Raises InputError that names what is missing."""
    dataset = find_dataset(root, format, split)
    check_files(dataset)
    return dataset


def find_dataset(root: Path, format: str, split: str) -> Dataset:
    """The data set in that folder, whose files may be missing. Raises InputError where it is none of that format."""
    name, _, more = format.partition(":")
    known = name == "tfds" if more else name in FORMATS
    if not known and not (name == "supervisely" and more):
        raise InputError(f"format {format!r} is not known; choose one of {', '.join(FORMATS)} or tfds:NAME")
    if not root.is_dir():
        raise InputError(f"the data folder {root} does not exist or is no folder; give its place with --data.root")
    if name == "tfds":
        return tfds.open(root, split, more)
    if more:
        return supervisely.open(root, split, supervisely.parse_roles(more))
    return FORMATS[name](root, split)
