"""COCO panoptic: a JSON file, and PNGs whose colors are the numbers of the segments that it describes.

    ROOT/annotations/panoptic_val2017.json   ROOT/annotations/panoptic_val2017/*.png
    ROOT/val2017/*.jpg                       (or ROOT/images/val2017/*.jpg; train2017 and the like)

The year may be left out or be another ending. Without `annotations` there may be one set, `ROOT/NAME.json` with
`ROOT/NAME/*.png` and images in `ROOT/input_images` or `ROOT/images`; every image is then put into train, val or
test by its name, about 80 : 10 : 10.
"""

import re
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.classes import Classes, Color, default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.annotations import relative, take
from deeplab_jax.data.dataset import Example, Files, Ids, masks_by_stem
from deeplab_jax.data.splits import draw_split
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import read_colors
from deeplab_jax.serialization import read_json


def open(root: Path, split: str) -> Files:
    """The file's categories in the order of their ids. Pixels of no segment and of crowds are void.

    Images that the file does not annotate are left out.
    """
    if listed := sorted((root / "annotations").glob("panoptic_*.json")):
        path = find_json(listed, split)
        name = path.stem.removeprefix("panoptic_")
        folders = [root / name, root / "images" / name, root / split, root / "images" / split]
    else:
        path = find_lone_json(root)
        folders = [root / "input_images", root / "images"]
    images = next((folder for folder in folders if folder.is_dir()), None)
    if not images:
        raise InputError(f"{folders[0]} is missing; it must hold the images that {path} names")
    masks = path.with_suffix("")
    if not masks.is_dir():
        raise InputError(f"{masks} is missing; it must hold the PNGs that {path.name} names")
    document = read_json(path)
    classes, ids = read_categories(document, path)
    examples = read_examples(document, path, images, masks, ids)
    named = {example.source for example in examples}
    unpaired = [mask for mask in masks_by_stem(masks).values() if mask not in named]
    return Files(classes, examples if listed else draw_split(examples, root, split), read_mask, unpaired)


def read_mask(example: Example, size: tuple[int, int]) -> Ids:
    """Raises InputError that names the PNG and a segment which is not described."""
    red, green, blue = np.moveaxis(read_colors(example.source).astype(np.int32), -1, 0)
    segments, pixels = np.unique(red + 256 * green + 256**2 * blue, return_inverse=True)
    table = {0: IGNORE, **dict(example.annotations.tolist())}
    for segment in segments.tolist():
        if segment not in table:
            raise InputError(
                f"{example.source} holds the segment id {segment}, which its segments_info does not list; correct one "
                "of them"
            )
    return np.array([table[segment] for segment in segments.tolist()], np.uint8)[pixels]


def find_json(paths: list[Path], split: str) -> Path:
    """`panoptic_val.json`, or else the only one such as `panoptic_val2017.json`; `panoptic_validation.json` is not."""
    for ending in ("", "[^a-z].*"):
        result = [path for path in paths if re.fullmatch(re.escape(f"panoptic_{split}") + ending, path.stem)]
        if len(result) > 1:
            raise InputError(f"{result[0]} and {result[1].name} are both of the split {split!r}; keep one of them")
        if result:
            return result[0]
    others = ", ".join(path.name for path in paths)
    raise InputError(f"{paths[0].parent / f'panoptic_{split}.json'} is missing; there is {others}")


def find_lone_json(root: Path) -> Path:
    result = sorted(path for path in root.glob("*.json") if path.with_suffix("").is_dir())
    if not result:
        raise InputError(
            f"{root / 'annotations'} holds no panoptic_SPLIT.json, and {root} no JSON file beside a folder of its name"
            "; --data.root must be the folder that holds annotations"
        )
    if len(result) > 1:
        raise InputError(
            f"{result[0]} and {result[1].name} both have a folder of their name; put them into {root / 'annotations'} "
            "as panoptic_train.json and panoptic_val.json"
        )
    return result[0]


