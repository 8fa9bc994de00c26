"""COCO's instance annotations: a JSON file with polygons or run-length codes of the things in its images.

    ROOT/annotations/instances_val2017.json   ROOT/val2017/*.jpg   (or ROOT/images/val2017/ or ROOT/images/)
    ROOT/valid/_annotations.coco.json         ROOT/valid/*.jpg     (as Roboflow exports it)
    ROOT/annotations.json                     ROOT/images/*.jpg    (or ROOT/*.jpg; the one JSON file of any name)

The last one has no splits: every image is put into train, val or test by its name, about 80 : 10 : 10.
"""

import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab_jax.classes import Classes, default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.annotations import check_names, relative, take
from deeplab_jax.data.dataset import Example, Files, tally
from deeplab_jax.data.figures import FARTHEST
from deeplab_jax.data.instances import (
    Annotated,
    Instance,
    Polygons,
    faults,
    polygon_tools,
    read_mask,
    read_segmentation,
)
from deeplab_jax.data.splits import draw_split, find_split, names_of
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import is_image
from deeplab_jax.serialization import read_json

OUTLINES = "boxes are not enough, export the data set with polygons or masks"
EXPORTED = "_annotations.coco.json"  # Roboflow's name


@dataclass(frozen=True)
class Layout:
    path: Path  # the annotations
    paths: tuple[Path, ...]  # those of all splits
    folders: tuple[Path, ...]  # where the images may be, the likeliest first
    has_splits: bool
    shared: tuple[Path, ...] = ()  # those of the folders that may hold other splits too


@dataclass(frozen=True)
class Category:
    name: str
    parent: str  # its super-category


def open(root: Path, split: str) -> Files:
    """Background, then the categories in the order of their ids. Crowds are void; smaller things lie on larger ones.

    A category that only groups others, as Roboflow writes one, is no class.
    """
    layout = find_layout(root, split)
    document = read_json(layout.path)
    classes, labels = read_classes(document, layout)
    examples = read_examples(document, layout, labels)
    shapes = [one.shape for example in examples for one in example.annotations.instances]
    if any(isinstance(shape, Polygons) and shape.outlines for shape in shapes):
        polygon_tools()  # rather now than in a worker process
    strays = unlisted(examples, layout)
    if not layout.has_splits:
        examples = draw_split(examples, root, split)
    result = [fault for example in examples for fault in faults(example)]
    result += [(f"images are not in {layout.path.name}", path.name) for path in strays]
    return Files(classes, examples, read_mask, notes=tally(result))


def find_layout(root: Path, split: str) -> Layout:
    if named := sorted((root / "annotations").glob("instances_*.json")):
        path = find_json(named, split)
        name = path.stem.removeprefix("instances_")
        parents = [parent for parent in (root, root / "images") if parent.is_dir()]
        likely = re.compile(rf"({'|'.join(map(re.escape, names_of(split)))})[_-]?\d*")
        others = [f for parent in parents for f in sorted(parent.iterdir()) if f.is_dir() and likely.fullmatch(f.name)]
        shared = root / "images", root
        folders = root / name, root / "images" / name, *others, *shared
        return Layout(path, tuple(named), folders, has_splits=True, shared=shared)
    if exported := sorted(root.glob(f"*/{EXPORTED}")):
        folder = find_split(root, split) or root / split
        if folder / EXPORTED not in exported:
            names = ", ".join(path.parent.name for path in exported)
            raise InputError(f"{folder / EXPORTED} is missing; {root} has the splits {names}")
        return Layout(folder / EXPORTED, tuple(exported), (folder,), has_splits=True)
    lone = sorted(path for path in root.glob("*.json") if not path.name.startswith("."))
    if len(lone) == 1:
        return Layout(lone[0], tuple(lone), (root / "images", root), has_splits=False)
    if lone:
        names = ", ".join(path.name for path in lone)
        raise InputError(
            f"{root} holds more than one JSON file: {names}; keep the one of the annotations, or put those of the "
            f"splits into {root / 'annotations'} as instances_train.json and instances_val.json"
        )
    raise InputError(
        f"{root} holds no COCO annotations: neither annotations/instances_{split}.json nor {split}/{EXPORTED} nor a "
        "JSON file; --data.root must be the folder that holds annotations"
    )


def find_json(paths: list[Path], split: str) -> Path:
    """`instances_val.json`, or else the only one such as `instances_val2017.json`; but not `instances_valley.json`."""
    name = f"instances_({'|'.join(map(re.escape, names_of(split)))})"
    for ending in ("", "[^a-z].*"):
        result = [path for path in paths if re.fullmatch(name + ending, path.stem)]
        if len(result) > 1:
            names = ", ".join(path.name for path in result)
            raise InputError(f"{result[0].parent} holds more than one file of the split {split!r}: {names}; keep one")
        if result:
            return result[0]
    others = ", ".join(path.name for path in paths)
    raise InputError(f"{paths[0].parent / f'instances_{split}.json'} is missing; there is {others}")


