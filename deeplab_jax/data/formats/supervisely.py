"""A Supervisely project: `meta.json`, and data sets of images and annotations.

    ROOT/meta.json   ROOT/ds1/img/a.jpg   ROOT/ds1/ann/a.jpg.json

A split is the data set of that name (`train`, `val` and the like) with those inside it (`ds1/datasets/inner`), or else
every image with an image tag of that name. With neither, every image is put into train, val or test by its name,
about 80 : 10 : 10.

The format `supervisely:background=floor,neutral=ignore` names the two special classes, if they have other names.
"""

import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.classes import Classes, Color
from deeplab_jax.config import IGNORE
from deeplab_jax.data.annotations import check_names, check_size, take
from deeplab_jax.data.dataset import Example, Files, Ids, tally
from deeplab_jax.data.figures import WITHOUT_AREA, draw_figure
from deeplab_jax.data.splits import SPLITS, draw_split, find_split, names_of
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import list_images
from deeplab_jax.serialization import read_json

PLACES = ("*/img", "*/datasets/**/img")  # of images; data sets may lie in others
BACKGROUND = ("background", "bg", "__bg__")
VOID = ("neutral",)


@dataclass(frozen=True)
class Roles:
    """The titles of two classes that are none: what lies behind everything, and what is void."""

    background: tuple[str, ...] = BACKGROUND
    neutral: tuple[str, ...] = VOID


def parse_roles(text: str) -> Roles:
    """From `background=floor,neutral=ignore`, either of which may be left out. Raises InputError for anything else."""
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    if not all(role in ("background", "neutral") and title for role, title in pairs):
        raise InputError(f"format supervisely:{text} must be such as supervisely:background=floor,neutral=ignore")
    return Roles(**{role: (title.lower(),) for role, title in pairs})


@dataclass(frozen=True)
class FigureMasks:
    """Masks drawn from annotation files, later figures on top of earlier ones."""

    labels: Mapping[str, int]  # of titles: class id or IGNORE
    shapes: Mapping[str, str]  # of titles: the shape of figures that do not say theirs

    def __call__(self, example: Example, size: tuple[int, int]) -> Ids:
        where = str(example.source)
        document = read_json(example.source)
        stated = take(document, "size", dict, where)
        stated = (take(stated, "height", int, f"{where}: size"), take(stated, "width", int, f"{where}: size"))
        check_size(stated, size, example.source, example.image)
        ids = np.zeros(size, np.uint8)
        for figure, shape, label, place in self.figures(document, where):
            draw_figure(ids, figure, shape, label, place)
        return ids

    def figures(self, document: Any, where: str) -> Iterator[tuple[Any, str, int, str]]:
        """Every figure, its shape, class id or IGNORE, and place. Raises InputError where one does not say these."""
        for number, figure in enumerate(take(document, "objects", list, where)):
            place = f"{where}: objects[{number}]"
            title = take(figure, "classTitle", str, place)
            if title not in self.labels:
                raise InputError(f"{place}: classTitle {reprlib.repr(title)} is no class of meta.json; add it")
            shape = figure.get("geometryType") or self.shapes[title]
            if not isinstance(shape, str):
                raise InputError(f"{place}: geometryType must be a text, not {reprlib.repr(shape)}")
            yield figure, shape, self.labels[title], place

    def left_out(self, example: Example) -> list[tuple[str, str]]:
        """The figures that cover nothing, by their shapes, and the image's name."""
        try:
            shapes = [shape for _, shape, _, _ in self.figures(read_json(example.source), "")]
        except InputError:  # which is said where the image is read
            return []
        name = example.image.name
        return [(f"{s} figures cover no pixel and are left out", name) for s in shapes if s in WITHOUT_AREA]


