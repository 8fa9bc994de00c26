"""Plain folders of images and masks.

    ROOT/classes.txt          one class name a line, in the order of the mask values from 0
    ROOT/images/train/a.jpg   ROOT/masks/train/a.png      (val and test likewise)

Masks hold class ids (gray or palette PNG) and 255 for void. If every line of classes.txt ends with a color
(`roof 128 0 0`, and `void 0 0 0` for what is no class), every mask is read as colors, palette and gray ones too.

Instead of folders for the splits, `ROOT/train.txt` and the like can list the names of images in `ROOT/images`. With
neither, every image is put into train, val or test by its name, about 80 : 10 : 10.
"""

import re
from pathlib import Path

from deeplab_jax.classes import Classes, Color, default_palette
from deeplab_jax.config import IGNORE
from deeplab_jax.data.dataset import Example, Files, images_by_stem, masks_by_stem, pair_by_stem
from deeplab_jax.data.masks import ColorMasks, IdMasks
from deeplab_jax.data.splits import SPLITS, check_once, draw_split, find_list, find_split, read_lines, read_list
from deeplab_jax.errors import InputError
from deeplab_jax.image.read import is_image_suffix

VOID = "void"  # in a table of colors: what is no class


def open(root: Path, split: str) -> Files:
    classes, colors = read_classes(root / "classes.txt")
    images, masks = root / "images", root / "masks"
    unpaired: list[Path] = []
    if folder := find_split(images, split):
        examples, unpaired = pair_by_stem(folder, masks / folder.name)
    elif any(find_split(images, other) for other in SPLITS):
        raise InputError(f"{images / split} does not exist or is no folder")
    elif path := find_list(root, split):
        examples = listed(path, images, masks)
    elif lists := [result.name for other in SPLITS if (result := find_list(root, other))]:
        raise InputError(f"{root / split}.txt is missing; there is {', '.join(lists)}")
    else:
        examples, unpaired = pair_by_stem(images, masks)
        examples = draw_split(examples, images, split)
    return Files(classes, examples, ColorMasks(colors) if colors else IdMasks(len(classes)), unpaired)


def listed(path: Path, images: Path, masks: Path) -> list[Example]:
    """The images that a list names, with or without suffix. Raises InputError that names the list and a line."""
    files, result = images_by_stem(images), masks_by_stem(masks)
    stems: list[str] = []
    for line in read_list(path):
        name = Path(line)
        stem = name.stem if is_image_suffix(name.suffix) and name.name not in files else name.name
        if not (len(line.split()) == 1 or (stem in files and len(str(name.parent).split()) == 1)):
            raise InputError(f"{path}: a line must name one image, not {line!r}")
        stems.append(stem)
    check_once(stems, path)
    return [Example(files.get(stem, images / stem), result.get(stem, masks / f"{stem}.png")) for stem in stems]


def read_classes(path: Path) -> tuple[Classes, dict[Color, int]]:
    """Names, and what the colors of masks stand for where the file gives them.

    Raises:
        InputError: where there is no such file, no name, a name or a color twice, or a color for some only.
    """
    lines = _read_classes(path)
    result = [match for line in lines if (match := re.fullmatch(r"(.*\S)\s+(\d+)[\s,]+(\d+)[\s,]+(\d+)", line))]
    if not result:
        plain = read_class_names(path)
        return Classes(plain, default_palette(len(plain))), {}
    if len(result) != len(lines):
        raise InputError(
            f"{path} gives colors to {len(result)} of its {len(lines)} lines; give every class one, or none"
        )
    table: dict[Color, int] = {}
    names: list[str] = []
    palette: list[Color] = []
    for name, *channels in (match.groups() for match in result):
        red, green, blue = map(int, channels)
        if max(red, green, blue) > 255:
            raise InputError(f"{path}: the color of {name!r} must hold values from 0 to 255")
        if (red, green, blue) in table:
            raise InputError(f"{path} gives the color {red} {green} {blue} twice; every class needs its own")
        if name.lower() == VOID:
            table[red, green, blue] = IGNORE
            continue
        table[red, green, blue] = len(names)
        names.append(name)
        palette.append((red, green, blue))
    check_names(names, path)
    return Classes(tuple(names), tuple(palette)), table


def read_class_names(path: Path) -> tuple[str, ...]:
    """Raises InputError where there is no such file, no name, or one twice."""
    names = tuple(_read_classes(path))
    check_names(names, path)
    return names


def check_names(names: tuple[str, ...] | list[str], path: Path) -> None:
    if not names or "" in names:
        fault = "has an empty line" if names else "names no class"
        raise InputError(f"{path} {fault}; write one class name a line, line n for mask value n - 1")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{path} names {min(twice)!r} twice; write every class once")
    if len(names) >= IGNORE:
        raise InputError(f"{path} names {len(names)} classes; masks of 8 bits can hold {IGNORE - 1} and void")


def _read_classes(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} is missing; write one class name a line, the first for mask value 0")
    return read_lines(path)
