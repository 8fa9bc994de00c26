"""PASCAL VOC: `JPEGImages`, `SegmentationClass` and lists of names in `ImageSets/Segmentation`, in one folder."""

from pathlib import Path

from deeplab_jax.data.classes import Classes, default_palette
from deeplab_jax.data.dataset import Dataset
from deeplab_jax.errors import InputError

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def open(root: Path, split: str) -> Dataset:
    """Twenty classes and background; mask value 255 is void."""
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        raise InputError(f"{path} is missing; --data.root must be the folder that holds JPEGImages, such as VOC2012")
    names = path.read_text().split()
    pairs = [(root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png") for name in names]
    absent = [file for pair in pairs for file in pair if not file.is_file()]
    if absent:
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise InputError(f"{path} names a picture whose {absent[0]} is missing{more}")
    if not pairs:
        raise InputError(f"{path} names no pictures")
    return Dataset(Classes(CLASSES, default_palette(len(CLASSES))), pairs, {})