def open(root: Path, split: str, roles: Roles = Roles()) -> Files:
    """Background, then the classes in the order of meta.json. A class called neutral is void."""
    meta = root / "meta.json"
    if not meta.is_file():
        raise InputError(f"{meta} is missing; --data.root must be the folder of a Supervisely project")
    classes, read_mask = read_classes(read_json(meta), meta, roles)
    every = sorted(path.parent for pattern in PLACES for path in root.glob(pattern) if path.is_dir())
    if not every:
        raise InputError(f"{root} holds no data set; there must be a folder with the folders img and ann")
    own = within(every, find_split(root, split))
    folders = own or every
    examples = [example for folder in folders for example in pair(folder)]
    annotated = {example.source for example in examples}
    files = [path for folder in folders for path in sorted((folder / "ann").glob("[!.]*.json"))]
    result = []
    splits = [folder for name in SPLITS if (folder := find_split(root, name)) and within(every, folder)]
    if own:
        named = [*own, *(folder for parent in splits for folder in within(every, parent))]
        result = [("data sets are no split and left out", str(f.relative_to(root))) for f in every if f not in named]
    else:
        examples = choose(examples, [folder.name for folder in splits], root, split)
    result += [figure for example in examples for figure in read_mask.left_out(example)]
    return Files(classes, examples, read_mask, [path for path in files if path not in annotated], tally(result))


def within(folders: list[Path], parent: Path | None) -> list[Path]:
    """Those that are a folder or lie in it."""
    return [folder for folder in folders if parent and folder.is_relative_to(parent)]


def pair(folder: Path) -> list[Example]:
    """Every image of a data set with its annotation file, whether it is there or not."""
    return [Example(image, folder / "ann" / f"{image.name}.json") for image in list_images(folder / "img")]


def choose(examples: list[Example], others: list[str], root: Path, split: str) -> list[Example]:
    """Those tagged with the split, or a part of them where none has a tag of a split.

    Raises:
        InputError: where there are only tags of other splits, or other splits, which are data sets.
    """
    tags = [read_tags(example.source) for example in examples]
    if chosen := [example for example, result in zip(examples, tags, strict=True) if result & {*names_of(split)}]:
        return chosen
    result = sorted(set().union(*tags))
    of_splits = any(name in result for other in SPLITS for name in names_of(other))
    if result and (of_splits or (split not in SPLITS and not others)):
        names = ", ".join(map(reprlib.repr, result))
        raise InputError(f"{root} has neither a data set nor an image tag {split!r}; its images are tagged {names}")
    if others:
        raise InputError(f"{root / split} does not exist or is no folder; there is {', '.join(others)}")
    return draw_split(examples, root, split)


def read_tags(path: Path) -> set[str]:
    """None where the file cannot be used, which is said where its image is read."""
    try:
        document = read_json(path)
    except InputError:
        return set()
    if not isinstance(document, dict):
        return set()
    tags = take(document, "tags", list, str(path)) if "tags" in document else []
    return {take(tag, "name", str, f"{path}: tags[{number}]") for number, tag in enumerate(tags)}


def read_classes(document: Any, meta: Path, roles: Roles) -> tuple[Classes, FigureMasks]:
    """The classes, and what reads the masks. Raises InputError that names the file and what is wrong in it."""
    names, palette = ["background"], [(0, 0, 0)]
    labels: dict[str, int] = {}
    shapes: dict[str, str] = {}
    for number, record in enumerate(take(document, "classes", list, str(meta))):
        where = f"{meta}: classes[{number}]"
        title, color = take(record, "title", str, where), read_color(record, where)
        if title in labels:
            raise InputError(f"{where} has the title {reprlib.repr(title)} of an earlier one; each needs its own")
        shapes[title] = take(record, "shape", str, where)
        if title.lower() in roles.neutral:
            labels[title] = IGNORE
        elif title.lower() in roles.background:
            labels[title], palette[0] = 0, color
        else:
            labels[title] = len(names)
            names.append(title)
            palette.append(color)
    if not len(names) > 1:
        raise InputError(f"{meta}: classes names no class besides background")
    check_names(names, str(meta))
    return Classes(tuple(names), tuple(palette)), FigureMasks(labels, shapes)


def read_color(record: Any, where: str) -> Color:
    text = take(record, "color", str, where)
    if re.fullmatch("#[0-9a-fA-F]{6}", text) is None:
        raise InputError(f"{where}: color {reprlib.repr(text)} must be #RRGGBB")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
