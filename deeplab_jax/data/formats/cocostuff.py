"""COCO-Stuff: images of COCO beside PNGs that give every pixel its label.

    ROOT/images/val2017/*.jpg   ROOT/annotations/val2017/*.png   (or stuffthingmaps/val2017; train2017 likewise)
    ROOT/val_img/*.jpg          ROOT/val_label/*.png             (train likewise)

The folders' names may leave out the year, and `val2017` may lie in ROOT itself. A PNG has the name of its image. Its
values are 0 to 181, the published label ids less 1, and 255 for what is not labeled. Eleven of these labels are
never used. As is usual they are no classes here; the 171 others keep their order.
"""

from pathlib import Path

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Files, pair_by_stem
from deeplab_jax.data.masks import IdMasks
from deeplab_jax.errors import InputError

# The published names by mask value; those in brackets are never used.
LABELS = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, (street sign),
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, (hat), backpack,
umbrella, (shoe), (eye glasses), handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
baseball glove, skateboard, surfboard, tennis racket, bottle, (plate), wine glass, cup, fork, knife, spoon, bowl,
banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
(mirror), dining table, (window), (desk), toilet, (door), tv, laptop, mouse, remote, keyboard, cell phone, microwave,
oven, toaster, sink, refrigerator, (blender), book, clock, vase, scissors, teddy bear, hair drier, toothbrush,
(hair brush), banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other,
ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble,
floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel,
ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement,
pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand,
sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent,
textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile,
wall-wood, water-other, waterdrops, window-blind, window-other, wood
"""
NAMES = tuple(name.strip() for name in LABELS.split(","))
CLASSES = tuple(name for name in NAMES if not name.startswith("("))
RELABEL = {value: CLASSES.index(name) if name in CLASSES else IGNORE for value, name in enumerate(NAMES)}


def open(root: Path, split: str) -> Files:
    """171 classes: 80 kinds of things, then 91 kinds of stuff."""
    folders = [(root / f"{split}_img", root / f"{split}_label")]
    for name in (f"{split}2017", split):
        for images in (root / "images" / name, root / name):
            folders += [(images, root / "annotations" / name), (images, root / "stuffthingmaps" / name)]
    result = next((pair for pair in folders if all(folder.is_dir() for folder in pair)), None)
    if not result:
        raise InputError(
            f"{root} lacks images or masks of the split {split!r}; it must hold images/{split}2017 with "
            f"annotations/{split}2017 or stuffthingmaps/{split}2017, or {split}_img with {split}_label"
        )
    examples, unpaired = pair_by_stem(*result)
    # Other programs leave converted masks beside the published ones.
    unpaired = [mask for mask in unpaired if not mask.stem.endswith("_labelTrainIds")]
    return Files(Classes(CLASSES, default_palette(len(CLASSES))), examples, IdMasks(len(CLASSES), RELABEL), unpaired)
