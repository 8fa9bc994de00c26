"""What looks wrong in a data set that can be read or nearly: another encoding, images that are there twice."""

from collections.abc import Iterable, Sequence

import numpy as np

from deeplab_jax.classes import BLACK, FOREGROUND, Color, default_palette, has_background
from deeplab_jax.config import IGNORE
from deeplab_jax.data.check.split import Checked

HARDLY = 1e-3  # share of the labeled pixels below which classes may be slips of a pen


def find_hints(splits: Sequence[Checked], format: str) -> list[str]:
    """Sentences, each about one split or what two of them share."""
    seen, table = seen_ids(splits), two_colors(splits, format)
    notes = dict.fromkeys(note for checked in splits for note in checked.notes)
    hints = [f"{' and '.join(c.split for c in splits if note in c.notes)}: {note}" for note in notes]
    hints += [f"{checked.split}: {hint}" for checked in splits for hint in [*encoding(checked, seen), *shares(checked)]]
    hints += table + first_id(splits, seen) + palettes(splits, format)
    return hints + turned_images(splits) + repeated_images(splits) + shared_images(splits)


def seen_ids(splits: Sequence[Checked]) -> set[int]:
    """Class ids in usable masks, and values of the others."""
    return {int(id) for checked in splits for id in np.flatnonzero(checked.statistics.pixels)}.union(
        *(checked.values for checked in splits)
    )


def encoding(checked: Checked, seen: set[int]) -> list[str]:
    """What the values of masks that cannot be used, or 255 in those that can, may have been meant for."""
    names = checked.statistics.classes.names
    if binary(checked):
        only = int(checked.statistics.pixels.argmax())
        return [
            f"masks hold {only}, {IGNORE} and hardly anything else, and {IGNORE} is void; where it is meant for a class"
            ", write that class's id"
        ]
    beyond = sorted(checked.values - checked.meanings.keys()) if checked.meanings else []
    if not beyond:
        return []
    hints = [f"masks that cannot be used hold the values {ranges(checked.values)}; there are {len(names)} classes"]
    largest = max(value for value in checked.meanings if value != IGNORE)
    if beyond == [largest + 1] and begins_with_0(checked) and len(names) > 1:
        hints.append(
            f"there is one value more than classes: name a class for {largest + 1}, or, where 0 is no class, write "
            f"{IGNORE} for 0 and take 1 off the others"
            if 0 in seen
            else f"{names[0]} is nowhere and one value is too large: ids seem to begin with 1, not 0"
        )
    elif len(beyond) > len(names):
        hints.append("so many values look like colors as gray levels, or like masks that were smoothed")
    return hints


def two_colors(splits: Sequence[Checked], format: str) -> list[str]:
    """Of masks that show two colors, such as 0 and 255: the lines of classes.txt that make them two classes."""
    named, colors = splits[0].statistics.classes.names, set.union(*(checked.rgb for checked in splits))
    amiss = any(
        c.statistics.void or c.values - c.meanings.keys() or any(m.ndim == 3 for _, m in c.failed) for c in splits
    )
    # Where masks have palettes, what the value 0 looks like is the first class.
    lowest = next((color for checked in splits for color in checked.colors.get(0, ())), BLACK)
    if format != "folder" or not amiss or len(colors) != 2 or lowest not in colors:
        return []
    others = [name for name in named if not has_background([name])] or [FOREGROUND]
    names = named if len(others) == 2 else ("background", *others)
    table = zip(names, (lowest, *colors - {lowest}), strict=True)
    lines = " and ".join(f"`{name} {red} {green} {blue}`" for name, (red, green, blue) in table)
    return [
        f"masks show just two colors; where they are {' and '.join(names)}, let the lines of classes.txt be {lines}"
    ]


def shares(checked: Checked) -> list[str]:
    result, hints = checked.statistics, []
    names, labeled = result.classes.names, result.pixels.sum()
    missing = [names[i] for i in np.flatnonzero(result.pixels == 0)]
    if missing and labeled and not binary(checked):
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        hints.append(f"never seen: {', '.join(missing[:8])}{more}")
    if result.void > labeled:
        hints.append(f"{100 * result.void / (labeled + result.void):.0f} % of all pixels are void")
    if result.pixels.max() > 0.98 * labeled and np.count_nonzero(result.pixels) > 1 and not binary(checked):
        name, share = names[int(result.pixels.argmax())], 100 * result.pixels.max() / labeled
        hints.append(f"{share:.1f} % of labeled pixels are {name}; see the suggested class weights, or Dice loss")
    return hints


