"""CamVid as SegNet laid it out: `train|val|test/*` images beside `trainannot|valannot|testannot/*.png` masks."""

from pathlib import Path

from deeplab_jax.classes import Classes
from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Files, pair_by_stem
from deeplab_jax.data.masks import IdMasks

CLASSES = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (0, 0, 192)),
    ("tree", (128, 128, 0)),
    ("signsymbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)


def open(root: Path, split: str) -> Files:
    """Eleven classes; mask value 11 is void."""
    classes = Classes(*zip(*CLASSES, strict=True))
    examples, unpaired = pair_by_stem(root / split, root / f"{split}annot")
    return Files(classes, examples, IdMasks(len(classes), {11: IGNORE}), unpaired)
