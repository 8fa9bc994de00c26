"""The classes of a data set or a package: names and colours, in the order of their ids."""

from dataclasses import dataclass

Colour = tuple[int, int, int]  # RGB, 0..255


@dataclass(frozen=True)
class Classes:
    names: tuple[str, ...]
    palette: tuple[Colour, ...]

    def __len__(self) -> int:
        return len(self.names)


def default_palette(classes: int) -> tuple[Colour, ...]:
    """PASCAL VOC's colours: the bits of the id, spread over red, green and blue; 0 is black."""

    def channel(id: int, offset: int) -> int:
        return sum(((id >> (3 * bit + offset)) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(classes))
