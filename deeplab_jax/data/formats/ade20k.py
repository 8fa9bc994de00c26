"""ADE20K scene parsing (MIT SceneParse150): `images/training|validation/*.jpg` beside `annotations/...` of the same.

Without folders for the splits (`images/*.jpg`, `annotations/*.png`) every image is put into train, val or test by
its name, about 80 : 10 : 10.
"""

from pathlib import Path

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Files, pair_by_stem
from deeplab_jax.data.masks import IdMasks
from deeplab_jax.data.splits import SPLITS, draw_split, find_split
from deeplab_jax.errors import InputError

# The first of the names that the published list (objectInfo150) gives to each class.
NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck,
tower, chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel, pole, land, bannister,
escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank,
trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase,
traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock,
flag
"""
CLASSES = tuple(name.strip() for name in NAMES.split(","))
RELABEL = {0: IGNORE} | {value: value - 1 for value in range(1, len(CLASSES) + 1)}


def open(root: Path, split: str) -> Files:
    """150 classes; mask value 0 is all else, and void here, so that value n is class n - 1."""
    images, masks = root / "images", root / "annotations"
    if not images.is_dir():
        raise InputError(
            f"{images} is missing; --data.root must be the folder that holds images and annotations, such as "
            "ADEChallengeData2016"
        )
    if folder := find_split(images, split):
        examples, unpaired = pair_by_stem(folder, masks / folder.name)
    elif any(find_split(images, other) for other in SPLITS):
        raise InputError(f"{images / split} is missing; {images} has folders for other splits only")
    else:
        examples, unpaired = pair_by_stem(images, masks)
        examples = draw_split(examples, images, split)
    return Files(Classes(CLASSES, default_palette(len(CLASSES))), examples, IdMasks(len(CLASSES), RELABEL), unpaired)