def begins_with_0(checked: Checked) -> bool:
    """Whether the mask value 0 is the first class."""
    return checked.meanings.get(0) == 0


def binary(checked: Checked) -> bool:
    """Whether there is much of one class and of void, and hardly anything else."""
    pixels = checked.statistics.pixels
    others = pixels.sum() - pixels.max()
    alone = pixels.any() and others < HARDLY * pixels.sum()
    return bool(begins_with_0(checked) and alone and checked.statistics.void > 10 * others)


def first_id(splits: Sequence[Checked], seen: set[int]) -> list[str]:
    """Of ids from 1 where the last class does not occur, so that every mask can be used."""
    first = splits[0]
    if 0 in seen or not seen or not begins_with_0(first) or any(c.values - c.meanings.keys() for c in splits):
        return []
    return [f"{first.statistics.classes.names[0]} is nowhere, but others are: ids seem to begin with 1, not 0"]


def palettes(splits: Sequence[Checked], format: str) -> list[str]:
    """Of masks that show a value in different colors: one of them may have been meant for another class."""
    fix = "values count, not colors, so write all masks with one palette"
    colors: dict[int, dict[Color, str]] = {}
    for checked in splits:
        for value, result in checked.colors.items():
            colors[value] = result | colors.get(value, {})
    hints = []
    for value, result in sorted(colors.items()):
        (color, mask), *others = result.items()
        if others:
            hints.append(f"value {value} is {color} in the palette of {mask}, but {others[0][0]} in {others[0][1]}")
    if not hints and format == "voc":
        usual = default_palette(IGNORE + 1)
        hints = [
            f"value {value} is {color} in the palette of {mask}, but {usual[value]} in PASCAL VOC's"
            for value, result in sorted(colors.items())
            for color, mask in result.items()
            if color != usual[value]
        ]
    more = ", and other values likewise" if len(hints) > 1 else ""
    return [f"{hints[0]}{more}; {fix}"] if hints else []


def turned_images(splits: Sequence[Checked]) -> list[str]:
    return [
        f"{checked.split}: an EXIF tag turns {len(checked.turned)} images upright, such as {checked.turned[0]}, but "
        "masks are not turned; where a mask fits the pixels as they are stored, write its image without the tag"
        for checked in splits
        if checked.turned
    ]


def repeated_images(splits: Sequence[Checked]) -> list[str]:
    """Images that a split has more than once, whatever their names."""
    hints = []
    for checked in splits:
        twice = [images for images in checked.images.values() if len(images) > 1]
        if twice:
            (one, _), (other, _) = twice[0][:2]
            differing = sum(len({mask for _, mask in images}) > 1 for images in twice)
            unlike = f", {differing} of them with different masks" if differing else ""
            hints.append(f"{checked.split}: {len(twice)} images are there more than once{unlike}: {one} and {other}")
    return hints


def shared_images(splits: Sequence[Checked]) -> list[str]:
    """Images that are in two splits, whatever their names: figures on the second are too good."""
    hints = []
    for number, one in enumerate(splits):
        for other in splits[number + 1 :]:
            both = [digest for digest in one.images if digest in other.images]
            if both:
                (here, _), (there, _) = one.images[both[0]][0], other.images[both[0]][0]
                hints.append(f"{len(both)} images are in {one.split} and in {other.split}, such as {here} and {there}")
    return hints


def ranges(values: Iterable[int], most: int = 12) -> str:
    """Such as `0-18, 255`."""
    ends: list[list[int]] = []
    for value in sorted(values):
        if ends and value == ends[-1][1] + 1:
            ends[-1][1] = value
        else:
            ends.append([value, value])
    parts = [f"{first}-{last}" if last > first else str(first) for first, last in ends]
    return ", ".join(parts if len(parts) <= most else [*parts[: most - 1], "...", parts[-1]])