def read_categories(document: Any, path: Path) -> tuple[Classes, dict[int, int]]:
    """The classes, and the class id of every category id. Raises InputError that names the file and the key."""
    categories = sorted(by_id(document, "categories", str(path)).items())
    if not categories:
        raise InputError(f"{path}: categories is empty; describe every class")
    if not len(categories) < IGNORE:
        raise InputError(f"{path} has {len(categories)} categories; masks of 8 bits can hold {IGNORE - 1} and void")
    names: list[str] = []
    palette: list[Color] = []
    for (id, category), usual in zip(categories, default_palette(len(categories)), strict=True):
        where = f"{path}: category {id}"
        name = " ".join(take(category, "name", str, where).split())
        if not name.isprintable() or name == "":
            raise InputError(f"{where}: name {reprlib.repr(name)} must be a text of one line")
        if name in names:
            raise InputError(f"{where}: name {reprlib.repr(name)} is that of another category; each needs its own")
        names.append(name)
        palette.append(read_color(category, where) if "color" in category else usual)
    return Classes(tuple(names), tuple(palette)), {id: label for label, (id, _) in enumerate(categories)}


def read_color(category: Any, where: str) -> Color:
    color = take(category, "color", list, where)
    if not (len(color) == 3 and all(type(channel) is int and 0 <= channel <= 255 for channel in color)):
        raise InputError(f"{where}: color must be three whole numbers from 0 to 255, not {reprlib.repr(color)}")
    red, green, blue = color
    return red, green, blue


def read_examples(document: Any, path: Path, images: Path, masks: Path, ids: dict[int, int]) -> list[Example]:
    """Every annotated image. Its `annotations` are (segment id, class id or IGNORE) rows, (n, 2) int32."""
    records = by_id(document, "images", str(path))
    examples = []
    for number, annotation in enumerate(take(document, "annotations", list, str(path))):
        where = f"{path}: annotations[{number}]"
        image_id = take(annotation, "image_id", int, where)
        if image_id not in records:
            raise InputError(f"{where}: image_id {image_id} is not the id of one of its images")
        image = images / file_name(records[image_id], f"{path}: image {image_id}")
        rows = [
            (segment_id, read_label(segment, ids, f"{where}: segment {segment_id}"))
            for segment_id, segment in by_id(annotation, "segments_info", where).items()
        ]
        table = np.array(rows, np.int32).reshape(-1, 2)
        examples.append(Example(image, masks / file_name(annotation, where), table))
    if not examples:
        raise InputError(f"{path}: annotations is empty; describe at least one image")
    return examples


def read_label(segment: Any, ids: dict[int, int], where: str) -> int:
    """The class id of a segment, IGNORE for a crowd."""
    category = take(segment, "category_id", int, where)
    crowd = segment.get("iscrowd", 0)
    if not 0 < segment["id"] < 256**3:
        raise InputError(f"{where}: id must be 1 to {256**3 - 1}, which a color can hold")
    if category not in ids:
        raise InputError(f"{where}: category_id {category} is not the id of one of the categories")
    if crowd not in (0, 1):
        raise InputError(f"{where}: iscrowd must be 0 or 1, not {reprlib.repr(crowd)}")
    return IGNORE if crowd else ids[category]


def by_id(record: Any, key: str, where: str) -> dict[int, dict]:
    """The objects of a list by their ids. Raises InputError where one has none, or that of another."""
    result: dict[int, dict] = {}
    for number, item in enumerate(take(record, key, list, where)):
        id = take(item, "id", int, f"{where}: {key}[{number}]")
        if id in result:
            raise InputError(f"{where}: {key}[{number}] has the id {id} of an earlier one; each needs its own")
        result[id] = item
    return result


def file_name(record: Any, where: str) -> Path:
    return relative(take(record, "file_name", str, where), where)
