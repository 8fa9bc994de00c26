"""PASCAL VOC: `JPEGImages`, `SegmentationClass` and lists of names in `ImageSets/Segmentation`, in one folder."""

from pathlib import Path

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.data.dataset import Example, Files
from deeplab_jax.data.masks import IdMasks
from deeplab_jax.data.splits import check_once, read_list
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import is_image_suffix

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
    names = read_list(path)
    for name in names:
        if not (len(name.split()) == 1 and Path(name).name == name and not is_image_suffix(Path(name).suffix)):
            raise InputError(
                f"{path}: a line must be one name without folder and suffix, such as 2007_000032, not {name!r}"
            )
    check_once(names, path)
    examples = [Example(root / "JPEGImages" / f"{n}.jpg", root / "SegmentationClass" / f"{n}.png") for n in names]
    return Files(Classes(CLASSES, default_palette(len(CLASSES))), examples, IdMasks(len(CLASSES)))
