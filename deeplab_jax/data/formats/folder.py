"""Plain folders of images and masks.

    ROOT/classes.txt          one class name a line, in the order of the mask values from 0
    ROOT/images/train/a.jpg   ROOT/masks/train/a.png      (val and test likewise)

Masks hold class ids (grey or palette PNG) and 255 for void. If every line of classes.txt ends with a colour
(`roof 128 0 0`, and `void 0 0 0` for what is no class), every mask is read as colours, palette and grey ones too.

Instead of folders for the splits, `ROOT/train.txt` and the like can list the names of pictures in `ROOT/images`. With
neither, every picture is put into train, val or test by chance, 80 : 10 : 10, in the same way every time.
"""

import re
from pathlib import Path

from deeplab_jax.config import IGNORE
from deeplab_jax.data.classes import Classes, Colour, default_palette
from deeplab_jax.data.dataset import Example, Files, draw_split, find_split, pair_by_stem
from deeplab_jax.data.masks import ColourMasks, IdMasks
from deeplab_jax.data.pictures import list_images
from deeplab_jax.errors import InputError

VOID = "void"  # in a table of colours: what is no class


def open(root: Path, split: str) -> Files:
    classes, colours = read_classes(root / "classes.txt")
    images, masks = root / "images", root / "masks"
    unpaired: list[Path] = []
    if folder := find_split(images, split):
        examples, unpaired = pair_by_stem(folder, masks / folder.name)
    elif any(find_split(images, other) for other in ("train", "val", "test")):
        raise InputError(f"{images / split} does not exist or is no folder")
    elif (path := root / f"{split}.txt").is_file():
        examples = listed(path, images, masks)
    else:
        examples, unpaired = pair_by_stem(images, masks)
        examples = draw_split(examples, images, split)
    return Files(classes, examples, ColourMasks(colours) if colours else IdMasks(len(classes)), unpaired)


def listed(path: Path, images: Path, masks: Path) -> list[Example]:
    """The pictures that a list names, with or without suffix."""
    files = {file.stem: file for file in list_images(images)}
    names = [Path(line.strip()) for line in _read_text(path).splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path} names no pictures")
    stems = [name.name if name.name in files else name.stem for name in names]
    return [Example(files.get(stem, images / stem), masks / f"{stem}.png") for stem in stems]


def read_classes(path: Path) -> tuple[Classes, dict[Colour, int]]:
    """Names, and what the colours of masks stand for where the file gives them.

    Raises:
        InputError: where there is no such file, no name, a name or a colour twice, or a colour for some only.
    """
    lines = [line.strip() for line in _read_text(path).rstrip().splitlines()]
    found = [match for line in lines if (match := re.fullmatch(r"(.*\S)\s+(\d+)[\s,]+(\d+)[\s,]+(\d+)", line))]
    if not found:
        plain = read_class_names(path)
        return Classes(plain, default_palette(len(plain))), {}
    if len(found) != len(lines):
        raise InputError(
            f"{path} gives colours to {len(found)} of its {len(lines)} lines; give every class one, or none"
        )
    table: dict[Colour, int] = {}
    names: list[str] = []
    palette: list[Colour] = []
    for name, *channels in (match.groups() for match in found):
        red, green, blue = map(int, channels)
        if max(red, green, blue) > 255:
            raise InputError(f"{path}: the colour of {name!r} must hold values from 0 to 255")
        if (red, green, blue) in table:
            raise InputError(f"{path} gives the colour {red} {green} {blue} twice; every class needs its own")
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
    names = tuple(line.strip() for line in _read_text(path).rstrip().splitlines())
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


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is missing; write one class name a line, the first for mask value 0") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable text file: {error}") from None