def read_classes(document: Any, layout: Layout) -> tuple[Classes, dict[int, int]]:
    """The classes, and the class id of every category id; alike for all splits.

    Raises:
        InputError: where a file is malformed, or two splits have different categories.
    """
    categories, used = read_categories(document, layout.path)
    for path in layout.paths:
        if path != layout.path:
            others, used_there = read_categories(read_json(path), path)
            check_alike(layout.path, categories, path, others)
            used |= used_there
    parents = {category.parent for category in categories.values()}
    labels: dict[int, int] = {}
    names = ["background"]
    for id, category in sorted(categories.items()):
        topmost = category.parent.lower() in ("", "none") and category.parent != category.name
        if topmost and category.name in parents and id not in used:
            continue
        if category.name.lower() == "background":
            labels[id] = 0
        else:
            labels[id] = len(names)
            names.append(category.name)
    if not len(labels):
        raise InputError(f"{layout.path}: categories is empty; name every class")
    # A split may well hold none of the things.
    if not len(used):
        raise InputError(f"{layout.path}: annotations is empty; {OUTLINES}")
    check_names(names, str(layout.path))
    return Classes(tuple(names), default_palette(len(names))), labels


def read_categories(document: Any, path: Path) -> tuple[dict[int, Category], set[int]]:
    """By their ids; and the ids that annotations have."""
    categories: dict[int, Category] = {}
    for number, record in enumerate(take(document, "categories", list, str(path))):
        where = f"{path}: categories[{number}]"
        id = take(record, "id", int, where)
        if id in categories:
            raise InputError(f"{where} has the id {id} of an earlier one; each needs its own")
        parent = record.get("supercategory")
        categories[id] = Category(take(record, "name", str, where), parent if isinstance(parent, str) else "")
    annotations = enumerate(take(document, "annotations", list, str(path)))
    return categories, {take(record, "category_id", int, f"{path}: annotations[{i}]") for i, record in annotations}


def check_alike(path: Path, own: dict[int, Category], other: Path, others: dict[int, Category]) -> None:
    for id in sorted(own | others):
        here, there = (reprlib.repr(each[id].name) if id in each else "missing" for each in (own, others))
        if here != there:
            raise InputError(
                f"category {id} is {here} in {path}, but {there} in {other}; give all splits the same categories"
            )


def read_examples(document: Any, layout: Layout, labels: dict[int, int]) -> list[Example]:
    """Every image with its instances. Raises InputError that names the file and what is wrong or not masked."""
    path = layout.path
    sizes: dict[int, tuple[int, int]] = {}
    names: dict[int, Path] = {}
    for number, record in enumerate(take(document, "images", list, str(path))):
        where = f"{path}: images[{number}]"
        id = take(record, "id", int, where)
        if id in names:
            raise InputError(f"{where} has the id {id} of an earlier one; each needs its own")
        names[id] = relative(take(record, "file_name", str, where), where)
        sizes[id] = height, width = take(record, "height", int, where), take(record, "width", int, where)
        if not (min(height, width) > 0 and max(height, width) <= FARTHEST):
            raise InputError(f"{where}: height or width is no size")
    if not len(names):
        raise InputError(f"{path}: images is empty; describe at least one image")
    if len(set(names.values())) != len(names):
        raise InputError(f"{path}: images names a file twice; describe every image once")
    instances: dict[int, list[Instance]] = {id: [] for id in names}
    outlined = not document["annotations"]
    for number, record in enumerate(take(document, "annotations", list, str(path))):
        where = f"{path}: annotations[{number}]"
        image_id, category_id = take(record, "image_id", int, where), take(record, "category_id", int, where)
        if image_id not in names:
            raise InputError(f"{where}: image_id {image_id} is not the id of one of its images")
        where = f"{where} of {names[image_id]}"
        if category_id not in labels:
            raise InputError(f"{where}: category_id {category_id} is not the id of one of the categories")
        crowd = record.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise InputError(f"{where}: iscrowd must be 0 or 1, not {reprlib.repr(crowd)}")
        shape = read_segmentation(record.get("segmentation"), sizes[image_id], where)
        instances[image_id].append(Instance(IGNORE if crowd else labels[category_id], shape or Polygons(())))
        outlined |= shape is not None
    if not outlined:
        raise InputError(f"{path}: no annotation has a segmentation; {OUTLINES}")
    folder = find_images(layout, names.values())
    return [Example(folder / names[id], path, Annotated(sizes[id], tuple(instances[id]))) for id in names]


def unlisted(examples: list[Example], layout: Layout) -> list[Path]:
    """The images beside those of the examples, unless they may be those of other splits."""
    named = {example.image for example in examples}
    folder = next(folder for folder in layout.folders if examples[0].image.is_relative_to(folder))
    parents = [] if folder in layout.shared else sorted({path.parent for path in named if path.parent.is_dir()})
    return [path for parent in parents for path in sorted(parent.iterdir()) if path not in named and is_image(path)]


def find_images(layout: Layout, names: Iterable[Path]) -> Path:
    """The first folder that holds one of the images, or the likeliest if none does."""
    result = (folder for folder in layout.folders if folder.is_dir() and any((folder / n).is_file() for n in names))
    return next(result, layout.folders[0])
