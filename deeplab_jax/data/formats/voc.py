"""PASCAL VOC: `JPEGImages`, `SegmentationClass` and lists of names in `ImageSets/Segmentation`, in one folder."""

from pathlib import Path

from deeplab_jax.data.classes import Classes, default_palette
from deeplab_jax.data.dataset import Example, Files
from deeplab_jax.data.masks import IdMasks
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


def open(root: Path, split: str) -> Files:
    """Twenty classes and background; mask value 255 is void."""
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        raise InputError(f"{path} is missing; --data.root must be the folder that holds JPEGImages, such as VOC2012")
    names = path.read_text().split()
    if not names:
        raise InputError(f"{path} names no pictures")
    examples = [Example(root / "JPEGImages" / f"{n}.jpg", root / "SegmentationClass" / f"{n}.png") for n in names]
    return Files(Classes(CLASSES, default_palette(len(CLASSES))), examples, IdMasks(len(CLASSES)))
