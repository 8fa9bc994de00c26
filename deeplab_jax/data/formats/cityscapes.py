"""Cityscapes: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` beside `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`.

Images that have no labelIds may have `*_gtFine_labelTrainIds.png` instead, whose values are class ids already.
"""

from pathlib import Path

from deeplab_jax.classes import Classes
from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Example, Files, Ids
from deeplab_jax.data.masks import IdMasks
from deeplab_jax.errors import InputError

CLASSES = (  # value in labelIds, name, color; the order is that of the class ids
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
# From unlabeled (0) to bicycle (33), and -1 for license plates, which 8 bits store as 255. What has no class is void.
LABEL_IDS = dict.fromkeys(range(-1, 34), IGNORE) | {value: id for id, (value, _, _) in enumerate(CLASSES)}
IDS, TRAIN_IDS = "gtFine_labelIds.png", "gtFine_labelTrainIds.png"  # how names of masks end


def open(root: Path, split: str) -> Files:
    """The 19 classes that Cityscapes evaluates; all its other labels are void."""
    folder, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    images = sorted(folder.glob("*/[!.]*_leftImg8bit.png"))
    if not images:
        raise InputError(
            f"{folder} is missing or holds no CITY/*_leftImg8bit.png; --data.root must be the folder that holds "
            "leftImg8bit and gtFine"
        )
    present = {path for ending in (IDS, TRAIN_IDS) for path in masks.glob(f"*/[!.]*_{ending}")}
    examples, expected = [], set()
    for image in images:
        scene = masks / image.parent.name / image.name.removesuffix("leftImg8bit.png")
        ids, train_ids = Path(f"{scene}{IDS}"), Path(f"{scene}{TRAIN_IDS}")
        examples.append(Example(image, train_ids if train_ids in present and ids not in present else ids))
        expected |= {ids, train_ids}
    _, names, palette = zip(*CLASSES, strict=True)
    return Files(Classes(names, palette), examples, read_mask, sorted(present - expected))


def read_mask(example: Example, size: tuple[int, int]) -> Ids:
    """Raises InputError that names the file and a value that Cityscapes does not have."""
    relabel = {} if example.source.name.endswith(TRAIN_IDS) else LABEL_IDS
    return IdMasks(len(CLASSES), relabel)(example, size)
