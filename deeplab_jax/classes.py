"""The classes of a data set or a package: names and colors, in the order of their ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from deeplab_jax.errors import InputError

Color = tuple[int, int, int]  # RGB, 0..255
FOREGROUND = "foreground"  # beside background, where nobody names it
BLACK = (0, 0, 0)  # background's color, and no other class's where nobody says otherwise


@dataclass(frozen=True)
class Classes:
    names: tuple[str, ...]
    palette: tuple[Color, ...]

    def __post_init__(self):
        if len(self.names) != len(self.palette):
            raise InputError(f"{len(self.names)} class names need as many colors, not {len(self.palette)}")

    def __len__(self) -> int:
        return len(self.names)


def has_background(names: Sequence[str]) -> bool:
    return "background" in [name.lower() for name in names]


def default_palette(classes: int) -> tuple[Color, ...]:
    """PASCAL VOC's colors: the bits of the id, spread over red, green and blue; 0 is black."""

    def channel(id: int, offset: int) -> int:
        return sum(((id >> (3 * bit + offset)) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(classes))
